"""The operations that ship. A team names its own module in `BACKBEAT_OPERATIONS`, beside this one or instead of it."""

from actors import calculate, http_request

__all__ = ["calculate", "http_request"]
