"""engine.api.connection and server: real sockets, and a function in the place of the engine."""

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from engine.api.audit import AuditLog
from engine.api.connection import Connection, Serve
from engine.api.framing import Head
from engine.api.http import Answer, Body, Hijack, Peer, Request, Response, Route, Stream
from engine.api.server import Application, Server
from engine.base.errors import Conflict

_TIMEOUT_S = 10.0


def _talk(
    serve: Serve, conversation: Callable[..., Coroutine[Any, Any, None]], *, limit: int = 10
) -> set[Connection]:
    """Run `conversation(reader, writer)` as the client of a connection to `serve`; return what stays open."""
    connections: set[Connection] = set()

    async def inside() -> None:
        ours, theirs = socket.socketpair()
        loop = asyncio.get_running_loop()
        await loop.connect_accepted_socket(lambda: Connection(serve, b"X: y\r\n", connections, limit), ours)
        reader, writer = await asyncio.open_unix_connection(sock=theirs)
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                await conversation(reader, writer)
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
        for connection in list(connections):
            connection.close_if_idle()

    asyncio.run(inside())
    return connections


async def _echo(head: Head, body: Body, _peer: Peer) -> Answer:
    return Response(200, head.target + b" " + await body.read(), "text/plain")


async def _answer(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0] or b"0")
    return head, await reader.readexactly(length)


def test_requests_sent_at_once_are_answered_in_order() -> None:
    async def conversation(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"POST /a HTTP/1.1\r\nContent-Length: 3\r\n\r\none\r\n")  # a stray line end is allowed
        writer.write(b"POST /b HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\ntwo\r\n0\r\n\r\n")
        writer.write(b"GET /c HTTP/1.1\r\nConnection: close\r\n\r\n")
        assert [(await _answer(reader))[1] for _ in range(3)] == [b"/a one", b"/b two", b"/c "]
        assert await reader.read() == b""

    _talk(_echo, conversation)


def test_head_and_304_have_no_body() -> None:
    async def serve(head: Head, _body: Body, _peer: Peer) -> Answer:
        return Response(304 if head.method == "POST" else 200, b"text")

    async def conversation(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HEAD / HTTP/1.1\r\n\r\nPOST / HTTP/1.1\r\nConnection: close\r\n\r\n")
        data = await reader.read()
        assert data.count(b"\r\n\r\n") == 2
        assert b"text" not in data
        assert b"Content-Length: 4\r\n" in data.partition(b"\r\n\r\n")[0]

    _talk(serve, conversation)


def test_a_client_that_asks_first_is_told_to_continue_when_the_body_is_wanted() -> None:
    async def conversation(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"ok")
        assert (await _answer(reader))[1] == b"/ ok"

    _talk(_echo, conversation)


def test_a_stream_sends_its_head_before_its_first_chunk_and_is_closed_with_its_client() -> None:
    closed = asyncio.Event()

    async def chunks() -> AsyncIterator[bytes]:
        try:
            await asyncio.Event().wait()
            yield b""
        finally:
            closed.set()

    async def serve(_head: Head, _body: Body, _peer: Peer) -> Answer:
        return Stream(chunks())

    async def conversation(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        assert b"Transfer-Encoding: chunked" in await reader.readuntil(b"\r\n\r\n")
        writer.close()
        await closed.wait()

    assert _talk(serve, conversation) == set()


def test_an_action_is_finished_for_a_client_that_has_left() -> None:
    done = asyncio.Event()
    begun = asyncio.Event()
    left = asyncio.Event()

    async def serve(_head: Head, _body: Body, _peer: Peer) -> Answer:
        begun.set()
        await left.wait()
        done.set()
        return Response()

    async def conversation(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"POST / HTTP/1.1\r\n\r\n")
        await begun.wait()
        writer.close()
        await writer.wait_closed()
        left.set()
        await done.wait()

    _talk(serve, conversation)


def test_a_hijacked_socket_comes_with_what_was_read_ahead_and_its_head() -> None:
    async def take(client: socket.socket, prefix: bytes, greeting: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(client, greeting + b"had " + prefix)

    async def serve(_head: Head, _body: Body, _peer: Peer) -> Answer:
        return Hijack(take, "text/x")

    async def conversation(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"POST / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\nearly")
        data = await reader.read()
        assert data.startswith(b"HTTP/1.1 101 UPGRADED\r\nContent-Type: text/x\r\n")
        assert data.endswith(b"\r\n\r\nhad early")

    _talk(serve, conversation)


def test_a_hijack_that_fails_is_an_answer_like_any_other() -> None:
    async def take(_client: socket.socket, _prefix: bytes, _greeting: bytes) -> None:
        raise Conflict("not now")

    async def serve(_head: Head, _body: Body, _peer: Peer) -> Answer:
        return Hijack(take)

    async def conversation(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"POST / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
        head, body = await _answer(reader)
        assert head.startswith(b"HTTP/1.1 409 ")
        assert body == b'{"message":"not now"}\n'
        assert await reader.read() == b""

    _talk(serve, conversation)


def test_too_many_connections_are_refused() -> None:
    async def conversation(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        assert (await reader.read()).startswith(b"HTTP/1.1 503 ")

    _talk(_echo, conversation, limit=0)


def test_the_peer_is_who_the_kernel_says() -> None:
    async def serve(_head: Head, _body: Body, peer: Peer) -> Answer:
        return Response(200, f"{peer.pid} {peer.uid}".encode())

    async def conversation(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        assert (await _answer(reader))[1] == f"{os.getpid()} {os.getuid()}".encode()

    _talk(serve, conversation)


def test_a_client_that_sends_a_large_body_to_its_end_reads_why_it_was_refused() -> None:
    async def serve(_head: Head, body: Body, _peer: Peer) -> Answer:
        await anext(body)
        return Response(507, b"full")

    async def conversation(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        size = 32 << 20
        writer.write(b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % size)
        for _ in range(size >> 16):
            writer.write(bytes(1 << 16))
            await writer.drain()
        assert (await _answer(reader))[1] == b"full"
        assert await reader.read() == b""

    assert _talk(serve, conversation) == set()


# the server


async def _opened(path: Path) -> Server:
    server = Server(Application(AuditLog(path.parent / "audit.log")), path)
    await server.open()
    return server


def test_only_the_owner_may_connect_and_closing_removes_the_socket(tmp_path: Path) -> None:
    path = tmp_path / "sock"

    async def inside() -> None:
        server = await _opened(path)
        assert path.stat().st_mode & 0o777 == 0o600
        await server.close()
        assert not path.exists()

    asyncio.run(inside())


def test_a_dead_socket_is_replaced_a_living_one_and_a_file_are_not(tmp_path: Path) -> None:
    path = tmp_path / "sock"
    dead = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    dead.bind(str(path))
    dead.close()

    async def inside() -> None:
        server = await _opened(path)
        with pytest.raises(Conflict, match="another engine answers there"):
            await _opened(path)
        await server.close()
        path.write_text("")
        with pytest.raises(Conflict, match="exists and is not a socket"):
            await _opened(path)

    asyncio.run(inside())
    assert path.read_text() == ""


def test_a_full_disk_is_an_answer_of_one_line(tmp_path: Path) -> None:
    application = Application(AuditLog(tmp_path / "audit.log"))

    async def full(_request: Request) -> Response:
        raise OSError(errno.ENOSPC, "No space left on device", "/some/file")

    application.install([Route("POST", "/things", full)])
    answer = asyncio.run(
        application.serve(Head("POST", b"/things"), Body(lambda: None, lambda: None), Peer(1, 2, 3))
    )

    assert isinstance(answer, Response)
    assert answer.status == 507
    assert b"no space left on device" in answer.body


def test_changes_are_on_record_and_queries_are_not(tmp_path: Path) -> None:
    application = Application(AuditLog(tmp_path / "audit.log"))

    async def made(request: Request) -> Response:
        request.subject = "its id"
        return Response(201)

    application.install([Route("POST", "/things", made), Route("GET", "/things", made)])
    for method in ("GET", "POST"):
        asyncio.run(
            application.serve(Head(method, b"/v1.40/things"), Body(lambda: None, lambda: None), Peer(1, 2, 3))
        )

    [line] = (tmp_path / "audit.log").read_text().splitlines()
    assert '"path":"/things","object":"its id","status":201' in line
    assert '"uid":2,"pid":1' in line
