#!/bin/sh
# Priorities: pause one, resume it, and cancel what waits in it. Settings: BACKBEAT_URL and BACKBEAT_API_KEY.
set -eu
url=${BACKBEAT_URL:-http://127.0.0.1:8000}
key=${BACKBEAT_API_KEY:-}

call() {
    curl -fsS -H "Authorization: Bearer $key" -H 'Content-Type: application/json' "$@" || {
        echo "$0: $url refused this call. If the status is 401, set BACKBEAT_API_KEY to a key of scope admin." >&2
        exit 1
    }
}

echo '# Begin no more tasks of priority 9. Those that run go on, and new ones are accepted.'
call "$url/queues/9/pause/" -d '{"note": "The printer is on fire."}'

echo '# Cancel what waits there.'
call -X POST "$url/queues/9/purge/"

echo '# Go on.'
call -X POST "$url/queues/9/resume/"
