"""The networks of one engine: a default bridge, host and none; user-defined ones come later.

`NetworkService` keeps what is true about each sandbox and decides in which
order things happen; what they do to the kernel is in `plumbing`, the rules in
`firewall`. Everything blocking runs on one thread of the service's own, in
the order it was asked for.

A sandbox on the bridge is made so::

    lease an address -> bind the ports of the host -> (in a machine: ask its host) -> queue the record
        -> [thread] namespace, veth, address, route -> [thread] map elements

and taken away in the other order. The kernel removes the veth pair with the
namespace, a moment later; a link that then still lives (another container
shares the namespace) is removed by name.
"""

import asyncio
import contextlib
import contextvars
import logging
import time
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv4Interface
from pathlib import Path
from typing import Any, TypeVar

from engine.base import ids, trace
from engine.base.database import Database
from engine.base.errors import AlreadyExists, Denied, EngineError, InvalidArgument, NotFound, NotSupported
from engine.base.paths import Run
from engine.networks import documents, firewall, guard, ipam, portmap
from engine.networks.firewall import Element
from engine.networks.hostports import HostPorts
from engine.networks.ledger import Ledger, NetworkRow, Record
from engine.networks.model import (
    BRIDGE,
    CONTAINER_PREFIX,
    DEFAULT_MODES,
    HOST,
    NONE,
    Endpoint,
    Network,
    PortBinding,
    Sandbox,
    SandboxRequest,
    check_bridge_name,
    check_mac,
)
from engine.networks.plumbing import Attachment, Plumbing, link_name
from engine.networks.portmap import Reservation
from engine.networks.publishing import Publisher

log = logging.getLogger(__name__)
T = TypeVar("T")

DEFAULT_BRIDGE = "pyengine0"
_LINGER_S = 2.0  # how long the kernel may take to remove the links of a namespace that nobody uses
_PREDEFINED = (BRIDGE, HOST, NONE)


@dataclass(slots=True)
class _Active:
    """One sandbox, and what must be given back with it."""

    record: Record
    reservation: Reservation
    elements: tuple[Element, ...] = ()


class NetworkService:
    """Gives each running container its network, and takes it away without leaving a trace.

    `open` first, then `recover`, then the rest. All methods are for one event
    loop; blocking work runs on one thread of the service's own.
    """

    def __init__(
        self,
        database: Database,
        run: Run,
        *,
        bridge: str = DEFAULT_BRIDGE,
        bip: str = "",
        host_ports: HostPorts | None = None,
        isolate_host: bool = False,
    ) -> None:
        """Remember how to set the networks up.

        Args:
            database: the engine's; the tables `network...` are ours.
            run: namespaces are pinned at `run.netns`/<container id>.
            bridge: interface of the default network, at most 15 characters;
                engines side by side need different ones.
            bip: "172.30.0.1/24", the bridge's address and subnet; "": the
                subnet of last time, or the first of docker's pools that no
                route of the host overlaps.
            host_ports: inside a machine, the way to ask its host for ports.
            isolate_host: inside a machine, keep containers away from the
                machine's services and from the host's loopback (10.0.2.2).
        """
        self._run = run
        self._bridge = bridge
        self._bip = bip
        self._publisher = Publisher(host_ports)
        self._ledger = Ledger(database)
        self._plumbing = Plumbing(bridge, run.netns, isolate_host=isolate_host)
        self._guard = guard.Guard(self._restore_table)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="network")
        self._active: dict[str, _Active] = {}
        self._lingering: dict[str, asyncio.TimerHandle] = {}
        self._rows: dict[str, NetworkRow] = {}
        self._closed = False

    async def open(self) -> None:
        """Make or adopt the bridge, install the nftables table, turn forwarding on.

        Published ports of sandboxes on record work on without a gap; `recover`
        then sorts out which of those are still used.

        Raises:
            InvalidArgument: the bridge's name or `bip` is malformed.
            Conflict: `bip` overlaps a route of the host, or the name is taken by a link that is no bridge.
            NotSupported: this process may not, or the kernel cannot, do networks.
        """
        try:
            await self._open()
        except BaseException:
            await self.close()
            raise

    async def _open(self) -> None:
        check_bridge_name(self._bridge)
        bip = ipam.parse_bip(self._bip) if self._bip else None
        self._ledger.open()
        address = await self._on_thread(self._open_bridge, bip, self._ledger.network(BRIDGE))
        await self._open_rows(address)
        self.network = Network(
            self._rows[BRIDGE].network_id,
            self._bridge,
            address.network,
            address.ip,
            self._rows[BRIDGE].created_ns,
        )
        self._pool = ipam.Pool(self.network.subnet, self.network.gateway)
        self._restore_records()
        await self._on_thread(self._plumbing.install, self.network.subnet, self._elements())
        for chain in await self._on_thread(self._plumbing.blocking_chains):
            log.warning("nftables chain %s drops forwarded packets: containers may have no network", chain)
        self._guard.open(firewall.table_name(self._bridge), self._plumbing.nf_port)

    async def close(self) -> None:
        """Stop; containers keep their networks, but their host ports are not reserved. Harmless twice."""
        if self._closed:
            return
        self._closed = True
        self._guard.close()
        for name, timer in self._lingering.items():
            timer.cancel()
            await self._on_thread(self._plumbing.remove_link, name)
        self._lingering.clear()
        for active in self._active.values():
            active.reservation.close()
        await self._publisher.close()
        await self._on_thread(self._plumbing.close)
        self._thread.shutdown()

    async def destroy(self) -> None:
        """Remove the bridge and the table: for an engine that is uninstalled, after its last `release`."""
        self._guard.close()
        await self._on_thread(self._plumbing.destroy)

    async def connect(self, container_id: str, request: SandboxRequest) -> Sandbox:
        """Make the sandbox of a container that is about to start; nothing is left behind on failure.

        A container that still has a sandbox (its release was lost) gets a new one.

        Raises:
            InvalidArgument: ports outside bridge mode, or a malformed address.
            Conflict: a port of the host is taken; the text is docker's
                ("driver failed programming external connectivity on endpoint ...").
            NotFound: "network", for an unknown network; "container", for a
                `container:` mode whose target has no sandbox.
            OutOfSpace: the network has no free address.
        """
        with trace.span("network", "connect"):
            if container_id in self._active:
                await self.release(container_id)
            if request.ports and request.mode not in DEFAULT_MODES:
                raise InvalidArgument(
                    f"conflicting options: port publishing and the network mode {request.mode}"
                )
            if request.mode in DEFAULT_MODES:
                return await self._connect_bridge(container_id, request)
            if request.mode.startswith(CONTAINER_PREFIX):
                return self._share(container_id, request)
            if request.mode not in _PREDEFINED:
                raise NotFound("network", request.mode)
            return await self._connect_plain(container_id, request)

    async def release(self, container_id: str) -> None:
        """Take the container's network away; harmless when it has none, or twice."""
        active = self._active.pop(container_id, None)
        if active is None:
            return
        with trace.span("network", "release"):
            try:
                await self._take_down(active)
            finally:
                self._give_back(active)
                self._ledger.forget(container_id)
            await self._publisher.withdraw(container_id, active.record.ports, active.record.guest_ports)

    async def recover(self, live: Collection[str]) -> None:
        """After a start of the daemon: keep what the containers `live` use, remove all else that is ours.

        Published ports of live containers were reserved again by `open`; one
        that was taken meanwhile is logged and still forwarded.
        """
        for container_id in [each for each in self._active if each not in live]:
            await self.release(container_id)
        pins = {Path(active.record.netns) for active in self._active.values() if active.record.netns}
        links = {endpoint.link for active in self._active.values() for endpoint in active.record.endpoints}
        await self._on_thread(self._sweep, pins, links)
        for container_id in live:
            if container_id not in self._active:
                log.warning("no network is on record for the running container %s", ids.short(container_id))

    def sandbox(self, container_id: str) -> Sandbox | None:
        """Return the sandbox of a running container, also after a restart of the daemon (once recovered)."""
        active = self._active.get(container_id)
        return active.record.sandbox(container_id) if active else None

    def list(self) -> list[dict[str, Any]]:
        """Return bridge, host and none, as GET /networks shows them (no `Containers`)."""
        return [{**self.inspect(name), "Containers": {}} for name in _PREDEFINED]

    def inspect(self, name: str) -> dict[str, Any]:
        """Return one network by name, id or short id, as GET /networks/{id} shows it.

        Raises:
            NotFound: "network".
        """
        name = self._resolve(name)
        if name == BRIDGE:
            return documents.bridge_document(self.network, self._members(name))
        row = self._rows[name]
        return documents.plain_document(name, row.network_id, row.created_ns, self._members(name))

    def create(self, name: str) -> None:
        """Refuse: user-defined networks are not there yet.

        Raises:
            AlreadyExists: for the names of the three that exist.
            NotSupported: for any other.
        """
        if name in _PREDEFINED:
            raise AlreadyExists(f"network with name {name} already exists")
        raise NotSupported(
            f"cannot create network {name}: user-defined networks are not supported yet",
            hint="use the networks bridge, host or none",
        )

    def remove(self, name: str) -> None:
        """Refuse: the three networks that exist are never removed.

        Raises:
            Denied: for the three, in docker's words.
            NotFound: for any other.
        """
        raise Denied(f"{self._resolve(name)} is a pre-defined network and cannot be removed")

    # opening

    def _open_bridge(self, bip: IPv4Interface | None, row: NetworkRow | None) -> IPv4Interface:
        plumbing = self._plumbing
        plumbing.open()
        existing = plumbing.existing_bridge()
        last = row.address if row and row.bridge == self._bridge else None
        if existing and existing[1] and (bip is None or existing[1] == bip):
            address = existing[1]  # containers that outlived a daemon are on it
        else:
            address = ipam.choose(bip, last, plumbing.routed_networks())
        plumbing.ensure_bridge(address)
        return address

    async def _open_rows(self, address: IPv4Interface) -> None:
        for name in _PREDEFINED:
            row = self._ledger.network(name)
            wanted = address if name == BRIDGE else None
            bridge = self._bridge if name == BRIDGE else ""
            if row is None or (row.bridge, row.address) != (bridge, wanted):
                row = NetworkRow(row.network_id if row else ids.new_id(), bridge, wanted, time.time_ns())
                await asyncio.wrap_future(self._ledger.save_network(name, row))
            self._rows[name] = row

    def _restore_records(self) -> None:
        """Take the sandboxes on record over, with their addresses and ports."""
        for container_id, record in self._ledger.records().items():
            try:
                for endpoint in record.endpoints:
                    if endpoint.ipv4:
                        self._pool.lease(IPv4Address(endpoint.ipv4))
            except EngineError as err:  # the subnet is another one now
                log.warning("dropping the network record of %s: %s", ids.short(container_id), err)
                self._ledger.forget(container_id)
                continue
            address = next((endpoint.ipv4 for endpoint in record.endpoints), "")
            reservation = portmap.restore(record.guest_ports, address)
            elements = _elements(record.guest_ports, address)
            self._active[container_id] = _Active(record, reservation, elements)

    # connecting

    async def _connect_bridge(self, container_id: str, request: SandboxRequest) -> Sandbox:
        async with contextlib.AsyncExitStack() as undo:
            address = self._pool.lease(_address(request.ipv4))
            undo.callback(self._pool.give_back, address)
            endpoint = self._endpoint(address, request)
            name = request.container_name
            with trace.span("network", "bind ports"):
                taken = [binding for other in self._active.values() for binding in other.record.ports]
                reservation = self._publisher.reserve(request.ports, endpoint, name, taken)
            undo.callback(reservation.close)
            inside = tuple(reservation.bindings)
            ports = await self._publisher.publish(container_id, request.ports, inside, endpoint, name)
            undo.push_async_callback(self._publisher.withdraw, container_id, ports, inside)
            record = Record(name, BRIDGE, str(self._pin(container_id)), (endpoint,), ports, inside)
            active = _Active(record, reservation, _elements(inside, endpoint.ipv4))
            self._active[container_id] = active
            undo.callback(self._active.pop, container_id, None)
            undo.callback(self._ledger.forget, container_id)
            saved = self._ledger.save(container_id, record)  # synced while the kernel works
            await self._attach(container_id, active, endpoint)
            await self._durable(container_id, active, saved)
            undo.pop_all()
        self._forget_flows(active)
        return record.sandbox(container_id)

    async def _attach(self, container_id: str, active: _Active, endpoint: Endpoint) -> None:
        attachment = Attachment(
            endpoint.link,
            IPv4Interface((endpoint.ipv4, endpoint.prefix)),
            self.network.gateway,
            endpoint.mac,
            self.network.mtu,
            hairpin=bool(active.elements),
        )
        try:
            await self._on_thread(
                self._attach_on_thread, self._pin(container_id), attachment, active.elements
            )
        except asyncio.CancelledError:
            await self._take_down(active)  # the thread finished its work before the cancellation got here
            raise
        except OSError as err:
            raise EngineError(f"cannot set up the network of {ids.short(container_id)}: {err}") from err

    def _attach_on_thread(self, pin: Path, attachment: Attachment, elements: tuple[Element, ...]) -> None:
        """Attach; when the bridge or the table was removed by somebody, put it back and try once more."""
        plumbing = self._plumbing
        plumbing.ensure_forwarding()
        plumbing.unpin(pin)  # of an earlier run whose release was lost
        try:
            plumbing.attach(pin, attachment, elements)
        except OSError as err:
            log.warning("restoring bridge and rules: %s", err)
            plumbing.ensure_bridge(IPv4Interface((self.network.gateway, self.network.subnet.prefixlen)))
            plumbing.install(self.network.subnet, self._elements(without=elements))
            plumbing.attach(pin, attachment, elements)

    async def _connect_plain(self, container_id: str, request: SandboxRequest) -> Sandbox:
        name = request.mode
        endpoint = Endpoint(name, self._rows[name].network_id, ids.new_id(), "", 0, "", "")
        pin = self._pin(container_id)
        record = Record(request.container_name, name, "" if name == HOST else str(pin), (endpoint,), (), ())
        active = _Active(record, Reservation())
        if name == NONE:
            try:
                await self._on_thread(self._make_empty_on_thread, pin)
            except asyncio.CancelledError:
                await self._take_down(active)
                raise
        await self._durable(container_id, active, self._ledger.save(container_id, record))
        self._active[container_id] = active
        return record.sandbox(container_id)

    async def _durable(self, container_id: str, active: _Active, saved: Future[None]) -> None:
        """Wait for the record; if it cannot be had, take down what it describes."""
        try:
            # Shielded: the database resolves the future, cancelled or not.
            await asyncio.shield(asyncio.wrap_future(saved))
        except BaseException:
            await self._take_down(active)
            self._ledger.forget(container_id)
            raise

    def _make_empty_on_thread(self, pin: Path) -> None:
        self._plumbing.unpin(pin)
        self._plumbing.make_empty(pin)

    def _share(self, container_id: str, request: SandboxRequest) -> Sandbox:
        target = request.mode.removeprefix(CONTAINER_PREFIX)
        owner = self.sandbox(target)
        if owner is None:
            raise NotFound("container", target, hint="it must be running for its network to be shared")
        # No record and nothing to release: the namespace is its owner's.
        return Sandbox(container_id, request.mode, owner.netns_path)

    # taking down

    async def _take_down(self, active: _Active) -> None:
        record = active.record
        if not record.netns:
            return
        await self._on_thread(self._take_down_on_thread, Path(record.netns), active.elements)
        self._forget_flows(active)
        for endpoint in record.endpoints:
            if endpoint.link:
                timer = asyncio.get_running_loop().call_later(_LINGER_S, self._remove_link, endpoint.link)
                self._lingering[endpoint.link] = timer

    def _forget_flows(self, active: _Active) -> None:
        if any(element.udp_port for element in active.elements):
            self._submit(self._plumbing.forget_flows, active.elements)

    def _take_down_on_thread(self, pin: Path, elements: tuple[Element, ...]) -> None:
        self._plumbing.withdraw(elements)
        self._plumbing.unpin(pin)

    def _remove_link(self, name: str) -> None:
        del self._lingering[name]
        self._submit(self._plumbing.remove_link, name)

    def _give_back(self, active: _Active) -> None:
        active.reservation.close()
        for endpoint in active.record.endpoints:
            if endpoint.ipv4:
                self._pool.give_back(IPv4Address(endpoint.ipv4))

    def _sweep(self, pins: set[Path], links: set[str]) -> None:
        """Remove what no record explains: left by a daemon that was killed half-way."""
        for pin in self._plumbing.pins():
            if pin not in pins:
                log.info("removing a network namespace that nobody uses: %s", pin.name)
                self._plumbing.unpin(pin)
        for link in self._plumbing.links():
            if link not in links:
                log.info("removing a link that nobody uses: %s", link)
                self._plumbing.remove_link(link)

    # small things

    def _restore_table(self) -> None:
        """Put the rules back after somebody flushed them; called by the guard, in the event loop."""
        log.warning(
            "the nftables table %s was changed by others: restoring it", firewall.table_name(self._bridge)
        )
        self._submit(self._plumbing.install, self.network.subnet, self._elements())

    def _elements(self, *, without: Collection[Element] = ()) -> tuple[Element, ...]:
        found = (element for active in tuple(self._active.values()) for element in active.elements)
        return tuple(element for element in found if element not in without)

    def _endpoint(self, address: IPv4Address, request: SandboxRequest) -> Endpoint:
        endpoint_id = ids.new_id()
        return Endpoint(
            BRIDGE,
            self.network.network_id,
            endpoint_id,
            str(address),
            self.network.subnet.prefixlen,
            str(self.network.gateway),
            check_mac(request.mac) if request.mac else ipam.mac_of(address),
            link_name(endpoint_id),
        )

    def _pin(self, container_id: str) -> Path:
        if not ids.is_id(container_id):
            raise InvalidArgument(f"invalid container id: {container_id!r}")
        return self._run.netns / container_id

    def _members(self, network: str) -> Iterator[tuple[str, str, Endpoint]]:
        for container_id, active in self._active.items():
            for endpoint in active.record.endpoints:
                if endpoint.network == network:
                    yield container_id, active.record.container_name, endpoint

    def _resolve(self, name: str) -> str:
        if name in _PREDEFINED:
            return name
        found = [each for each, row in self._rows.items() if name and row.network_id.startswith(name)]
        if len(found) != 1:
            raise NotFound("network", name)
        return found[0]

    def _submit(self, work: Callable[..., None], *args: object) -> None:
        """Run `work` on the service's thread some time; a failure is logged."""
        self._thread.submit(work, *args).add_done_callback(_log_failure)

    async def _on_thread(self, work: Callable[..., T], *args: object) -> T:
        """Run `work` on the service's thread; it is finished when this returns, also by cancellation."""
        call = contextvars.copy_context().run
        job = asyncio.get_running_loop().run_in_executor(self._thread, call, work, *args)
        try:
            return await asyncio.shield(job)
        except asyncio.CancelledError:
            await asyncio.wait([job])
            if not job.cancelled():
                job.exception()  # seen: the cancellation is what the caller learns
            raise


def _elements(bindings: Collection[PortBinding], address: str) -> tuple[Element, ...]:
    return tuple(firewall.element(binding, IPv4Address(address)) for binding in bindings)


def _address(text: str) -> IPv4Address | None:
    try:
        return IPv4Address(text) if text else None
    except AddressValueError as err:
        raise InvalidArgument(f"invalid ip address: {text!r}") from err


def _log_failure(done: Future[None]) -> None:
    err = done.exception()
    if err is not None:
        log.error("network: %s", err)
