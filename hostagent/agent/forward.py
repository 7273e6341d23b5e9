"""The Docker socket of a machine on the host: every connection is carried to the engine inside.

Bytes are passed, not read. Only when no answer can come (the machine does not
start, or ends before it said a word) is something said in its place: an HTTP
error that every Docker client shows as one line.
"""

import asyncio
import contextlib
import json
import logging
import socket
import threading
from collections.abc import Awaitable, Callable

from engine.base.errors import EngineError
from hostagent.agent.pump import Pump
from hostagent.channel.model import Address, Stream, TcpAddress, UnixAddress

log = logging.getLogger(__name__)

ENGINE_SOCKET = UnixAddress("/run/pyengine/pyengine.sock")
_CONNECT_TIMEOUT_S = 30.0
_REQUEST_WAIT_S = 2.0
_REQUEST_MAX_BYTES = 64 * 1024

Connect = Callable[[Address, float], Stream]


class Forwarder:
    """Carries local connections into one machine, a pair of threads each."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        ensure_running: Callable[[], Awaitable[None]],
        connect: Connect,
        why_lost: Callable[[], Awaitable[str]],
    ) -> None:
        """Take what it needs of the machine's life.

        Args:
            loop: where `ensure_running` runs.
            ensure_running: starts the machine if it must be; raises EngineError.
            connect: blocking; a stream to an address in the guest.
            why_lost: one line for a client whose request got no answer.
        """
        self._loop = loop
        self._ensure_running = ensure_running
        self._connect = connect
        self._why_lost = why_lost

    def carry_docker(self, client: socket.socket) -> None:
        """Carry `client`, and own it, to the engine; starts the machine when it is down."""
        threading.Thread(target=self._docker, args=(client,), name="docker", daemon=True).start()

    def carry_port(self, client: socket.socket, guest_port: int) -> None:
        """Carry `client`, and own it, to a port of the guest's loopback."""
        threading.Thread(target=self._port, args=(client, guest_port), name="port", daemon=True).start()

    def _docker(self, client: socket.socket) -> None:
        with client:
            try:
                asyncio.run_coroutine_threadsafe(self._wait_running(), self._loop).result()
                stream = self._connect(ENGINE_SOCKET, _CONNECT_TIMEOUT_S)
            except (EngineError, OSError) as err:
                log.info("a request could not be carried: %s", err)
                _drain_request(client)
                _refuse(client, str(err))
                return
            pump = Pump(client, stream, keep_silent=True)
            pump.run()
            if not pump.answered and pump.asked:
                _refuse(client, asyncio.run_coroutine_threadsafe(self._explain(), self._loop).result())

    def _port(self, client: socket.socket, guest_port: int) -> None:
        with client:
            try:
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                stream = self._connect(TcpAddress("127.0.0.1", guest_port), _CONNECT_TIMEOUT_S)
            except (EngineError, OSError) as err:
                log.info("a connection to port %d could not be carried: %s", guest_port, err)
                return
            Pump(client, stream).run()

    async def _wait_running(self) -> None:
        await self._ensure_running()

    async def _explain(self) -> str:
        return await self._why_lost()


def _drain_request(client: socket.socket) -> None:
    """Read the head of the request: who closes a socket with unread bytes may take the answer with it."""
    client.settimeout(_REQUEST_WAIT_S)
    seen = bytearray()
    with contextlib.suppress(OSError):
        while b"\r\n\r\n" not in seen and len(seen) < _REQUEST_MAX_BYTES:
            data = client.recv(_REQUEST_MAX_BYTES)
            if not data:
                return
            seen += data


def _refuse(client: socket.socket, message: str) -> None:
    body = json.dumps({"message": message}).encode()
    head = (
        "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    with contextlib.suppress(OSError):
        client.sendall(head.encode() + body)
