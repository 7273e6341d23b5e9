"""Requests and answers as the routes see them; nothing here knows a socket.

A route gets a `Request` and returns one of three answers: `Response` (bytes),
`Stream` (chunks as they come, headers at once) or `Hijack` (the connection
itself, for attach and exec).
"""

import asyncio
import socket
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, TypeVar

from engine.base import jsonio
from engine.base.errors import EngineError, InvalidArgument

T = TypeVar("T")

JSON = "application/json"
RAW_STREAM = "application/vnd.docker.raw-stream"
MULTIPLEXED_STREAM = "application/vnd.docker.multiplexed-stream"
JSON_MAX_BYTES = 8 * 1024 * 1024
_BODY_HIGH_BYTES = 512 * 1024
_INT_MAX_CHARS = 20
_TRUE = frozenset(("1", "true", "t", "yes", "on"))
_FALSE = frozenset(("", "0", "false", "f", "no", "off", "none"))
MULTIPLEXED_SINCE = (1, 42)  # before, attach and logs were always "raw-stream"


class BodyTooLarge(EngineError):
    """The request body exceeds its limit."""


class BodyBroken(InvalidArgument):
    """The client went away, or broke the framing, before the body's end."""


class Body:
    """A request body as it arrives; the connection is paused while too much of it is unread."""

    def __init__(self, pause: Callable[[], None], resume: Callable[[], None]) -> None:
        self._pieces: deque[bytes] = deque()
        self._size = 0
        self._ended = False
        self._error: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._pause = pause
        self._resume = resume
        self.on_first_read: Callable[[], None] | None = None  # sends "100 Continue"

    @property
    def ended(self) -> bool:
        """Tell whether nothing more will arrive."""
        return self._ended

    def feed(self, piece: bytes) -> None:
        """Add bytes that arrived."""
        self._pieces.append(piece)
        self._size += len(piece)
        if self._size >= _BODY_HIGH_BYTES:
            self._pause()
        self._wake()

    def end(self, error: Exception | None = None) -> None:
        """Say that no more bytes will come; with `error`, that they should have."""
        self._ended = True
        self._error = error
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self.on_first_read is not None:
            self.on_first_read()
            self.on_first_read = None
        while not self._pieces:
            if self._error is not None:
                raise self._error
            if self._ended:
                raise StopAsyncIteration
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        piece = self._pieces.popleft()
        before, self._size = self._size, self._size - len(piece)
        if before >= _BODY_HIGH_BYTES > self._size:
            self._resume()
        return piece

    async def read(self, limit: int = JSON_MAX_BYTES) -> bytes:
        """Return the rest of the body.

        Raises:
            BodyTooLarge: it is longer than `limit` bytes.
            BodyBroken: it ended early.
        """
        data = bytearray()
        async for piece in self:
            data += piece
            if len(data) > limit:
                raise BodyTooLarge(f"request body over {limit} bytes")
        return bytes(data)


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end of the socket, as the kernel says."""

    pid: int = 0
    uid: int = -1
    gid: int = -1


@dataclass(slots=True)
class Request:
    """One API call."""

    method: str
    path: str  # without the version
    version: tuple[int, int]
    query: Mapping[str, tuple[str, ...]]
    headers: Mapping[str, str]
    body: Body
    peer: Peer
    upgrade: bool = False
    params: dict[str, str] = field(default_factory=dict)  # from the route's pattern
    subject: str = ""  # what the audit log names, when the path does not

    def text(self, name: str, default: str = "") -> str:
        """Return a query parameter."""
        values = self.query.get(name)
        return values[0] if values else default

    def texts(self, name: str) -> tuple[str, ...]:
        """Return a query parameter that may be given several times."""
        return self.query.get(name, ())

    def flag(self, name: str, *, default: bool = False) -> bool:
        """Return a boolean query parameter, spelled as docker's server accepts it.

        Raises:
            InvalidArgument: it is neither true nor false.
        """
        if name not in self.query:
            return default
        value = self.text(name).strip().lower()
        if value in _TRUE:
            return True
        if value in _FALSE:
            return False
        raise InvalidArgument(f"invalid value for {name}: {self.text(name)!r} is not a boolean")

    def integer(self, name: str, default: int | None = None) -> int | None:
        """Return an integer query parameter.

        Raises:
            InvalidArgument: it is not a decimal number.
        """
        value = self.text(name)
        if not value:
            return default
        return parse_int(value, name)

    async def json(self, kind: type[T], *, noun: str = "JSON") -> T:
        """Return the body as a `kind`; an empty body counts as an empty object.

        A null leaves a field as it is when absent, as Go's decoder does.

        Raises:
            InvalidArgument: it is not JSON or a field has the wrong type.
            BodyTooLarge: it is over the limit.
        """
        data = await self.body.read()
        if not data.strip():
            data = b"{}"
        return jsonio.convert(_without_nulls(jsonio.decode(data, object, noun=noun)), kind, noun=noun)


# Go decodes these into maps, where a null value is an entry with an empty value.
_MAPS_WITH_EMPTY_VALUES = frozenset(("Volumes", "ExposedPorts", "PortBindings", "EndpointsConfig"))


def _without_nulls(value: Any, inside: str = "") -> Any:  # noqa: ANN401 (any JSON)
    if isinstance(value, dict):
        keep = inside in _MAPS_WITH_EMPTY_VALUES
        return {key: _without_nulls(item, key) for key, item in value.items() if keep or item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value


def parse_int(text: str, name: str) -> int:
    """Return the decimal number `text`; only ASCII digits count.

    Raises:
        InvalidArgument: it is not one.
    """
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= _INT_MAX_CHARS):
        raise InvalidArgument(f"invalid value for {name}: {text!r} is not a number")
    return int(text)


@dataclass(slots=True)
class Response:
    """A whole answer."""

    status: int = HTTPStatus.OK
    body: bytes = b""
    content_type: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Stream:
    """An answer whose headers leave at once and whose chunks follow as they come.

    `chunks` is closed when the client goes away. `cancel_on_eof` is False
    for work that goes on without its listener, such as a pull.
    """

    chunks: AsyncIterator[bytes]
    content_type: str = JSON
    status: int = HTTPStatus.OK
    cancel_on_eof: bool = True


@dataclass(slots=True)
class Hijack:
    """The connection itself.

    `take` gets the client's socket (non-blocking, and closed after the call:
    who wants to keep it passes a copy on), the bytes that were read ahead of
    it, and the answer's head, which it sends. It may raise before that.
    """

    take: Callable[[socket.socket, bytes, bytes], Awaitable[None]]
    content_type: str = RAW_STREAM


Answer = Response | Stream | Hijack
Call = Callable[[Request], Awaitable[Answer]]


@dataclass(frozen=True, slots=True)
class Route:
    """One operation: `{name}` matches one path segment, `{name...}` one or more."""

    method: str
    pattern: str
    call: Call


def json_response(value: Any, status: int = HTTPStatus.OK) -> Response:  # noqa: ANN401 (any document)
    """Return `value` as a JSON answer."""
    return Response(status, jsonio.encode(value) + b"\n")


def no_content() -> Response:
    """Return the empty answer of an action that succeeded."""
    return Response(HTTPStatus.NO_CONTENT)


class Router:
    """Find the route of a path; patterns are compared by segments, without regular expressions."""

    def __init__(self, routes: list[Route]) -> None:
        self._by_first: dict[str, list[tuple[Route, list[str]]]] = {}
        for route in routes:
            segments = route.pattern.strip("/").split("/")
            self._by_first.setdefault(segments[0], []).append((route, segments))

    def find(self, method: str, path: str) -> tuple[Route | None, dict[str, str], bool]:
        """Return the route, its parameters, and whether the path exists under another method."""
        segments = path.strip("/").split("/")
        other_method = False
        for route, pattern in self._by_first.get(segments[0], ()):
            params = _match(pattern, segments)
            if params is None:
                continue
            if route.method == method:
                return route, params, False
            other_method = True
        return None, {}, other_method


def _match(pattern: list[str], segments: list[str]) -> dict[str, str] | None:
    params: dict[str, str] = {}
    spare = len(segments) - len(pattern)
    if spare < 0:
        return None
    at = 0
    for part in pattern:
        width = 1
        if part.endswith("...}"):
            width, spare = 1 + spare, 0
        value = "/".join(segments[at : at + width])
        at += width
        if part[0:1] == "{":
            if not value:
                return None
            params[part.strip("{.}")] = value
        elif part != value:
            return None
    return params if at == len(segments) else None


def split_target(target: bytes) -> tuple[str, dict[str, tuple[str, ...]]]:
    """Return path and query of a request target, percent-decoded.

    Raises:
        InvalidArgument: it is not an absolute path, or not UTF-8 when decoded.
    """
    raw_path, _, raw_query = target.partition(b"?")
    if not raw_path.startswith(b"/"):
        raise InvalidArgument("malformed request: the target is not an absolute path")
    query: dict[str, tuple[str, ...]] = {}
    for pair in raw_query.split(b"&"):
        if pair:
            name, _, value = pair.replace(b"+", b" ").partition(b"=")
            key = unquote(name)
            query[key] = (*query.get(key, ()), unquote(value))
    return unquote(raw_path), query


def unquote(data: bytes) -> str:
    """Return percent-encoded `data` decoded.

    Raises:
        InvalidArgument: a NUL, a broken escape, or bytes that are not UTF-8.
    """
    try:
        if b"%" in data:
            first, *rest = data.split(b"%")
            data = first + b"".join(bytes.fromhex(part[:2].decode("ascii")) + part[2:] for part in rest)
            if len(data) != len(first) + sum(len(part) - 1 for part in rest):
                raise InvalidArgument("malformed request: broken percent escape")
        text = data.decode()
    except ValueError as err:
        raise InvalidArgument("malformed request: broken percent escape") from err
    if "\0" in text:
        raise InvalidArgument("malformed request: NUL in the target")
    return text
