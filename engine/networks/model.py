"""What a container asks of the network, and what it gets.

A *sandbox* is the network namespace of one running container with everything
that leads there; an *endpoint* is its place on one network. A sandbox lives
from `connect` (before the start) to `release` (after the exit); a container
that is not running has none.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from engine.base.errors import InvalidArgument

BRIDGE = "bridge"
HOST = "host"
NONE = "none"
CONTAINER_PREFIX = "container:"
DEFAULT_MODES = frozenset({"", "default", BRIDGE})
PROTOCOLS = frozenset({"tcp", "udp"})
PORT_MAX = 65535
ANY_ADDRESS = "0.0.0.0"  # noqa: S104 (what docker calls all addresses; nothing is bound here)
_BRIDGE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,14}\Z", re.ASCII)  # IFNAMSIZ, and no path
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}\Z", re.ASCII)


@dataclass(frozen=True, slots=True)
class PortMapping:
    """One port to publish, as asked for; ranges come expanded.

    Attributes:
        container_port: where the container listens.
        proto: "tcp" or "udp".
        host_ip: address of the host to listen at; "" or "0.0.0.0": all of them.
        host_port: None or 0: any free one.
    """

    container_port: int
    proto: str = "tcp"
    host_ip: str = ""
    host_port: int | None = None

    def __post_init__(self) -> None:
        if self.proto not in PROTOCOLS:
            raise InvalidArgument(f"invalid proto: {self.proto}", hint="publish tcp or udp ports")
        if not 1 <= self.container_port <= PORT_MAX or not 0 <= (self.host_port or 0) <= PORT_MAX:
            raise InvalidArgument(f"invalid port: {self.host_port or ''}:{self.container_port}")


@dataclass(frozen=True, slots=True)
class PortBinding:
    """One port that is published now."""

    container_port: int
    proto: str
    host_ip: str  # "0.0.0.0" when all addresses were asked for
    host_port: int


@dataclass(frozen=True, slots=True)
class SandboxRequest:
    """What a container wants of the network.

    Attributes:
        mode: docker's NetworkMode: "" or "default" or "bridge", "host",
            "none", "container:<whole id of a container that has a sandbox>".
        ports: what to publish; refused unless the mode is bridge.
        container_name: for inspect of the network and for messages.
        ipv4: an address of the network that the container must get; "": any free one.
        mac: hardware address of eth0; "": made from the address, as docker does.
    """

    mode: str = BRIDGE
    ports: Sequence[PortMapping] = ()
    container_name: str = ""
    ipv4: str = ""
    mac: str = ""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The place of a container on one network."""

    network: str  # "bridge"
    network_id: str
    endpoint_id: str
    ipv4: str  # "172.17.0.2"; "" for host and none
    prefix: int  # 16
    gateway: str  # "172.17.0.1"
    mac: str  # "02:42:ac:11:00:02"
    link: str = ""  # name of the host's end of the veth pair


@dataclass(frozen=True, slots=True)
class Sandbox:
    """The network of one running container."""

    container_id: str
    mode: str
    netns_path: Path | None  # None: the host's own
    endpoints: tuple[Endpoint, ...] = ()
    ports: tuple[PortBinding, ...] = ()


@dataclass(frozen=True, slots=True)
class Network:
    """The default bridge network as it was set up."""

    network_id: str
    bridge: str  # name of the bridge interface
    subnet: IPv4Network
    gateway: IPv4Address
    created_ns: int
    mtu: int = 1500


def check_bridge_name(name: str) -> str:
    """Return `name` if a network interface may have it.

    Raises:
        InvalidArgument: it may not.
    """
    if not _BRIDGE_NAME.match(name):
        raise InvalidArgument(f"invalid bridge name: {name!r}", hint="use at most 15 letters and digits")
    return name


def check_mac(text: str) -> str:
    """Return a hardware address in lower case.

    Raises:
        InvalidArgument: it is none, or a multicast one.
    """
    mac = text.lower().replace("-", ":")
    if not _MAC.match(mac) or int(mac[:2], 16) & 1:
        raise InvalidArgument(f"invalid mac address: {text!r}")
    return mac
