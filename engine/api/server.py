"""The engine's only HTTP server: one unix socket, owner only, in front of a table of routes."""

import asyncio
import contextlib
import errno
import logging
import os
import socket
import stat
import time
from collections import OrderedDict
from http import HTTPStatus
from pathlib import Path

from engine.api import versions
from engine.api.audit import READ_ONLY_METHODS, AuditLog
from engine.api.connection import Connection
from engine.api.errors import error_response
from engine.api.framing import Head
from engine.api.http import (
    Answer,
    Body,
    Hijack,
    Peer,
    Request,
    Response,
    Route,
    Router,
    json_response,
    split_target,
)
from engine.base import ids, trace
from engine.base.errors import Conflict, EngineError, OutOfSpace
from engine.base.log import request_id
from engine.base.version import VERSION

log = logging.getLogger(__name__)

CONNECTIONS_MAX = 1000
_BACKLOG = 1024
_TRACES_MAX = 64
_SPANS_MAX = 4096
_SHUTDOWN_TIMEOUT_S = 5.0

COMMON_HEADERS = (
    f"Api-Version: {versions.text(versions.MAXIMUM)}\r\nDocker-Experimental: false\r\n"
    f"Ostype: linux\r\nServer: pyengine/{VERSION} (linux)\r\n"
).encode()


class Application:
    """Version, route, call, error table, audit line and spans of one request."""

    def __init__(self, audit: AuditLog) -> None:
        self._router = Router([])
        self._audit = audit
        self._traces: OrderedDict[str, trace.Trace] = OrderedDict()

    def install(self, routes: list[Route]) -> None:
        """Serve `routes` and the engine's own operations."""
        own = [Route("GET", "/_pyengine/trace/{trace_id}", self._trace)]
        self._router = Router(routes + own)

    async def serve(self, head: Head, body: Body, peer: Peer) -> Answer:
        """Answer one request; never raises an `Exception`."""
        started_ns = time.monotonic_ns()
        request_id.set(ids.new_id()[:8])
        header = head.headers.get(trace.HEADER)
        current = trace.begin(header) if header else None
        request: Request | None = None
        answer: Answer
        try:
            request = self._request(head, body, peer)
            answer = await self._dispatch(request)
            status = HTTPStatus.SWITCHING_PROTOCOLS if isinstance(answer, Hijack) else answer.status
        except Exception as err:
            foreseen = err if isinstance(err, EngineError) else OutOfSpace.of(err)
            answer = error_response(foreseen or err)
            status = answer.status
            if foreseen is None and status >= HTTPStatus.INTERNAL_SERVER_ERROR:
                log.exception("%s %s failed", head.method, head.target)
        if head.method not in READ_ONLY_METHODS:
            path = request.path if request else head.target.partition(b"?")[0].decode("latin-1")
            self._audit.record(peer, head.method, path, request.subject if request else "", int(status))
        if current is not None and request is not None:
            current.add("api", f"{request.method} {request.path}", started_ns, time.monotonic_ns())
            self._remember(current)
        return answer

    def _request(self, head: Head, body: Body, peer: Peer) -> Request:
        path, query = split_target(head.target)
        version, path = versions.split(path)
        return Request(
            method=head.method,
            path=path,
            version=version,
            query=query,
            headers=head.headers,
            body=body,
            peer=peer,
            upgrade=head.upgrade,
        )

    async def _dispatch(self, request: Request) -> Answer:
        route, params, other_method = self._router.find(request.method, request.path)
        if route is None:
            if other_method:
                return json_response({"message": "method not allowed"}, HTTPStatus.METHOD_NOT_ALLOWED)
            return json_response({"message": "page not found"}, HTTPStatus.NOT_FOUND)
        request.params = params
        return await route.call(request)

    def _remember(self, current: trace.Trace) -> None:
        known = self._traces.setdefault(current.trace_id, current)
        if known is not current and len(known.spans) < _SPANS_MAX:
            known.spans.extend(current.spans)
        while len(self._traces) > _TRACES_MAX:
            self._traces.popitem(last=False)

    async def _trace(self, request: Request) -> Response:
        """The spans that the engine recorded for one `traceparent`; an empty list when it knows none."""
        known = self._traces.get(request.params["trace_id"])
        spans = [] if known is None else known.spans
        return json_response(
            [
                {
                    "layer": span.layer,
                    "name": span.name,
                    "started_ns": span.started_ns,
                    "duration_ns": span.duration_ns,
                }
                for span in spans
            ]
        )


class Server:
    """A listening socket and its connections."""

    def __init__(self, application: Application, path: Path) -> None:
        self._application = application
        self._path = path
        self._connections: set[Connection] = set()
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        """Listen on the path; only its owner may connect.

        Raises:
            Conflict: another process answers there, or the path is not a socket.
        """
        listener = _bind(self._path)
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(self._connection, sock=listener, backlog=_BACKLOG)

    def _connection(self) -> Connection:
        return Connection(self._application.serve, COMMON_HEADERS, self._connections, CONNECTIONS_MAX)

    async def close(self) -> None:
        """Stop listening, end streams, let actions under way finish for a few seconds."""
        if self._server is None:
            return
        self._server.close()
        open_connections = list(self._connections)
        for connection in open_connections:
            connection.close_if_idle()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_SHUTDOWN_TIMEOUT_S):
                for connection in open_connections:
                    await connection.wait_closed()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)


def _bind(path: Path) -> socket.socket:
    """Return a socket bound to `path`, in place of a dead one if need be."""
    _remove_stale(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    old_umask = os.umask(0o177)  # so that the name is never open to others, not even for a moment
    try:
        listener.bind(str(path))
    except OSError as err:
        listener.close()
        if err.errno == errno.EADDRINUSE:
            raise Conflict(f"{path}: address in use") from err
        raise
    finally:
        os.umask(old_umask)
    return listener


def _remove_stale(path: Path) -> None:
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise Conflict(f"{path}: exists and is not a socket", hint="remove it, or choose another --host")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            os.unlink(path)
            return
    raise Conflict(f"{path}: another engine answers there", hint="choose another --host")
