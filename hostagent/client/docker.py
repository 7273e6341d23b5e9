"""The Docker Engine API, as far as the command line and the benchmarks need it.

`Engine` has the verbs of HTTP with docker's conventions (query, JSON bodies,
streams of JSON, hijacked connections); `Containers` and `Images` name the
operations that have more than one user. One keep-alive connection serves the
plain calls; streams and hijacked ones have their own.

Paths are unversioned: an engine then answers in its newest version.
"""

import json
import os
import socket
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any

from engine.base.errors import EngineError, InvalidArgument
from hostagent.client.errors import ConnectionLost
from hostagent.client.http import ANSWER_TIMEOUT_S, Connection, Response

_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_CONTEXT_CHARS = 30
_IMAGE_SAFE = _UNRESERVED | frozenset(b"/:@")
Query = Mapping[str, "str | int | bool | list[str] | None"]
Json = dict[str, Any]


def encode_query(query: Query) -> str:
    """Return `query` as docker writes it: booleans as 1, None and False left out."""
    parts = []
    for name, value in query.items():
        if value is None or value is False:
            continue
        values = value if isinstance(value, list) else ["1" if value is True else str(value)]
        parts += [f"{name}={segment(item)}" for item in values]
    return "&".join(parts)


def encode_filters(filters: Iterable[str]) -> str | None:
    """Return ``--filter key=value`` words as the API's JSON; None when there are none.

    Raises:
        InvalidArgument: a word has no ``=``.
    """
    table: dict[str, list[str]] = {}
    for word in filters:
        key, equals, value = word.partition("=")
        if not equals:
            raise InvalidArgument(f"invalid filter {word!r}: want key=value")
        table.setdefault(key.strip().lower(), []).append(value.strip())
    return json.dumps(table, ensure_ascii=False) if table else None


class Engine:
    """An engine at an endpoint.

    `traceparent`, when set, goes out with every request.
    """

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.traceparent = ""
        self.on_send: Callable[[], None] = lambda: None  # for traces: the first byte leaves now
        self._kept: Connection | None = None

    def open(self) -> None:
        """Connect now; otherwise the first call does.

        Raises:
            Unreachable: nobody listens at the endpoint.
        """
        if self._kept is None:
            self._kept = Connection(self.endpoint)

    def get(self, path: str, **query: Any) -> Any:  # noqa: ANN401 (any document)
        """GET a document."""
        return self.call("GET", path, query)

    def post(
        self,
        path: str,
        body: Any = None,  # noqa: ANN401 (any document)
        *,
        timeout_s: float | None = ANSWER_TIMEOUT_S,
        **query: Any,  # noqa: ANN401 (see `Query`)
    ) -> Any:  # noqa: ANN401 (any document)
        """POST, with `body` as JSON; return the document of the answer, None for none."""
        return self.call("POST", path, query, body, timeout_s=timeout_s)

    def delete(self, path: str, **query: Any) -> Any:  # noqa: ANN401 (any document)
        """DELETE; return the document of the answer, None for none."""
        return self.call("DELETE", path, query)

    def call(
        self,
        method: str,
        path: str,
        query: Query,
        body: Any = None,  # noqa: ANN401 (any document)
        *,
        timeout_s: float | None = ANSWER_TIMEOUT_S,
    ) -> Any:  # noqa: ANN401 (any document)
        """Make one plain request on the kept connection.

        Raises:
            ApiError: the engine refused.
            Unavailable: it cannot be reached, or went away.
        """
        fresh = self._kept is None
        connection = self._kept or Connection(self.endpoint)
        self._kept = None
        try:
            response = self._exchange(connection, method, path, query, body, timeout_s=timeout_s)
        except ConnectionLost:
            connection.close()
            if fresh or method != "GET":
                raise
            return self.call(method, path, query, body, timeout_s=timeout_s)
        except EngineError:
            connection.close()
            raise
        try:
            document = response.json()
        except EngineError:
            connection.close()
            raise
        if response.headers.get("connection", "").lower() == "close":
            connection.close()
        else:
            self._kept = connection
        return document

    def stream(
        self,
        method: str,
        path: str,
        query: Query,
        *,
        body_stream: Iterable[bytes] | None = None,
        headers: Iterable[tuple[str, str]] = (),
        body: Any = None,  # noqa: ANN401 (any document)
    ) -> Response:
        """Make a request on a connection of its own and return the answer, its body not yet read.

        There is no deadline: a stream may be silent for as long as it likes.
        """
        connection = Connection(self.endpoint)
        try:
            if body_stream is not None:
                self.on_send()
                connection.send(
                    method, _target(path, query), headers=self._headers(headers), body_stream=body_stream
                )
                return connection.receive(timeout_s=None)
            return self._exchange(connection, method, path, query, body, headers=headers, timeout_s=None)
        except BaseException:
            connection.close()
            raise

    def begin(self, method: str, path: str, query: Query) -> Connection:
        """Send a request on a connection of its own and leave the answer to the caller, who closes it."""
        connection = Connection(self.endpoint)
        self.on_send()
        connection.send(method, _target(path, query), headers=self._headers(()))
        return connection

    def hijack(self, path: str, query: Query, body: Any = None) -> tuple[socket.socket, bytes]:  # noqa: ANN401 (any document)
        """POST and take the connection over; return its socket and the bytes that came early."""
        connection = Connection(self.endpoint)
        try:
            self.on_send()
            connection.send(
                "POST",
                _target(path, query),
                headers=self._headers(_JSON if body is not None else ()),
                body=None if body is None else _document(body),
                upgrade=True,
            )
            return connection.hijack()
        except BaseException:
            connection.close()
            raise

    def _exchange(
        self,
        connection: Connection,
        method: str,
        path: str,
        query: Query,
        body: Any,  # noqa: ANN401 (any document)
        *,
        headers: Iterable[tuple[str, str]] = (),
        timeout_s: float | None,
    ) -> Response:
        data = None if body is None else _document(body)
        sent = [*headers, *(_JSON if data is not None else ())]
        self.on_send()
        connection.send(method, _target(path, query), headers=self._headers(sent), body=data)
        return connection.receive(timeout_s=timeout_s)

    def _headers(self, headers: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
        trace = [("traceparent", self.traceparent)] if self.traceparent else []
        return [*headers, *trace]

    def close(self) -> None:
        """Close the kept connection; a later call opens another."""
        if self._kept is not None:
            self._kept.close()
            self._kept = None

    def __enter__(self) -> "Engine":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close()


_JSON = (("Content-Type", "application/json"),)


def _target(path: str, query: Query) -> str:
    encoded = encode_query(query)
    return f"{path}?{encoded}" if encoded else path


def _document(body: Any) -> bytes:  # noqa: ANN401 (any document)
    return _encoded(json.dumps(body, ensure_ascii=False))


def _encoded(text: str) -> bytes:
    """Return `text` in UTF-8, the only thing that JSON and the API's paths can carry.

    Raises:
        InvalidArgument: it has bytes of the command line that are not UTF-8.
    """
    try:
        return text.encode()
    except UnicodeEncodeError as err:
        first, last = text.rfind('"', 0, err.start) + 1, text.find('"', err.end)
        last = len(text) if last < 0 else last
        around = os.fsencode(
            text[max(first, err.start - _CONTEXT_CHARS) : min(last, err.end + _CONTEXT_CHARS)]
        )
        raise InvalidArgument(f"not UTF-8 text: {str(around)[1:]}") from err


def segment(text: str) -> str:
    """Return `text` as one segment of a path, or one value of a query (RFC 3986, section 2.1)."""
    return _quote(text, _UNRESERVED)


def image_segment(name: str) -> str:
    """Return an image name as docker writes it in a path: slashes and colons stay."""
    return _quote(name, _IMAGE_SAFE)


def _quote(text: str, safe: frozenset[int]) -> str:  # urllib.parse takes 3 ms to import
    return "".join(chr(byte) if byte in safe else f"%{byte:02X}" for byte in _encoded(text))
