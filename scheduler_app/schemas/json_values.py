"""JSON values that the rest of the program can handle."""

from typing import Any

MAX_DEPTH = 32


def check(value: Any) -> None:
    """Refuses deep nesting, lone surrogates and infinite numbers. Goes level by level, without recursion.

    Raises ValueError, whose text goes on after the name of the value.
    """
    level, depth = [value], 0
    while level:
        if depth > MAX_DEPTH:
            raise ValueError(f"is nested deeper than {MAX_DEPTH} levels")
        level = [inner for outer in level for inner in _inside(outer)]
        depth += 1


def _inside(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [*value, *value.values()]
    if isinstance(value, list):
        return value
    if isinstance(value, str):
        _encode(value)
    elif isinstance(value, float) and value in (float("inf"), float("-inf")):
        raise ValueError("has a number that is too large")
    return []


def _encode(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("has a lone surrogate, which is no character") from None
