#!/bin/sh
# Limits: how many tasks run at once, and how many begin in a time. Settings: BACKBEAT_URL and BACKBEAT_API_KEY.
set -eu
url=${BACKBEAT_URL:-http://127.0.0.1:8000}
key=${BACKBEAT_API_KEY:-}

call() {
    curl -fsS -H "Authorization: Bearer $key" -H 'Content-Type: application/json' "$@" || {
        echo "$0: $url refused this call. If the status is 401, set BACKBEAT_API_KEY to a key of scope admin." >&2
        exit 1
    }
}

echo '# At most 4 calls at once and 10 a second to each host, and no host or customer waits for another.'
call -X PUT "$url/limits/hosts/" -d '{"operation": "http_request", "per": "group", "max_running": 4,
  "rate": {"count": 10, "seconds": 1}}'

echo '# What each task shares with others is its group: here the host. Each group has its own turns.'
call "$url/tasks/batch-request/" -d '[
  {"operation": "http_request", "group": "first", "params": {"url": "'"$url"'/livez"}},
  {"operation": "http_request", "group": "first", "params": {"url": "'"$url"'/livez"}},
  {"operation": "http_request", "group": "second", "params": {"url": "'"$url"'/livez"}}]'

echo '# What it uses, what waits, and which groups have most of it.'
call "$url/limits/hosts/"

echo '# All limits: those of the code, and those set here.'
call "$url/limits/"

echo '# Another number counts in every worker within a second, for what waits already, too.'
call -X PUT "$url/limits/hosts/" -d '{"max_running": 8}'

echo '# Back to what the code says; a limit that is not in the code is gone.'
call -X DELETE "$url/limits/hosts/"
