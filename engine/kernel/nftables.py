"""nf_tables through raw nfnetlink: tables, chains, rules, maps and their elements.

Functions make requests and expressions (pure); `commit` sends a list of
requests as one transaction: all of it holds, or nothing. All numbers on this
wire are big-endian, and registers are the 32-bit ones, so that a concatenated
key is loaded field by field, each padded to four bytes.

A rule is a row of expressions that read from and write to registers; the
first that does not match ends it::

    meta l4proto -> r0 | payload transport 2..4 -> r1 | lookup map r0 -> r4 | nat dst r4:r5

Source: Linux, include/uapi/linux/netfilter/nf_tables.h; nft --debug=netlink
shows the same expressions for a rule in nft's own language.
"""

import enum
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from engine.kernel.netlink import (
    NLM_F_APPEND,
    NLM_F_CREATE,
    Message,
    NetlinkSocket,
    Request,
    attribute,
    attribute_text,
    nested,
    read_attributes,
)

NFPROTO_IPV4 = 2
NFNLGRP_NFTABLES = 7

_SUBSYSTEM = 10 << 8
_BATCH_BEGIN = 0x10
_NEWTABLE, _GETTABLE, _DELTABLE = 0, 1, 2
_NEWCHAIN, _GETCHAIN, _DELCHAIN = 3, 4, 5
_NEWRULE, _DELRULE = 6, 8
_NEWSET, _DELSET = 9, 11
_NEWSETELEM, _GETSETELEM, _DELSETELEM = 12, 13, 14

REMOVALS = frozenset(_SUBSYSTEM | kind for kind in (_DELTABLE, _DELCHAIN, _DELRULE, _DELSET))
NEW_TABLE = _SUBSYSTEM | _NEWTABLE

_CHAIN_HOOK, _CHAIN_POLICY = 4, 5
_SET_MAP = 8
_LIST_ELEM = 1
_DATA_VALUE, _DATA_VERDICT = 1, 2
_VERDICT_CODE = 1
_REG_VERDICT = 0
_REG32_00 = 8
_IFNAME_BYTES = 16


class Hook(enum.IntEnum):
    """`NF_INET_*`: where a base chain is called."""

    PREROUTING = 0
    INPUT = 1
    FORWARD = 2
    OUTPUT = 3
    POSTROUTING = 4


class Priority(enum.IntEnum):
    """`NF_IP_PRI_*`: in which order the base chains of a hook are called."""

    RAW = -300
    DSTNAT = -100
    FILTER = 0
    SRCNAT = 100


class Verdict(enum.IntEnum):
    """`NF_DROP`, `NF_ACCEPT`."""

    DROP = 0
    ACCEPT = 1


class CtState(enum.IntFlag):
    """Bits of `ct state`."""

    INVALID = 1
    ESTABLISHED = 2
    RELATED = 4
    NEW = 8


CT_STATUS_DNAT = 1 << 5  # IPS_DST_NAT


@dataclass(frozen=True, slots=True)
class BaseChain:
    """A chain that hangs on a hook; `policy` is what happens to a packet that its rules leave alone."""

    table: str
    name: str
    type: str
    hook: Hook
    policy: Verdict


# Requests


def table_add(table: str) -> Request:
    """Return the request that makes the table, or leaves it as it is."""
    return _request(f"nft add table ip {table}", _NEWTABLE, NLM_F_CREATE, attribute_text(1, table))


def table_del(table: str) -> Request:
    """Return the request that removes the table with all in it; ENOENT when there is none."""
    return _request(f"nft delete table ip {table}", _DELTABLE, 0, attribute_text(1, table))


def chain_add(table: str, chain: str, kind: str, hook: Hook, priority: int) -> Request:
    """Return the request for a base chain of type `kind` ("filter" or "nat") that accepts by default."""
    body = attribute_text(1, table) + attribute_text(3, chain)
    body += nested(4, _be32(1, hook), _be32(2, priority))
    body += _be32(5, Verdict.ACCEPT) + attribute_text(7, kind)
    return _request(f"nft add chain ip {table} {chain}", _NEWCHAIN, NLM_F_CREATE, body)


def rule_add(table: str, chain: str, expressions: Iterable[bytes]) -> Request:
    """Return the request that appends a rule to the chain."""
    row = (attribute(_LIST_ELEM | 0x8000, expression) for expression in expressions)
    body = attribute_text(1, table) + attribute_text(2, chain) + nested(4, *row)
    return _request(f"nft add rule ip {table} {chain}", _NEWRULE, NLM_F_CREATE | NLM_F_APPEND, body)


@dataclass(frozen=True, slots=True)
class MapType:
    """Types and sizes of a map; the types only tell nft how to print it."""

    key_type: int
    key_bytes: int
    data_type: int
    data_bytes: int


def concatenation(*types: int) -> int:
    """Return nft's number for a concatenation of its types (six bits each)."""
    number = 0
    for kind in types:
        number = number << 6 | kind
    return number


TYPE_IPV4_ADDR, TYPE_INET_PROTO, TYPE_INET_SERVICE = 7, 12, 13


def map_add(table: str, name: str, kind: MapType, *, identity: int) -> Request:
    """Return the request for an empty map; `identity` tells the new maps of one transaction apart."""
    body = attribute_text(1, table) + attribute_text(2, name) + _be32(3, _SET_MAP)
    body += _be32(4, kind.key_type) + _be32(5, kind.key_bytes)
    body += _be32(6, kind.data_type) + _be32(7, kind.data_bytes) + _be32(10, identity)
    return _request(f"nft add map ip {table} {name}", _NEWSET, NLM_F_CREATE, body)


def elements_add(table: str, name: str, elements: Iterable[tuple[bytes, bytes]]) -> Request:
    """Return the request that puts (key, data) pairs into a map; EEXIST for a key with other data."""
    body = attribute_text(1, table) + attribute_text(2, name) + _elements(elements)
    return _request(f"nft add element ip {table} {name}", _NEWSETELEM, NLM_F_CREATE, body)


def elements_del(table: str, name: str, keys: Iterable[bytes]) -> Request:
    """Return the request that takes `keys` out of a map; ENOENT when one is not in it."""
    body = attribute_text(1, table) + attribute_text(2, name) + _elements((key, b"") for key in keys)
    return _request(f"nft delete element ip {table} {name}", _DELSETELEM, 0, body)


def commit(nfnetlink: NetlinkSocket, requests: Sequence[Request]) -> None:
    """Carry out all `requests`, or none.

    Raises:
        OSError: the request that failed, named.
    """
    nfnetlink.transact(requests, begin=Request("nft transaction", _BATCH_BEGIN, 0, _nfgenmsg(0, 10)))


# Dumps


def tables(nfnetlink: NetlinkSocket) -> list[str]:
    """Return the names of the IPv4 tables."""
    found = nfnetlink.dump(_request("nft list tables", _GETTABLE, 0, b""))
    return [_text(_body(message).get(1, b"")) for message in found]


def base_chains(nfnetlink: NetlinkSocket) -> list[BaseChain]:
    """Return the IPv4 base chains of all tables, everybody's."""
    chains = []
    for message in nfnetlink.dump(_request("nft list chains", _GETCHAIN, 0, b"")):
        found = _body(message)
        if not found.keys() >= {_CHAIN_HOOK, _CHAIN_POLICY}:
            continue
        hook = int.from_bytes(dict(read_attributes(found[_CHAIN_HOOK]))[1], "big")
        policy = Verdict(int.from_bytes(found[_CHAIN_POLICY], "big"))
        chains.append(BaseChain(_text(found[1]), _text(found[3]), _text(found[7]), Hook(hook), policy))
    return chains


def elements(nfnetlink: NetlinkSocket, table: str, name: str) -> dict[bytes, bytes]:
    """Return what is in a map.

    Raises:
        FileNotFoundError: no such table or map.
    """
    body = attribute_text(1, table) + attribute_text(2, name)
    found: dict[bytes, bytes] = {}
    for message in nfnetlink.dump(_request(f"nft list map ip {table} {name}", _GETSETELEM, 0, body)):
        for _kind, element in read_attributes(_body(message).get(3, b"")):
            parts = dict(read_attributes(element))
            found[_value(parts[1])] = _value(parts[2])
    return found


def removed_from(message: Message) -> str | None:
    """Return the table from which a multicast message took something (or the table itself); else None."""
    return _text(_body(message).get(1, b"")) if message.type in REMOVALS else None


# Expressions


def meta_iifname(name: str, *, negate: bool = False) -> tuple[bytes, bytes]:
    """Match packets that came in (not) by the link `name`."""
    return _ifname(6, name, negate=negate)


def meta_oifname(name: str, *, negate: bool = False) -> tuple[bytes, bytes]:
    """Match packets that go out (not) by the link `name`."""
    return _ifname(7, name, negate=negate)


def meta_l4proto(register: int) -> bytes:
    """Load the number of the transport protocol."""
    return _expression("meta", _be32(1, _REG32_00 + register), _be32(2, 16))


def ip_saddr(register: int) -> bytes:
    """Load the source address."""
    return _payload(1, 12, 4, register)


def ip_daddr(register: int) -> bytes:
    """Load the destination address."""
    return _payload(1, 16, 4, register)


def th_dport(register: int) -> bytes:
    """Load the destination port of tcp or udp."""
    return _payload(2, 2, 2, register)


def icmp_type(register: int) -> bytes:
    """Load the type of an ICMP message."""
    return _payload(2, 0, 1, register)


def equals(register: int, value: bytes, *, negate: bool = False) -> bytes:
    """Match when the register holds (not) `value`."""
    return _compare(register, value, negate=negate)


def in_network(register: int, network: IPv4Network) -> tuple[bytes, bytes]:
    """Match an address that was loaded into `register`; spoils the register."""
    return (
        _mask(register, network.netmask.packed),
        _compare(register, network.network_address.packed),
    )


def daddr_is_local(register: int) -> bytes:
    """Load the type of the destination address (`fib daddr type`); `RTN_LOCAL` is 2, in host order."""
    return _expression("fib", _be32(1, _REG32_00 + register), _be32(2, 3), _be32(3, 2))


RTN_LOCAL = struct.pack("=I", 2)


def ct_has_state(register: int, state: CtState) -> tuple[bytes, bytes, bytes]:
    """Match packets of a connection in one of the states of `state`."""
    return _ct_bits(register, 0, state)


def ct_was_dnatted(register: int) -> tuple[bytes, bytes, bytes]:
    """Match packets of a connection whose destination was translated."""
    return _ct_bits(register, 2, CT_STATUS_DNAT)


def lookup(name: str, key_register: int, data_register: int) -> bytes:
    """Look the key up in a map: its data goes to the registers from `data_register`, or the rule ends."""
    return _expression(
        "lookup",
        attribute_text(1, name),
        _be32(2, _REG32_00 + key_register),
        _be32(3, _REG32_00 + data_register),
    )


def dnat(address_register: int, port_register: int) -> bytes:
    """Translate the destination to address and port from registers."""
    return _expression(
        "nat",
        _be32(1, 1),
        _be32(2, NFPROTO_IPV4),
        _be32(3, _REG32_00 + address_register),
        _be32(5, _REG32_00 + port_register),
    )


def masquerade() -> bytes:
    """Translate the source to the address of the link by which the packet leaves."""
    return _expression("masq")


def verdict(code: Verdict) -> bytes:
    """End with `code`."""
    data = nested(_DATA_VERDICT, _be32(_VERDICT_CODE, code))
    return _expression("immediate", _be32(1, _REG_VERDICT), nested(2, data))


def port_key(proto: int, port: int) -> bytes:
    """Return protocol and port as a key, each padded to a register."""
    return struct.pack(">BxxxHxx", proto, port)


def address_port(address: IPv4Address, port: int) -> bytes:
    """Return address and port as data, each padded to a register."""
    return address.packed + struct.pack(">Hxx", port)


def _request(call: str, kind: int, flags: int, body: bytes) -> Request:
    return Request(call, _SUBSYSTEM | kind, flags, _nfgenmsg(NFPROTO_IPV4, 0) + body)


def _nfgenmsg(family: int, resource: int) -> bytes:
    return struct.pack(">BBH", family, 0, resource)


def _be32(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack(">I", value & 0xFFFFFFFF))


def _expression(name: str, *attributes: bytes) -> bytes:
    return attribute_text(1, name) + nested(2, *attributes)


def _payload(base: int, offset: int, length: int, register: int) -> bytes:
    return _expression(
        "payload", _be32(1, _REG32_00 + register), _be32(2, base), _be32(3, offset), _be32(4, length)
    )


def _compare(register: int, value: bytes, *, negate: bool = False) -> bytes:
    data = nested(3, attribute(_DATA_VALUE, value))
    return _expression("cmp", _be32(1, _REG32_00 + register), _be32(2, int(negate)), data)


def _mask(register: int, mask: bytes) -> bytes:
    return _expression(
        "bitwise",
        _be32(1, _REG32_00 + register),
        _be32(2, _REG32_00 + register),
        _be32(3, len(mask)),
        nested(4, attribute(_DATA_VALUE, mask)),
        nested(5, attribute(_DATA_VALUE, bytes(len(mask)))),
    )


def _ifname(key: int, name: str, *, negate: bool) -> tuple[bytes, bytes]:
    load = _expression("meta", _be32(1, _REG32_00), _be32(2, key))
    return load, _compare(0, name.encode().ljust(_IFNAME_BYTES, b"\0"), negate=negate)


def _ct_bits(register: int, key: int, bits: int) -> tuple[bytes, bytes, bytes]:
    load = _expression("ct", _be32(1, _REG32_00 + register), _be32(2, key))
    none = bytes(4)
    return load, _mask(register, struct.pack("=I", bits)), _compare(register, none, negate=True)


def _elements(pairs: Iterable[tuple[bytes, bytes]]) -> bytes:
    row = []
    for key, data in pairs:
        element = nested(1, attribute(_DATA_VALUE, key))
        if data:
            element += nested(2, attribute(_DATA_VALUE, data))
        row.append(nested(_LIST_ELEM, element))
    return nested(3, *row)


def _body(message: Message) -> dict[int, bytes]:
    return dict(read_attributes(message.body[4:]))


def _value(data: bytes) -> bytes:
    return dict(read_attributes(data))[_DATA_VALUE]


def _text(payload: bytes) -> str:
    return payload.rstrip(b"\0").decode(errors="replace")
