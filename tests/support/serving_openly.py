"""`python -m tests.support.serving_openly` serves as wsgi.py does, and prints each call."""

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

import wsgi

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

application = wsgi.app.wsgi_app


def openly(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
    print("called:", environ["REQUEST_METHOD"], environ["PATH_INFO"], flush=True)
    return application(environ, start_response)


if __name__ == "__main__":
    wsgi.app.wsgi_app = openly  # type: ignore[method-assign]
    sys.exit(wsgi.main([]))
