#!/bin/sh
# Rules: the next times of each kind, without keeping it. Settings: BACKBEAT_URL and BACKBEAT_API_KEY.
set -eu
url=${BACKBEAT_URL:-http://127.0.0.1:8000}

preview() {
    curl -fsS -H "Authorization: Bearer ${BACKBEAT_API_KEY:-}" -H 'Content-Type: application/json' \
        "$url/task-schedules/preview/?limit=3" -d "$1" || {
        echo "$0: $url refused this call. If the status is 401, set BACKBEAT_API_KEY to its key." >&2
        exit 1
    }
}

echo '# An interval: every 36 hours from a given time on.'
preview '{"every_x_hours": 36, "start_at": "2040-01-01T06:00:00Z"}'

echo '# cron: working days at 07:30 in Bucharest, in summer as in winter.'
preview '{"cron": "30 7 * * MON-FRI", "timezone": "Europe/Bucharest", "start_at": "2040-03-22T12:00:00Z"}'

echo '# cron: 02:30 every day in New York, also on the day on which the clocks leave it out.'
preview '{"cron": "30 2 * * *", "timezone": "America/New_York", "start_at": "2040-03-10T12:00:00Z"}'

echo '# RFC 5545: the last Friday of each month at 17:00 in London.'
preview '{"rrule": "FREQ=MONTHLY;BYDAY=-1FR;BYHOUR=17;BYMINUTE=0", "timezone": "Europe/London",
    "start_at": "2040-01-01T00:00:00Z"}'

echo '# RFC 5545: every second Monday, twice, counted from start_at, which also gives the time of the day.'
preview '{"rrule": "FREQ=WEEKLY;INTERVAL=2;BYDAY=MO;COUNT=2", "timezone": "Europe/Berlin",
    "start_at": "2040-01-02T08:00:00+01:00"}'
