"""netlink(7), and rtnetlink(7) as far as containers need it: links, addresses, routes.

The first half is any netlink protocol: `Request`, attributes, and
`NetlinkSocket`, which sends a batch in one system call and pairs the answers.
The second half makes the requests of rtnetlink and reads its dumps. Making
and reading are pure; only `NetlinkSocket` does I/O.

A message, and an attribute of its body (host byte order)::

    u32 length | u16 type | u16 flags | u32 sequence | u32 port | body, padded to 4
    u16 length | u16 type | payload, padded to 4

The kernel carries each message out before `sendmsg` returns and goes on with
the next even when one fails, so a failed batch may be half done: whoever sent
it knows how to undo it.
"""

import contextlib
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from types import TracebackType

NETLINK_ROUTE = 0
NETLINK_NETFILTER = 12

NLM_F_REQUEST = 0x1
NLM_F_ACK = 0x4
NLM_F_REPLACE = 0x100
NLM_F_EXCL = 0x200
NLM_F_CREATE = 0x400
NLM_F_APPEND = 0x800
NLM_F_DUMP = 0x300
NLM_F_CAPPED = 0x100  # in answers
NLM_F_ACK_TLVS = 0x200

NLA_F_NESTED = 0x8000
_NLA_TYPE_MASK = 0x3FFF

_NLMSG_ERROR = 2
_NLMSG_DONE = 3
_SOL_NETLINK = 270
_NETLINK_ADD_MEMBERSHIP = 1
_NETLINK_CAP_ACK = 10
_NETLINK_EXT_ACK = 11
_NLMSGERR_ATTR_MSG = 1
_RECEIVE_BYTES = 65536
_RCVBUF_BYTES = 1 << 20

_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_INT = struct.Struct("=i")


@dataclass(frozen=True, slots=True)
class Request:
    """One message to the kernel; `call` says what it asks for, in errors."""

    call: str
    type: int
    flags: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Message:
    """One message from the kernel."""

    type: int
    flags: int
    sequence: int
    port: int  # of the socket that is answered, or in a multicast, of the one that caused it
    body: bytes


def attribute(kind: int, payload: bytes) -> bytes:
    """Return one attribute on the wire, padded."""
    length = _ATTRIBUTE.size + len(payload)
    return _ATTRIBUTE.pack(length, kind) + payload + bytes(-length % 4)


def attribute_u32(kind: int, value: int) -> bytes:
    """Return an attribute with an unsigned number in host byte order."""
    return attribute(kind, struct.pack("=I", value))


def attribute_text(kind: int, text: str) -> bytes:
    """Return an attribute with a string that ends in a zero byte."""
    return attribute(kind, text.encode() + b"\0")


def nested(kind: int, *attributes: bytes) -> bytes:
    """Return an attribute that holds attributes."""
    return attribute(kind | NLA_F_NESTED, b"".join(attributes))


def read_attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield (type without flags, payload) of each attribute; a malformed tail ends it."""
    offset = 0
    while offset + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < _ATTRIBUTE.size or offset + length > len(data):
            return
        yield kind & _NLA_TYPE_MASK, data[offset + _ATTRIBUTE.size : offset + length]
        offset += (length + 3) & ~3


def encode(request: Request, sequence: int) -> bytes:
    """Return `request` on the wire; port 0 is the kernel's to fill in."""
    length = _HEADER.size + len(request.body)
    header = _HEADER.pack(length, request.type, request.flags | NLM_F_REQUEST, sequence, 0)
    return header + request.body + bytes(-length % 4)


def decode(data: bytes) -> Iterator[Message]:
    """Yield the messages of one datagram."""
    offset = 0
    while offset + _HEADER.size <= len(data):
        length, kind, flags, sequence, port = _HEADER.unpack_from(data, offset)
        if length < _HEADER.size or offset + length > len(data):
            return
        yield Message(kind, flags, sequence, port, data[offset + _HEADER.size : offset + length])
        offset += (length + 3) & ~3


def error_of(message: Message) -> tuple[int, str]:
    """Return (errno, the kernel's own words or "") of an error message; errno 0 is an acknowledgement."""
    number = -_INT.unpack_from(message.body)[0]
    text = ""
    if message.flags & NLM_F_ACK_TLVS:
        # After errno comes the offending header, and its body too unless the answer is capped.
        length = _HEADER.unpack_from(message.body, _INT.size)[0]
        start = _INT.size + (_HEADER.size if message.flags & NLM_F_CAPPED else (length + 3) & ~3)
        for kind, payload in read_attributes(message.body[start:]):
            if kind == _NLMSGERR_ATTR_MSG:
                text = payload.rstrip(b"\0").decode(errors="replace")
    return number, text


def failure(call: str, number: int, text: str) -> OSError:
    """Return the `OSError` of an answer, with the call named and the kernel's words as a note."""
    err = OSError(number, os.strerror(number), call)
    if text:
        err.add_note(f"kernel: {text}")
    return err


class NetlinkSocket:
    """One netlink socket, in the network namespace in which it was made; for one thread."""

    def __init__(self, protocol: int, *, groups: Sequence[int] = ()) -> None:
        """Open it; `groups` are multicast groups to listen to.

        Raises:
            OSError: the kernel lacks the protocol.
        """
        self._sequence = 0
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, protocol
        )
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_EXT_ACK, 1)
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_CAP_ACK, 1)
        with contextlib.suppress(PermissionError):
            self._socket.setsockopt(socket.SOL_SOCKET, 33, _RCVBUF_BYTES)  # SO_RCVBUFFORCE
        self._socket.bind((0, 0))
        for group in groups:
            self._socket.setsockopt(_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, group)

    def __enter__(self) -> "NetlinkSocket":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def fileno(self) -> int:
        """Return the descriptor, to wait for multicast messages."""
        return self._socket.fileno()

    @property
    def port(self) -> int:
        """The number by which the kernel knows this socket."""
        return int(self._socket.getsockname()[0])

    def close(self) -> None:
        """Close it; harmless twice."""
        self._socket.close()

    def transact(self, requests: Sequence[Request], *, begin: Request | None = None) -> list[list[Message]]:
        """Send all `requests` at once and return the answers to each.

        Args:
            requests: each asks for an acknowledgement.
            begin: with nfnetlink, the message that opens the transaction; it
                is sent first and its twin that ends it last (type + 1).

        Raises:
            OSError: the first request that failed, named; the others were
                carried out, or, in a transaction, none was.
        """
        first = self._sequence + 2  # one before it is `begin`
        wire = [] if begin is None else [encode(begin, first - 1)]
        for number, request in enumerate(requests):
            wire.append(encode(_with_flags(request, NLM_F_ACK), first + number))
        if begin is not None:
            end = Request(begin.call, begin.type + 1, begin.flags, begin.body)
            wire.append(encode(end, first + len(requests)))
        self._sequence = first + len(requests)
        self._drain()
        self._socket.send(b"".join(wire))
        return self._answers(requests, first)

    def dump(self, request: Request) -> list[Message]:
        """Send one request for a list and return all of it.

        Raises:
            OSError: the kernel refused, named.
        """
        self._sequence += 1
        self._drain()
        self._socket.send(encode(_with_flags(request, NLM_F_DUMP), self._sequence))
        found: list[Message] = []
        while True:
            # A dump goes on inside recv(), so it never finds the queue empty before its end.
            for message in decode(self._socket.recv(_RECEIVE_BYTES)):
                if message.sequence != self._sequence:
                    continue
                if message.type == _NLMSG_DONE:
                    return found
                if message.type == _NLMSG_ERROR:
                    raise failure(request.call, *error_of(message))
                found.append(message)

    def receive(self) -> list[Message]:
        """Return what multicast groups have sent; empty when nothing waits.

        Raises:
            OSError: ENOBUFS when messages were lost.
        """
        found: list[Message] = []
        with contextlib.suppress(BlockingIOError):
            while True:
                found.extend(decode(self._socket.recv(_RECEIVE_BYTES)))
        return found

    def _answers(self, requests: Sequence[Request], first: int) -> list[list[Message]]:
        answers: list[list[Message]] = [[] for _ in requests]
        error: OSError | None = None
        for message in self.receive():  # all there: the kernel answers inside send()
            index = message.sequence - first
            if message.type != _NLMSG_ERROR:
                if 0 <= index < len(requests):
                    answers[index].append(message)
                continue
            number, text = error_of(message)
            if number and error is None and -1 <= index <= len(requests):
                call = requests[index].call if 0 <= index < len(requests) else requests[0].call
                error = failure(call, number, text)
        if error is not None:
            raise error
        return answers

    def _drain(self) -> None:
        """Throw away what an interrupted exchange left behind."""
        with contextlib.suppress(BlockingIOError, OSError):
            while True:
                self._socket.recv(_RECEIVE_BYTES)


def _with_flags(request: Request, flags: int) -> Request:
    return Request(request.call, request.type, request.flags | flags, request.body)


# rtnetlink

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK, RTM_SETLINK = 16, 17, 18, 19
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26

IFF_UP = 1
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_LINK, _IFLA_MASTER = 1, 3, 4, 5, 10
_IFLA_LINKINFO, _IFLA_NET_NS_FD = 18, 28
_IFLA_INFO_KIND, _IFLA_INFO_DATA, _IFLA_INFO_SLAVE_KIND, _IFLA_INFO_SLAVE_DATA = 1, 2, 4, 5
_IFLA_BRPORT_MODE = 4
_VETH_INFO_PEER = 1
_IFA_ADDRESS, _IFA_LOCAL, _IFA_BROADCAST = 1, 2, 4
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_TABLE = 1, 4, 5, 15
_RT_TABLE_MAIN = 254
_RTPROT_BOOT = 3
_RTN_UNICAST = 1
_RT_SCOPE_LINK = 253

_LINK = struct.Struct("=BxHiII")  # family, type, index, flags, change
_ADDR = struct.Struct("=BBBBI")  # family, prefix, flags, scope, index
_ROUTE = struct.Struct("=BBBBBBBBI")  # family, dst, src, tos, table, protocol, scope, type, flags
LOOPBACK_INDEX = 1  # of `lo`, in every namespace


@dataclass(frozen=True, slots=True)
class Link:
    """One network interface."""

    index: int
    name: str
    kind: str  # "bridge", "veth"; "" for hardware
    up: bool
    mac: str
    mtu: int
    master: int  # index of the bridge it is a port of; 0: none


@dataclass(frozen=True, slots=True)
class Route:
    """One IPv4 route; `gateway` None: on the link."""

    destination: IPv4Network
    gateway: IPv4Address | None
    index: int  # of the link
    table: int


def link_add_bridge(name: str, *, mac: str) -> Request:
    """Return the request for a bridge that is up; a fixed `mac` keeps it from changing with its ports."""
    body = _LINK.pack(0, 0, 0, IFF_UP, IFF_UP)
    body += attribute_text(_IFLA_IFNAME, name) + attribute(_IFLA_ADDRESS, _mac(mac))
    body += nested(_IFLA_LINKINFO, attribute(_IFLA_INFO_KIND, b"bridge"))
    return Request(f"link add bridge {name}", RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body)


def link_add_veth(
    name: str, *, master: int, peer: str, peer_netns_fd: int, peer_mac: str, mtu: int
) -> Request:
    """Return the request for a veth pair: `name` here, up, a port of the bridge with the index `master`;
    `peer` in the namespace behind `peer_netns_fd`, still down (up would be ENOTCONN: it is made first).
    """  # noqa: D205 (one sentence)
    other = _LINK.pack(0, 0, 0, 0, 0)
    other += attribute_text(_IFLA_IFNAME, peer) + attribute(_IFLA_ADDRESS, _mac(peer_mac))
    other += attribute_u32(_IFLA_MTU, mtu) + attribute_u32(_IFLA_NET_NS_FD, peer_netns_fd)
    body = _LINK.pack(0, 0, 0, IFF_UP, IFF_UP)
    body += attribute_text(_IFLA_IFNAME, name) + attribute_u32(_IFLA_MTU, mtu)
    body += attribute_u32(_IFLA_MASTER, master)
    body += nested(
        _IFLA_LINKINFO,
        attribute(_IFLA_INFO_KIND, b"veth"),
        nested(_IFLA_INFO_DATA, nested(_VETH_INFO_PEER, other)),
    )
    return Request(f"link add veth {name}", RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body)


def link_set(
    index: int,
    *,
    up: bool | None = None,
    master: int | None = None,
    mtu: int | None = None,
    mac: str | None = None,
    name: str | None = None,
    netns_fd: int | None = None,
) -> Request:
    """Return the request that changes what is given of the link with `index`."""
    change = 0 if up is None else IFF_UP
    body = _LINK.pack(0, 0, index, IFF_UP if up else 0, change)
    if name is not None:
        body += attribute_text(_IFLA_IFNAME, name)
    if mac is not None:
        body += attribute(_IFLA_ADDRESS, _mac(mac))
    for kind, value in ((_IFLA_MTU, mtu), (_IFLA_MASTER, master), (_IFLA_NET_NS_FD, netns_fd)):
        if value is not None:
            body += attribute_u32(kind, value)
    return Request(f"link set {index}", RTM_NEWLINK, 0, body)


def link_set_hairpin(name: str) -> Request:
    """Return the request that lets a port of a bridge send a frame back to where it came from."""
    body = _LINK.pack(0, 0, 0, 0, 0) + attribute_text(_IFLA_IFNAME, name)
    body += nested(
        _IFLA_LINKINFO,
        attribute(_IFLA_INFO_SLAVE_KIND, b"bridge\0"),
        nested(_IFLA_INFO_SLAVE_DATA, attribute(_IFLA_BRPORT_MODE, b"\x01")),
    )
    return Request(f"link set {name} hairpin on", RTM_NEWLINK, 0, body)


def link_del(index: int, *, name: str = "") -> Request:
    """Return the request that removes the link with `index`, or, when it is 0, with `name`."""
    body = _LINK.pack(0, 0, index, 0, 0) + (attribute_text(_IFLA_IFNAME, name) if name else b"")
    return Request(f"link del {name or index}", RTM_DELLINK, 0, body)


def link_get(name: str) -> Request:
    """Return the request for one link by name; ENODEV when there is none."""
    body = _LINK.pack(0, 0, 0, 0, 0) + attribute_text(_IFLA_IFNAME, name)
    return Request(f"link get {name}", RTM_GETLINK, 0, body)


def links() -> Request:
    """Return the request to dump all links."""
    return Request("link list", RTM_GETLINK, 0, _LINK.pack(0, 0, 0, 0, 0))


def read_link(message: Message) -> Link:
    """Return the link in an answer to `link_get` or `links`."""
    _family, _type, index, flags, _change = _LINK.unpack_from(message.body)
    found = dict(read_attributes(message.body[_LINK.size :]))
    kinds = dict(read_attributes(found.get(_IFLA_LINKINFO, b"")))
    return Link(
        index=index,
        name=found.get(_IFLA_IFNAME, b"").rstrip(b"\0").decode(),
        kind=kinds.get(_IFLA_INFO_KIND, b"").rstrip(b"\0").decode(),
        up=bool(flags & IFF_UP),
        mac=found.get(_IFLA_ADDRESS, b"").hex(":"),
        mtu=_u32(found.get(_IFLA_MTU)),
        master=_u32(found.get(_IFLA_MASTER)),
    )


def addr_add(index: int, address: IPv4Interface) -> Request:
    """Return the request that gives the link with `index` an address, with its broadcast address."""
    network = address.network
    body = _ADDR.pack(socket.AF_INET, network.prefixlen, 0, 0, index)
    body += attribute(_IFA_LOCAL, address.packed) + attribute(_IFA_ADDRESS, address.packed)
    body += attribute(_IFA_BROADCAST, network.broadcast_address.packed)
    return Request(f"address add {address} to link {index}", RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, body)


def addr_del(index: int, address: IPv4Interface) -> Request:
    """Return the request that takes an address from the link with `index`."""
    body = _ADDR.pack(socket.AF_INET, address.network.prefixlen, 0, 0, index)
    body += attribute(_IFA_LOCAL, address.packed)
    return Request(f"address del {address} from link {index}", RTM_DELADDR, 0, body)


def addrs() -> Request:
    """Return the request to dump all IPv4 addresses."""
    return Request("address list", RTM_GETADDR, 0, _ADDR.pack(socket.AF_INET, 0, 0, 0, 0))


def read_addr(message: Message) -> tuple[int, IPv4Interface]:
    """Return (index of the link, address with prefix)."""
    _family, prefix, _flags, _scope, index = _ADDR.unpack_from(message.body)
    found = dict(read_attributes(message.body[_ADDR.size :]))
    packed = found.get(_IFA_LOCAL) or found[_IFA_ADDRESS]
    return index, IPv4Interface((packed, prefix))


def route_add(destination: IPv4Network | None, *, gateway: IPv4Address | None, index: int) -> Request:
    """Return the request for a route; `destination` None: the default route."""
    scope = 0 if gateway else _RT_SCOPE_LINK
    prefix = destination.prefixlen if destination else 0
    body = _ROUTE.pack(socket.AF_INET, prefix, 0, 0, _RT_TABLE_MAIN, _RTPROT_BOOT, scope, _RTN_UNICAST, 0)
    if destination is not None:
        body += attribute(_RTA_DST, destination.network_address.packed)
    if gateway is not None:
        body += attribute(_RTA_GATEWAY, gateway.packed)
    body += attribute_u32(_RTA_OIF, index)
    return Request(f"route add {destination or 'default'}", RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, body)


def routes() -> Request:
    """Return the request to dump the IPv4 routes of all tables."""
    return Request("route list", RTM_GETROUTE, 0, _ROUTE.pack(socket.AF_INET, *[0] * 8))


def read_route(message: Message) -> Route:
    """Return the route in an answer to `routes`."""
    _family, prefix, _src, _tos, table, *_rest = _ROUTE.unpack_from(message.body)
    found = dict(read_attributes(message.body[_ROUTE.size :]))
    gateway = found.get(_RTA_GATEWAY)
    return Route(
        destination=IPv4Network((found.get(_RTA_DST, bytes(4)), prefix)),
        gateway=IPv4Address(gateway) if gateway else None,
        index=_u32(found.get(_RTA_OIF)),
        table=_u32(found.get(_RTA_TABLE)) or table,
    )


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def _u32(payload: bytes | None) -> int:
    return int.from_bytes(payload, "little" if struct.pack("=H", 1)[0] else "big") if payload else 0
