"""Publish ports: bind them here, and inside a machine have its host listen for them.

Natively the bound ports are what the user sees. Inside a machine the clash
that matters is on the machine's host, which is asked for each port; here any
port will do, and the host connects to it on this system's loopback.
"""

import contextlib
import logging
from collections.abc import Callable, Collection, Sequence

from engine.base.errors import Conflict, EngineError
from engine.networks.hostports import HostPorts
from engine.networks.model import ANY_ADDRESS, Endpoint, PortBinding, PortMapping
from engine.networks.portmap import Reservation

log = logging.getLogger(__name__)

_LOOPBACK = "127.0.0.1"


class Publisher:
    """Takes and gives back the ports of containers."""

    def __init__(self, host_ports: HostPorts | None) -> None:
        self._host_ports = host_ports

    @property
    def in_machine(self) -> bool:
        """Tell whether the bindings that users see are the host's."""
        return self._host_ports is not None

    async def close(self) -> None:
        """Close the connection to the host."""
        if self._host_ports is not None:
            await self._host_ports.close()

    def reserve(
        self,
        mappings: Sequence[PortMapping],
        endpoint: Endpoint,
        container_name: str,
        taken: Collection[PortBinding] = (),
    ) -> Reservation:
        """Bind the ports; all or none. `taken` are those of the other containers.

        Raises:
            Conflict: one is taken.
            Denied, InvalidArgument, NotSupported: one cannot be had (see `portmap`).
        """

        def failed(reason: str) -> str:
            return _failed(endpoint, container_name, reason)

        reservation = Reservation()
        with contextlib.ExitStack() as undo:
            undo.callback(reservation.close)
            for mapping in mappings:
                if self._host_ports is None:
                    _check_allocated(mapping, taken, failed)
                    reservation.add(mapping, endpoint.ipv4, failed=failed)
                    continue
                host_ip = "" if mapping.host_ip in {"", ANY_ADDRESS} else _LOOPBACK
                inside = PortMapping(mapping.container_port, mapping.proto, host_ip, mapping.host_port)
                try:
                    reservation.add(inside, endpoint.ipv4)
                except EngineError:
                    free = PortMapping(mapping.container_port, mapping.proto, host_ip)
                    reservation.add(free, endpoint.ipv4, failed=failed)
            undo.pop_all()
        return reservation

    async def publish(
        self,
        container_id: str,
        mappings: Sequence[PortMapping],
        inside: Sequence[PortBinding],
        endpoint: Endpoint,
        container_name: str,
    ) -> tuple[PortBinding, ...]:
        """Return the bindings that users see, having asked the host if there is one; all or none.

        Raises:
            Conflict: the host refused one, in its words.
            Unavailable: the host cannot be asked.
        """
        if self._host_ports is None:
            return tuple(inside)
        published: list[PortBinding] = []
        try:
            for mapping, here in zip(mappings, inside, strict=True):
                host_port = await self._host_ports.publish(
                    container_id, mapping.proto, mapping.host_ip, mapping.host_port or 0, here.host_port
                )
                host_ip = mapping.host_ip or _LOOPBACK
                published.append(PortBinding(mapping.container_port, mapping.proto, host_ip, host_port))
        except BaseException as err:
            await self.withdraw(container_id, published, inside)
            if isinstance(err, EngineError):
                raise type(err)(_failed(endpoint, container_name, str(err)), hint=err.hint) from err
            raise
        return tuple(published)

    async def withdraw(
        self, container_id: str, published: Sequence[PortBinding], inside: Sequence[PortBinding]
    ) -> None:
        """Have the host stop listening for what was published; a failure is logged."""
        if self._host_ports is None:
            return
        for binding, here in zip(published, inside, strict=False):
            try:
                await self._host_ports.unpublish(
                    container_id, binding.proto, binding.host_ip, binding.host_port, here.host_port
                )
            except EngineError as err:
                log.warning("the host may still listen on port %s: %s", binding.host_port, err)


def _check_allocated(
    mapping: PortMapping, taken: Collection[PortBinding], failed: Callable[[str], str]
) -> None:
    """Refuse a port of another container in the words that docker has for it, and that tools look for."""
    host_ip = mapping.host_ip or ANY_ADDRESS
    for other in taken:
        same_address = ANY_ADDRESS in {host_ip, other.host_ip} or host_ip == other.host_ip
        if same_address and (other.proto, other.host_port) == (mapping.proto, mapping.host_port):
            raise Conflict(failed(f"Bind for {host_ip}:{other.host_port} failed: port is already allocated"))


def _failed(endpoint: Endpoint, container_name: str, reason: str) -> str:
    return (
        "driver failed programming external connectivity on endpoint "
        f"{container_name} ({endpoint.endpoint_id}): {reason}"
    )
