import socket
from ipaddress import IPv4Address

from hypothesis import given
from hypothesis import strategies as st

from engine.kernel.conntrack import read_connection
from engine.kernel.netlink import Message, attribute, nested


def ends(kind: int, source: str, destination: str, source_port: int, destination_port: int) -> bytes:
    addresses = nested(
        1, attribute(1, IPv4Address(source).packed), attribute(2, IPv4Address(destination).packed)
    )
    ports = nested(
        2,
        attribute(1, bytes([socket.IPPROTO_UDP])),
        attribute(2, source_port.to_bytes(2, "big")),
        attribute(3, destination_port.to_bytes(2, "big")),
    )
    return nested(kind, addresses, ports)


def test_a_translated_flow_is_read_with_the_key_that_deletes_it() -> None:
    original = ends(1, "198.18.0.2", "198.18.0.1", 40000, 5353)
    reply = ends(2, "172.17.0.2", "198.18.0.2", 53, 40000)
    identity = attribute(12, b"\1\2\3\4")

    found = read_connection(Message(0x100, 0, 0, 0, bytes(4) + original + reply + identity))

    assert found is not None
    assert found.translated
    assert (found.original.proto, found.original.destination_port) == (socket.IPPROTO_UDP, 5353)
    assert found.reply.source == IPv4Address("172.17.0.2")
    assert found.key == original + identity


def test_a_plain_flow_is_not_translated() -> None:
    body = bytes(4) + ends(1, "10.0.0.1", "10.0.0.2", 1, 2) + ends(2, "10.0.0.2", "10.0.0.1", 2, 1)

    found = read_connection(Message(0x100, 0, 0, 0, body))

    assert found is not None
    assert not found.translated


@given(st.binary(max_size=100))
def test_a_message_that_lacks_a_part_is_none(body: bytes) -> None:
    assert read_connection(Message(0x100, 0, 0, 0, body)) is None
