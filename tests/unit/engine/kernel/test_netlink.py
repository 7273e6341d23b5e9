"""Golden bytes are little-endian, as on every machine we run on."""

import struct
import sys
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.kernel import netlink
from engine.kernel.netlink import Message, Request

pytestmark = pytest.mark.skipif(sys.byteorder != "little", reason="golden bytes are little-endian")


def golden(text: str) -> bytes:
    return bytes.fromhex("".join(line.split("#")[0] for line in text.splitlines()))


def test_a_bridge_on_the_wire() -> None:
    assert netlink.encode(netlink.link_add_bridge("br0", mac="02:42:ac:11:00:01"), 7) == golden("""
        44000000 1000 0106 07000000 00000000     # 68 bytes, RTM_NEWLINK, REQUEST|EXCL|CREATE, sequence 7
        00 00 0000 00000000 01000000 01000000    # any family, new link, IFF_UP, of which IFF_UP changes
        0800 0300 62723000                       # IFLA_IFNAME "br0"
        0a00 0100 0242ac110001 0000              # IFLA_ADDRESS, padded
        1000 1280                                # IFLA_LINKINFO, nested
          0a00 0100 627269646765 0000            #   IFLA_INFO_KIND "bridge", padded
    """)


def test_a_veth_pair_on_the_wire() -> None:
    request = netlink.link_add_veth(
        "pe0", master=5, peer="eth0", peer_netns_fd=9, peer_mac="02:42:ac:11:00:02", mtu=1500
    )
    assert request.body == golden("""
        00 00 0000 00000000 01000000 01000000    # up
        0800 0300 70653000                       # IFLA_IFNAME "pe0"
        0800 0400 dc050000                       # IFLA_MTU 1500
        0800 0a00 05000000                       # IFLA_MASTER
        4c00 1280                                # IFLA_LINKINFO
          0800 0100 76657468                     #   IFLA_INFO_KIND "veth"
          4000 0280                              #   IFLA_INFO_DATA
            3c00 0180                            #     VETH_INFO_PEER
              00 00 0000 00000000 00000000 00000000  #   down: up would be ENOTCONN
              0900 0300 6574683000 000000        #       IFLA_IFNAME "eth0", padded
              0a00 0100 0242ac110002 0000        #       IFLA_ADDRESS
              0800 0400 dc050000                 #       IFLA_MTU
              0800 1c00 09000000                 #       IFLA_NET_NS_FD
    """)


def test_an_address_and_a_default_route_on_the_wire() -> None:
    assert netlink.addr_add(2, IPv4Interface("172.17.0.2/16")).body == golden("""
        02 10 00 00 02000000                     # AF_INET, /16, scope global, link 2
        0800 0200 ac110002                       # IFA_LOCAL
        0800 0100 ac110002                       # IFA_ADDRESS
        0800 0400 ac11ffff                       # IFA_BROADCAST
    """)
    assert netlink.route_add(None, gateway=IPv4Address("172.17.0.1"), index=2).body == golden("""
        02 00 00 00 fe 03 00 01 00000000         # AF_INET, /0, main table, boot, universe, unicast
        0800 0500 ac110001                       # RTA_GATEWAY
        0800 0400 02000000                       # RTA_OIF
    """)
    assert netlink.route_add(IPv4Network("10.0.0.0/8"), gateway=None, index=2).body == golden("""
        02 08 00 00 fe 03 fd 01 00000000         # /8, scope link
        0800 0100 0a000000                       # RTA_DST
        0800 0400 02000000                       # RTA_OIF
    """)


def test_changes_name_only_what_is_given() -> None:
    assert netlink.link_set(3, up=True).body == golden("00000000 03000000 01000000 01000000")
    assert netlink.link_set(3, up=False).body == golden("00000000 03000000 00000000 01000000")
    assert netlink.link_set(3, mtu=9000, master=0).body == golden(
        "00000000 03000000 00000000 00000000 08000400 28230000 08000a00 00000000"
    )
    assert netlink.link_del(0, name="pe0").body == golden(
        "00000000 00000000 00000000 00000000 08000300 70653000"
    )


@given(st.lists(st.tuples(st.integers(0, 0x3FFF), st.binary(max_size=40)), max_size=8))
def test_attributes_survive_the_wire(pairs: list[tuple[int, bytes]]) -> None:
    wire = b"".join(netlink.attribute(kind, payload) for kind, payload in pairs)

    assert len(wire) % 4 == 0
    assert list(netlink.read_attributes(wire)) == pairs


@given(st.binary(max_size=120))
def test_no_bytes_confuse_the_readers(data: bytes) -> None:
    for message in netlink.decode(data):
        list(netlink.read_attributes(message.body))


@given(st.lists(st.binary(max_size=30), max_size=5), st.data())
def test_messages_survive_the_wire_and_a_cut_loses_only_the_tail(
    bodies: list[bytes], data: st.DataObject
) -> None:
    wire = b"".join(netlink.encode(Request("", 20, 4, body), number) for number, body in enumerate(bodies))
    expected = [Message(20, 5, number, 0, body) for number, body in enumerate(bodies)]
    cut = data.draw(st.integers(0, len(wire)))

    assert list(netlink.decode(wire)) == expected
    found = list(netlink.decode(wire[:cut]))
    assert found == expected[: len(found)]


def test_a_refusal_names_the_call_and_the_kernels_words() -> None:
    words = netlink.attribute(1, b"Unknown device type\0")
    header = struct.pack("=IHHII", 68, 16, 5, 9, 0)
    capped = Message(2, 0x300, 9, 0, struct.pack("=i", -95) + header + words)
    whole = Message(2, 0x200, 9, 0, struct.pack("=i", -95) + header + bytes(52) + words)

    assert netlink.error_of(capped) == netlink.error_of(whole) == (95, "Unknown device type")
    err = netlink.failure("link add veth pe0", *netlink.error_of(capped))
    assert (err.errno, err.filename) == (95, "link add veth pe0")
    assert err.__notes__ == ["kernel: Unknown device type"]
    assert netlink.error_of(Message(2, 0, 9, 0, struct.pack("=i", 0) + header)) == (0, "")


def test_answers_are_read_back() -> None:
    link = netlink.link_add_bridge("br0", mac="02:42:ac:11:00:01")
    read = netlink.read_link(Message(16, 0, 0, 0, link.body))
    assert (read.name, read.kind, read.mac, read.up, read.master) == (
        "br0",
        "bridge",
        "02:42:ac:11:00:01",
        True,
        0,
    )
    route = netlink.route_add(IPv4Network("10.1.0.0/16"), gateway=IPv4Address("10.0.0.1"), index=4)
    assert netlink.read_route(Message(24, 0, 0, 0, route.body)) == netlink.Route(
        IPv4Network("10.1.0.0/16"), IPv4Address("10.0.0.1"), 4, 254
    )
    address = netlink.addr_add(2, IPv4Interface("172.17.0.2/16"))
    assert netlink.read_addr(Message(20, 0, 0, 0, address.body)) == (2, IPv4Interface("172.17.0.2/16"))
