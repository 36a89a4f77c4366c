#!/bin/sh
# Tasks: post, read, list, change, delete; see also control.sh and idempotency.sh. Settings: BACKBEAT_URL and BACKBEAT_API_KEY.
set -eu
url=${BACKBEAT_URL:-http://127.0.0.1:8000}

call() {
    curl -fsS -H "Authorization: Bearer ${BACKBEAT_API_KEY:-}" -H 'Content-Type: application/json' "$@" || {
        echo "$0: $url refused this call. If the status is 401, set BACKBEAT_API_KEY to its key." >&2
        exit 1
    }
}

id_of() { # the task_id in an answer
    printf '%s\n' "$1" | sed 's/.*"task_id": *\([0-9]*\).*/\1/'
}

echo '# The most urgent task: an arithmetic expression.'
sum=$(call "$url/tasks/" -d '{"operation": "4+7", "priority": 0}')
printf '%s\n' "$sum"

echo '# A named operation with parameters. -i shows Location, where the task can be read.'
call -i "$url/tasks/" -d '{"operation": "http_request", "params": {"url": "'"$url"'/livez"},
    "retry": {"max_retries": 2, "min_seconds": 5, "factor": 3}}'

echo '# A task that waits for its time, and is of no use an hour later.'
later=$(call "$url/tasks/" -d '{"operation": "4+9", "run_at": "2999-12-31T23:00:00+01:00", "expires_in": 3600}')
printf '%s\n' "$later"

echo '# Read the first one, as soon as it has finished.'
call "$url/tasks/$(id_of "$sum")/?wait=30"

echo '# Post one and wait for its result, in one call. It belongs to the trace that traceparent names.'
call "$url/tasks/?wait=30" -H 'traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01' -d '{"operation": "6*7"}'

echo '# What the latest attempt of it has logged: nothing, for a sum. With ?follow=true the lines come as text.'
call "$url/tasks/$(id_of "$sum")/logs/"

echo '# Where a running task stands. The sum does not run any more, so the answer is 409.'
curl -sS -H "Authorization: Bearer ${BACKBEAT_API_KEY:-}" "$url/tasks/$(id_of "$sum")/stack/"

echo '# List tasks, newest first. With more of them, the Link header leads to the next page.'
call -i "$url/tasks/?operation=calculate&status=PENDING&created_after=2026-01-01T00:00:00Z&limit=1"

echo '# Change the one that waits: its time, and how urgent it is.'
call -X PATCH "$url/tasks/$(id_of "$later")/" -d '{"run_at": "2999-12-31T12:00:00Z", "priority": 1}'

echo '# Delete the one that waits.'
call -X DELETE "$url/tasks/$(id_of "$later")/"
echo deleted
