"""Guesses which name was meant by a misspelt one."""

from collections.abc import Collection
from difflib import get_close_matches
from typing import Any

UNKNOWN = "Unknown field."  # marshmallow's message
LOOKED_AT = 3  # unknown names of one object that are compared with the known ones: comparing takes time
LONGEST = 64  # characters of a name that are compared


def meant(name: str, known: Collection[str]) -> str | None:
    """The known name that is close to this one, if there is one."""
    return next(iter(get_close_matches(name[:LONGEST], known, 1)), None)


def explain_unknown(messages: dict[Any, Any], known: Collection[str]) -> None:
    """Adds to the messages of unknown fields which name was probably meant, or which are known."""
    unknown = [name for name, message in messages.items() if message == [UNKNOWN]]
    for name in unknown[:LOOKED_AT]:
        close = meant(str(name), known)
        hint = f"did you mean {close}?" if close else f"known are: {', '.join(known) or 'none'}."
        messages[name] = [f"Unknown field; {hint}"]
