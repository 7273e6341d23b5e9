"""The rules of one engine: one nftables table, planned here and installed as one transaction.

In nft's own language, for the bridge `pyengine0` with 172.17.0.0/16::

    table ip pyengine-pyengine0 {
      map ports_any  { type inet_proto . inet_service : ipv4_addr . inet_service }
      map ports_addr { type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service }
      chain raw { type filter hook prerouting priority raw
        iifname != "lo" ip daddr 127.0.0.0/8 drop          # 1
      }
      chain prerouting, output { type nat hook ... priority dstnat
        dnat to ip daddr . meta l4proto . th dport map @ports_addr
        fib daddr type local dnat to meta l4proto . th dport map @ports_any
      }
      chain postrouting { type nat hook postrouting priority srcnat
        oifname != "pyengine0" ip saddr 172.17.0.0/16 masquerade                 # outbound
        oifname "pyengine0" ip saddr 127.0.0.0/8 masquerade                      # from the host's loopback
        oifname "pyengine0" ip saddr 172.17.0.0/16 ct status dnat masquerade     # hairpin
      }
      chain forward { type filter hook forward priority filter
        iifname "pyengine0" accept
        oifname "pyengine0" ct state established,related accept
        oifname "pyengine0" ct status dnat accept
        oifname "pyengine0" drop                           # 2
      }
    }

1. The bridge routes 127/8 (route_localnet) so that a port is reachable on the
   host's loopback; without this rule so would be everything that listens
   there, for containers, and loopback-published ports for neighbours.
2. Only published ports are reachable from outside, also for a neighbour that
   routes the containers' subnet through this host.

A published port is an element of a map, not a rule, so a start costs the same
with one or with a thousand of them.

`accept` ends only this chain: a drop, or a policy of drop, in another table's
chain at the same hook still drops. `blocking_chains` finds those, to be told
in the log; nothing of others is changed.

With `isolate_host` (inside a machine) containers reach of the machine only
DNS and ping, and of the user-mode network only its DNS server: 10.0.2.2 there
is the loopback of the person's own computer.
"""

import itertools
import socket
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from engine.kernel import nftables as nft
from engine.kernel.netlink import NetlinkSocket, Request
from engine.networks.model import ANY_ADDRESS, PortBinding

PORTS_ANY = "ports_any"
PORTS_ADDR = "ports_addr"

_LOOPBACK = IPv4Network("127.0.0.0/8")
_USER_NETWORK = IPv4Network("10.0.2.0/24")  # of QEMU's user-mode network; .2 the host, .3 its DNS
_USER_DNS = IPv4Address("10.0.2.3")
_DNS_PORT = (53).to_bytes(2, "big")
_PROTOCOLS = {"tcp": socket.IPPROTO_TCP, "udp": socket.IPPROTO_UDP}
_PORT_KEY = struct.Struct(">BxxxHxx")
_ICMP_ECHO_REQUEST = b"\x08"

_TARGET = nft.concatenation(nft.TYPE_IPV4_ADDR, nft.TYPE_INET_SERVICE)
_MAPS = {
    PORTS_ANY: nft.MapType(nft.concatenation(nft.TYPE_INET_PROTO, nft.TYPE_INET_SERVICE), 8, _TARGET, 8),
    PORTS_ADDR: nft.MapType(
        nft.concatenation(nft.TYPE_IPV4_ADDR, nft.TYPE_INET_PROTO, nft.TYPE_INET_SERVICE), 12, _TARGET, 8
    ),
}


@dataclass(frozen=True, slots=True)
class Element:
    """One published port as the kernel sees it."""

    map: str
    key: bytes
    data: bytes

    @property
    def udp_port(self) -> int:
        """The port of the host, if it is one of UDP, else 0."""
        proto, port = _PORT_KEY.unpack(self.key[-_PORT_KEY.size :])
        return int(port) if proto == socket.IPPROTO_UDP else 0

    @property
    def address(self) -> IPv4Address:
        """The container's address."""
        return IPv4Address(self.data[:4])


def table_name(bridge: str) -> str:
    """Return the name of the table of the engine that owns `bridge`."""
    return f"pyengine-{bridge}"


def element(binding: PortBinding, address: IPv4Address) -> Element:
    """Return the map element that leads from `binding` to the container at `address`."""
    key = nft.port_key(_PROTOCOLS[binding.proto], binding.host_port)
    data = nft.address_port(address, binding.container_port)
    if binding.host_ip == ANY_ADDRESS:
        return Element(PORTS_ANY, key, data)
    return Element(PORTS_ADDR, IPv4Address(binding.host_ip).packed + key, data)


def plan(
    bridge: str, subnet: IPv4Network, elements: Iterable[Element] = (), *, isolate_host: bool = False
) -> list[Request]:
    """Return the transaction that installs the table, in place of one of the same name."""
    table = table_name(bridge)
    requests = [nft.table_add(table), nft.table_del(table), nft.table_add(table)]
    requests.extend(
        nft.map_add(table, name, kind, identity=identity)
        for identity, (name, kind) in enumerate(_MAPS.items(), start=1)
    )
    for chain, kind, hook, priority, rules in _chains(bridge, subnet, isolate_host=isolate_host):
        requests.append(nft.chain_add(table, chain, kind, hook, priority))
        requests.extend(nft.rule_add(table, chain, rule) for rule in rules)
    return requests + publish(bridge, elements)


def publish(bridge: str, elements: Iterable[Element]) -> list[Request]:
    """Return the requests that put `elements` into the maps."""
    table = table_name(bridge)
    return [
        nft.elements_add(table, name, [(item.key, item.data) for item in group])
        for name, group in _by_map(elements)
    ]


def withdraw(bridge: str, elements: Iterable[Element]) -> list[Request]:
    """Return the requests that take `elements` out of the maps."""
    table = table_name(bridge)
    return [nft.elements_del(table, name, [item.key for item in group]) for name, group in _by_map(elements)]


def installed(nfnetlink: NetlinkSocket, bridge: str) -> set[Element]:
    """Return the elements that are in the maps now.

    Raises:
        FileNotFoundError: the table is not there.
    """
    table = table_name(bridge)
    return {
        Element(name, key, data)
        for name in _MAPS
        for key, data in nft.elements(nfnetlink, table, name).items()
    }


def blocking_chains(nfnetlink: NetlinkSocket) -> list[str]:
    """Return the tables (with chain) whose policy drops forwarded packets, whatever our own table accepts."""
    return [
        f"{chain.table} {chain.name}"
        for chain in nft.base_chains(nfnetlink)
        if chain.hook is nft.Hook.FORWARD and chain.policy is nft.Verdict.DROP
    ]


def _by_map(elements: Iterable[Element]) -> Iterator[tuple[str, list[Element]]]:
    ordered = sorted(elements, key=lambda item: (item.map, item.key))
    for name, group in itertools.groupby(ordered, key=lambda item: item.map):
        yield name, list(group)


_Rule = tuple[bytes, ...]
_Chain = tuple[str, str, nft.Hook, nft.Priority, list[_Rule]]


def _chains(bridge: str, subnet: IPv4Network, *, isolate_host: bool) -> Iterator[_Chain]:
    accept, drop = nft.verdict(nft.Verdict.ACCEPT), nft.verdict(nft.Verdict.DROP)
    to_loopback = (*nft.meta_iifname("lo", negate=True), nft.ip_daddr(0), *nft.in_network(0, _LOOPBACK), drop)
    yield "raw", "filter", nft.Hook.PREROUTING, nft.Priority.RAW, [to_loopback]
    yield "prerouting", "nat", nft.Hook.PREROUTING, nft.Priority.DSTNAT, _translations()
    yield "output", "nat", nft.Hook.OUTPUT, nft.Priority.DSTNAT, _translations()

    leaving = nft.meta_oifname(bridge, negate=True)
    entering = nft.meta_oifname(bridge)
    from_containers = (nft.ip_saddr(0), *nft.in_network(0, subnet))
    masquerade = nft.masquerade()
    yield (
        "postrouting",
        "nat",
        nft.Hook.POSTROUTING,
        nft.Priority.SRCNAT,
        [
            (*leaving, *from_containers, masquerade),
            (*entering, nft.ip_saddr(0), *nft.in_network(0, _LOOPBACK), masquerade),
            (*entering, *from_containers, *nft.ct_was_dnatted(0), masquerade),
        ],
    )

    known = nft.ct_has_state(0, nft.CtState.ESTABLISHED | nft.CtState.RELATED)
    outbound = nft.meta_iifname(bridge)
    yield (
        "forward",
        "filter",
        nft.Hook.FORWARD,
        nft.Priority.FILTER,
        [
            *(_user_network_rules(bridge) if isolate_host else ()),
            (*outbound, accept),
            (*entering, *known, accept),
            (*entering, *nft.ct_was_dnatted(0), accept),
            (*entering, drop),
        ],
    )
    if isolate_host:
        yield (
            "input",
            "filter",
            nft.Hook.INPUT,
            nft.Priority.FILTER,
            [
                (*outbound, *known, accept),
                *((*outbound, *_is_dns(proto), accept) for proto in _PROTOCOLS.values()),
                (
                    *outbound,
                    *_l4proto(socket.IPPROTO_ICMP),
                    nft.icmp_type(0),
                    nft.equals(0, _ICMP_ECHO_REQUEST),
                    accept,
                ),
                (*outbound, drop),
            ],
        )


def _translations() -> list[_Rule]:
    """Return the two look-ups of a published port: by its address, or by any address of this host."""
    return [
        (
            nft.ip_daddr(0),
            nft.meta_l4proto(1),
            nft.th_dport(2),
            nft.lookup(PORTS_ADDR, 0, 4),
            nft.dnat(4, 5),
        ),
        (
            nft.daddr_is_local(0),
            nft.equals(0, nft.RTN_LOCAL),
            nft.meta_l4proto(0),
            nft.th_dport(1),
            nft.lookup(PORTS_ANY, 0, 4),
            nft.dnat(4, 5),
        ),
    ]


def _user_network_rules(bridge: str) -> Iterator[_Rule]:
    outbound = nft.meta_iifname(bridge)
    to_dns = (nft.ip_daddr(0), nft.equals(0, _USER_DNS.packed))
    for proto in _PROTOCOLS.values():
        yield (*outbound, *to_dns, *_is_dns(proto), nft.verdict(nft.Verdict.ACCEPT))
    inside = (nft.ip_daddr(0), *nft.in_network(0, _USER_NETWORK))
    yield (*outbound, *inside, nft.verdict(nft.Verdict.DROP))


def _is_dns(proto: int) -> _Rule:
    return (*_l4proto(proto), nft.th_dport(0), nft.equals(0, _DNS_PORT))


def _l4proto(proto: int) -> _Rule:
    return nft.meta_l4proto(0), nft.equals(0, bytes([proto]))
