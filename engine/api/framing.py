"""HTTP/1.1 requests out of bytes: no I/O here, bytes in, heads and body pieces out.

A head is found by its empty line, bounded, and parsed by llhttp in its strict
mode: a Content-Length beside a Transfer-Encoding, folded or malformed headers
and bare line feeds are refused. Bodies are framed here, so that it is exact
where a request ends: after a protocol switch the rest belongs to a container.

Source: RFC 9112, sections 2, 6 and 7.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import httptools

from engine.base.errors import InvalidArgument

HEAD_MAX_BYTES = 64 * 1024
HEADERS_MAX = 256
_CHUNK_LINE_MAX_BYTES = 1024
_TRAILER_MAX_BYTES = 8 * 1024
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;[^\r\n]*)?\Z")


class HeadTooLarge(InvalidArgument):
    """The request line and headers exceed their limit."""


@dataclass(slots=True)
class Head:
    """Request line and headers of one request."""

    method: str = ""
    target: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)  # names in lower case
    keep_alive: bool = False
    content_length: int = 0
    chunked: bool = False

    @property
    def upgrade(self) -> bool:
        """Tell whether the client asks for the raw connection (`Upgrade: tcp`)."""
        return (
            "upgrade" in self.headers.get("connection", "").lower()
            and self.headers.get("upgrade", "").lower() == "tcp"
        )


class _Sink:
    """What llhttp calls while it reads one head."""

    def __init__(self) -> None:
        self.target = b""
        self.headers: list[tuple[bytes, bytes]] = []

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name, value))


def head_end(buffer: bytearray) -> int:
    """Return where the head at the start of `buffer` ends, or -1 when more bytes are needed.

    Raises:
        HeadTooLarge: the head is, or is going to be, over the limit.
    """
    at = buffer.find(b"\r\n\r\n", 0, HEAD_MAX_BYTES)
    if at >= 0:
        return at + 4
    if len(buffer) >= HEAD_MAX_BYTES:
        raise HeadTooLarge(f"request head over {HEAD_MAX_BYTES} bytes")
    return -1


def parse_head(data: bytes) -> Head:
    """Return the head that `data` holds, whole and nothing more.

    Raises:
        InvalidArgument: it is not a well-formed HTTP/1.x request head.
        HeadTooLarge: it has too many headers.
    """
    sink = _Sink()
    parser = httptools.HttpRequestParser(sink)
    try:
        parser.feed_data(data)
    except httptools.HttpParserUpgrade:
        pass
    except httptools.HttpParserError as err:
        raise InvalidArgument(f"malformed request: {str(err).lower()}") from err
    if len(sink.headers) > HEADERS_MAX:
        raise HeadTooLarge(f"request with more than {HEADERS_MAX} headers")
    if parser.get_http_version() not in ("1.0", "1.1"):
        raise InvalidArgument("malformed request: unknown HTTP version")
    head = Head(
        method=parser.get_method().decode("latin-1"),
        target=sink.target,
        headers={name.decode("latin-1").lower(): value.decode("latin-1") for name, value in sink.headers},
        keep_alive=_keeps_alive(parser.get_http_version(), sink.headers),
    )
    if sum(name.lower() == b"host" for name, _ in sink.headers) > 1:
        raise InvalidArgument("malformed request: more than one Host header")
    if head.upgrade:
        head.keep_alive = True
    head.content_length = int(head.headers.get("content-length", "0"))  # llhttp checked the digits
    encoding = head.headers.get("transfer-encoding")
    if encoding is not None:
        if encoding.strip().lower() != "chunked":
            raise InvalidArgument(f"malformed request: unknown transfer encoding {encoding!r}")
        head.chunked = True
    return head


def _keeps_alive(version: str, headers: list[tuple[bytes, bytes]]) -> bool:
    """Tell whether the connection outlives the request (RFC 9112, section 9.3).

    Not llhttp's word: it forgets `Connection: close` when a message without body is complete.
    """
    options = b",".join(value for name, value in headers if name.lower() == b"connection")
    words = {word.strip().lower() for word in options.split(b",")}
    return b"close" not in words and (version == "1.1" or b"keep-alive" in words)


class FixedBody:
    """A body of known length."""

    def __init__(self, length: int) -> None:
        self._left = length

    @property
    def done(self) -> bool:
        """Tell whether the body has ended."""
        return self._left == 0

    def take(self, buffer: bytearray) -> Iterator[bytes]:
        """Remove from `buffer` what belongs to the body and yield it."""
        if self._left and buffer:
            piece = bytes(buffer[: self._left])
            del buffer[: len(piece)]
            self._left -= len(piece)
            yield piece


class ChunkedBody:
    """A body in chunks; the strict grammar, extensions ignored, trailers dropped."""

    def __init__(self) -> None:
        self.done = False
        self._left = 0  # of the current chunk's data
        self._need_crlf = False
        self._in_trailer = False
        self._trailer_bytes = 0

    def take(self, buffer: bytearray) -> Iterator[bytes]:
        """Remove from `buffer` what belongs to the body and yield its data.

        Raises:
            InvalidArgument: the framing is broken; the connection cannot go on.
        """
        while not self.done:
            if self._left:
                if not buffer:
                    return
                piece = bytes(buffer[: self._left])
                del buffer[: len(piece)]
                self._left -= len(piece)
                self._need_crlf = self._left == 0
                yield piece
            elif not self._step(buffer):
                return

    def _step(self, buffer: bytearray) -> bool:
        """Consume one line or line end; False when more bytes are needed."""
        if self._need_crlf:
            if len(buffer) < 2:  # noqa: PLR2004 (CR and LF)
                return False
            if buffer[:2] != b"\r\n":
                raise InvalidArgument("malformed request: chunk without its line end")
            del buffer[:2]
            self._need_crlf = False
            return True
        end = buffer.find(b"\r\n")
        if end < 0:
            if len(buffer) > _CHUNK_LINE_MAX_BYTES:
                raise InvalidArgument("malformed request: chunk header too long")
            return False
        line = bytes(buffer[:end])
        del buffer[: end + 2]
        if self._in_trailer:
            self._trailer(line)
        else:
            self._header(line)
        return True

    def _trailer(self, line: bytes) -> None:
        self._trailer_bytes += len(line)
        if self._trailer_bytes > _TRAILER_MAX_BYTES:
            raise InvalidArgument("malformed request: trailers too long")
        self.done = not line

    def _header(self, line: bytes) -> None:
        match = _CHUNK_SIZE.match(line)
        if match is None or len(line) > _CHUNK_LINE_MAX_BYTES:
            raise InvalidArgument("malformed request: bad chunk size")
        self._left = int(match.group(1), 16)
        self._in_trailer = self._left == 0
