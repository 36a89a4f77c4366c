#!/bin/sh
# Control of tasks: cancel, retry and delete, one and many. Settings: BACKBEAT_URL and BACKBEAT_API_KEY.
set -eu
url=${BACKBEAT_URL:-http://127.0.0.1:8000}

call() {
    curl -fsS -H "Authorization: Bearer ${BACKBEAT_API_KEY:-}" -H 'Content-Type: application/json' "$@" || {
        echo "$0: $url refused this call. If the status is 401, set BACKBEAT_API_KEY to its key." >&2
        exit 1
    }
}

field() { # of an answer
    printf '%s\n' "$1" | sed 's/.*"'"$2"'": *"\{0,1\}\([^",}]*\).*/\1/'
}

echo '# A task that waits is CANCELLED at once; one that runs is asked to stop.'
task=$(call "$url/tasks/" -d '{"operation": "6*7", "run_at": "2999-12-31T23:00:00Z"}')
call -X POST "$url/tasks/$(field "$task" task_id)/cancel/"

echo '# Retry it: it is due now, with all its attempts before it.'
call -X POST "$url/tasks/$(field "$task" task_id)/retry/"

echo '# Three more that wait, with a label to find them by.'
call "$url/tasks/batch-request/" -d '[
    {"operation": "1/3", "run_at": "2999-12-31T23:00:00Z", "labels": {"batch": "thirds"}},
    {"operation": "2/3", "run_at": "2999-12-31T23:00:00Z", "labels": {"batch": "thirds"}},
    {"operation": "3/3", "run_at": "2999-12-31T23:00:00Z", "labels": {"batch": "thirds"}}]'

since=$(field "$task" created_at)
these='"label": "batch:thirds", "status": "PENDING", "created_after": "'"$since"'"'

echo '# A dry run changes nothing: it counts the tasks that meet the conditions, and shows the first ten.'
call "$url/tasks/cancel/" -d "{$these, \"dry_run\": true}"

echo '# Cancel many, the oldest first. next_cursor in the answer leads to the rest.'
call "$url/tasks/cancel/" -d "{$these, \"limit\": 100}"

echo '# Retry many; without status both those in ERROR and the CANCELLED ones.'
call "$url/tasks/retry/" -d '{"operation": "calculate", "created_after": "'"$since"'"}'

echo '# One more, and cancelled.'
task=$(call "$url/tasks/" -d '{"operation": "7*6", "run_at": "2999-12-31T23:00:00Z"}')
call -X POST "$url/tasks/$(field "$task" task_id)/cancel/"

echo '# Delete finished tasks by their ids; any other condition works as well.'
call "$url/tasks/delete/" -d '{"task_ids": ['"$(field "$task" task_id)"']}'
