"""The part of a response that is kept: of bounded size, as text, and without the secrets used in the request."""

import codecs
import re
from email.message import Message

from urllib3 import HTTPResponse

from scheduler_app.outgoing.blackening import Blackening
from scheduler_app.outgoing.messages import Answer

MAX_CONTENT = 65_536  # bytes of a body that are kept
MAX_HEADERS = 16_384  # characters of the headers that are kept

# A fixed list, because some of Python's codecs are slow on purpose, and some are not for text.
_CHARSET = r"utf-(8|16|32)([bl]e)?|us-ascii|iso-8859-\d{1,2}|windows-\d{3,4}|koi8-[ru]|shift_jis|euc-(jp|kr)|gb\w+|big5"


def read(response: HTTPResponse, blackening: Blackening) -> Answer:
    # More is read than is kept: else a secret that the limit cuts in two would not be recognised.
    content = response.read(MAX_CONTENT + 1 + blackening.margin, decode_content=True)
    headers, size = {}, 0
    for name, value in response.headers.itermerged():
        size += len(name) + len(value)
        if size <= MAX_HEADERS:
            headers[blackening.apply(name).lower()] = blackening.apply(value)
    body = _body(content, response.headers.get("content-type", ""), blackening)
    return Answer(response.status, headers, body, len(content) > MAX_CONTENT or size > MAX_HEADERS)


def _body(content: bytes, content_type: str, blackening: Blackening) -> str:
    kept = text(content[:MAX_CONTENT], content_type, whole=len(content) <= MAX_CONTENT)
    if not blackening.margin:
        return kept
    return blackening.apply(text(content, content_type, whole=True), keep=len(kept))


def text(content: bytes, content_type: str, *, whole: bool) -> str:
    """Decodes with the charset of the content type, else with UTF-8. Bytes that do not fit become U+FFFD."""
    message = Message()
    message["content-type"] = content_type
    charset = message.get_content_charset("utf-8")
    known = re.fullmatch(_CHARSET, charset)
    try:
        decoder = codecs.getincrementaldecoder(charset if known else "utf-8")("replace")
    except LookupError:
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
    return decoder.decode(content, final=whole).replace("\0", "\ufffd")
