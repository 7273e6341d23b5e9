"""What the network service does to the kernel: namespaces, links, addresses, the nftables table.

Synchronous, and for one thread: `unshare` moves the calling thread into a
new network namespace, and every method brings it back to the host's before
it returns. The two long-lived netlink sockets belong to the host's namespace
from which `open` was called.

A namespace is pinned by a bind mount at RUN/netns/<container id>. The host's
end of a veth pair is named after its endpoint. So a look at the pins, at the
ports of our bridge and at our table finds all that a crash can leave.
"""

import contextlib
import errno
import logging
import os
import socket
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path

from engine.base import trace
from engine.base.errors import Conflict, NotSupported
from engine.kernel import conntrack, netlink, nftables
from engine.kernel.mount import MountFlag, UmountFlag, mount, umount2
from engine.kernel.netlink import Link, NetlinkSocket
from engine.kernel.process import CloneFlag, setns, unshare
from engine.networks import firewall
from engine.networks.firewall import Element
from engine.networks.ipam import mac_of

log = logging.getLogger(__name__)

LINK_PREFIX = "pe"
CONTAINER_LINK = "eth0"
_OWN_NAMESPACE = "/proc/thread-self/ns/net"
_SYSCTL = Path("/proc/sys/net")


@dataclass(frozen=True, slots=True)
class Attachment:
    """The veth pair that a container gets, and how its end is configured."""

    link: str  # name of the host's end
    address: IPv4Interface
    gateway: IPv4Address
    mac: str
    mtu: int
    hairpin: bool  # reach itself by its own published port


def link_name(endpoint_id: str) -> str:
    """Return the name of the host's end of an endpoint's veth pair (at most 15 characters)."""
    return LINK_PREFIX + endpoint_id[:12]


class Plumbing:
    """The kernel's side of one engine's networks."""

    def __init__(self, bridge: str, netns_dir: Path, *, isolate_host: bool = False) -> None:
        self.bridge = bridge
        self._netns_dir = netns_dir
        self._isolate_host = isolate_host
        self._close = contextlib.ExitStack()
        self._bridge_index = 0
        self._host_fd = -1

    def open(self) -> None:
        """Open the sockets.

        Raises:
            NotSupported: the kernel lacks netlink or nf_tables, or this process may not use them.
        """
        self._netns_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._host_fd = os.open(_OWN_NAMESPACE, os.O_RDONLY | os.O_CLOEXEC)
        self._close.callback(os.close, self._host_fd)
        try:
            self._route = self._close.enter_context(NetlinkSocket(netlink.NETLINK_ROUTE))
            self._nf = self._close.enter_context(NetlinkSocket(netlink.NETLINK_NETFILTER))
            nftables.tables(self._nf)
        except OSError as err:
            self.close()
            raise NotSupported(
                f"networks need netlink and nf_tables: {err}", hint="run the engine as root"
            ) from err

    def close(self) -> None:
        """Close the sockets; what was made stays."""
        self._close.close()

    # the bridge and the table

    def existing_bridge(self) -> tuple[Link, IPv4Interface | None] | None:
        """Return the bridge and its address, if it is there.

        Raises:
            Conflict: a link has its name and is no bridge.
        """
        link = self._link(self.bridge)
        if link is None:
            return None
        if link.kind != "bridge":
            raise Conflict(
                f"network interface {self.bridge} exists and is no bridge", hint="choose another --bridge"
            )
        for message in self._route.dump(netlink.addrs()):
            index, address = netlink.read_addr(message)
            if index == link.index:
                return link, address
        return link, None

    def routed_networks(self) -> list[IPv4Network]:
        """Return the networks that the host has routes to, other than by our bridge and by default."""
        own = self._link(self.bridge)
        routes = [netlink.read_route(message) for message in self._route.dump(netlink.routes())]
        return [
            route.destination
            for route in routes
            if route.destination.prefixlen and not route.destination.is_loopback
            if own is None or route.index != own.index
        ]

    def ensure_bridge(self, address: IPv4Interface) -> None:
        """Make the bridge with `address`, or give the existing one that address alone; forwarding on.

        Raises:
            NotSupported: the kernel has no bridges, or this process may not make one.
        """
        try:
            existing = self.existing_bridge()
            if existing is None:
                self._route.transact([netlink.link_add_bridge(self.bridge, mac=mac_of(address.ip))])
            answers = self._route.transact([netlink.link_get(self.bridge)])
            link = netlink.read_link(answers[0][0])
            # Before the address, so that the bridge never gets a link-local one: isolation is IPv4's.
            _sysctl("ipv6", "conf", self.bridge, "disable_ipv6", value="1", optional=True)
            before = existing[1] if existing else None
            if before is not None and before != address:
                self._route.transact([netlink.addr_del(link.index, before)])
            if before != address:
                self._route.transact([netlink.addr_add(link.index, address)])
            self._route.transact([netlink.link_set(link.index, up=True)])
            _sysctl("ipv4", "conf", self.bridge, "route_localnet", value="1")
            self.ensure_forwarding()
        except OSError as err:
            raise NotSupported(
                f"cannot set up bridge {self.bridge}: {err}", hint="run the engine as root"
            ) from err
        self._bridge_index = link.index

    def ensure_forwarding(self) -> None:
        """Have the host route packets between its links."""
        if (_SYSCTL / "ipv4/ip_forward").read_text().strip() == "0":
            log.info("turning net.ipv4.ip_forward on: containers need it")
            _sysctl("ipv4", "ip_forward", value="1")

    def install(self, subnet: IPv4Network, elements: Iterable[Element]) -> None:
        """Install the table with `elements`, in place of what is there, in one transaction."""
        nftables.commit(
            self._nf, firewall.plan(self.bridge, subnet, elements, isolate_host=self._isolate_host)
        )

    def blocking_chains(self) -> list[str]:
        """Return whose chains drop forwarded packets by policy."""
        return firewall.blocking_chains(self._nf)

    @property
    def nf_port(self) -> int:
        """The netlink port of our own changes to the table."""
        return self._nf.port

    # sandboxes

    def attach(self, pin: Path, attachment: Attachment, elements: Collection[Element]) -> None:
        """Make a namespace pinned at `pin` whose eth0 is a port of the bridge, and publish `elements`.

        On failure nothing is left.

        Raises:
            OSError: a step failed, named; ENODEV when the bridge has gone,
                ENOENT when the table has.
        """
        with contextlib.ExitStack() as undo:
            undo.callback(self.unpin, pin)
            with self._new_namespace(pin) as netns_fd, NetlinkSocket(netlink.NETLINK_ROUTE) as inside:
                # eth0 speaks IPv4 only, and takes no router's advice.
                _sysctl("ipv6", "conf", "default", "disable_ipv6", value="1", optional=True)
                with trace.span("network", "veth"):
                    self._add_veth(attachment, netns_fd)
                with trace.span("network", "address and route"):
                    _configure(inside, attachment)
            if elements:
                with trace.span("network", "publish"):
                    self.publish(elements)
            undo.pop_all()

    def make_empty(self, pin: Path) -> None:
        """Make a namespace pinned at `pin` with nothing but its loopback."""
        with contextlib.ExitStack() as undo:
            undo.callback(self.unpin, pin)
            with self._new_namespace(pin), NetlinkSocket(netlink.NETLINK_ROUTE) as inside:
                inside.transact([netlink.link_set(netlink.LOOPBACK_INDEX, up=True)])
            undo.pop_all()

    def publish(self, elements: Collection[Element]) -> None:
        """Put elements into the maps."""
        nftables.commit(self._nf, firewall.publish(self.bridge, elements))

    def withdraw(self, elements: Collection[Element]) -> None:
        """Take elements out of the maps; those that are not there are no error."""
        for element in elements:
            with contextlib.suppress(FileNotFoundError):
                nftables.commit(self._nf, firewall.withdraw(self.bridge, [element]))

    def unpin(self, pin: Path) -> None:
        """Drop the pin of a namespace; the kernel takes it down, links and all, once nothing is in it."""
        with contextlib.suppress(FileNotFoundError):
            with contextlib.suppress(OSError):  # EINVAL: not mounted any more
                umount2(pin, UmountFlag.DETACH)
            pin.unlink()

    def remove_link(self, name: str) -> None:
        """Remove a link, if the kernel has not done so with its namespace."""
        try:
            self._route.transact([netlink.link_del(0, name=name)])
        except OSError as err:
            if err.errno != errno.ENODEV:
                log.warning("cannot remove a link that is no longer used: %s", err)

    # what is there

    def pins(self) -> list[Path]:
        """Return every pin of this engine."""
        return sorted(self._netns_dir.iterdir())

    def links(self) -> list[str]:
        """Return the host's ends of this engine's veth pairs."""
        found = (netlink.read_link(message) for message in self._route.dump(netlink.links()))
        return [
            link.name
            for link in found
            if link.master == self._bridge_index
            if link.kind == "veth" and link.name.startswith(LINK_PREFIX)
        ]

    def elements(self) -> set[Element]:
        """Return the published ports that are in the maps; none when the table is gone."""
        try:
            return firewall.installed(self._nf, self.bridge)
        except FileNotFoundError:
            return set()

    def destroy(self) -> None:
        """Remove the table and the bridge: for an engine that is uninstalled."""
        with contextlib.suppress(FileNotFoundError):
            nftables.commit(self._nf, [nftables.table_del(firewall.table_name(self.bridge))])
        self.remove_link(self.bridge)

    def forget_flows(self, elements: Collection[Element]) -> None:
        """Forget UDP flows that would go on past a change: to the old container, or to no container.

        The kernel walks its whole table for the list, which takes 5 ms: not for the hot path.
        """
        ports = {element.udp_port for element in elements} - {0}
        if not ports:
            return
        addresses = {element.address for element in elements}
        try:
            stale = [
                each
                for each in conntrack.connections(self._nf)
                if each.original.proto == socket.IPPROTO_UDP and each.original.destination_port in ports
                if each.reply.source in addresses or not each.translated
            ]
            conntrack.forget(self._nf, stale)
        except OSError as err:
            log.warning("udp clients of before may have to reconnect: %s", err)

    def _link(self, name: str) -> Link | None:
        try:
            answers = self._route.transact([netlink.link_get(name)])
        except OSError as err:
            if err.errno == errno.ENODEV:
                return None
            raise
        return netlink.read_link(answers[0][0])

    def _add_veth(self, attachment: Attachment, netns_fd: int) -> None:
        request = netlink.link_add_veth(
            attachment.link,
            master=self._bridge_index,
            peer=CONTAINER_LINK,
            peer_netns_fd=netns_fd,
            peer_mac=attachment.mac,
            mtu=attachment.mtu,
        )
        requests = [request]
        if attachment.hairpin:
            # Where the module br_netfilter is loaded (docker loads it), a packet that is translated
            # back to its sender is bridged, not routed, and a bridge does not send a frame back.
            requests.append(netlink.link_set_hairpin(attachment.link))
        self._route.transact(requests)

    @contextlib.contextmanager
    def _new_namespace(self, pin: Path) -> Iterator[int]:
        """Run the body in a new namespace, pinned at `pin`; yields a descriptor of it."""
        os.close(os.open(pin, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        with trace.span("network", "namespace"):
            unshare(CloneFlag.NEWNET)
        try:
            netns_fd = os.open(_OWN_NAMESPACE, os.O_RDONLY | os.O_CLOEXEC)
            try:
                mount(_OWN_NAMESPACE, pin, None, MountFlag.BIND)
                yield netns_fd
            finally:
                os.close(netns_fd)
        finally:
            setns(self._host_fd, CloneFlag.NEWNET)


def _configure(inside: NetlinkSocket, attachment: Attachment) -> None:
    """Bring lo and eth0 up, with address and default route, from a socket in the namespace."""
    answers = inside.transact(
        [netlink.link_set(netlink.LOOPBACK_INDEX, up=True), netlink.link_get(CONTAINER_LINK)]
    )
    index = netlink.read_link(answers[1][0]).index
    inside.transact(
        [
            netlink.link_set(index, up=True),
            netlink.addr_add(index, attachment.address),
            netlink.route_add(None, gateway=attachment.gateway, index=index),
        ]
    )


def _sysctl(*names: str, value: str, optional: bool = False) -> None:
    """Set net.<names>; `optional`: the kernel may lack it (IPv6)."""
    path = _SYSCTL.joinpath(*names)
    try:
        if path.read_text().strip() != value:  # where /proc/sys is read-only, it may be right already
            path.write_text(value)
    except FileNotFoundError:
        if not optional:
            raise
