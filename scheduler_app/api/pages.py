"""Lists come in pages; the Link header says where the next one is (RFC 8288)."""

from urllib.parse import quote

from flask import request
from werkzeug.datastructures import MultiDict


def next_page(cursor: int | None) -> dict[str, str]:
    """The header that leads to the page that begins after `cursor`; none on the last page."""
    if cursor is None:
        return {}
    arguments = MultiDict(request.args)
    arguments["cursor"] = str(cursor)
    query = "&".join(f"{quote(name)}={quote(value)}" for name, value in arguments.items(multi=True))
    return {"Link": f'<{request.path}?{query}>; rel="next"'}
