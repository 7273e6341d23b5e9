"""Trees as a container may leave them: measured and removed whatever is in them."""

import os
from pathlib import Path

from engine.snapshots import trees


def _make_deep(top: Path, depth: int, name: str) -> None:
    fd = os.open(top, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir(name, dir_fd=fd)
        below = os.open(name, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    file = os.open("file", os.O_WRONLY | os.O_CREAT, dir_fd=fd)
    os.write(file, b"12345")
    os.close(file)
    os.close(fd)


def test_a_tree_deeper_than_any_path_is_measured_and_removed(tmp_path: Path) -> None:
    top = tmp_path / "top"
    top.mkdir()
    _make_deep(top, 1500, "directory")
    (top / "more").mkdir()
    (top / "more/file").write_bytes(b"67")
    before = len(os.listdir("/proc/self/fd"))

    assert trees.usage(top) == (7, 1503)
    trees.remove(top)

    assert not top.exists()
    assert len(os.listdir("/proc/self/fd")) == before


def test_hard_links_count_once_and_links_lead_nowhere(tmp_path: Path) -> None:
    top, outside = tmp_path / "top", tmp_path / "outside"
    for directory in (top, outside):
        directory.mkdir()
        (directory / "file").write_bytes(b"123")
    os.link(top / "file", top / "same")
    (top / "there").symlink_to(outside)
    (top / "missing").symlink_to("nowhere")
    os.mkfifo(top / "fifo")

    assert trees.usage(top) == (3, 4)
    trees.remove(top)

    assert (outside / "file").read_bytes() == b"123"


def test_what_is_not_there_has_no_size(tmp_path: Path) -> None:
    assert trees.usage(tmp_path / "missing") == (0, 0)
    trees.remove(tmp_path / "missing")
