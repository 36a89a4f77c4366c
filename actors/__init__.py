"""The built-in operations. A team names its own module in `BACKBEAT_OPERATIONS`, with this one or instead of it."""

from actors import calculate, http_request

__all__ = ["calculate", "http_request"]
