"""One client's connection: an asyncio protocol around `framing`.

Requests of a connection are served one after the other; bytes of the next
one wait in a bounded buffer. States::

    HEAD --head--> BUSY --answer sent, body drained--> HEAD
                    |---Hijack: 101 or 200 sent--> GONE (the socket has a new owner)
                    `---Connection: close, error; rest of the body read away--> closed

A client that closes its sending side is taken to be gone, as Go's server
does: streams end, but an action under way is finished, so that an object is
never left half-changed by a lost client.
"""

import asyncio
import contextlib
import enum
import logging
import os
import socket
import struct
from collections.abc import Awaitable, Callable
from http import HTTPStatus

from engine.api.errors import error_response
from engine.api.framing import ChunkedBody, FixedBody, Head, head_end, parse_head
from engine.api.http import Answer, Body, BodyBroken, Hijack, Peer, Response, Stream
from engine.base.errors import EngineError

log = logging.getLogger(__name__)

HEAD_TIMEOUT_S = 10.0
IDLE_TIMEOUT_S = 600.0
HIJACK_FLUSH_TIMEOUT_S = 10.0
LINGER_TIMEOUT_S = 10.0
_READ_AHEAD_MAX_BYTES = 128 * 1024
_UNREAD_BODY_MAX_BYTES = 256 * 1024  # drained to keep a connection; more closes it
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_PEERCRED = struct.Struct("3i")

Serve = Callable[[Head, Body, Peer], Awaitable[Answer]]

_NO_BODY = frozenset((HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED))


class _State(enum.Enum):
    HEAD = enum.auto()
    BUSY = enum.auto()
    GONE = enum.auto()


class Connection(asyncio.Protocol):
    """Reads requests, hands them to `serve`, writes the answers."""

    def __init__(
        self, serve: Serve, common_headers: bytes, open_connections: "set[Connection]", limit: int
    ) -> None:
        self._serve = serve
        self._common_headers = common_headers
        self._open = open_connections
        self._limit = limit
        self._state = _State.HEAD
        self._buffer = bytearray()
        self._framer: FixedBody | ChunkedBody = FixedBody(0)
        self._body: Body | None = None
        self._task: asyncio.Task[None] | None = None
        self._streaming = False
        self._client_gone = False
        self._paused_for: set[str] = set()
        self._writable = asyncio.Event()
        self._writable.set()
        self._timer: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport
        self.peer = Peer()

    # --- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Learn who the peer is; too many connections are refused."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 (asyncio's own promise)
        self._transport = transport
        transport.set_write_buffer_limits(0)  # so that `_writable` means: all is with the kernel
        self.peer = _peer_of(transport.get_extra_info("socket"))
        self._open.add(self)
        if len(self._open) > self._limit:
            answer = Response(HTTPStatus.SERVICE_UNAVAILABLE, b'{"message":"too many connections"}\n')
            transport.write(self._encode_head(answer.status, answer, close=True) + answer.body)
            transport.close()
            return
        self._set_timer(IDLE_TIMEOUT_S)

    def data_received(self, data: bytes) -> None:
        """Add bytes to the request under way, or to the next."""
        self._buffer += data
        if self._state is _State.HEAD:
            self._next_request()
        else:
            self._feed_body()

    def eof_received(self) -> bool:
        """The client closed its side: finish an action, end a stream."""
        self._client_gone = True
        self._lose_client()
        return self._state is _State.BUSY  # finish the answer, then close

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is closed."""
        del exc
        self._open.discard(self)
        self._set_timer(None)
        self._client_gone = True
        self._writable.set()
        self._lose_client()

    def pause_writing(self) -> None:
        """The client does not read fast enough."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """The client has read what was written."""
        self._writable.set()

    # --- reading

    def close_if_idle(self) -> None:
        """Close between requests; one under way is answered first."""
        self._client_gone = True
        if self._state is _State.HEAD:
            self._transport.close()
        elif self._streaming:
            self._lose_client()

    async def wait_closed(self) -> None:
        """Return when the request under way is answered."""
        if self._task is not None:
            await asyncio.wait([self._task])

    def _lose_client(self) -> None:
        if self._body is not None and not self._body.ended:
            self._body.end(BodyBroken("the client closed the connection before the end of its request"))
        if self._streaming and self._task is not None:
            self._task.cancel()

    def _next_request(self) -> None:
        """Start on the request at the front of the buffer, if its head is whole."""
        while self._buffer.startswith(b"\r\n"):  # RFC 9112, 2.2: empty lines before a request line
            del self._buffer[:2]
        if not self._buffer:
            self._set_timer(IDLE_TIMEOUT_S)
            return
        try:
            end = head_end(self._buffer)
            if end < 0:
                self._set_timer(HEAD_TIMEOUT_S)
                return
            head = parse_head(bytes(self._buffer[:end]))
        except EngineError as err:
            self._refuse(err)
            return
        del self._buffer[:end]
        self._set_timer(None)
        self._framer = ChunkedBody() if head.chunked else FixedBody(head.content_length)
        body = self._body = Body(lambda: self._pause("body"), lambda: self._resume("body"))
        if head.headers.get("expect", "").lower() == "100-continue":
            body.on_first_read = lambda: self._transport.write(_CONTINUE)
        self._state = _State.BUSY
        self._feed_body()
        self._task = asyncio.get_running_loop().create_task(self._answer(head, body))

    def _feed_body(self) -> None:
        body = self._body
        if body is not None and not body.ended:
            try:
                for piece in self._framer.take(self._buffer):
                    body.feed(piece)
            except EngineError as err:
                self._client_gone = True  # the connection cannot go on
                body.end(err)
                return
            if self._framer.done:
                body.end()
        if len(self._buffer) > _READ_AHEAD_MAX_BYTES:
            self._pause("read ahead")

    def _pause(self, reason: str) -> None:
        if not self._paused_for and not self._transport.is_closing():
            self._transport.pause_reading()
        self._paused_for.add(reason)

    def _resume(self, reason: str) -> None:
        self._paused_for.discard(reason)
        if not self._paused_for and not self._transport.is_closing():
            self._transport.resume_reading()

    def _set_timer(self, seconds: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if seconds is not None:
            self._timer = asyncio.get_running_loop().call_later(seconds, self._timed_out)

    def _timed_out(self) -> None:
        self._transport.close()

    def _refuse(self, err: EngineError) -> None:
        """Answer a request that cannot be read, and close: its end is unknown."""
        answer = error_response(err)
        self._transport.write(self._encode_head(answer.status, answer, close=True) + answer.body)
        self._transport.close()

    # --- answering

    async def _answer(self, head: Head, body: Body) -> None:
        try:
            answer = await self._serve(head, body, self.peer)
            if isinstance(answer, Hijack):
                await self._hijack(head, answer)
                return
            keep = head.keep_alive and not self._client_gone
            if isinstance(answer, Stream):
                await self._send_stream(answer, keep=keep)
            else:
                await self._send(head, answer, keep=keep)
            keep = keep and not self._client_gone and await self._drained(body)
        except asyncio.CancelledError:
            if not self._client_gone:
                raise
            keep = False
        except Exception:
            log.exception("connection broken")
            keep = False
        self._streaming = False
        if not keep:
            await self._linger(body)
            self._body = None
            self._transport.close()
            return
        self._body = None
        self._state = _State.HEAD
        self._resume("read ahead")
        self._next_request()

    async def _drained(self, body: Body) -> bool:
        """Read away what the handler left of the body; False when that is not worth it."""
        if body.on_first_read is not None and not body.ended:
            return False  # the client was never told to send it, and may or may not do so
        size = 0
        async for piece in body:
            size += len(piece)
            if size > _UNREAD_BODY_MAX_BYTES:
                return False
        return True

    async def _linger(self, body: Body) -> None:
        """Let a client that still sends its request read the answer first: closing at once would reset it.

        Source: RFC 9112, 9.6, "Tear-down".
        """
        if body.ended or self._client_gone or self._transport.is_closing():
            return
        body.on_first_read = None
        self._transport.write_eof()
        with contextlib.suppress(TimeoutError, EngineError):
            async with asyncio.timeout(LINGER_TIMEOUT_S):
                async for _ in body:
                    pass

    async def _send(self, head: Head, answer: Response, *, keep: bool) -> None:
        data = self._encode_head(answer.status, answer, close=not keep)
        if head.method != "HEAD" and answer.status not in _NO_BODY:
            data += answer.body
        self._transport.write(data)
        await self._writable.wait()

    async def _send_stream(self, answer: Stream, *, keep: bool) -> None:
        self._transport.write(self._encode_stream_head(answer, close=not keep))
        self._streaming = answer.cancel_on_eof
        try:
            if self._client_gone and answer.cancel_on_eof:
                raise asyncio.CancelledError
            async for chunk in answer.chunks:
                if chunk and not self._transport.is_closing():
                    self._transport.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
                    await self._writable.wait()
        finally:
            close = getattr(answer.chunks, "aclose", None)
            if close is not None:
                await close()
        self._transport.write(b"0\r\n\r\n")

    async def _hijack(self, head: Head, answer: Hijack) -> None:
        """Take the socket out of the event loop and give it away, with the head that its client waits for.

        The new owner writes the head: whoever reads it may rely on being attached.
        """
        self._state = _State.GONE
        self._pause("hijack")
        async with asyncio.timeout(HIJACK_FLUSH_TIMEOUT_S):
            await self._writable.wait()
        raw = self._transport.get_extra_info("socket")
        if raw.fileno() < 0:
            return
        client = socket.socket(fileno=os.dup(raw.fileno()))
        prefix = bytes(self._buffer)
        self._buffer.clear()
        self._transport.abort()  # closes this descriptor only; the duplicate keeps the connection
        try:
            await answer.take(client, prefix, self._switching_head(head, answer))
        except EngineError as err:  # nothing has been written yet
            refusal = error_response(err)
            data = self._encode_head(refusal.status, refusal, close=True) + refusal.body
            with contextlib.suppress(OSError):
                await asyncio.get_running_loop().sock_sendall(client, data)
        finally:
            client.close()

    def _switching_head(self, head: Head, answer: Hijack) -> bytes:
        if not head.upgrade:
            return f"HTTP/1.1 200 OK\r\nContent-Type: {answer.content_type}\r\n\r\n".encode()
        switch = (
            f"HTTP/1.1 101 UPGRADED\r\nContent-Type: {answer.content_type}\r\n"
            "Connection: Upgrade\r\nUpgrade: tcp\r\n"
        )
        return switch.encode() + self._common_headers + b"\r\n"

    def _encode_head(self, status: int, answer: Response, *, close: bool) -> bytes:
        lines = [f"HTTP/1.1 {int(status)} {_reason(status)}\r\n"]
        if status not in _NO_BODY:
            lines.append(f"Content-Type: {answer.content_type}\r\nContent-Length: {len(answer.body)}\r\n")
        lines += [f"{name}: {value}\r\n" for name, value in answer.headers.items()]
        if close:
            lines.append("Connection: close\r\n")
        return "".join(lines).encode() + self._common_headers + b"\r\n"

    def _encode_stream_head(self, answer: Stream, *, close: bool) -> bytes:
        text = f"HTTP/1.1 {int(answer.status)} {_reason(answer.status)}\r\n"
        text += f"Content-Type: {answer.content_type}\r\nTransfer-Encoding: chunked\r\n"
        if close:
            text += "Connection: close\r\n"
        return text.encode() + self._common_headers + b"\r\n"


def _reason(status: int) -> str:
    return HTTPStatus(status).phrase


def _peer_of(sock: socket.socket) -> Peer:
    try:
        raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEERCRED.size)
    except OSError:
        return Peer()
    pid, uid, gid = _PEERCRED.unpack(raw)
    return Peer(pid, uid, gid)
