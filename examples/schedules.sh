#!/bin/sh
# Schedules: create, read, list, change, delete. Settings: BACKBEAT_URL and BACKBEAT_API_KEY.
set -eu
url=${BACKBEAT_URL:-http://127.0.0.1:8000}

call() {
    curl -fsS -H "Authorization: Bearer ${BACKBEAT_API_KEY:-}" -H 'Content-Type: application/json' "$@" || {
        echo "$0: $url refused this call. If the status is 401, set BACKBEAT_API_KEY to its key." >&2
        exit 1
    }
}

id_of() { # the task_schedule_id in an answer
    printf '%s\n' "$1" | sed 's/.*"task_schedule_id": *\([0-9]*\).*/\1/'
}

echo '# Two tasks, an hour apart; the first is due at once.'
hourly=$(call "$url/task-schedules/" -d '{"operation": "5+10", "every_x_hours": 1, "schedule_x_times": 2}')
printf '%s\n' "$hourly"

echo '# One whose first task is due at start_at, with what else can be set.'
daily=$(call "$url/task-schedules/" -d '{
    "name": "nightly check '"$$"'", "operation": "http_request", "params": {"url": "'"$url"'/readyz"}, "priority": 3,
    "retry": {"max_retries": 1, "min_seconds": 60}, "every_x_days": 1, "every_x_hours": 12, "schedule_x_times": 365,
    "start_at": "2998-01-01T02:00:00+01:00", "end_at": "2999-01-01T00:00:00Z", "overlap": "cancel_previous", "jitter": 60,
    "catch_up": "none", "expires_in": 3600, "pause_on_failure": true}')
printf '%s\n' "$daily"

echo '# Read the first until the scheduler has created its task and a worker has run it.'
tries=0
until answer=$(call "$url/task-schedules/$(id_of "$hourly")/") && printf '%s' "$answer" | grep -q '"SUCCESS"'; do
    tries=$((tries + 1))
    [ "$tries" -lt 30 ]
    sleep 1
done
printf '%s\n' "$answer"

echo '# List schedules, newest first.'
call "$url/task-schedules/?limit=10"

echo '# A changed rule counts from now.'
call -X PATCH "$url/task-schedules/$(id_of "$hourly")/" -d '{"every_x_hours": 2}'

echo '# Delete both; their tasks stay.'
call -X DELETE "$url/task-schedules/$(id_of "$hourly")/"
call -X DELETE "$url/task-schedules/$(id_of "$daily")/"
echo deleted
