#!/bin/sh
# For probes: they need no key. Setting: BACKBEAT_URL.
set -eu
url=${BACKBEAT_URL:-http://127.0.0.1:8000}

echo '# Is the web process alive?'
curl -fsS "$url/livez"

echo '# Can it do its work? 503 when a part does not work; 200 and degraded while only the scheduler is silent.'
curl -fsS "$url/readyz"
