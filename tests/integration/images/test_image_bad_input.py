"""Hostile and damaged archives: one line, nothing of it left, nothing outside touched."""

import gzip
import json
import os
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.base.errors import EngineError, InvalidArgument, NotSupported, OutOfSpace
from engine.images.limits import DEFAULT
from tests.support import archives
from tests.support.archives import Member, directory, hardlink, symlink, tar
from tests.support.imagelab import ImageLab

pytestmark = pytest.mark.requires("root")

GOOD = tar([Member("file", b"good\n")])
TEXT = b"text" * 500


@pytest.fixture
def lab(tmp_path: Path) -> ImageLab:
    (tmp_path / "canary").write_text("untouched")
    lab = ImageLab(tmp_path / "root")
    lab.load(archives.docker_archive([GOOD], ["kept:1"]))
    return lab


def refuse(lab: ImageLab, archive: bytes, message: str, kind: type[EngineError] = InvalidArgument) -> None:
    """Load `archive`, which must fail with `message` on one line and leave all as it was."""
    before = lab.stored()
    canary = lab.root.path.parent / "canary"
    with pytest.raises(kind) as caught:
        lab.load(archive)
    text = str(caught.value)
    assert message in text
    assert "\n" not in text
    assert len(text) < 500
    if kind is InvalidArgument:
        assert text.startswith("invalid image archive: ")
    assert lab.tags() == ["kept:1"]
    assert lab.stored() == before
    assert canary.read_text() == "untouched"
    assert sorted(os.listdir(canary.parent)) == ["canary", "root"]


def char_device(name: str, major: int, minor: int) -> Member:
    return Member(name, kind=tarfile.CHRTYPE, device=(major, minor))


def attribute(name: str, key: str) -> Member:
    return Member(name, pax=((f"SCHILY.xattr.{key}", "y"),))


LAYERS: dict[str, tuple[list[Member], str]] = {
    "climbs": ([Member("../canary", b"x")], "leads out of the archive"),
    "climbs later": ([Member("a/../../canary", b"x")], "leads out of the archive"),
    "climbs as a directory": ([directory("../../x")], "leads out of the archive"),
    "climbs as a whiteout": ([Member("../.wh.canary")], "leads out of the archive"),
    "hard link out": ([hardlink("a", "../canary")], "leads out of the archive"),
    "hard link to nothing": ([hardlink("a", "b")], "which is not in the layer"),
    "hard link to itself": ([Member("a"), hardlink("a", "a")], "hard link to itself"),
    "hard link to a directory": ([directory("d"), hardlink("a", "d")], "hard link to a directory"),
    "hard link to a deleted file": ([Member(".wh.x"), hardlink("a", "x")], "deleted file"),
    "link to a link as directory": ([symlink("a", "b"), symlink("b", "a"), Member("a/x")], "a/x"),
    "whiteout of nothing": ([Member(".wh.")], "deletes no file"),
    "whiteout of dot": ([Member("a/.wh..")], "deletes no file"),
    "whiteout of dots": ([Member("a/.wh...")], "deletes no file"),
    "whiteout as a directory": ([Member(".wh.a/b")], "in a directory's name"),
    "overlay's device": ([char_device("a", 0, 0)], "device 0:0 is reserved"),
    "overlay's attribute": ([attribute("a", "trusted.overlay.opaque")], "is reserved"),
    "overlay's user attribute": ([attribute("a", "user.overlay.opaque")], "is reserved"),
    "empty link": ([symlink("a", "")], "symbolic link without a target"),
    "deep": ([Member("/".join("d" * 600))], "deeper than 512 directories"),
    "long": ([Member("n" * 300)], "file name of 300 bytes"),
    "root is a file": (
        [Member("./", kind=tarfile.REGTYPE), Member(".", b"x")],
        "the root must be a directory",
    ),
    "many attributes": (
        [Member("a", pax=tuple((f"SCHILY.xattr.user.{n}", "v") for n in range(65)))],
        "more than 64 extended attributes",
    ),
}


@pytest.mark.parametrize("case", LAYERS)
def test_a_layer_is_refused(lab: ImageLab, case: str) -> None:
    members, message = LAYERS[case]
    refuse(lab, archives.docker_archive([tar(members)]), message)


def test_links_lead_nowhere_outside(lab: ImageLab) -> None:
    """An absolute or climbing link used as a directory stays in the layer, as in a container."""
    outside = lab.root.path.parent
    up = "../" * 40
    layer = tar(
        [
            directory(str(outside)[1:]),
            symlink("absolute", str(outside)),
            Member("absolute/canary", b"inside"),
            directory("tmp"),
            symlink("climbing", f"{up}tmp"),
            Member("climbing/evil", b"inside"),
            symlink("proc", "/proc/self/root"),
        ]
    )
    lab.load(archives.docker_archive([layer]))

    assert (outside / "canary").read_text() == "untouched"
    diff = lab.layer()
    assert (diff / str(outside)[1:] / "canary").read_text() == "inside"
    assert (diff / "tmp/evil").read_text() == "inside"
    assert not os.path.exists("/tmp/evil")


def test_a_later_entry_replaces_an_earlier_one(lab: ImageLab) -> None:
    layer = tar(
        [
            Member("a", b"first"),
            Member("a", b"second"),
            Member("d/x", b"x"),
            symlink("d", "/etc"),
            Member("f", b"f"),
            directory("f"),
            Member("f/g", b"g"),
        ]
    )
    lab.load(archives.docker_archive([layer]))

    assert (lab.layer() / "a").read_text() == "second"
    assert (lab.layer() / "d").is_symlink()
    assert (lab.layer() / "f/g").read_text() == "g"


def test_devices_get_their_numbers(lab: ImageLab) -> None:
    lab.load(
        archives.docker_archive([tar([char_device("null", 1, 3), Member("pipe", kind=tarfile.FIFOTYPE)])])
    )

    assert (lab.layer() / "null").stat().st_rdev == os.makedev(1, 3)
    assert (lab.layer() / "pipe").is_fifo()


def changed(change: Callable[[dict[str, Any]], object]) -> bytes:
    """Return a good archive whose manifest.json was changed."""
    files = archives.docker_files([GOOD])
    manifest = json.loads(files["manifest.json"])
    change(manifest[0])
    files["manifest.json"] = archives.encode(manifest)
    return archives.outer(files)


def configured(**changes: Any) -> bytes:
    return archives.docker_archive([GOOD], **changes)


ARCHIVES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "neither manifest.json nor index.json"),
    "text": (b"hello, I am no archive\n" * 100, "checksum"),
    "only zeros": (bytes(10240), "neither manifest.json nor index.json"),
    "truncated": (archives.docker_archive([GOOD])[:2000], "unexpected end of archive"),
    "truncated gzip": (gzip.compress(archives.docker_archive([GOOD]))[:-20], "ends early"),
    "bad gzip checksum": (gzip.compress(archives.docker_archive([GOOD]))[:-8] + bytes(8), "damaged gzip"),
    "two archives": (archives.docker_archive([GOOD]) * 2, "data after the end"),
    "climbing name": (tar([Member("../../manifest.json", b"[]")]), "leads out of the archive"),
    "device": (tar([char_device("x", 1, 3)]), "is no part of an image archive"),
    "garbage manifest": (archives.outer({"manifest.json": b"{]"}), "manifest.json"),
    "deep manifest": (archives.outer({"manifest.json": b"[" * 100_000}), "manifest.json"),
    "no images": (archives.outer({"manifest.json": b"[]"}), "names 0 images"),
    "wrong type": (archives.outer({"manifest.json": b'[{"Config": 1}]'}), "manifest.json"),
    "layer missing": (changed(lambda entry: entry.update(Layers=["nowhere.tar"])), "nowhere.tar is missing"),
    "config missing": (changed(lambda entry: entry.update(Config="../../etc/passwd")), "leads out"),
    "no layers": (changed(lambda entry: entry.update(Layers=[])), "names 1 layers, the manifest 0"),
    "bad tag": (changed(lambda entry: entry.update(RepoTags=["UPPER:1"])), "must be lowercase"),
    "tag with digest": (
        changed(lambda entry: entry.update(RepoTags=[f"a@sha256:{'0' * 64}"])),
        "invalid tag",
    ),
    "other diff id": (
        archives.docker_archive([GOOD], packed={0: tar([Member("other")])}),
        "the configuration says",
    ),
    "compressed garbage layer": (
        archives.docker_archive([GOOD], packed={0: gzip.compress(GOOD)[:-1]}),
        "ends early",
    ),
    "layer is text": (archives.docker_archive([TEXT]), "checksum"),
    "known layer is text": (archives.docker_archive([GOOD], packed={0: TEXT}), "the configuration says"),
    "digest traversal": (
        configured(rootfs={"type": "layers", "diff_ids": ["sha256:../../../../etc"]}),
        "invalid digest",
    ),
    "128 layers": (
        configured(rootfs={"type": "layers", "diff_ids": [f"sha256:{'0' * 64}"] * 128}),
        "128 layers, more than 127",
    ),
    "rootfs of another type": (configured(rootfs={"type": "windows"}), "rootfs type"),
    "environment with a line": (configured(config={"Env": ["A\nB=1"]}), "environment variable"),
    "null in a command": (configured(config={"Cmd": ["a\0b"]}), "null byte"),
    "user with a line": (configured(config={"User": "a\nb"}), "user"),
}


@pytest.mark.parametrize("case", ARCHIVES)
def test_an_archive_is_refused(lab: ImageLab, case: str) -> None:
    refuse(lab, *ARCHIVES[case])


def test_an_image_for_another_system_is_refused(lab: ImageLab) -> None:
    refuse(lab, configured(os="windows"), "image is for 'windows', not for linux", NotSupported)


def test_every_byte_of_an_oci_layout_is_checked(lab: ImageLab) -> None:
    files = archives.oci_files([GOOD])
    for name in [name for name in files if name.startswith("blobs/")]:
        refuse(lab, archives.outer(files | {name: files[name] + b"\0"}), "digest")
        refuse(lab, archives.outer({k: v for k, v in files.items() if k != name}), "is missing")


def test_a_name_that_promises_another_digest_is_refused(lab: ImageLab) -> None:
    files = archives.docker_files([GOOD])
    name = next(name for name in files if name.endswith(".json") and name != "manifest.json")
    refuse(lab, archives.outer(files | {name: files[name] + b" "}), "has the digest")


def test_a_bomb_ends_at_the_limit(tmp_path: Path) -> None:
    (tmp_path / "canary").write_text("untouched")
    lab = ImageLab(tmp_path / "root", replace(DEFAULT, unpacked_bytes=100_000, archive_bytes=1_000_000))
    lab.load(archives.docker_archive([GOOD], ["kept:1"]))
    layer = tar([Member("zeros", bytes(200_000))])

    packed = archives.docker_archive([layer], packed={0: gzip.compress(layer)})
    refuse(lab, packed, "unpacks to more than 100000 bytes", OutOfSpace)
    refuse(lab, gzip.compress(bytes(2_000_000)), "unpacks to more than 1000000 bytes", OutOfSpace)


def test_too_many_entries_are_refused(tmp_path: Path) -> None:
    (tmp_path / "canary").write_text("untouched")
    lab = ImageLab(tmp_path / "root", replace(DEFAULT, entries=10))
    lab.load(archives.docker_archive([GOOD], ["kept:1"]))

    layer = tar([Member(f"f{number}") for number in range(11)])
    refuse(lab, archives.docker_archive([layer]), "more than 10 entries")


def test_one_bad_image_of_an_archive_takes_the_others_with_it(lab: ImageLab) -> None:
    good, bad = archives.docker_files([GOOD], ["good:1"]), archives.docker_files([GOOD], ["bad:1"])
    manifest = json.loads(good["manifest.json"]) + json.loads(bad["manifest.json"])
    manifest[1]["Layers"] = ["missing"]
    refuse(lab, archives.outer(good | {"manifest.json": archives.encode(manifest)}), "missing is missing")


def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    """A tmpfs of 2 MB stands for the full disk; the engine goes on, and the image fits once there is room."""
    disk = tmp_path / "disk"
    disk.mkdir()
    assert os.spawnlp(os.P_WAIT, "mount", "mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)) == 0
    try:
        lab = ImageLab(disk / "root")
        big = archives.docker_archive([tar([Member("big", os.urandom(1_500_000))])])
        with pytest.raises(OutOfSpace) as caught:
            lab.load(big)
        assert "\n" not in str(caught.value)
        assert lab.stored() == set()
        assert os.spawnlp(os.P_WAIT, "mount", "mount", "-o", "remount,size=20m", str(disk)) == 0
        lab.load(big)
        assert lab.tags() == ["img:1"]
    finally:
        assert os.spawnlp(os.P_WAIT, "umount", "umount", str(disk)) == 0
