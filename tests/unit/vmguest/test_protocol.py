import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmguest import protocol
from vmguest.protocol import MAX_LINE_BYTES, Decoder, ProtocolError

WIRE = protocol.encode("attach", nonce="n") + b"\n\n" + protocol.encode("ping", time_ns=1)
MESSAGES = [{"type": "attach", "nonce": "n"}, {"type": "ping", "time_ns": 1}]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_messages_survive_any_cut(size: int) -> None:
    decoder = Decoder()

    got = [m for at in range(0, len(WIRE), size) for m in decoder.feed(WIRE[at : at + size])]

    assert got == MESSAGES


@pytest.mark.parametrize("line", [b"x", b"[]", b'"a"', b"{}", b'{"type":1}', b"\xff\xfe", b"[" * 5000])
def test_what_is_no_message_is_refused_and_the_next_line_is_read(line: bytes) -> None:
    decoder = Decoder()

    with pytest.raises(ProtocolError):
        list(decoder.feed(line + b"\n" + WIRE))

    assert list(decoder.feed(b"")) == MESSAGES


def test_a_line_without_an_end_is_refused_and_not_kept() -> None:
    decoder = Decoder()

    with pytest.raises(ProtocolError, match="too long"):
        list(decoder.feed(b"x" * MAX_LINE_BYTES))

    assert list(decoder.feed(WIRE)) == MESSAGES


def test_a_message_that_the_peer_would_refuse_is_not_sent() -> None:
    with pytest.raises(ProtocolError, match="too long: ports"):
        protocol.encode("ports", request="x" * MAX_LINE_BYTES)


@given(st.binary(max_size=300))
def test_noise_never_raises_anything_else(noise: bytes) -> None:
    decoder = Decoder()
    data = noise
    for _ in range(302):
        try:
            list(decoder.feed(data))
            return
        except ProtocolError:
            data = b""


def test_fields_are_checked_by_type() -> None:
    message = {"type": "ping", "time_ns": True, "name": 3}

    with pytest.raises(ProtocolError, match="ping: time_ns is not an integer"):
        protocol.integer(message, "time_ns")
    with pytest.raises(ProtocolError, match="ping: name is not a string"):
        protocol.text(message, "name")
