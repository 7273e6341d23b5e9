"""Volumes on a real disk: what is acknowledged survives, what crashed is finished or undone."""

import asyncio
import os
from pathlib import Path

import pytest

from engine.base.errors import Conflict, InvalidArgument, NotFound, NotSupported
from engine.base.paths import Root
from engine.volumes.model import ANONYMOUS_LABEL
from engine.volumes.service import VolumeService

pytestmark = pytest.mark.requires("root")


def opened(tmp_path: Path) -> VolumeService:
    service = VolumeService(Root(tmp_path))
    asyncio.run(service.open())
    return service


def layer_with(tmp_path: Path, **files: str) -> Path:
    layer = tmp_path / f"layer{len(list(tmp_path.iterdir()))}"
    for name, text in files.items():
        file = layer / "srv" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return layer


def test_a_volume_survives_a_restart_with_its_labels(tmp_path: Path) -> None:
    made = asyncio.run(opened(tmp_path).create("data", labels={"a": "b"}))

    again = opened(tmp_path)

    assert again.get("data") == made
    assert made["Mountpoint"] == str(tmp_path / "volumes/data/_data")
    assert again.source_path("data").stat().st_mode & 0o7777 == 0o755
    assert asyncio.run(again.create("data", labels={"other": "x"})) == made


def test_an_anonymous_volume_gets_a_name_and_a_label(tmp_path: Path) -> None:
    made = asyncio.run(opened(tmp_path).create())

    assert len(made["Name"]) == 64
    assert made["Labels"] == {ANONYMOUS_LABEL: ""}


def test_what_is_not_supported_is_refused_by_name(tmp_path: Path) -> None:
    service = opened(tmp_path)

    with pytest.raises(NotFound, match="no such volume driver: nfs"):
        asyncio.run(service.create("v1", driver="nfs"))
    with pytest.raises(NotSupported, match="device, type"):
        asyncio.run(service.create("v1", driver_opts={"type": "nfs", "device": ":/x"}))
    with pytest.raises(InvalidArgument):
        asyncio.run(service.create("../etc"))
    assert service.list() == []


def test_a_volume_in_use_is_not_removed(tmp_path: Path) -> None:
    service = opened(tmp_path)
    asyncio.run(service.create("data"))

    with pytest.raises(Conflict, match=r"remove data: volume is in use - \[c1, c2\]"):
        asyncio.run(service.remove("data", in_use=lambda _name: ["c1", "c2"]))
    asyncio.run(service.remove("data"))
    with pytest.raises(NotFound, match="no such volume: data"):
        asyncio.run(service.remove("data"))
    asyncio.run(service.remove("data", force=True))

    assert list((tmp_path / "volumes").iterdir()) == list((tmp_path / "tmp").iterdir()) == []


def test_removal_copes_with_depth_links_and_modes(tmp_path: Path) -> None:
    service = opened(tmp_path)
    asyncio.run(service.create("data"))
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").touch()
    place = os.open(service.source_path("data"), os.O_RDONLY)
    os.symlink(outside, "link", dir_fd=place)
    for _ in range(2000):  # a path of 10,000 characters
        os.mkdir("deep", 0o000, dir_fd=place)
        below = os.open("deep", os.O_RDONLY, dir_fd=place)
        os.close(place)
        place = below
    os.close(place)

    asyncio.run(service.remove("data"))

    assert (outside / "kept").exists()
    assert list((tmp_path / "tmp").iterdir()) == []


def test_prune_takes_anonymous_volumes_or_all_that_nobody_uses(tmp_path: Path) -> None:
    service = opened(tmp_path)
    anonymous = asyncio.run(service.create())["Name"]
    busy = asyncio.run(service.create())["Name"]
    asyncio.run(service.create("named"))
    (service.source_path(anonymous) / "file").write_bytes(b"x" * 10000)

    def in_use(name: str) -> list[str]:
        return ["c1"] if name == busy else []

    result = asyncio.run(service.prune(in_use=in_use))
    assert result["VolumesDeleted"] == [anonymous]
    assert result["SpaceReclaimed"] >= 10000
    assert asyncio.run(service.prune({"all": ["true"]}, in_use=in_use))["VolumesDeleted"] == ["named"]
    assert [each["Name"] for each in service.list()] == [busy]
    assert [each["Name"] for each in service.list({"dangling": ["true"]}, in_use=in_use)] == []


def test_an_empty_volume_is_filled_once(tmp_path: Path) -> None:
    service = opened(tmp_path)
    asyncio.run(service.create("data"))
    layer = layer_with(tmp_path, index="hello")
    (layer / "srv").chmod(0o1750)
    os.chown(layer / "srv", 33, 34)

    assert asyncio.run(service.populate("data", [layer], "/srv"))

    data = service.source_path("data")
    assert (data / "index").read_text() == "hello"
    assert (data.stat().st_mode & 0o7777, data.stat().st_uid, data.stat().st_gid) == (0o1750, 33, 34)
    (data / "index").write_text("changed")
    assert not asyncio.run(service.populate("data", [layer], "/srv"))
    assert (data / "index").read_text() == "changed"


def test_a_path_that_is_no_directory_of_the_image_copies_nothing(tmp_path: Path) -> None:
    service = opened(tmp_path)
    asyncio.run(service.create("data"))
    layer = layer_with(tmp_path, index="hello")

    assert not asyncio.run(service.populate("data", [layer], "/absent/dir"))
    assert not asyncio.run(service.populate("data", [layer], "/srv/index"))
    assert service.is_empty("data")


def test_a_crash_while_copying_leaves_the_volume_empty(tmp_path: Path) -> None:
    service = opened(tmp_path)
    asyncio.run(service.create("data"))
    half = tmp_path / "volumes/data/copyup.tmp"
    half.mkdir()
    (half / "part").touch()

    again = opened(tmp_path)

    assert not half.exists()
    assert again.is_empty("data")
    assert asyncio.run(again.populate("data", [layer_with(tmp_path, index="x")], "/srv"))


def test_a_crash_while_moving_is_finished(tmp_path: Path) -> None:
    asyncio.run(opened(tmp_path).create("data"))
    volume = tmp_path / "volumes/data"
    (volume / "copyup").mkdir(mode=0o711)
    (volume / "copyup/second").touch()
    (volume / "_data/first").touch()

    service = opened(tmp_path)

    assert sorted(os.listdir(service.source_path("data"))) == ["first", "second"]
    assert service.source_path("data").stat().st_mode & 0o7777 == 0o711
    assert not (volume / "copyup").exists()


def test_a_damaged_meta_file_is_rebuilt_and_content_kept(tmp_path: Path) -> None:
    service = opened(tmp_path)
    asyncio.run(service.create("data", labels={"a": "b"}))
    (service.source_path("data") / "precious").touch()
    (tmp_path / "volumes/data/meta.json").write_bytes(b"{")

    again = opened(tmp_path)

    assert again.get("data")["Labels"] is None
    assert (again.source_path("data") / "precious").exists()
    assert opened(tmp_path).get("data") == again.get("data")


def test_two_containers_that_start_together_fill_a_volume_once(tmp_path: Path) -> None:
    service = opened(tmp_path)
    layer = layer_with(tmp_path, **{f"f{number}": "x" for number in range(200)})

    async def both() -> list[bool]:
        await asyncio.gather(service.create("data"), service.create("data"))
        return await asyncio.gather(*(service.populate("data", [layer], "/srv") for _ in range(2)))

    assert sorted(asyncio.run(both())) == [False, True]
    assert len(os.listdir(service.source_path("data"))) == 200


def test_a_cancelled_copy_is_whole_or_absent(tmp_path: Path) -> None:
    service = opened(tmp_path)
    asyncio.run(service.create("data"))
    layer = layer_with(tmp_path, **{f"f{number}": "x" for number in range(500)})

    async def cancel() -> None:
        job = asyncio.create_task(service.populate("data", [layer], "/srv"))
        await asyncio.sleep(0)
        job.cancel()
        with pytest.raises(asyncio.CancelledError):
            await job

    asyncio.run(cancel())

    assert len(os.listdir(service.source_path("data"))) in {0, 500}
    assert sorted(os.listdir(tmp_path / "volumes/data")) == ["_data", "meta.json"]
