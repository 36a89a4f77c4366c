"""What is checked of a request when it is asked for. Each check raises marshmallow's ValidationError."""

import re

from marshmallow import ValidationError
from urllib3.exceptions import LocationParseError
from urllib3.util import parse_url

from scheduler_app.outgoing.secrets_file import NAME

MAX_URL = 2_048  # characters


def check_url(text: str) -> None:
    if not re.fullmatch(r"https?://[\x21-\x7e]+", text, re.IGNORECASE):
        raise ValidationError("Not a URL of http:// or https://, all else than printable ASCII percent-encoded.")
    try:
        url = parse_url(text)
        host = (url.host or "").encode("idna")
    except (LocationParseError, UnicodeError):
        host = b""
    if not host:
        raise ValidationError("Not a valid URL.")
    if url.auth:
        raise ValidationError("User and password belong into the Authorization header.")


def check_secret_name(text: str) -> None:
    if not re.fullmatch(NAME, text):
        raise ValidationError("Not a name of a secret: 1 to 64 of A-Z, a-z, 0-9, '_', '.' and '-'.")
