"""The machine's one interface, configured by hand: the host's user-mode network never changes.

Source: QEMU, "Using the user mode network stack": .2 is the gateway and host, .3 the name server.
"""

import os
import time
from ipaddress import IPv4Address, IPv4Interface

from engine.kernel import netlink

INTERFACE = "eth0"
ADDRESS = "10.0.2.15/24"
GATEWAY = "10.0.2.2"
NAME_SERVER = "10.0.2.3"
_NETLINK_ROUTE = 0


def configure(*, timeout_s: float = 10.0) -> None:
    """Bring up loopback and the interface, with address and default route.

    Raises:
        TimeoutError: the interface did not appear.
        OSError: the kernel refused a step.
    """
    _wait_for(INTERFACE, timeout_s)
    with netlink.NetlinkSocket(_NETLINK_ROUTE) as socket:
        index = _index(INTERFACE)
        socket.transact([
            netlink.link_set(_index("lo"), up=True),
            netlink.addr_add(index, IPv4Interface(ADDRESS)),
            netlink.link_set(index, up=True),
            netlink.route_add(None, gateway=IPv4Address(GATEWAY), index=index),
        ])  # fmt: skip


def _index(name: str) -> int:
    with open(f"/sys/class/net/{name}/ifindex", encoding="ascii") as file:
        return int(file.read())


def _wait_for(name: str, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while not os.path.exists(f"/sys/class/net/{name}"):
        if time.monotonic() > deadline:
            raise TimeoutError(f"network interface {name} did not appear within {timeout_s:.0f} s")
        time.sleep(0.01)  # its driver is probing; no other event is there to wait for
