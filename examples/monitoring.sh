#!/bin/sh
# Who works, what waits, what fails, and the figures for Prometheus. Settings: BACKBEAT_URL and BACKBEAT_API_KEY.
set -eu
url=${BACKBEAT_URL:-http://127.0.0.1:8000}

call() {
    curl -fsS -H "Authorization: Bearer ${BACKBEAT_API_KEY:-}" "$@" || {
        echo "$0: $url refused this call. If the status is 401, set BACKBEAT_API_KEY to its key." >&2
        exit 1
    }
}

echo '# The workers that live, with what they run.'
call "$url/workers/"

echo '# The ten priorities, with what waits, runs and has failed.'
call "$url/queues/"

echo '# The same and more, in the text format of Prometheus.'
call "$url/metrics"

echo '# Whether it keeps up, and what needs attention.'
call "$url/attention/"

echo '# What made tasks fail lately, by cause.'
call "$url/failures/"
