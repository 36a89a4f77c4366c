"""Finds secrets in a response, in whatever spelling, and removes them.

It searches for each secret as it is, as URLs, JSON and HTML escape it, also escaped twice, and in Base64. Base64 has
three spellings of the same bytes, depending on the number of bytes before them.
"""

import base64
import html
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property

from scheduler_app.outgoing.secrets_file import Secret

MARK = "[secret]"
LONGEST_CHARACTER = 6 * 4  # bytes of \u0041 in UTF-32

Span = tuple[int, int]
Replacement = Callable[[re.Match[str]], str]


def _from_url(match: re.Match[str]) -> str:
    return chr(int(match[0][1:], 16))


def _from_json(match: re.Match[str]) -> str:
    escaped = match[0][1:]
    return chr(int(escaped[1:], 16)) if len(escaped) > 1 else {"n": "\n", "r": "\r", "t": "\t"}.get(escaped, escaped)


def _from_html(match: re.Match[str]) -> str:
    return html.unescape(match[0])


def _nothing(_: re.Match[str]) -> str:
    return ""


ESCAPES: tuple[tuple[re.Pattern[str], Replacement], ...] = (
    (re.compile(r"%[0-9a-fA-F]{2}"), _from_url),
    (re.compile(r"\\(u[0-9a-fA-F]{4}|x[0-9a-fA-F]{2}|.)"), _from_json),
    (re.compile(r"&(#\d{1,3}|#x[0-9a-fA-F]{1,2}|\w{2,4});"), _from_html),
    (re.compile("\ufffd+"), _nothing),  # UTF-16 that was read as something else
)
_SPACE = re.compile(r"\s+")
_URLS_TO_USUAL = str.maketrans("-_", "+/")  # the two alphabets of Base64


class Blackening:
    """Removes the secrets that were used in one request."""

    def __init__(self, secrets: Iterable[Secret]) -> None:
        values = [value for secret in secrets for value in secret.values]
        self._plain = {*values, *(value.replace(" ", "+") for value in values)}  # as forms write a space
        self._base64 = {certain for value in values for certain in _base64(value)}
        self.margin = max(map(len, values), default=0) * LONGEST_CHARACTER

    def apply(self, text: str, keep: int | None = None) -> str:
        """The first `keep` characters of the text, without the secrets. A secret at the cut is removed as a whole."""
        keep = len(text) if keep is None else keep
        pieces, at = [], 0
        for start, end in sorted(span for span in self._spans(text) if span[0] < keep):
            if at <= start:
                pieces += [text[at:start], MARK]
            at = max(at, end)
        return "".join([*pieces, text[at:keep]])

    def _spans(self, text: str) -> Iterator[Span]:
        for reading in _readings(text) if self._plain else ():
            for value in self._plain:
                yield from map(reading.place, _find(value, reading.text))
            joined = _Reading(_SPACE.sub("", reading.text), reading, _SPACE, _nothing)  # Base64 comes in lines
            usual = joined.text.translate(_URLS_TO_USUAL)
            for certain in self._base64:
                yield from (joined.place(_widened(span, usual)) for span in _find(certain, usual))


class _Reading:
    """A text with its escapes decoded. The positions of its characters in the original are computed only on demand."""

    def __init__(
        self,
        text: str,
        of: "_Reading | None" = None,
        pattern: re.Pattern[str] = _SPACE,
        replacement: Replacement = re.Match.group,
    ) -> None:
        self.text, self._of, self._pattern, self._replacement = text, of, pattern, replacement

    def place(self, span: Span) -> Span:
        return self._begins[span[0]], self._begins[span[1]]

    @cached_property
    def _begins(self) -> Sequence[int]:
        """The position of each character in the original, and of the end."""
        if self._of is None:
            return range(len(self.text) + 1)
        outer, begins, at = self._of._begins, list[int](), 0
        for match in self._pattern.finditer(self._of.text):
            begins += outer[at : match.start()]
            begins += [outer[match.start()]] * len(self._replacement(match))
            at = match.end()
        return [*begins, *outer[at:]]


def _readings(text: str) -> list[_Reading]:
    """The text as it is, and with one or two kinds of escapes decoded, such as JSON in a URL, or a URL in JSON."""
    known = {text: _Reading(text)}
    for _ in range(2):
        for reading in list(known.values()):
            for pattern, replacement in ESCAPES:
                read = pattern.sub(replacement, reading.text)
                known.setdefault(read, _Reading(read, reading, pattern, replacement))
    return list(known.values())


def _find(sought: str, text: str) -> Iterator[Span]:
    at = text.find(sought)
    while at >= 0:
        yield at, at + len(sought)
        at = text.find(sought, at + 1)


def _widened(span: Span, text: str) -> Span:
    """The span with its neighbours, because these characters also carry bits of the secret."""
    start, end = span
    before, behind = text[max(start - 1, 0) : start], text[end : end + 1]
    return start - (before.isalnum() or before in ("+", "/")), end + (behind.isalnum() or behind in ("+", "/"))


def _base64(value: str) -> Iterator[str]:
    for before in range(3):
        encoded = base64.b64encode(bytes(before) + value.encode()).decode()
        # Characters that also carry bits of their neighbours are left out, because they can vary.
        yield encoded[-(-before * 8 // 6) : (before + len(value)) * 8 // 6]
