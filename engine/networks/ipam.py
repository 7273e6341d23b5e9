"""Which address of a network belongs to which container.

The pool in memory decides; the service keeps a row for each lease, so that a
restarted daemon starts from the same set. Free addresses are handed out in
turn (next fit), not lowest first: an address that was just given back may
still be in a neighbour's ARP cache or in a tracked connection.
"""

from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from engine.base.errors import AlreadyExists, Conflict, InvalidArgument, OutOfSpace

# Docker's default address pools.
POOLS = (
    *(IPv4Network(f"172.{second}.0.0/16") for second in range(17, 32)),
    *(IPv4Network(f"192.168.{third}.0/20") for third in range(0, 256, 16)),
)
_SMALLEST_PREFIX = 29


class Pool:
    """The addresses of one network."""

    def __init__(self, subnet: IPv4Network, gateway: IPv4Address) -> None:
        self.subnet = subnet
        self._first = int(subnet.network_address) + 1
        self._last = int(subnet.broadcast_address) - 1
        self._used = {int(gateway)}
        self._next = self._first
        self._reserved = len(self._used)

    def __len__(self) -> int:
        """Return how many addresses are leased."""
        return len(self._used) - self._reserved

    def lease(self, wanted: IPv4Address | None = None) -> IPv4Address:
        """Return a free address, or `wanted`, which is then taken until `give_back`.

        Raises:
            InvalidArgument: `wanted` is not an address for containers of this network.
            AlreadyExists: `wanted` is taken.
            OutOfSpace: none is free.
        """
        if wanted is not None:
            return self._lease_exactly(wanted)
        size = self._last - self._first + 1
        if len(self._used) >= size:
            raise OutOfSpace(
                f"no available IPv4 addresses on this network's address pools: {self.subnet}",
                hint="remove containers, or start the engine with a larger --bip",
            )
        number = self._next
        while number in self._used:
            number = self._after(number)
        self._used.add(number)
        self._next = self._after(number)
        return IPv4Address(number)

    def give_back(self, address: IPv4Address) -> None:
        """Make a leased address free again; harmless when it is."""
        self._used.discard(int(address))

    def _lease_exactly(self, wanted: IPv4Address) -> IPv4Address:
        number = int(wanted)
        if not self._first <= number <= self._last:
            raise InvalidArgument(f"invalid address {wanted}: it does not belong to subnet {self.subnet}")
        if number in self._used:
            raise AlreadyExists(f"address already in use: {wanted}")
        self._used.add(number)
        return wanted

    def _after(self, number: int) -> int:
        return self._first if number >= self._last else number + 1


def parse_bip(text: str) -> IPv4Interface:
    """Return the bridge's address and subnet.

    Raises:
        InvalidArgument: not of the form ADDRESS/PREFIX, or too small, or the subnet's own address.
    """
    try:
        interface = IPv4Interface(text)
    except ValueError as err:
        raise InvalidArgument(f"invalid bip: {text!r}", hint="write it as 172.30.0.1/24") from err
    network = interface.network
    if not 1 <= network.prefixlen <= _SMALLEST_PREFIX or interface.ip in (
        network.network_address,
        network.broadcast_address,
    ):
        raise InvalidArgument(
            f"invalid bip: {text!r}", hint="write the address of the bridge, as in 172.30.0.1/24"
        )
    return interface


def choose(bip: IPv4Interface | None, last: IPv4Interface | None, taken: list[IPv4Network]) -> IPv4Interface:
    """Return the bridge's address and subnet.

    Args:
        bip: what was asked for.
        last: what it was last time, kept if it is still free.
        taken: networks that the host has routes to.

    Raises:
        Conflict: `bip` overlaps one of them.
        OutOfSpace: all of docker's pools do.
    """
    if bip is not None:
        for other in taken:
            if bip.network.overlaps(other):
                raise Conflict(f"bip {bip} overlaps the host's route to {other}", hint="choose another --bip")
        return bip
    candidates = [IPv4Interface((network.network_address + 1, network.prefixlen)) for network in POOLS]
    for candidate in [last, *candidates] if last else candidates:
        if not any(candidate.network.overlaps(other) for other in taken):
            return candidate
    raise OutOfSpace(
        "no free subnet for the default bridge: the host has routes to all of them",
        hint="give one with --bip",
    )


def mac_of(address: IPv4Address) -> str:
    """Return the hardware address that docker gives the owner of `address`."""
    return "02:42:" + address.packed.hex(":")
