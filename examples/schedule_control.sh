#!/bin/sh
# Control of schedules: upcoming, pause, trigger, resume, backfill. Settings: BACKBEAT_URL and BACKBEAT_API_KEY.
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

echo '# Working days at 07:30 in Bucharest: never two tasks at once, each missed time caught up for an hour.'
schedule=$(call "$url/task-schedules/" -d '{
    "operation": "5+10", "cron": "30 7 * * MON-FRI", "timezone": "Europe/Bucharest", "overlap": "skip",
    "catch_up": "all", "catch_up_window": 3600, "pause_on_failure": true}')
printf '%s\n' "$schedule"
mine=$url/task-schedules/$(id_of "$schedule")

echo '# Its next times, in UTC and in its zone.'
call "$mine/upcoming/?limit=3"

echo '# Paused, it creates nothing by itself.'
call "$mine/pause/" -d '{"note": "the warehouse is being moved"}'

echo '# A task at once, also while it is paused.'
call -X POST "$mine/trigger/"

echo '# Resumed, it goes on from now.'
call -X POST "$mine/resume/"

echo '# Which times got no task, and why.'
call "$mine/left-out/"

echo '# The tasks of past times that have none, from start to before end.'
call "$mine/backfill/" -d '{"start": "2026-01-05T00:00:00Z", "end": "2026-01-10T00:00:00Z"}'

echo '# A second time there is nothing left to create.'
call "$mine/backfill/" -d '{"start": "2026-01-05T00:00:00Z", "end": "2026-01-10T00:00:00Z"}'

echo '# Delete it; its tasks stay.'
call -X DELETE "$mine/"
echo deleted
