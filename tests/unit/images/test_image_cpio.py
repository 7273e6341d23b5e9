import subprocess
from pathlib import Path

import pytest
from cpio import Archive  # type: ignore[import-not-found,unused-ignore]


def _archive(path: Path) -> bytes:
    archive = Archive()
    archive.directory("dev")
    archive.device("dev/console", 5, 1)
    archive.file("init", b"#!/bin/sh\n", mode=0o755)
    archive.link("sh", "busybox")
    archive.write(path)
    return path.read_bytes()


def test_every_member_starts_on_four_bytes_and_the_trailer_ends_it(tmp_path: Path) -> None:
    data = _archive(tmp_path / "a.cpio")

    starts = [at for at in range(0, len(data), 4) if data[at : at + 6] == b"070701"]
    assert len(starts) == data.count(b"070701") == 5
    assert b"TRAILER!!!\0" in data[starts[-1] :]
    assert len(data) % 4 == 0


def test_two_writings_are_the_same_bytes(tmp_path: Path) -> None:
    assert _archive(tmp_path / "a.cpio") == _archive(tmp_path / "b.cpio")


@pytest.mark.requires("cpio")
def test_cpio_lists_what_was_written(tmp_path: Path) -> None:
    listing = subprocess.run(
        ["cpio", "-tv", "--quiet", "--numeric-uid-gid"],
        input=_archive(tmp_path / "a.cpio"),
        capture_output=True,
        check=True,
    ).stdout.decode()

    lines = listing.splitlines()
    assert lines[0].startswith("drwxr-xr-x")
    assert lines[1].startswith("crw-------")
    assert "5,   1" in lines[1]
    assert lines[2].startswith("-rwxr-xr-x")
    assert lines[3].endswith("sh -> busybox")
