import gzip
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.shim.compress import Extra, gzip_extra, gzip_header
from engine.shim.loop import Loop
from tests.support.loglab import log_of, unexpected


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log"


def rotated(path: Path, warn: Callable[[str], None] = unexpected) -> None:
    """Write a log of which one file is rotated."""
    log = log_of("json-file", path, max_bytes=1000, max_files=5, compress=True, warn=warn)
    for number in range(12):
        log.write("stdout", b"line %d of some text\n" % number)
    log.close()


def test_a_rotated_file_becomes_gzip_that_says_what_it_was(path: Path) -> None:
    rotated(path)

    packed = path.with_name("log.1.gz")
    text = gzip.decompress(packed.read_bytes())
    extra = gzip_extra(packed.read_bytes())
    assert text.startswith(b'{"log":"line 0 of')
    assert text.endswith(b'"%s"}\n' % extra.last_time.encode())
    assert extra.source is not None
    assert sorted(os.listdir(path.parent)) == ["log", "log.1.gz"]


@pytest.mark.parametrize(
    "head",
    [b"", b"\x1f\x8b\x08\x00" + b"\0" * 20, gzip_header(Extra("x"))[:13], b"\x1f\x8b\x08\x04" + b"\xff" * 40],
)
def test_another_header_says_nothing(head: bytes) -> None:
    assert gzip_extra(head) == Extra()


def test_what_a_killed_shim_has_left_is_no_hindrance_and_lost_to_nobody(path: Path) -> None:
    path.with_name(".log.1.gz.new").write_bytes(b"half of it")
    path.with_name("log.1").write_bytes(b'{"log":"plain\\n","stream":"stdout","time":"x"}\n')

    rotated(path)

    assert sorted(os.listdir(path.parent)) == ["log", "log.1.gz", "log.2"]
    assert b"plain" in path.with_name("log.2").read_bytes()


def test_a_file_that_cannot_be_compressed_stays_and_is_told_of(path: Path) -> None:
    path.with_name(".log.1.gz.new").mkdir()  # in the way
    said: list[str] = []

    rotated(path, said.append)

    assert said == [f"log {path}.1: not compressed: is a directory"]
    assert sorted(os.listdir(path.parent)) == [".log.1.gz.new", "log", "log.1"]


def test_a_log_is_full_while_a_file_is_compressed_and_tells_when_it_has_room(path: Path) -> None:
    loop = Loop()
    log = log_of("json-file", path, loop=loop, max_bytes=1000, max_files=5, compress=True)
    freed: list[bool] = []

    def has_room() -> None:
        freed.append(log.is_full)
        loop.stop()

    log.when_room(has_room)
    number = 0
    while not log.is_full:
        number += 1
        log.write("stdout", b"line %d of some text\n" % number)
    loop.run()
    log.close()
    loop.close()

    assert freed == [False]
    assert path.with_name("log.1.gz").exists()
