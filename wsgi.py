"""Web entry point: `python wsgi.py` serves the application; any WSGI server can serve `wsgi:app`.

With several BACKBEAT_WEB_PROCESSES it starts that many, which share one listening socket, and starts again what ends.
"""

import asyncio
import socket
import sys

from scheduler_app import logs, server, tracing
from scheduler_app.api import MAX_BODY
from scheduler_app.config import Settings, SettingsError, environment
from scheduler_app.supervisor import Service, StartError, Supervisor
from scheduler_app.web import create_web_app

APP_LOAD_ERROR = 4  # when a worker exits with this code, gunicorn ends; after any other it would start workers for ever


def main(arguments: list[str]) -> int:
    if arguments:  # the descriptor of a socket that the first process listens on
        listening = socket.socket(fileno=int(arguments[0]))
    else:
        try:
            listening = server.listen(settings.host, settings.port)
        except OSError as error:
            print(f"HOST={settings.host} PORT={settings.port}: cannot listen there: {error.strerror}", file=sys.stderr)
            return 2
        if settings.web_processes > 1:
            return share(listening)
    logs.announce(server.READY, logger="wsgi")
    server.serve(app, listening, max_body=MAX_BODY)
    tracing.flush()
    return 0


def share(listening: socket.socket) -> int:
    """Several processes that accept from the same socket."""
    command, files = (sys.executable, __file__, str(listening.fileno())), (listening.fileno(),)
    names = [f"web-{n + 1}" for n in range(settings.web_processes)]
    services = [Service(name, command, server.READY, grace=15, files=files) for name in names]
    supervisor = Supervisor(environment(), as_json=settings.log_format == "json")

    async def start() -> None:
        await supervisor.start(*services)
        logs.announce(server.READY, logger="wsgi")

    try:
        asyncio.run(supervisor.supervise(start()))
    except StartError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


try:
    settings = Settings.load()
    logs.configure(settings.log_level, settings.log_format, process="web")
    app = create_web_app(settings)
    tracing.configure(settings, process="web")
except SettingsError as error:
    print(error, file=sys.stderr)
    sys.exit(APP_LOAD_ERROR)

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
