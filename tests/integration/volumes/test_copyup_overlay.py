"""Copy-up against the kernel's own overlayfs: both must see the same tree."""

import asyncio
import os
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.base.paths import Root
from engine.volumes.service import VolumeService

pytestmark = pytest.mark.requires("root", "namespaces")


def whiteout(path: Path) -> None:
    os.mknod(path, stat.S_IFCHR, 0)


def opaque(path: Path) -> None:
    os.setxattr(path, "trusted.overlay.opaque", b"y")


def layers_of(tmp_path: Path) -> list[Path]:
    """Make three layers, lowest first, with every way in which one can cover another."""
    low, middle, top = (tmp_path / name for name in ("low", "middle", "top"))
    for layer in (low, middle, top):
        (layer / "data").mkdir(parents=True)
    (low / "data/kept").write_text("low")
    (low / "data/replaced").write_text("low")
    (low / "data/removed").write_text("low")
    (low / "data/dir-removed/x").mkdir(parents=True)
    for name in ("opaque", "merged", "becomes-file"):
        (low / "data" / name).mkdir()
        (low / "data" / name / "low").write_text(name)
    (low / "data/becomes-dir").write_text("low")
    (low / "data/reappears").write_text("low")

    (middle / "data/replaced").write_text("middle")
    whiteout(middle / "data/removed")
    whiteout(middle / "data/dir-removed")
    whiteout(middle / "data/reappears")
    (middle / "data/opaque").mkdir()
    opaque(middle / "data/opaque")
    (middle / "data/opaque/middle").touch()
    (middle / "data/merged").mkdir(mode=0o700)
    (middle / "data/merged/middle").touch()
    whiteout(middle / "data/merged/low")
    (middle / "data/becomes-file").write_text("a file")

    (top / "data/reappears").mkdir()
    (top / "data/reappears/new").touch()
    (top / "data/becomes-dir").mkdir()
    (top / "data/opaque").mkdir()
    (top / "data/opaque/top").touch()
    os.link(top / "data/opaque/top", top / "data/hard-link")
    os.symlink("/etc/passwd", top / "data/absolute-link")
    os.symlink("../../../../etc", top / "data/climbing-link")
    os.mkfifo(top / "data/fifo")
    suid = top / "data/suid"
    suid.write_bytes(b"#!")
    os.chown(suid, 1234, 4321)
    suid.chmod(0o6755)
    os.setxattr(suid, "security.capability", bytes.fromhex("0100000200040000000000000000000000000000"))
    os.setxattr(suid, "user.note", b"hello")
    with (top / "data/sparse").open("wb") as file:
        file.truncate(1 << 40)
        file.seek(1 << 30)
        file.write(b"island")
    os.utime(top / "data/suid", ns=(10**18, 10**18 + 123456789))
    os.utime(top / "data", ns=(10**18, 10**18 + 987654321))
    os.chown(top / "data", 7, 8)
    return [low, middle, top]


def picture(root: Path) -> dict[str, tuple[object, ...]]:
    found: dict[str, tuple[object, ...]] = {}
    for directory, names, files in os.walk(root):
        for name in [".", *names, *files] if directory == str(root) else [*names, *files]:
            path = Path(directory, name)
            status = path.lstat()
            kind = stat.S_IFMT(status.st_mode)
            content: object = None
            if kind == stat.S_IFREG and status.st_size < 1 << 20:
                content = path.read_bytes()
            elif kind == stat.S_IFLNK:
                content = os.readlink(path)
            attributes = {
                each: os.getxattr(path, each, follow_symlinks=False)
                for each in os.listxattr(path, follow_symlinks=False)
            }
            size = status.st_size if kind == stat.S_IFREG else 0
            found[os.path.relpath(path, root)] = (
                status.st_mode,
                status.st_uid,
                status.st_gid,
                size,
                status.st_mtime_ns,
                content,
                attributes,
            )
    return found


def overlay_picture(tmp_path: Path, layers: list[Path]) -> dict[str, tuple[object, ...]]:
    """Return what overlayfs shows; the mount is gone afterwards."""
    mountpoint = tmp_path / "mnt"
    mountpoint.mkdir()
    lower = ":".join(str(layer) for layer in reversed(layers))
    mount = ["mount", "-t", "overlay", "-o", f"ro,lowerdir={lower}", "overlay", str(mountpoint)]
    subprocess.run(mount, check=True)
    try:
        return picture(mountpoint / "data")
    finally:
        subprocess.run(["umount", str(mountpoint)], check=True)


def populated(tmp_path: Path, layers: list[Path], path: str) -> Path:
    service = VolumeService(Root(tmp_path / "root"))

    async def work() -> Path:
        await service.open()
        await service.create("vol")
        await service.populate("vol", layers, path)
        return service.source_path("vol")

    return asyncio.run(work())


def test_copy_up_equals_what_overlayfs_shows(tmp_path: Path) -> None:
    layers = layers_of(tmp_path)

    data = populated(tmp_path, layers, "/data")

    assert picture(data) == overlay_picture(tmp_path, layers)
    assert (data / "hard-link").stat().st_ino == (data / "opaque/top").stat().st_ino
    assert (data / "sparse").stat().st_blocks < 100
    with (data / "sparse").open("rb") as file:
        file.seek(1 << 30)
        assert file.read(6) == b"island"


@pytest.mark.parametrize(
    ("link", "path"),
    [
        (lambda top: os.symlink("/data", top / "link"), "/link"),
        (lambda top: os.symlink("../../../../../data", top / "link"), "/link/"),
        (lambda top: os.symlink("../data", top / "data/link"), "/data/link/./../data"),
    ],
)
def test_links_on_the_way_stay_inside_the_image(
    tmp_path: Path, link: Callable[[Path], None], path: str
) -> None:
    layer = tmp_path / "layer"
    (layer / "data").mkdir(parents=True)
    (layer / "data/file").write_text("inside")
    link(layer)

    assert (populated(tmp_path, [layer], path) / "file").read_text() == "inside"


def test_a_link_out_of_the_image_and_a_link_to_itself_find_nothing(tmp_path: Path) -> None:
    layer = tmp_path / "layer"
    layer.mkdir()
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").touch()
    os.symlink(outside, layer / "out")
    os.symlink("loop", layer / "loop")

    assert os.listdir(populated(tmp_path / "a", [layer], "/out")) == []
    assert os.listdir(populated(tmp_path / "b", [layer], "/loop")) == []
