"""Tracked connections through nfnetlink: list them, and forget some.

UDP has no end, so a flow that goes on keeps its old translation: after its
container is gone a client would talk to nobody for as long as it tries.

Source: Linux, include/uapi/linux/netfilter/nfnetlink_conntrack.h.
"""

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address

from engine.kernel.netlink import Message, NetlinkSocket, Request, attribute, read_attributes

_SUBSYSTEM = 1 << 8
_GET, _DELETE = 1, 2
_TUPLE_ORIG, _TUPLE_REPLY, _ID = 1, 2, 12
_TUPLE_IP, _TUPLE_PROTO = 1, 2
_IP_SRC, _IP_DST = 1, 2
_PROTO_NUM, _PROTO_DST = 1, 3
_NFGENMSG = struct.pack(">BBH", 2, 0, 0)  # AF_INET
_NESTED = 0x8000


@dataclass(frozen=True, slots=True)
class Direction:
    """One direction of a connection."""

    source: IPv4Address
    destination: IPv4Address
    proto: int
    destination_port: int  # 0 where the protocol has none


@dataclass(frozen=True, slots=True)
class Connection:
    """One tracked connection; `key` names it to the kernel."""

    original: Direction
    reply: Direction
    key: bytes

    @property
    def translated(self) -> bool:
        """Tell whether source or destination is another one in the reply."""
        return (self.original.source, self.original.destination) != (
            self.reply.destination,
            self.reply.source,
        )


def connections(nfnetlink: NetlinkSocket) -> list[Connection]:
    """Return all IPv4 connections.

    Raises:
        OSError: the kernel cannot list them (module nf_conntrack_netlink).
    """
    found = nfnetlink.dump(Request("conntrack list", _SUBSYSTEM | _GET, 0, _NFGENMSG))
    return [connection for message in found if (connection := read_connection(message)) is not None]


def forget(nfnetlink: NetlinkSocket, which: Iterable[Connection]) -> None:
    """Forget connections: their next packet starts anew. One that has ended meanwhile is no error."""
    for connection in which:
        request = Request("conntrack delete", _SUBSYSTEM | _DELETE, 0, _NFGENMSG + connection.key)
        try:
            nfnetlink.transact([request])
        except FileNotFoundError:
            continue


def read_connection(message: Message) -> Connection | None:
    """Return the connection of a message; None when it lacks a part."""
    parts = dict(read_attributes(message.body[len(_NFGENMSG) :]))
    original, reply = (_direction(parts.get(kind, b"")) for kind in (_TUPLE_ORIG, _TUPLE_REPLY))
    if original is None or reply is None:
        return None
    key = attribute(_TUPLE_ORIG | _NESTED, parts[_TUPLE_ORIG])
    if _ID in parts:  # so that a new connection between the same ends is left alone
        key += attribute(_ID, parts[_ID])
    return Connection(original, reply, key)


def _direction(data: bytes) -> Direction | None:
    parts = dict(read_attributes(data))
    ends = dict(read_attributes(parts.get(_TUPLE_IP, b"")))
    proto = dict(read_attributes(parts.get(_TUPLE_PROTO, b"")))
    if _IP_SRC not in ends or _IP_DST not in ends or _PROTO_NUM not in proto:
        return None
    return Direction(
        IPv4Address(ends[_IP_SRC]),
        IPv4Address(ends[_IP_DST]),
        proto[_PROTO_NUM][0],
        int.from_bytes(proto.get(_PROTO_DST, b""), "big"),
    )
