#!/bin/sh
# API keys: make, rotate and revoke one, and see who did that. Settings: BACKBEAT_URL and BACKBEAT_API_KEY.
set -eu
url=${BACKBEAT_URL:-http://127.0.0.1:8000}
key=${BACKBEAT_API_KEY:-}
name=example-$(date +%s)-$$

call() {
    curl -fsS -H "Authorization: Bearer $key" -H 'Content-Type: application/json' "$@" || {
        echo "$0: $url refused this call. If the status is 401, set BACKBEAT_API_KEY to a key of scope admin." >&2
        exit 1
    }
}

field() { # of an answer
    printf '%s\n' "$1" | sed 's/.*"'"$2"'": *"\{0,1\}\([^",}]*\).*/\1/'
}

echo '# Make a key. Its text is in this answer only.'
created=$(call "$url/keys/" -d '{"name": "'"$name"'", "scope": "admin"}')
echo "$created"
key=${BACKBEAT_API_KEY:-$(field "$created" key)} # where none was needed, this one is needed now

echo '# Give it a new secret; the one before works for another hour.'
call "$url/keys/$name/rotate/" -d '{"overlap_hours": 1}'

echo '# All keys, without their secrets.'
call "$url/keys/"

# Refuse it from now on.
call -X DELETE "$url/keys/$name/"

echo '# Who changed what, newest first.'
call "$url/audit/"
