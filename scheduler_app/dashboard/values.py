"""JSON values as pages show them: what looks like a secret is masked, numbers are exact, and nothing is too long."""

import json
import re
from typing import Any

from scheduler_app.dashboard.frame import blp

SECRET = re.compile(
    r"pass(word|wd|phrase)?$|secret|token|api[-_]?key|auth(?!ors?$)|credential|private[-_]?key|cookie|session|^key$",
    re.IGNORECASE,
)
REFERENCE = re.compile(r"(\w+ )?\$\{secret:[\w.-]+\}")  # names a secret, and is none
MASKED = "•••••• masked"
SHOWN = 20_000  # characters
BIDI = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")  # they would turn the text around them


@blp.app_template_filter()
def pretty(value: Any) -> str:
    """JSON over several lines, cut."""
    text = _shown(json.dumps(masked(value), ensure_ascii=False, indent=2))
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}\n… {len(text) - SHOWN:,} more characters"


@blp.app_template_filter()
def compact(value: Any, length: int = 200) -> str:
    """JSON in one line, cut."""
    return cut(_shown(json.dumps(masked(value), ensure_ascii=False)), length)


@blp.app_template_filter()
def brief(params: dict[str, Any], length: int = 160) -> str:
    """Parameters in one line, cut."""
    parts = (f"{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in masked(params).items())
    return cut(_shown(", ".join(parts)), length)


@blp.app_template_filter()
def cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def masked(value: Any, key: str = "") -> Any:
    if looks_secret(key, value):
        return MASKED
    if isinstance(value, dict):
        return {name: masked(inner, name) for name, inner in value.items()}
    if isinstance(value, list):
        return [masked(inner) for inner in value]
    return value


def looks_secret(key: str, value: Any) -> bool:
    is_reference = isinstance(value, str) and REFERENCE.fullmatch(value)
    return bool(SECRET.search(key) and isinstance(value, str | list | dict) and value and not is_reference)


def _shown(text: str) -> str:
    return BIDI.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
