"""Reads one request. More than waitress's own parser, it bounds what a client can send and what is kept of it."""

from waitress.adjustments import Adjustments
from waitress.parser import HTTPRequestParser, ParsingError
from waitress.receiver import ChunkedReceiver
from waitress.utilities import BadRequest, RequestEntityTooLarge

MAX_HEAD = 65_536  # bytes
MAX_CHUNK_LINE = 8_192  # bytes between two chunks, and after the last one


class Nowhere:
    """Takes the place of a buffer: what is too large is read, so that the client hears the answer, and not kept."""

    def append(self, data: bytes) -> None:
        pass

    def __len__(self) -> int:
        return 0

    def getfile(self) -> None:
        return None

    def close(self) -> None:
        pass


class Parser(HTTPRequestParser):
    """A body above the limit is an error only once it has been read, unless the client asks before it sends it."""

    def __init__(self, adj: Adjustments, *, limit: int) -> None:
        super().__init__(adj)
        self.limit = limit  # bytes of a body
        self.too_large = False

    def received(self, data: bytes) -> int:
        consumed: int = super().received(data)
        if not self.error:
            self._find_fault()
        if self.completed:
            self.expect_continue = False  # waitress would ask for a body that is there, or that nobody wants
        return consumed

    def parse_header(self, header_plus: bytes) -> None:
        try:
            super().parse_header(header_plus)
        except ValueError:  # a length of thousands of digits
            raise ParsingError("Content-Length is invalid") from None

    def _find_fault(self) -> None:
        if self._line_length() > MAX_CHUNK_LINE:
            self.completed, self.error = True, BadRequest("A line between two chunks is too long")
        if not self.too_large and self._size() > self.limit:
            self.too_large = True
            self.body_rcv.buf.close()
            self.body_rcv.buf = Nowhere()
        if self.too_large and (self.completed or self.expect_continue):
            self.completed, self.error = True, RequestEntityTooLarge(f"at most {self.limit:,} bytes")

    def _line_length(self) -> int:
        body = self.body_rcv
        return len(body.control_line) + len(body.trailer) if isinstance(body, ChunkedReceiver) else 0

    def _size(self) -> int:
        """Of the body, as far as it is known."""
        return 0 if self.body_rcv is None else max(self.content_length, len(self.body_rcv))
