#!/bin/sh
# Batches: 38 tasks of priority 9, then 14 of priority 1, which are run first. Settings: BACKBEAT_URL, BACKBEAT_API_KEY.
set -eu
url=${BACKBEAT_URL:-http://127.0.0.1:8000}
here=$(dirname "$0")

call() {
    curl -fsS -H "Authorization: Bearer ${BACKBEAT_API_KEY:-}" -H 'Content-Type: application/json' "$@" || {
        echo "$0: $url refused this call. If the status is 401, set BACKBEAT_API_KEY to its key." >&2
        exit 1
    }
}

echo '# The tasks stand in the order of the list.'
call "$url/tasks/batch-request/" -d @"$here/create_tasks_in_batch_example.json"

echo '# The entry at index 1 is refused and reported, the other created.'
call "$url/tasks/batch-request/" -d '[{"operation": "2*(3+4)"}, {"operation": "4+9", "priority": 12}]'

echo '# With atomic=true nothing is created. Without -f, curl shows the answer.'
call --no-fail "$url/tasks/batch-request/?atomic=true" -d '[{"operation": "6*7"}, {"operation": "4+9", "priority": 12}]'
