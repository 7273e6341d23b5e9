import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from vmguest.init import disk
from vmguest.init.disk import Content, DiskError


def _ext_head(*, state: int = 0, incompat: int = 0) -> bytes:
    head = bytearray(64 * 1024)
    head[1080:1082] = b"\x53\xef"
    head[1082:1084] = state.to_bytes(2, "little")
    head[1120:1124] = incompat.to_bytes(4, "little")
    return bytes(head)


@pytest.mark.parametrize(
    ("head", "content"),
    [
        (bytes(65536), Content.BLANK),
        (_ext_head(state=1, incompat=0x2C2), Content.CLEAN),
        (_ext_head(state=1, incompat=0x2C6), Content.EXT),
        (_ext_head(state=2, incompat=0x2C2), Content.EXT),
        (_ext_head(state=3), Content.EXT),
        (_ext_head(state=0), Content.EXT),
        (b"QFI\xfb" + bytes(65532), Content.OTHER),
        (bytes(65535) + b"x", Content.OTHER),
        (b"", Content.BLANK),
    ],
)
def test_the_head_of_a_disk_says_what_it_holds(head: bytes, content: Content) -> None:
    assert disk.content_of(head) is content


def _device(tmp_path: Path, head: bytes) -> str:
    path = tmp_path / "disk"
    path.write_bytes(head)
    return str(path)


def test_a_disk_with_foreign_content_is_neither_formatted_nor_checked(tmp_path: Path) -> None:
    device = _device(tmp_path, b"something" + bytes(65536))
    ran: list[object] = []

    def run(argv: Sequence[str]) -> int:
        ran.append(argv)
        return 0

    with pytest.raises(DiskError, match="left untouched"):
        disk.prepare(device, run)

    assert ran == []


@pytest.mark.parametrize("code", [4, 8, 12, -9, 127])
def test_a_disk_that_fsck_gives_up_on_is_not_mounted(tmp_path: Path, code: int) -> None:
    device = _device(tmp_path, _ext_head())

    with pytest.raises(DiskError, match=f"damaged and was left untouched: fsck.ext4 exit status {code}"):
        disk.prepare(device, lambda _: code)


def test_a_disk_that_cannot_be_formatted_says_so(tmp_path: Path) -> None:
    with pytest.raises(DiskError, match=r"mkfs\.ext4 exit status 1"):
        disk.prepare(_device(tmp_path, bytes(65536)), lambda _: 1)


@pytest.mark.parametrize(
    ("size_bytes", "percent"),
    [(64 << 30, "0.0977"), (1 << 40, "0.0061"), (300 << 20, "5.0000"), (0, "5.0000")],
)
def test_a_little_of_a_disk_is_kept_from_containers(size_bytes: int, percent: str) -> None:
    assert disk.kept_percent(size_bytes) == percent


def test_the_size_of_a_disk_is_that_of_its_last_byte(tmp_path: Path) -> None:
    assert disk.size_of(_device(tmp_path, bytes(65536))) == 65536


def test_the_disk_is_found_by_its_serial_number(tmp_path: Path) -> None:
    for name, serial in (("vda", "pyengine-root\n"), ("vdb", "pyengine-data\n"), ("loop0", "pyengine-data")):
        os.makedirs(tmp_path / name)
        (tmp_path / name / "serial").write_text(serial)

    assert disk.find(str(tmp_path)) == "/dev/vdb"


def test_a_missing_disk_is_told_after_the_deadline(tmp_path: Path) -> None:
    with pytest.raises(DiskError, match="no disk with serial number pyengine-data"):
        disk.find(str(tmp_path), timeout_s=0)
