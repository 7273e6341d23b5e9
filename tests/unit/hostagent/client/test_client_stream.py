"""The frames of attach and logs, cut anywhere."""

import pytest

from hostagent.client.errors import ConnectionLost
from hostagent.client.stream import STDERR, STDOUT, Decoder


def frame(kind: int, payload: bytes) -> bytes:
    return bytes([kind, 0, 0, 0]) + len(payload).to_bytes(4, "big") + payload


DATA = frame(STDOUT, b"hello ") + frame(STDERR, b"bad") + frame(STDOUT, b"") + frame(STDOUT, b"world")


@pytest.mark.parametrize("size", [1, 3, 8, 9, 1000])
def test_frames_come_out_however_they_are_cut(size: int) -> None:
    decoder = Decoder()
    streams = {STDOUT: b"", STDERR: b""}

    for at in range(0, len(DATA), size):
        for kind, piece in decoder.feed(DATA[at : at + size]):
            streams[kind] += bytes(piece)

    assert streams == {STDOUT: b"hello world", STDERR: b"bad"}
    assert decoder.between_frames


def test_a_piece_comes_before_its_frame_is_whole() -> None:
    decoder = Decoder()

    assert [bytes(piece) for _, piece in decoder.feed(frame(STDOUT, b"x" * 100)[:20])] == [b"x" * 12]
    assert not decoder.between_frames


@pytest.mark.parametrize("header", [b"\x03\0\0\0\0\0\0\1", b"\1\1\0\0\0\0\0\1", b"HTTP/1.1"])
def test_what_is_no_frame_is_told(header: bytes) -> None:
    with pytest.raises(ConnectionLost, match="no stream frame"):
        list(Decoder().feed(header))
