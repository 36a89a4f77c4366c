#!/bin/sh
# Unique tasks: only one of a key at a time. Settings: BACKBEAT_URL and BACKBEAT_API_KEY.
set -eu
url=${BACKBEAT_URL:-http://127.0.0.1:8000}
key=report-$(date +%s)-$$

call() {
    curl -fsS -H "Authorization: Bearer ${BACKBEAT_API_KEY:-}" -H 'Content-Type: application/json' "$@" || {
        echo "$0: $url refused this call. If the status is 401, set BACKBEAT_API_KEY to its key." >&2
        exit 1
    }
}

echo '# The first post creates the task.'
call "$url/tasks/" -d '{"operation": "17*3", "run_at": "2999-12-31T23:00:00Z", "unique": {"key": "'"$key"'"}}'

echo '# While it has not finished, a further post is answered with that task: 200, and nothing new.'
call -i "$url/tasks/" -d '{"operation": "17*4", "unique": {"key": "'"$key"'"}}'

echo '# Or it gives that task its own parameters and time, as long as it has not begun: only the last post runs.'
call "$url/tasks/" -d '{"operation": "17*5", "unique": {"key": "'"$key"'", "then": "replace"}}'
