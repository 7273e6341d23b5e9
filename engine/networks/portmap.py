"""Ports of the host, held by sockets that are really bound.

A port that a container publishes is bound before the container starts and
stays bound while it runs, so that no program of the host can take it and a
clash is told at once, not when the first packet goes astray. The sockets
carry no data: packets are translated before they reach one.

::1: containers have IPv4 only, and netfilter does not translate between the
two, so the host's ::1 would need a proxy process in the path of the data that
dies with whoever runs it. There is none. The port is held on IPv6 as well,
without listening: a client that tries ::1 first is refused at once and goes
on to 127.0.0.1, and no other program can answer in the container's place.
(Inside a machine the host agent listens on ::1 and connects here by IPv4.)
"""

import contextlib
import errno
import logging
import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from ipaddress import AddressValueError, IPv4Address

from engine.base.errors import Conflict, Denied, InvalidArgument, NotSupported
from engine.networks.model import ANY_ADDRESS, PortBinding, PortMapping

log = logging.getLogger(__name__)

_IPV6_TWIN = {ANY_ADDRESS: "::", "127.0.0.1": "::1"}
_KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}


@dataclass(slots=True)
class Reservation:
    """The ports of one container; owns its sockets."""

    bindings: list[PortBinding] = field(default_factory=list)
    _sockets: list[socket.socket] = field(default_factory=list)

    def add(
        self, mapping: PortMapping, address: str, *, failed: Callable[[str], str] = lambda reason: reason
    ) -> PortBinding:
        """Bind one more port.

        Args:
            mapping: what is asked for.
            address: the container's, for messages.
            failed: makes the user's sentence from a reason.

        Raises:
            Conflict: the port is taken.
            Denied: this process may not bind it.
            InvalidArgument: the host has no such address.
            NotSupported: an IPv6 address.
        """
        host_ip = host_address(mapping.host_ip)
        target = f"{host_ip}:{mapping.host_port or 0}:{address}:{mapping.container_port}/{mapping.proto}"
        try:
            bound = _bind(mapping.proto, host_ip, mapping.host_port or 0)
        except OSError as err:
            reason = os.strerror(err.errno or errno.EIO).lower()
            text = failed(f"failed to bind host port for {target}: {reason}")
            if err.errno == errno.EADDRINUSE:
                raise Conflict(text, hint="stop what listens there, or publish another port") from err
            if err.errno in {errno.EACCES, errno.EPERM}:
                raise Denied(text) from err
            raise InvalidArgument(text) from err
        self._sockets.append(bound)
        self._hold_ipv6(mapping.proto, host_ip, bound.getsockname()[1])
        binding = PortBinding(mapping.container_port, mapping.proto, host_ip, bound.getsockname()[1])
        self.bindings.append(binding)
        return binding

    def _hold_ipv6(self, proto: str, host_ip: str, port: int) -> None:
        if host_ip not in _IPV6_TWIN or not socket.has_ipv6:
            return
        held = None
        try:
            held = socket.socket(socket.AF_INET6, _KINDS[proto] | socket.SOCK_CLOEXEC)
            held.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            held.bind((_IPV6_TWIN[host_ip], port))
        except OSError as err:  # no IPv6 here, or somebody serves it already: theirs
            log.debug("port %s is not held on IPv6: %s", port, err)
            if held is not None:
                held.close()
        else:
            self._sockets.append(held)

    def close(self) -> None:
        """Give all ports back; harmless twice."""
        for held in self._sockets:
            held.close()
        self._sockets.clear()


def restore(bindings: Sequence[PortBinding], address: str) -> Reservation:
    """Return a reservation of `bindings` that are in use already; what was taken meanwhile is only logged."""
    reservation = Reservation()
    for binding in bindings:
        mapping = PortMapping(binding.container_port, binding.proto, binding.host_ip, binding.host_port)
        try:
            reservation.add(mapping, address)
        except (Conflict, Denied, InvalidArgument) as err:
            log.warning("a published port is no longer reserved: %s", err)
    return reservation


def host_address(text: str) -> str:
    """Return the address as bindings show it.

    Raises:
        InvalidArgument: it is no address.
        NotSupported: it is an IPv6 one; containers have IPv4 only.
    """
    if not text:
        return ANY_ADDRESS
    if ":" in text:
        raise NotSupported(
            f"cannot publish on {text}: containers have IPv4 addresses only", hint="publish on 127.0.0.1"
        )
    try:
        return str(IPv4Address(text))
    except AddressValueError as err:
        raise InvalidArgument(f"invalid ip address: {text!r}") from err


def _bind(proto: str, host_ip: str, port: int) -> socket.socket:
    """Return a socket that holds the port.

    Without SO_REUSEADDR, which would let another such socket share the port.
    But then also a connection in TIME_WAIT holds it, for a minute after an
    ordinary server ended; docker does not mind those. So a second try has
    SO_REUSEADDR and listens: no other socket can share a port with a listener.
    """
    held = socket.socket(socket.AF_INET, _KINDS[proto] | socket.SOCK_CLOEXEC)
    with contextlib.ExitStack() as undo:
        undo.callback(held.close)
        try:
            held.bind((host_ip, port))
        except OSError as err:
            if err.errno != errno.EADDRINUSE or proto != "tcp":
                raise
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            held.bind((host_ip, port))
            held.listen(0)
        undo.pop_all()
    return held
