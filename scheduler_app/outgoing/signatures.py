"""Signatures of Standard Webhooks, version 1: https://www.standardwebhooks.com"""

import base64
import hashlib
import hmac
from datetime import datetime

from scheduler_app.outgoing.errors import Refused
from scheduler_app.outgoing.secrets_file import Secret

KEY_SIZES = range(24, 65)  # bytes


def signature_headers(secret: Secret, message_id: str, content: bytes, *, now: datetime) -> dict[str, str]:
    """The headers of a signed request. They have two signatures while the secret is being replaced.

    Raises Refused for a secret that is not a signing key.
    """
    timestamp = str(int(now.timestamp()))
    signed = b".".join((message_id.encode(), timestamp.encode(), content))
    signatures = [f"v1,{_signature(_key(secret.name, value), signed)}" for value in secret.values]
    return {"webhook-id": message_id, "webhook-timestamp": timestamp, "webhook-signature": " ".join(signatures)}


def _signature(key: bytes, signed: bytes) -> str:
    return base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()


def _key(name: str, value: str) -> bytes:
    try:
        key = base64.b64decode(value.removeprefix("whsec_"), validate=True)
    except ValueError:
        key = b""
    if len(key) not in KEY_SIZES:
        raise Refused(f"The secret {name!r} is no signing key: whsec_ and the Base64 of 24 to 64 bytes.")
    return key
