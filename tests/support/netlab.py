"""A network laboratory: the test runs in a network namespace of its own, with a neighbour host beside it.

    neighbour 198.18.0.2 --- wan0 198.18.0.1 (this namespace: "the host") --- bridge --- containers

Nothing of the machine's own network is touched or reached.
"""

import asyncio
import concurrent.futures
import contextlib
import os
import socket
import subprocess
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from engine.base.database import Database
from engine.base.paths import Run
from engine.kernel.mount import UmountFlag, umount2
from engine.kernel.process import CloneFlag, setns, unshare
from engine.networks.service import NetworkService

T = TypeVar("T")

HOST_ADDRESS = "198.18.0.1"
NEIGHBOUR_ADDRESS = "198.18.0.2"
BRIDGE = "brtest"
TIMEOUT_S = 5.0


def ip(*words: str) -> None:
    """Run ip(8) in the calling thread's namespace."""
    subprocess.run(["ip", *words], check=True, capture_output=True)


class Namespace:
    """A network namespace that tests can act in."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._servers: list[socket.socket] = []

    @classmethod
    def current(cls) -> "Namespace":
        """Return the calling thread's."""
        return cls(os.open("/proc/thread-self/ns/net", os.O_RDONLY))

    @classmethod
    def new(cls) -> "Namespace":
        """Return a new one."""

        def make() -> int:
            unshare(CloneFlag.NEWNET)
            ip("link", "set", "lo", "up")
            return os.open("/proc/thread-self/ns/net", os.O_RDONLY)

        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            return cls(pool.submit(make).result())

    def call(self, work: Callable[..., T], *args: Any) -> T:
        """Run `work` in the namespace, in a thread of its own."""

        def inside() -> T:
            setns(self.fd, CloneFlag.NEWNET)
            return work(*args)

        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            return pool.submit(inside).result()

    def serve(self, name: str, port: int, *, address: str = "0.0.0.0", proto: str = "tcp") -> None:
        """Answer each connection or datagram with "<name> <address of the peer>"."""
        kind = socket.SOCK_STREAM if proto == "tcp" else socket.SOCK_DGRAM
        server = self.call(socket.socket, socket.AF_INET, kind)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((address, port))
        if proto == "tcp":
            server.listen()
        self._servers.append(server)
        threading.Thread(target=_answer, args=(server, name, proto), daemon=True).start()

    def ask(self, address: str, port: int, *, proto: str = "tcp", timeout_s: float = TIMEOUT_S) -> str:
        """Return the answer of a server, or raise OSError (TimeoutError: packets are dropped)."""
        kind = socket.SOCK_STREAM if proto == "tcp" else socket.SOCK_DGRAM
        with self.call(socket.socket, socket.AF_INET, kind) as client:
            client.settimeout(timeout_s)
            client.connect((address, port))
            if proto == "udp":
                client.send(b"?")
            return client.recv(1024).decode()

    def ping(self, address: str) -> bool:
        """Tell whether `address` answers."""
        argv = ["busybox", "ping", "-c", "1", "-W", "2", address]
        return self.call(lambda: subprocess.run(argv, check=False, capture_output=True).returncode) == 0

    def close(self) -> None:
        """Stop the servers."""
        for server in self._servers:
            with contextlib.suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)
            server.close()
        os.close(self.fd)


def _answer(server: socket.socket, name: str, proto: str) -> None:
    with contextlib.suppress(OSError):  # the end: the socket was closed
        while True:
            if proto == "tcp":
                client, peer = server.accept()
                with client:
                    client.sendall(f"{name} {peer[0]}".encode())
                continue
            data, peer = server.recvfrom(1024)
            if not data:
                return
            server.sendto(f"{name} {peer[0]}".encode(), peer)


class Lab:
    """The host under test, its neighbour, and the engine's network service."""

    def __init__(self, tmp_path: Path, runner: asyncio.Runner, stack: contextlib.ExitStack) -> None:
        self.tmp_path = tmp_path
        self.run_dir = Run(tmp_path / "run")
        self._runner = runner
        self._stack = stack
        self.host = self._closing(Namespace.current())
        self.neighbour = self._closing(Namespace.new())
        ip("link", "set", "lo", "up")
        ip("link", "add", "wan0", "type", "veth", "peer", "name", "wan1")
        ip("address", "add", f"{HOST_ADDRESS}/24", "dev", "wan0")
        ip("link", "set", "wan0", "up")
        ip("link", "set", "wan1", "netns", f"/proc/{os.getpid()}/fd/{self.neighbour.fd}")
        self.neighbour.call(ip, "address", "add", f"{NEIGHBOUR_ADDRESS}/24", "dev", "wan1")
        self.neighbour.call(ip, "link", "set", "wan1", "up")

    def engine(self, **options: Any) -> NetworkService:
        """Return an open service; closed at the end of the test."""
        database = Database(self.tmp_path / "state.db")
        self._stack.callback(database.close)
        service = NetworkService(database, self.run_dir, **{"bridge": BRIDGE, **options})
        self.do(service.open())
        self._stack.callback(lambda: self.do(service.close()))
        return service

    def do(self, work: Awaitable[T]) -> T:
        """Run a coroutine to its end."""

        async def inside() -> T:
            async with asyncio.timeout(TIMEOUT_S):
                return await work

        return self._runner.run(inside())

    def container(self, pin: Path | None) -> Namespace:
        """Return the namespace of a sandbox."""
        assert pin is not None
        return self._closing(Namespace(os.open(pin, os.O_RDONLY)))

    def links(self) -> set[str]:
        """Return the names of the host's links."""
        return {name for _index, name in socket.if_nameindex()}

    def pins(self) -> list[str]:
        """Return the names of the pinned namespaces."""
        return sorted(os.listdir(self.run_dir.netns))

    def _closing(self, namespace: Namespace) -> Namespace:
        self._stack.callback(namespace.close)
        return namespace


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """Run the test in a new network namespace, and leave nothing of it."""
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    unshare(CloneFlag.NEWNET)
    try:
        with asyncio.Runner() as runner, contextlib.ExitStack() as stack:
            yield Lab(tmp_path, runner, stack)
    finally:
        setns(before, CloneFlag.NEWNET)
        os.close(before)
        for pin in (tmp_path / "run/netns").glob("*"):
            with contextlib.suppress(OSError):
                umount2(pin, UmountFlag.DETACH)
