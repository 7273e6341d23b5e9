"""Carries the engine's wishes for host ports to the host, and the answers back.

The engine speaks `engine.base.portlease` over a unix socket, a line a
request; what a line says is the host's business, so it is passed on as it is.
Only what is published is remembered, to ask again when a new host agent takes
over this machine.
"""

import json
import os
import socket
from collections.abc import Callable

from vmguest.init.loop import READ, Loop
from vmguest.protocol import MAX_LINE_BYTES, Message

Request = dict[str, object]
Key = tuple[object, ...]
_NO_HOST = {"ok": False, "error": "the host agent is not connected to this machine"}


class PortRelay:
    """One a machine; `answer` is fed with the host's messages."""

    def __init__(self, loop: Loop, path: str, *, ask: Callable[[int, Request], bool]) -> None:
        """Listen on `path`; `ask` sends a request with its id to the host, false when there is none."""
        self._loop = loop
        self._ask = ask
        self._waiting: dict[int, tuple[socket.socket, Request]] = {}
        self._count = 0
        self._published: dict[Key, Request] = {}
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self._listener.bind(path)
        os.chmod(path, 0o600)
        self._listener.listen(64)
        self._listener.setblocking(False)
        loop.add(self._listener.fileno(), READ, self._accept)

    def answer(self, message: Message) -> None:
        """Pass the host's reply on to the engine."""
        number, reply = message.get("id"), message.get("reply")
        waiting = self._waiting.pop(number, None) if isinstance(number, int) else None
        if waiting is None or not isinstance(reply, dict):
            return
        client, request = waiting
        self._remember(request, reply)
        _send(client, reply)

    def renew(self) -> None:
        """Ask a host agent that is new for everything that was published; nobody waits for the answers."""
        for request in self._published.values():
            self._ask(0, request)

    def host_lost(self) -> None:
        """Refuse what was asked and not answered."""
        for client, _ in self._waiting.values():
            _send(client, _NO_HOST)
        self._waiting.clear()

    def _remember(self, request: Request, reply: dict[str, object]) -> None:
        if not reply.get("ok"):
            return
        if request.get("op") == "publish":
            request = {**request, "host_port": reply.get("host_port", request.get("host_port"))}
            self._published[_key(request)] = request
            return
        container, port = request.get("container"), request.get("host_port")
        for key, known in list(self._published.items()):
            same = known.get("container") == container
            if same and (not port or _key(request) == key):
                del self._published[key]

    def _accept(self, _events: int) -> None:
        try:
            client, _ = self._listener.accept()
        except BlockingIOError:
            return
        client.setblocking(False)
        buffer = bytearray()
        self._loop.add(client.fileno(), READ, lambda _: self._readable(client, buffer))

    def _readable(self, client: socket.socket, buffer: bytearray) -> None:
        try:
            data = client.recv(MAX_LINE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        buffer += data
        if not data or len(buffer) > MAX_LINE_BYTES:
            self._loop.remove(client.fileno())
            self._waiting = {n: entry for n, entry in self._waiting.items() if entry[0] is not client}
            client.close()
            return
        while (end := buffer.find(b"\n")) >= 0:
            line = bytes(buffer[:end])
            del buffer[: end + 1]
            self._request(client, line)

    def _request(self, client: socket.socket, line: bytes) -> None:
        try:
            request = json.loads(line)
        except ValueError:
            request = None
        if not isinstance(request, dict):
            _send(client, {"ok": False, "error": "not a port request"})
            return
        self._count += 1
        self._waiting[self._count] = (client, request)
        if not self._ask(self._count, request):
            del self._waiting[self._count]
            _send(client, _NO_HOST)


def _key(request: Request) -> Key:
    return tuple(request.get(field) for field in ("container", "proto", "host_ip", "host_port"))


def _send(client: socket.socket, reply: dict[str, object]) -> None:
    """Answer the engine; replies are far smaller than a socket's buffer, and a client that left has none."""
    try:
        client.sendall(json.dumps(reply).encode() + b"\n")
    except OSError:
        return
