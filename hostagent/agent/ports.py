"""Published ports on the host: a listener each, and every connection carried to the guest's loopback.

The guest asks, over the control channel; what it may have is decided here. A
port is bound before the answer, so "published" is never wishful. IPv4 and
IPv6 loopback are bound together: else another program could take ::1 with the
same number, and `localhost` would lead to it.
"""

import asyncio
import contextlib
import errno
import ipaddress
import logging
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass, field

from engine.base import jsonio
from engine.base.errors import EngineError, InvalidArgument
from engine.base.portlease import PortReply, PortRequest

log = logging.getLogger(__name__)

_LOOPBACK = ("127.0.0.1", "::1")
_BACKLOG = 128
_PORTS_MAX = 4096
_EPHEMERAL_TRIES = 8
_ACCEPT_RETRY_S = 0.2

Carry = Callable[[socket.socket, int], None]


@dataclass(slots=True)
class _Lease:
    request: PortRequest
    sockets: list[socket.socket]
    tasks: list["asyncio.Task[None]"] = field(default_factory=list)


class Ports:
    """The leases of one machine."""

    def __init__(self, carry: Carry, *, owner_of: Callable[[int], str] | None = None) -> None:
        """`carry` takes an accepted connection and the guest's port, and returns at once."""
        self._carry = carry
        self._owner_of = owner_of or owner_of_port
        self._leases: dict[tuple[str, str, str, int], _Lease] = {}

    def handle(self, raw: object) -> PortReply:
        """Do what a request of the guest asks; a refusal is a reply too."""
        try:
            request = jsonio.convert(raw, PortRequest, noun="port request")
            if request.op == "publish":
                return PortReply(ok=True, host_port=self._publish(request))
            if request.op == "unpublish":
                self._unpublish(request)
                return PortReply(ok=True, host_port=request.host_port)
            raise InvalidArgument(f"unknown port operation: {request.op[:40]!r}")
        except EngineError as err:
            return PortReply(ok=False, error=str(err))

    def listing(self) -> list[PortRequest]:
        """Return what is published, with the host's ports."""
        return [lease.request for lease in self._leases.values()]

    def close(self) -> None:
        """Withdraw everything."""
        for lease in self._leases.values():
            _drop(lease)
        self._leases.clear()

    def _publish(self, request: PortRequest) -> int:
        _check(request)
        known = self._leases.get(_key(request, request.host_port))
        if known is not None and known.request == request:
            return request.host_port  # asked again by a guest that could not know
        if len(self._leases) >= _PORTS_MAX:
            raise InvalidArgument(f"port {request.host_port}: more than {_PORTS_MAX} ports are published")
        sockets = self._bind(request)
        port = int(sockets[0].getsockname()[1])
        bound = PortRequest(
            request.op, request.container, request.proto, request.host_ip, port, request.guest_port
        )
        lease = _Lease(bound, sockets)
        lease.tasks = [asyncio.create_task(self._accept(sock, request.guest_port)) for sock in sockets]
        self._leases[_key(request, port)] = lease
        return port

    def _unpublish(self, request: PortRequest) -> None:
        """Withdraw one port, or, when none is named, all of the container; harmless when there is none."""
        for key, lease in list(self._leases.items()):
            known = lease.request
            if known.container != request.container:
                continue
            if not request.host_port or key == _key(request, request.host_port):
                _drop(lease)
                del self._leases[key]

    def _bind(self, request: PortRequest) -> list[socket.socket]:
        hosts = (request.host_ip,) if request.host_ip else _LOOPBACK
        for attempt in range(_EPHEMERAL_TRIES):
            sockets: list[socket.socket] = []
            try:
                port = request.host_port
                for host in hosts:
                    found = _listen(host, port)
                    if found is not None:
                        sockets.append(found)
                        port = port or int(found.getsockname()[1])
            except OSError as err:
                for sock in sockets:
                    sock.close()
                # an ephemeral port that is free for IPv4 may be taken for IPv6
                if request.host_port or err.errno != errno.EADDRINUSE or attempt == _EPHEMERAL_TRIES - 1:
                    raise InvalidArgument(self._refusal(request, err)) from err
            else:
                return sockets
        raise InvalidArgument(f"no free port on {request.host_ip or _LOOPBACK[0]}")

    def _refusal(self, request: PortRequest, err: OSError) -> str:
        where = f"{request.host_ip or _LOOPBACK[0]}:{request.host_port}/{request.proto}"
        if err.errno == errno.EADDRINUSE:
            owner = self._owner_of(request.host_port)
            return f"port {where} on the host is already in use" + (f" by {owner}" if owner else "")
        if err.errno == errno.EACCES:
            return f"port {where} on the host is reserved for root: publish one above 1023"
        if err.errno == errno.EADDRNOTAVAIL:
            return f"port {where}: the host has no such address"
        return f"port {where} on the host cannot be bound: {(err.strerror or str(err)).lower()}"

    async def _accept(self, listener: socket.socket, guest_port: int) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                client, _ = await loop.sock_accept(listener)
            except OSError as err:
                log.warning("accepting on %s: %s", listener.getsockname(), err)
                await asyncio.sleep(_ACCEPT_RETRY_S)  # out of descriptors: some may be given back
                continue
            client.setblocking(True)
            self._carry(client, guest_port)


def _check(request: PortRequest) -> None:
    if request.proto != "tcp":
        raise InvalidArgument(
            f"port {request.host_port}/{request.proto}: only tcp ports can be published from a machine yet"
        )
    if not 0 <= request.host_port <= 65535 or not 1 <= request.guest_port <= 65535:  # noqa: PLR2004 (RFC 9293)
        raise InvalidArgument(f"port {request.host_port} to {request.guest_port}: out of range")
    if request.host_ip:
        try:
            ipaddress.ip_address(request.host_ip)
        except ValueError as err:
            raise InvalidArgument(f"not an IP address: {request.host_ip[:64]!r}") from err


def _listen(host: str, port: int) -> socket.socket | None:
    """Return a listening socket; None where the host has no IPv6 at all."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        sock = socket.socket(family, socket.SOCK_STREAM)
    except OSError:
        if family == socket.AF_INET6:
            return None
        raise
    try:
        if os.name != "nt":  # there it would let two programs share the port
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((host, port))
        sock.listen(_BACKLOG)
        sock.setblocking(False)
    except OSError as err:
        sock.close()
        if host == "::1" and err.errno == errno.EADDRNOTAVAIL:
            return None
        raise
    return sock


def _key(request: PortRequest, port: int) -> tuple[str, str, str, int]:
    return (request.container, request.proto, request.host_ip, port)


def _drop(lease: _Lease) -> None:
    for task in lease.tasks:
        task.cancel()
    for sock in lease.sockets:
        sock.close()


def owner_of_port(port: int) -> str:
    """Return who listens on TCP `port`, such as "process 123 (nginx)"; empty when it cannot be told."""
    inodes = _listening_inodes(port)
    if not inodes:
        return ""
    with contextlib.suppress(OSError):
        for pid in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                for fd in os.listdir(f"/proc/{pid}/fd"):
                    if os.readlink(f"/proc/{pid}/fd/{fd}") in inodes:
                        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
                            return f"process {pid} ({file.read().strip()})"
    return ""


def _listening_inodes(port: int) -> set[str]:
    """Return "socket:[N]" of each listener on `port`, from Linux' tables; empty elsewhere."""
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            with open(table, encoding="ascii") as file:
                rows = [line.split() for line in file][1:]
        except OSError:
            continue
        listening = "0A"
        for row in rows:
            if row[3] == listening and int(row[1].rsplit(":", 1)[1], 16) == port:
                found.add(f"socket:[{row[9]}]")
    return found
