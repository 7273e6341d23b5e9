import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.containers.logparsers import LocalParser
from engine.shim.localrecords import LocalRecords, varint, whole_bytes
from tests.support.loglab import log_of


def test_a_record_is_dockers() -> None:
    # as dockerd 20.10 wrote it
    entry = b"\n\x06stdout\x10\xc9\xdc\xd8\xfc\x99\xbe\xd9\xf5\x18\x1a\x03out"
    size = struct.pack(">I", len(entry))

    assert LocalRecords({}).encode("stdout", b"out\n", 1795640964876217929) == size + entry + size


def test_an_empty_line_has_no_line_and_pieces_share_an_id() -> None:
    records = LocalRecords({})

    assert records.encode("stderr", b"\n", 5) == b"\0\0\0\x0a\x0a\x06stderr\x10\x05\0\0\0\x0a"
    first = records.encode("stdout", b"ab", 7)
    last = records.encode("stdout", b"c\nd\n", 9)
    start = first.index(b"*D\x12@") + 4  # partial_log_metadata of 68 bytes: id of 64, ordinal
    assert first[start + 64 : -4] == b"\x18\x01"
    assert last.index(b"*F\x08\x01\x12@" + first[start : start + 64] + b"\x18\x02") > 0
    assert last.endswith(b"\x10\x09\x1a\x01d" + first[:0] + struct.pack(">I", 13))


@pytest.mark.parametrize(
    ("number", "data"), [(0, b"\0"), (127, b"\x7f"), (128, b"\x80\x01"), (300, b"\xac\x02")]
)
def test_numbers_have_seven_bits_a_byte(number: int, data: bytes) -> None:
    assert varint(number) == data


@given(st.lists(st.binary(min_size=1, max_size=60), max_size=8), st.integers(1, 9))
def test_any_bytes_survive_cut_anywhere(chunks: list[bytes], size: int) -> None:
    records = LocalRecords({"tag": "é"})
    data = b"".join(records.encode("stdout", chunk, 1 << 60) for chunk in chunks)
    parser = LocalParser()

    lines = [line for at in range(0, len(data), size) for line in parser.feed(data[at : at + size])]

    assert b"".join(line.text for line in lines) == b"".join(chunks)
    assert {line.attrs for line in lines} <= {(("tag", "é"),)}
    assert records.count(data) == len(lines)


def test_records_are_cut_between_two() -> None:
    records = LocalRecords({})
    one = len(records.encode("stdout", b"a\n", 1))
    data = records.encode("stdout", b"a\nb\nc\n", 1)

    assert [records.cut(data, room) for room in (-5, 0, one - 1, one, 2 * one + 1, 99999)] == [
        0, 0, 0, one, 2 * one, 3 * one,
    ]  # fmt: skip


def test_a_torn_record_is_cut_off_before_more_is_written(tmp_path: Path) -> None:
    path = tmp_path / "log"
    for text in (b"one\n", b"two\n"):
        log = log_of("local", path)
        log.write("stdout", text)
        log.close()
        with path.open("ab") as file:
            file.write(b"\0\0\0\x20\x0a\x06std")

    log_of("local", path).close()

    assert [line.text for line in LocalParser().feed(path.read_bytes())] == [b"one\n", b"two\n"]


@pytest.mark.parametrize("data", [b"", b"\0", b"\0\0\0\1", b"\0\0\0\1x\0\0\0", b"\xff" * 40])
def test_a_file_without_a_whole_record_has_none(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "log").write_bytes(data)
    with (tmp_path / "log").open("rb") as file:
        assert whole_bytes(file.fileno(), len(data)) == 0
