#!/bin/sh
# A callback: a URL is told when a task ends. Settings: BACKBEAT_URL and BACKBEAT_API_KEY; the worker must be allowed to
# call this machine, see BACKBEAT_HTTP_ALLOW.
set -eu
url=${BACKBEAT_URL:-http://127.0.0.1:8000}
folder=$(mktemp -d)
receiver=
trap 'kill $receiver 2> /dev/null || true; rm -rf "$folder"' EXIT

call() {
    curl -fsS -H "Authorization: Bearer ${BACKBEAT_API_KEY:-}" -H 'Content-Type: application/json' "$@" || {
        echo "$0: $url refused this call. If the status is 401, set BACKBEAT_API_KEY to its key." >&2
        exit 1
    }
}

# A receiver of one call. A real one checks the signature, see docs/api.md, answers at once, and works afterwards.
cat > "$folder/receiver.py" <<'END'
import http.server, sys

class Receiver(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        print(self.rfile.read(int(self.headers["Content-Length"])).decode())
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass

server = http.server.HTTPServer(("127.0.0.1", 0), Receiver)
server.timeout = 30
print(server.server_port, file=open(sys.argv[1], "w"), flush=True)
server.handle_request()
END
python3 "$folder/receiver.py" "$folder/port" > "$folder/received" &
receiver=$!
until [ -s "$folder/port" ]; do sleep 0.1; done

echo '# The task has a callback, for two of the four ends.'
call "$url/tasks/?wait=10" -d '{
    "operation": "4+7",
    "callback": {"url": "http://127.0.0.1:'"$(cat "$folder/port")"'/ended", "on": ["SUCCESS", "ERROR"]}
}'

echo '# What the receiver got: the task as it ended.'
wait $receiver
cat "$folder/received"

echo '# The delivery is a task itself.'
call "$url/tasks/?operation=callback&limit=1"
