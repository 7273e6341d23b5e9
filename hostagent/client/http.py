"""HTTP/1.1 on one local socket: requests out, responses in, and the switch to a raw stream.

Deliberately small: no redirects, no compression, no TLS, one request at a time.
The hot path of the command line goes through here, so nothing heavy is imported.

Source: RFC 9112; Docker Engine API v1.43, ContainerAttach, "Hijacking".
"""

import codecs
import contextlib
import json
import socket
import sys
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any

import httptools

from hostagent.client.errors import ApiError, ConnectionLost, Unreachable

_CHUNK_BYTES = 1 << 16
_MAX_ERROR_BYTES = 1 << 16
_ERROR_STATUS = 400
CONNECT_TIMEOUT_S = 10.0
ANSWER_TIMEOUT_S = 120.0


def connect(endpoint: str, *, timeout_s: float = CONNECT_TIMEOUT_S) -> socket.socket:
    """Return a socket connected to `endpoint`, a ``unix:///path`` or ``tcp://host:port``.

    Raises:
        Unreachable: nobody listens there, or this platform cannot.
    """
    scheme, _, rest = endpoint.partition("://")
    try:
        if scheme == "unix":
            return _connect_unix(rest, endpoint, timeout_s)
        if scheme == "tcp":
            host, _, port = rest.rstrip("/").rpartition(":")
            return socket.create_connection((host.strip("[]"), int(port)), timeout=timeout_s)
    except OSError as err:
        reason = (err.strerror or str(err)).lower()
        denied = isinstance(err, PermissionError)
        hint = (
            "it is another user's: use sudo, or an engine of your own" if denied else "is the engine running?"
        )
        raise Unreachable(endpoint, reason, hint=hint) from err
    except ValueError as err:
        raise Unreachable(endpoint, "the port is not a number") from err
    if scheme == "npipe":
        raise Unreachable(endpoint, "named pipes are not supported yet", hint="use a tcp:// endpoint")
    raise Unreachable(endpoint, f"unknown scheme {scheme!r}", hint="use unix:///path/to/socket")


if sys.platform == "win32":

    def _connect_unix(_path: str, endpoint: str, _timeout_s: float) -> socket.socket:
        raise Unreachable(endpoint, "Python has no unix sockets on Windows", hint="use a tcp:// endpoint")
else:

    def _connect_unix(path: str, _endpoint: str, timeout_s: float) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(timeout_s)
        try:
            sock.connect(path)
        except BaseException:
            sock.close()
            raise
        return sock


class Response:
    """One answer; its body is read from the connection as it is asked for."""

    def __init__(self, connection: "Connection") -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self._connection = connection

    def chunks(self) -> Iterator[bytes]:
        """Yield the body in pieces, as they arrive."""
        return self._connection.body()

    def read(self) -> bytes:
        """Return the rest of the body."""
        return b"".join(self.chunks())

    def json(self) -> Any:  # noqa: ANN401 (any document)
        """Return the body decoded; None when it is empty.

        Raises:
            ConnectionLost: the body is not JSON.
        """
        body = self.read()
        if not body:
            return None
        try:
            return json.loads(body)
        except ValueError as err:
            raise ConnectionLost(f"the engine's answer is not JSON: {body[:80]!r}") from err

    def json_lines(self) -> Iterator[dict[str, Any]]:
        """Yield each document of a stream of them, separated by white space or nothing."""
        decoder = json.JSONDecoder()
        utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        text = ""
        for chunk in self.chunks():
            text = (text + utf8.decode(chunk)).lstrip()
            while text:
                try:
                    value, end = decoder.raw_decode(text)
                except ValueError:
                    break  # the rest of it has not arrived
                text = text[end:].lstrip()
                yield value
        if text:
            raise ConnectionLost("the engine stopped in the middle of a message")

    def close(self) -> None:
        """Close the connection, read to its end or not."""
        self._connection.close()

    def __enter__(self) -> "Response":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close()


class Connection:
    """One connection; use it as a context manager, or `close` it.

    After `hijack` the socket belongs to the caller.
    """

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.sock = connect(endpoint)
        self._host = "localhost"
        self._reset()

    def _reset(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._response = Response(self)
        self._pieces: list[bytes] = []
        self._headers_done = False
        self._complete = False
        self._upgraded: bytes | None = None

    def send(
        self,
        method: str,
        target: str,
        *,
        headers: Iterable[tuple[str, str]] = (),
        body: bytes | None = None,
        body_stream: Iterable[bytes] | None = None,
        upgrade: bool = False,
    ) -> None:
        """Send one request; the answer comes from `receive`.

        `body_stream` is sent chunked, as its pieces are produced.
        """
        self._reset()
        lines = [f"{method} {target} HTTP/1.1", f"Host: {self._host}", "User-Agent: pyengine"]
        lines += [f"{name}: {value}" for name, value in headers]
        if upgrade:
            lines += ["Connection: Upgrade", "Upgrade: tcp"]
        if body is not None:
            lines.append(f"Content-Length: {len(body)}")
        elif body_stream is not None:
            lines.append("Transfer-Encoding: chunked")
        elif method != "GET":
            lines.append("Content-Length: 0")
        head = "\r\n".join([*lines, "", ""]).encode()
        self.sock.settimeout(ANSWER_TIMEOUT_S)
        try:
            self.sock.sendall(head + (body or b""))
            if body_stream is not None:
                self._send_chunks(body_stream)
        except (BrokenPipeError, ConnectionResetError):
            return  # the engine refused in the middle: its answer says why
        except TimeoutError as err:
            raise ConnectionLost(f"the engine takes no more data: {method} {target}") from err

    def _send_chunks(self, pieces: Iterable[bytes]) -> None:
        for piece in pieces:
            if piece:
                self.sock.sendall(b"%x\r\n%b\r\n" % (len(piece), piece))
        self.sock.sendall(b"0\r\n\r\n")

    def receive(self, *, timeout_s: float | None = ANSWER_TIMEOUT_S) -> Response:
        """Return the answer once its headers are there; the body may still be on its way.

        Raises:
            ApiError: the status is 400 or more.
            ConnectionLost: the engine closed the connection first, or took longer than `timeout_s`.
        """
        self.sock.settimeout(timeout_s)
        while not self._headers_done:
            if not self.fill():
                raise ConnectionLost("the engine closed the connection without an answer")
        response = self._response
        if response.status >= _ERROR_STATUS:
            raise _api_error(response)
        return response

    def fill(self) -> bool:
        """Read and parse what is there, waiting for the first byte; False at the end of the stream."""
        try:
            data = self.sock.recv(_CHUNK_BYTES)
        except TimeoutError as err:
            raise ConnectionLost(f"the engine did not answer within {self.sock.gettimeout():g} s") from err
        except ConnectionResetError:
            data = b""
        if not data:
            return False
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as err:
            self._upgraded = data[err.args[0] :]
        except httptools.HttpParserError as err:
            raise ConnectionLost(f"the engine's answer is not HTTP: {data[:40]!r}") from err
        return True

    @property
    def answered(self) -> bool:
        """Tell whether the whole answer has been parsed; for callers that poll and `fill`."""
        return self._complete

    def body(self) -> Iterator[bytes]:
        """Yield the body of the current answer in pieces, as they arrive."""
        while True:
            while self._pieces:
                yield self._pieces.pop(0)
            if self._complete:
                return
            if not self.fill():
                if self._delimited():
                    raise ConnectionLost("the engine closed the connection in the middle of an answer")
                return

    def _delimited(self) -> bool:
        headers = self._response.headers
        return "content-length" in headers or "chunked" in headers.get("transfer-encoding", "")

    def hijack(self) -> tuple[socket.socket, bytes]:
        """Return the raw socket after an upgrade (or an old 200), and the bytes that came with the headers.

        Blocking from now on; the caller closes it.
        """
        self.receive()
        early = self._upgraded if self._upgraded is not None else b"".join(self._pieces)
        self._pieces = []
        self.sock.settimeout(None)
        return self.sock, early

    def close(self) -> None:
        """Close the socket."""
        self.sock.close()

    def __enter__(self) -> "Connection":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close()

    # What the parser calls.

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header; names are compared in lower case."""
        self._response.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """Note the status; 1xx other than 101 is followed by the real answer."""
        self._response.status = self._parser.get_status_code()
        self._headers_done = True

    def on_body(self, data: bytes) -> None:
        """Keep a piece of the body."""
        self._pieces.append(data)

    def on_message_complete(self) -> None:
        """Note the end of the answer."""
        self._complete = True


def _api_error(response: Response) -> ApiError:
    with contextlib.suppress(ConnectionLost):
        body = b""
        for chunk in response.chunks():
            body += chunk
            if len(body) > _MAX_ERROR_BYTES:
                break
        try:
            document = json.loads(body)
        except ValueError:
            document = None
        if isinstance(document, dict) and document.get("message"):
            message = str(document["message"]).strip()
            return ApiError(response.status, message, hint=str(document.get("hint", "")))
        if body:
            return ApiError(response.status, body.decode(errors="replace").strip().replace("\n", " "))
    return ApiError(response.status, f"the engine answered with status {response.status}")
