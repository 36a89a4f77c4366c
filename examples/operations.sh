#!/bin/sh
# What a task can do, and the API's own description. Settings: BACKBEAT_URL and BACKBEAT_API_KEY.
set -eu
url=${BACKBEAT_URL:-http://127.0.0.1:8000}

call() {
    curl -fsS -H "Authorization: Bearer ${BACKBEAT_API_KEY:-}" "$@" || {
        echo "$0: $url refused this call. If the status is 401, set BACKBEAT_API_KEY to its key." >&2
        exit 1
    }
}

echo '# The operations, with the JSON Schema of their parameters.'
call "$url/operations/"

echo '# The OpenAPI description of every call; /swagger/ shows it in a browser.'
call "$url/openapi.json"
