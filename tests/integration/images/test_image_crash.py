"""Kill an engine at every step of a load and of a removal: the image is there whole, or not at all.

The steps are the system calls that change what is durable. strace lets the
child run to its k-th one and kills it there, for each k until one run ends by
itself.
"""

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from engine.images.service import ImageService
from tests.support import archives
from tests.support.archives import Member, directory, tar
from tests.support.imagelab import ImageLab

pytestmark = pytest.mark.requires("root", "strace")

LAYERS = [
    tar([directory("etc"), Member("etc/file", b"low\n"), Member("etc/other", b"other\n")]),
    tar([Member("etc/file", b"high\n")]),
]
KEPT = [tar([Member("kept", b"kept\n")])]
STEPS = ("rename", "unlink,unlinkat", "mkdir,mkdirat", "syncfs", "fsync,fdatasync")
MOST_STEPS = 60
CHILD = """
import asyncio, sys
from pathlib import Path
from tests.support.imagelab import ImageLab
lab = ImageLab(Path(sys.argv[1]))
if sys.argv[2] == "load":
    lab.load(Path(sys.argv[3]).read_bytes())
else:
    lab.run(lambda service: service.remove(sys.argv[3]))
"""


def ends_at(calls: str, number: int, *argv: str) -> bool:
    """Run the child; tell whether it was killed at the call of that number."""
    command = ["strace", "-qq", "-f", "-o", "/dev/null", "-e", f"trace={calls}"]
    command += ["-e", f"inject={calls}:signal=KILL:when={number}"]
    done = subprocess.run(
        [*command, sys.executable, "-c", CHILD, *argv], check=False, capture_output=True, timeout=60
    )
    assert done.returncode in (0, -signal.SIGKILL, 128 + signal.SIGKILL), done.stderr.decode()
    return done.returncode != 0


def check(lab: ImageLab, name: str, layers: list[bytes]) -> bool:
    """Check that the image is whole or absent, and that nothing else is on the disk; tell which."""

    async def images(service: ImageService) -> dict[str, tuple[str, ...]]:
        return {image.id: image.repo_tags for image in service.all()}

    found = lab.run(images)
    wanted = archives.image_id(layers)
    kept = archives.image_id(KEPT)
    assert found.pop(kept) == ("kept:1",)
    assert (lab.layer(0, "kept:1") / "kept").read_text() == "kept\n"
    assert found in ({}, {wanted: (name,)})
    blobs, directories = 3, 1  # of the image that is always there
    if found:
        blobs, directories = blobs + 2 + len(layers), directories + len(layers)
        assert (lab.layer(0, name) / "etc/other").read_text() == "other\n"
        assert (lab.layer(1, name) / "etc/file").read_text() == "high\n"
    stored = lab.stored()
    assert len([one for one in stored if one.startswith("blobs/")]) == blobs
    assert len([one for one in stored if one.startswith("layers/")]) == directories
    assert not [one for one in stored if one.startswith("tmp/")]
    return bool(found)


@pytest.mark.parametrize("calls", STEPS)
def test_killed_while_it_loads(tmp_path: Path, calls: str) -> None:
    archive = tmp_path / "archive.tar"
    archive.write_bytes(archives.docker_archive(LAYERS, ["img:1"]))
    lab = ImageLab(tmp_path / "root")
    lab.load(archives.docker_archive(KEPT, ["kept:1"]))
    for number in range(1, MOST_STEPS):
        killed = ends_at(calls, number, str(lab.root.path), "load", str(archive))
        there = check(lab, "img:1", LAYERS)
        if not killed:
            assert there
            assert number > 1, f"no call of {calls} was seen"
            return
        if there:  # committed before the kill: start over
            lab.run(lambda service: service.remove("img:1"))
    pytest.fail(f"more than {MOST_STEPS} calls of {calls}")


@pytest.mark.parametrize("calls", STEPS[:2])
def test_killed_while_it_removes(tmp_path: Path, calls: str) -> None:
    lab = ImageLab(tmp_path / "root")
    lab.load(archives.docker_archive(KEPT, ["kept:1"]))
    for number in range(1, MOST_STEPS):
        lab.load(archives.docker_archive(LAYERS, ["img:1"]))
        killed = ends_at(calls, number, str(lab.root.path), "remove", "img:1")
        there = check(lab, "img:1", LAYERS)
        if not killed:
            assert not there
            assert number > 1, f"no call of {calls} was seen"
            return
    pytest.fail(f"more than {MOST_STEPS} calls of {calls}")


def test_a_first_image_that_was_not_committed_does_not_come_back(tmp_path: Path) -> None:
    archive = tmp_path / "archive.tar"
    archive.write_bytes(archives.docker_archive(LAYERS, ["img:1"]))
    published = 0
    for number in range(1, MOST_STEPS):
        lab = ImageLab(tmp_path / str(number))  # a new store each time: its directories are steps too
        lab.run(lambda service: asyncio.sleep(0, service))
        killed = ends_at("fsync,fdatasync", number, str(lab.root.path), "load", str(archive))
        whole = len([name for name in lab.stored() if name.startswith("layers/")]) == len(LAYERS)
        if not killed:
            break
        published += whole and lab.tags() == []
        assert lab.tags() or lab.stored() == set()
    assert published  # at least once all was on the disk, and nothing committed
