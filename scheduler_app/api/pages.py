"""Lists come in pages. The Link header says where the next page is (RFC 8288)."""

from urllib.parse import quote

from flask import request
from werkzeug.datastructures import MultiDict


def next_page(cursor: int | None) -> dict[str, str]:
    """The header with the address of the page that begins after `cursor`. Empty on the last page."""
    if cursor is None:
        return {}
    arguments = MultiDict(request.args)
    arguments["cursor"] = str(cursor)
    query = "&".join(f"{quote(name)}={quote(value)}" for name, value in arguments.items(multi=True))
    return {"Link": f'<{request.path}?{query}>; rel="next"'}
