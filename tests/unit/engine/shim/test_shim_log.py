import json
import os
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.shim.jsonrecords import Clock, JsonRecords, encode
from engine.shim.log import PARTIAL_MAX_BYTES, split
from tests.support.loglab import log_of

STAMP = b"2026-01-02T03:04:05.000000006Z"


def records(data: bytes) -> list[dict[str, str]]:
    assert data == b"" or data.endswith(b"\n")
    return [json.loads(line) for line in data.splitlines()]


def text_of(data: bytes) -> str:
    return "".join(record["log"] for record in records(data))


def test_a_record_is_dockers() -> None:
    assert encode(b"hello\n", "stdout", STAMP) == (
        b'{"log":"hello\\n","stream":"stdout","time":"2026-01-02T03:04:05.000000006Z"}\n'
    )


def test_attributes_are_in_each_record_as_docker_has_them() -> None:
    got = JsonRecords({"b": 'q"', "a": "x"}).encode("stdout", b"1\n2\n", 0)

    end = b'"stream":"stdout","attrs":{"a":"x","b":"q\\""},"time":"1970-01-01T00:00:00.000000000Z"}\n'
    assert got == b'{"log":"1\\n",' + end + b'{"log":"2\\n",' + end


def test_each_line_is_a_record_and_the_last_may_lack_its_newline() -> None:
    got = records(encode(b"a\n\nb", "stderr", STAMP))

    assert [record["log"] for record in got] == ["a\n", "\n", "b"]
    assert {record["stream"] for record in got} == {"stderr"}


@pytest.mark.parametrize(
    "text", ['"', "\\", "\\n", '\\"\n', "\x00\x1b[31m\x1f\x7f", "\t\r\n\b\f", "é\u2028😀"]
)
def test_every_character_survives(text: str) -> None:
    assert text_of(encode(text.encode(), "stdout", STAMP)) == text


@given(st.text(max_size=300))
@settings(max_examples=300, deadline=None)
def test_any_text_survives_line_by_line(text: str) -> None:
    data = text.encode()

    got = records(encode(data, "stdout", STAMP)) if data else []

    assert [record["log"] for record in got] == list(re.findall(r"[^\n]*\n|[^\n]+", text))


@given(st.binary(min_size=1, max_size=300))
@settings(max_examples=300, deadline=None)
def test_any_bytes_become_valid_json(data: bytes) -> None:
    assert text_of(encode(data, "stdout", STAMP)) == data.decode(errors="replace")


@given(st.text(max_size=200), st.integers(1, 7))
@settings(max_examples=200, deadline=None)
def test_text_survives_being_cut_anywhere(
    tmp_path_factory: pytest.TempPathFactory, text: str, size: int
) -> None:
    path = tmp_path_factory.mktemp("log") / "log"
    log = log_of("json-file", path)
    data = text.encode()
    for at in range(0, len(data), size):
        log.write("stdout", data[at : at + size])
    log.finish()
    log.close()

    assert text_of(path.read_bytes()) == text


def test_a_line_without_end_waits_and_is_logged_in_pieces() -> None:
    assert split(b"a\nbc") == (b"a\n", b"bc")
    long = b"x" * PARTIAL_MAX_BYTES
    assert split(long) == (long, b"")


@pytest.mark.parametrize("sequence", ["é".encode(), "€".encode(), "😀".encode()])
def test_a_piece_does_not_end_inside_a_character(sequence: bytes) -> None:
    for size in range(1, len(sequence)):
        text = b"x" * PARTIAL_MAX_BYTES + sequence[:size]
        assert split(text) == (b"x" * PARTIAL_MAX_BYTES, sequence[:size])
    whole = b"x" * PARTIAL_MAX_BYTES + sequence
    assert split(whole) == (whole, b"")


def test_streams_do_not_mix_their_unfinished_lines(tmp_path: Path) -> None:
    log = log_of("json-file", tmp_path / "log")
    log.write("stdout", b"o1 ")
    log.write("stderr", b"e\n")
    log.write("stdout", b"o2\n")
    log.close()

    got = records((tmp_path / "log").read_bytes())
    assert [(record["stream"], record["log"]) for record in got] == [("stderr", "e\n"), ("stdout", "o1 o2\n")]


def test_times_have_nine_digits_and_grow_over_seconds() -> None:
    clock = Clock()

    assert clock.stamp(0) == b"1970-01-01T00:00:00.000000000Z"
    assert clock.stamp(1_700_000_000_000_000_001) == b"2023-11-14T22:13:20.000000001Z"
    assert clock.stamp(1_700_000_001_999_999_999) == b"2023-11-14T22:13:21.999999999Z"


@pytest.mark.parametrize("files", [1, 2, 3, 5])
def test_rotation_keeps_the_newest_whole_records_in_order(tmp_path: Path, files: int) -> None:
    path = tmp_path / "log"
    log = log_of("json-file", path, max_bytes=2000, max_files=files)
    for number in range(40):
        log.write("stdout", b"".join(b"line %d.%d\n" % (number, part) for part in range(number % 7)))
    log.finish()
    log.close()

    names = [f"log.{number}" for number in range(files - 1, 0, -1)] + ["log"]
    assert sorted(os.listdir(tmp_path)) == sorted(names)
    kept = b"".join((tmp_path / name).read_bytes() for name in names)
    assert all((tmp_path / name).stat().st_size <= 2000 for name in names)
    written = [f"line {number}.{part}\n" for number in range(40) for part in range(number % 7)]
    got = [record["log"] for record in records(kept)]
    assert got == written[-len(got) :]


def test_a_record_larger_than_a_file_gets_one_of_its_own(tmp_path: Path) -> None:
    log = log_of("json-file", tmp_path / "log", max_bytes=100, max_files=3)
    log.write("stdout", b"a\n" + b"x" * 500 + b"\nb\n")
    log.close()

    got = [
        record["log"]
        for name in ("log.2", "log.1", "log")
        for record in records((tmp_path / name).read_bytes())
    ]
    assert got == ["a\n", "x" * 500 + "\n", "b\n"]


def test_appending_goes_on_after_a_torn_record(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b'{"log":"whole\\n","stream":"stdout","time":"x"}\n{"log":"to')
    log = log_of("json-file", path)
    log.write("stdout", b"next\n")
    log.close()

    lines = path.read_bytes().splitlines()
    assert lines[1] == b'{"log":"to'
    assert json.loads(lines[2])["log"] == "next\n"


@pytest.mark.parametrize("driver", ["json-file", "local"])
def test_a_full_disk_drops_records_whole_and_says_so(driver: str) -> None:
    warnings: list[str] = []
    log = log_of(driver, Path("/dev/full"), warn=warnings.append)

    log.write("stdout", b"a\nb\n")
    log.write("stdout", b"c\n")
    log.close()

    assert warnings == ["log /dev/full: 2 records dropped: no space left on device"]
