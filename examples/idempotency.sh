#!/bin/sh
# Idempotency-Key: a request may be repeated until it is answered. Settings: BACKBEAT_URL and BACKBEAT_API_KEY.
set -eu
url=${BACKBEAT_URL:-http://127.0.0.1:8000}
key=order-17-$(date +%s)-$$

call() {
    curl -sS -H "Authorization: Bearer ${BACKBEAT_API_KEY:-}" -H 'Content-Type: application/json' \
        -H "Idempotency-Key: $key" "$@" || {
        echo "$0: $url refused this call. If the status is 401, set BACKBEAT_API_KEY to its key." >&2
        exit 1
    }
}

echo '# The first request creates the task.'
call --fail "$url/tasks/" -d '{"operation": "17*3"}'

echo '# Its repetition, within 24 hours, is answered the same, with Idempotent-Replayed: true, and creates nothing.'
call --fail -i "$url/tasks/" -d '{"operation": "17*3"}'

echo '# Another request with the same key is refused with 422.'
call "$url/tasks/" -d '{"operation": "17*4"}'
