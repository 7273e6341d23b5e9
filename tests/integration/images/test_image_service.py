"""Images on a real disk: load, names, removal, and what is on the disk after each."""

import asyncio
import contextlib
import gzip
import lzma
import os
import stat
import tarfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from engine.base.errors import Conflict, InvalidArgument, NotFound
from engine.images.model import ImageUse
from engine.images.service import ImageService
from tests.support import archives
from tests.support.archives import Member, directory, hardlink, symlink, tar
from tests.support.imagelab import ImageLab, chunks

pytestmark = pytest.mark.requires("root")

BASE = tar(
    [directory("etc"), Member("etc/motd", b"one\n"), Member("bin/sh", b"#!", mode=0o4755, uid=7, gid=8)]
)
UPPER = tar([Member("etc/motd", b"two\n"), directory("srv")])


@pytest.fixture
def lab(tmp_path: Path) -> ImageLab:
    return ImageLab(tmp_path / "root")


def pack_xz(data: bytes) -> bytes:
    return lzma.compress(data)


@pytest.mark.parametrize("pack", [bytes, gzip.compress, pack_xz])
def test_a_docker_archive_is_loaded_whatever_its_compression(
    lab: ImageLab, pack: Callable[[bytes], bytes]
) -> None:
    layers = [BASE, UPPER]
    said = lab.load(pack(archives.docker_archive(layers, packed={1: pack(UPPER)})))

    async def look(service: ImageService) -> None:
        image = service.resolve("img:1")
        assert image.id == archives.image_id(layers)
        assert image.diff_ids == tuple(map(archives.digest, layers))
        assert image.size_bytes == len(b"one\n#!two\n")
        assert service.resolve(image.id[7:19]) == image == service.resolve(image.id)

    assert said == [{"stream": "Loaded image: img:1\n"}]
    assert lab.events == [("load", archives.image_id(layers), "img:1")]
    lab.run(look)
    top, bottom = lab.layer(1), lab.layer(0)
    assert (bottom / "etc/motd").read_text() == "one\n"
    assert (top / "etc/motd").read_text() == "two\n"
    shell = (bottom / "bin/sh").stat()
    assert (stat.S_IMODE(shell.st_mode), shell.st_uid, shell.st_gid) == (0o4755, 7, 8)
    assert not os.listdir(lab.root.tmp)


def test_an_oci_layout_is_loaded_under_the_name_of_its_index(lab: ImageLab) -> None:
    lab.load(archives.outer(archives.oci_files([BASE], "registry.example/team/app:7")))

    assert lab.tags() == ["registry.example/team/app:7"]


@pytest.mark.requires("skopeo")
def test_what_skopeo_converts_is_the_same_image(lab: ImageLab, tmp_path: Path) -> None:
    source, target = tmp_path / "docker.tar", tmp_path / "oci.tar"
    source.write_bytes(archives.docker_archive([BASE, UPPER]))
    skopeo = [
        "skopeo",
        "--insecure-policy",
        "copy",
        f"docker-archive:{source}",
        f"oci-archive:{target}:copy:1",
    ]
    assert os.spawnvp(os.P_WAIT, "skopeo", skopeo) == 0

    lab.load(target.read_bytes())
    lab.load(source.read_bytes())

    async def diff_ids(service: ImageService) -> set[tuple[str, ...]]:
        return {image.diff_ids for image in service.all()}

    assert len(lab.run(diff_ids)) == 1
    assert "img:1" in lab.tags()


@pytest.mark.requires("namespaces")
def test_whiteouts_and_links_look_as_a_container_would_see_them(lab: ImageLab, tmp_path: Path) -> None:
    low = tar(
        [Member("gone/x", b"x"), Member("kept/x", b"x"), Member("opaque/low", b"l"), symlink("link", "kept")]
    )
    high = tar(
        [
            Member(".wh.gone"),
            Member("link/y", b"y"),  # through no link of another layer
            directory("opaque"),
            Member("opaque/.wh..wh..opq"),
            Member("opaque/high", b"h"),
            Member("a", b"same"),
            hardlink("b", "a"),
            symlink("out", "/etc/passwd"),
        ]
    )
    lab.load(archives.docker_archive([low, high]))
    top = lab.layer(1)

    gone = (top / "gone").lstat()
    assert stat.S_ISCHR(gone.st_mode)
    assert gone.st_rdev == 0
    assert os.getxattr(top / "opaque", "trusted.overlay.opaque") == b"y"
    assert (top / "a").stat().st_ino == (top / "b").stat().st_ino
    assert (top / "out").readlink() == Path("/etc/passwd")

    chain_ids = [f"sha256:{path.parent.name}" for path in (lab.layer(0), top)]
    [mount] = lab.snapshotter.prepare("c" * 64, chain_ids)
    seen = tmp_path / "seen"
    seen.mkdir()
    argv = ["mount", "-t", "overlay", "-o", ",".join(mount.options), "overlay", str(seen)]
    assert os.spawnvp(os.P_WAIT, "mount", argv) == 0
    try:
        assert sorted(os.listdir(seen)) == ["a", "b", "kept", "link", "opaque", "out"]
        assert os.listdir(seen / "opaque") == ["high"]
        assert os.listdir(seen / "link") == ["y"]
    finally:
        assert os.spawnvp(os.P_WAIT, "umount", ["umount", str(seen)]) == 0


def test_a_name_moves_to_the_image_that_was_loaded_last(lab: ImageLab) -> None:
    lab.load(archives.docker_archive([BASE]))
    lab.load(archives.docker_archive([UPPER]))

    async def look(service: ImageService) -> None:
        assert service.resolve("img:1").id == archives.image_id([UPPER])
        [dangling] = service.list({"dangling": ["true"]})
        assert (dangling["Id"], dangling["RepoTags"]) == (archives.image_id([BASE]), [])
        freed = await service.prune()
        assert freed["ImagesDeleted"][0] == {"Deleted": archives.image_id([BASE])}
        assert freed["SpaceReclaimed"] == 6
        assert await service.prune() == {"ImagesDeleted": None, "SpaceReclaimed": 0}

    lab.run(look)
    assert lab.tags() == ["img:1"]


def test_removing_the_last_name_removes_everything(lab: ImageLab) -> None:
    lab.load(archives.docker_archive([BASE, UPPER]))

    async def work(service: ImageService) -> None:
        await service.tag("img:1", "other.example/x")
        assert await service.remove("img:1") == [{"Untagged": "img:1"}]
        with pytest.raises(NotFound, match="img:1"):
            service.resolve("img:1")
        answer = await service.remove("other.example/x")
        assert [next(iter(item)) for item in answer] == ["Untagged", "Deleted", "Deleted", "Deleted"]
        assert answer[1] == {"Deleted": archives.image_id([BASE, UPPER])}

    lab.run(work)
    assert lab.stored() == set()
    assert [event[0] for event in lab.events] == ["load", "tag", "untag", "untag", "delete"]


def test_layers_that_another_image_has_stay(lab: ImageLab) -> None:
    lab.load(archives.docker_archive([BASE, UPPER], ["both:1"]))
    lab.load(archives.docker_archive([BASE], ["base:1"]))

    async def work(service: ImageService) -> list[dict[str, Any]]:
        return await service.remove("both:1")

    assert len(lab.run(work)) == 3  # untagged, the image, its upper layer
    assert (lab.layer(0, "base:1") / "etc/motd").read_text() == "one\n"


def test_a_layer_below_a_container_stays_until_the_container_goes(lab: ImageLab) -> None:
    lab.load(archives.docker_archive([BASE]))
    layer = lab.layer()
    lab.snapshotter.prepare("c" * 64, [f"sha256:{layer.parent.name}"])

    async def remove(service: ImageService) -> None:
        await service.remove("img:1")

    async def nothing(_service: ImageService) -> None:
        pass

    lab.run(remove)
    assert (layer / "etc/motd").exists()
    lab.snapshotter.remove("c" * 64)
    lab.run(nothing)
    assert lab.stored() == set()


def test_an_image_of_a_container_is_not_removed(lab: ImageLab) -> None:
    lab.load(archives.docker_archive([BASE]))
    stopped, running = ImageUse("f" * 64, running=False), ImageUse("e" * 64, running=True)

    async def work(service: ImageService) -> None:
        with pytest.raises(
            Conflict, match=r'conflict: .* "img:1" \(must force\) - container ffffffffffff is using'
        ):
            await service.remove("img:1", in_use=lambda _: [stopped])
        with pytest.raises(Conflict, match=r"cannot be forced.*running container eeeeeeeeeeee"):
            await service.remove(archives.image_id([BASE]), force=True, in_use=lambda _: [running])
        assert await service.remove("img:1", force=True, in_use=lambda _: [stopped]) == [
            {"Untagged": "img:1"}
        ]
        assert (await service.prune(in_use=lambda _: [stopped]))["ImagesDeleted"] is None
        assert service.resolve(archives.image_id([BASE])).repo_tags == ()

    lab.run(work)


def test_history_tells_the_size_of_each_layer(lab: ImageLab) -> None:
    steps = [{"created_by": "ADD"}, {"created_by": "ENV x=y", "empty_layer": True}, {"created_by": "COPY"}]
    lab.load(archives.docker_archive([BASE, UPPER], history=steps))

    async def work(service: ImageService) -> list[tuple[str, int]]:
        return [(item["CreatedBy"], item["Size"]) for item in service.history("img:1")]

    assert lab.run(work) == [("COPY", 4), ("ENV x=y", 0), ("ADD", 6)]


def test_a_removed_preloaded_image_stays_removed(lab: ImageLab, tmp_path: Path) -> None:
    archive = tmp_path / "embedded.tar"
    archive.write_bytes(archives.docker_archive([BASE]))

    async def first(service: ImageService) -> None:
        assert await service.preload(archive) == ("img:1",)
        await service.remove("img:1")

    async def second(service: ImageService) -> None:
        assert await service.preload(archive) == ()

    lab.run(first)
    lab.run(second)
    assert lab.tags() == []


def test_a_lost_layer_takes_its_image_out_until_it_is_loaded_again(lab: ImageLab) -> None:
    lab.load(archives.docker_archive([BASE]))
    lab.load(archives.docker_archive([UPPER], ["other:1"]))
    lost = lab.layer()
    lost.parent.rename(lost.parent.with_name("x"))

    assert lab.tags() == ["other:1"]
    lab.load(archives.docker_archive([BASE]))
    assert (lab.layer() / "etc/motd").exists()


def test_a_damaged_image_can_be_removed(lab: ImageLab) -> None:
    lab.load(archives.docker_archive([BASE]))
    (lab.root.path / "blobs/sha256" / archives.image_id([BASE])[7:]).write_text("{}")

    async def work(service: ImageService) -> None:
        with pytest.raises(NotFound):
            service.resolve("img:1")
        assert await service.remove("img:1") == [{"Deleted": archives.image_id([BASE])}]

    lab.run(work)
    assert lab.stored() == set()


def test_images_are_found_again_when_the_database_is_lost(lab: ImageLab) -> None:
    lab.load(archives.docker_archive([BASE]))
    for file in lab.root.path.glob("state.db*"):
        file.unlink()

    async def work(service: ImageService) -> list[str]:
        return [image.id for image in service.all()]

    assert lab.run(work) == [archives.image_id([BASE])]
    assert lab.run(work) == [archives.image_id([BASE])]


def test_a_client_that_goes_away_leaves_nothing(lab: ImageLab) -> None:
    archive = archives.docker_archive([BASE])
    reached = asyncio.Event()

    async def stalled() -> AsyncIterator[bytes]:
        async for chunk in chunks(archive[: len(archive) // 2]):
            yield chunk
        reached.set()
        await asyncio.Event().wait()

    async def work(service: ImageService) -> None:
        async def client() -> None:
            async for _ in service.load(stalled()):
                pass

        task = asyncio.ensure_future(client())
        await asyncio.wait_for(reached.wait(), 10)
        task.cancel()
        await asyncio.wait({task}, timeout=10)
        assert task.cancelled()

    lab.run(work)
    assert lab.stored() == set()


def test_removing_and_loading_the_same_image_at_once_leaves_it_whole_or_gone(lab: ImageLab) -> None:
    archive = archives.docker_archive([BASE, UPPER])

    async def load(service: ImageService) -> None:
        async for _ in service.load(chunks(archive), quiet=True):
            pass

    async def remove(service: ImageService) -> None:
        with contextlib.suppress(NotFound):
            await service.remove("img:1")

    async def work(service: ImageService) -> None:
        for _ in range(20):
            await asyncio.gather(load(service), remove(service), load(service), remove(service))
        await load(service)
        for directory_ in lab.snapshotter.layer_dirs(service.resolve("img:1").chain_ids):
            assert directory_.is_dir()

    lab.run(work)
    assert len([name for name in lab.stored() if name.startswith("layers/")]) == 2


@pytest.mark.parametrize("name", ["img@sha256:" + "0" * 64, "Img", "", "img:1:2"])
def test_a_bad_target_of_a_tag_is_refused(lab: ImageLab, name: str) -> None:
    lab.load(archives.docker_archive([BASE]))

    async def work(service: ImageService) -> None:
        with pytest.raises(InvalidArgument):
            await service.tag("img:1", name)

    lab.run(work)


def test_a_long_name_and_a_large_file_in_every_format_of_tar(lab: ImageLab) -> None:
    long = "/".join(["d" * 60] * 6)
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        layer = tar([Member(long, b"x" * 100_000, mtime=1_234_567_890)], form=form)
        lab.load(archives.docker_archive([layer]))
        file = lab.layer() / long
        assert file.stat().st_size == 100_000
        assert file.stat().st_mtime == 1_234_567_890
