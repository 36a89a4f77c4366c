"""The context of a trace as W3C Trace Context has it: the headers `traceparent` and `tracestate`.

https://www.w3.org/TR/trace-context-2/. What is malformed is ignored, as the standard says.
"""

import re
from collections.abc import Mapping

Trace = dict[str, str]  # `traceparent`, and perhaps `tracestate`

MAX_STATE = 512  # characters of tracestate
MAX_MEMBERS = 32

_PARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.{0,200})?")
_MEMBER = re.compile(
    r"([a-z0-9][a-z0-9_*/@-]{0,255})=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]"
)
_KNOWN_FLAGS = 0x03  # sampled, and random trace id
HEADERS = ("traceparent", "tracestate")


def read(parent: str, state: str = "") -> Trace | None:
    """The context that the two headers give; None when the first is malformed. It is bounded in size."""
    if not (found := _PARENT.fullmatch(parent.strip())):
        return None
    version, trace, span, flags, more = found.groups()
    if version == "ff" or (more and version == "00") or not int(trace, 16) or not int(span, 16):
        return None
    # As we know no later version than 00, what we pass on is of that one.
    context = {"traceparent": f"00-{trace}-{span}-{int(flags, 16) & _KNOWN_FLAGS:02x}"}
    members = _members(state)
    return context | {"tracestate": members} if members else context


def passed_on(trace: Mapping[str, str] | None) -> Trace:
    """The headers for what is called in this context; none without one."""
    return {name: trace[name] for name in HEADERS if name in trace} if trace else {}


def kept(running: Trace | None) -> Trace | None:
    """What is kept of the context of an attempt that has failed, to link the next one to it; None: nothing new."""
    if not running or "posted" not in running:  # it made no span
        return None
    posted = passed_on(running | {"traceparent": running["posted"]}) if running["posted"] else {}
    return posted | {"before": running["traceparent"]}


def trace_id(trace: Mapping[str, str] | None) -> str | None:
    parent = trace.get("traceparent") if trace else None
    return parent.split("-")[1] if parent else None


def _members(state: str) -> str:
    members = [member.strip(" \t") for member in state[: MAX_STATE + 1].split(",")]
    members = [member for member in members if member]
    keys = [found[1] for member in members if (found := _MEMBER.fullmatch(member))]
    sound = len(keys) == len(members) == len(set(keys)) <= MAX_MEMBERS and len(state) <= MAX_STATE
    return ",".join(members) if sound else ""
