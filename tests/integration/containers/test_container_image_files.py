"""/etc/passwd and /etc/group of an image, whatever they are: no start hangs, none takes the host's."""

import os
from pathlib import Path

import pytest

from engine.base.errors import InvalidArgument
from engine.containers.imagefiles import read

_MIB = 1 << 20


@pytest.fixture
def layer(tmp_path: Path) -> Path:
    (tmp_path / "layer/etc").mkdir(parents=True)
    (tmp_path / "secret").write_text("of the host\n")
    return tmp_path / "layer"


def test_a_file_is_read_up_to_a_mebibyte(layer: Path) -> None:
    (layer / "etc/passwd").write_bytes(b"x" * _MIB)
    assert read([layer], "/etc/passwd") == b"x" * _MIB


@pytest.mark.parametrize("kind", ["fifo", "directory", "device", "socket", "huge", "sparse"])
def test_what_is_no_small_file_is_refused_at_once(layer: Path, kind: str) -> None:
    """CVE-2026-47262, CVE-2024-9676: the engine read it all, or waited for ever."""
    path = layer / "etc/passwd"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    elif kind == "device":
        os.mknod(path, 0o20666, os.makedev(1, 5))
    elif kind == "socket":
        os.mknod(path, 0o140666)
    else:
        with path.open("wb") as file:
            file.write(b"x" * (_MIB + 1)) if kind == "huge" else file.truncate(1 << 40)

    with pytest.raises(InvalidArgument, match="/etc/passwd of the image is "):
        read([layer], "/etc/passwd")


@pytest.mark.parametrize(
    "target", ["{host}/secret", "../../secret", "/proc/self/root{host}/secret", "passwd"]
)
def test_a_link_leads_nowhere_but_into_the_image(layer: Path, target: str) -> None:
    (layer / "etc/passwd").symlink_to(target.format(host=layer.parent))
    assert read([layer], "/etc/passwd") == b""


def test_a_directory_that_is_a_link_leads_nowhere_but_into_the_image(layer: Path) -> None:
    (layer / "etc").rmdir()
    (layer / "etc").symlink_to("/etc")
    assert read([layer], "/etc/passwd") == b""
    (layer.parent / "passwd").write_text("root:x:0:0::/:/bin/sh\n")
    (layer / "etc").unlink()
    (layer / "etc").symlink_to("..")
    assert read([layer], "/etc/passwd") == b""
