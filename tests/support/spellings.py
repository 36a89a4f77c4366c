"""The spellings of a secret, and how to find a secret in a text in any of them."""

import base64
import html
import json
from collections.abc import Callable
from urllib.parse import quote, quote_plus

SPELLINGS: dict[str, Callable[[str], str]] = {
    "plain": str,
    "url": lambda s: quote(s, safe=""),
    "url, slashes kept": quote,
    "form": quote_plus,
    "url, every character": lambda s: "".join(f"%{ord(c):02x}" for c in s),
    "json": json.dumps,
    "json, slashes escaped": lambda s: json.dumps(s).replace("/", "\\/"),
    "json, every character": lambda s: "".join(f"\\u{ord(c):04X}" for c in s),
    "json in json": lambda s: json.dumps(json.dumps(s)),
    "json in url": lambda s: quote(json.dumps(s), safe=""),
    "repr": repr,
    "html": html.escape,
    **{
        f"base64, after {n}": lambda s, n=n: base64.b64encode(b"abc"[:n] + s.encode() + b"z").decode() for n in range(3)
    },
    **{
        f"base64url, after {n}": lambda s, n=n: base64.urlsafe_b64encode(b"ab"[:n] + s.encode()).decode()
        for n in range(3)
    },
    "base64 in lines": lambda s: base64.encodebytes(b"x" * 50 + s.encode() + b"y" * 50).decode(),
    "base64 in lines in json": lambda s: json.dumps(base64.encodebytes(b"x" * 50 + s.encode() + b"y" * 50).decode()),
    "base64 in url": lambda s: quote(base64.b64encode(s.encode()).decode(), safe=""),
}


def traces(secret: str) -> set[str]:
    """Pieces from the middle of each spelling. A text that contains one of them contains the secret."""
    written = {write(secret) for name, write in SPELLINGS.items() if "lines" not in name}
    pieces = {text[len(text) // 3 : 2 * len(text) // 3] for text in written}
    return pieces | {json.dumps(piece)[1:-1] for piece in pieces}
