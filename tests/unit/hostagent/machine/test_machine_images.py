import hashlib
import json
import os
from pathlib import Path

import pytest

from engine.base.errors import InvalidArgument, NotFound
from hostagent.machine import images
from hostagent.machine.images import ImageDamaged
from hostagent.machine.model import Arch

FILES = {"kernel": "vmlinux", "initrd": "initrd.img", "rootfs": "rootfs.erofs"}


@pytest.fixture
def image(tmp_path: Path) -> Path:
    directory = tmp_path / "image"
    directory.mkdir()
    entries = {}
    for role, name in FILES.items():
        data = f"the {role}".encode() * 100
        (directory / name).write_bytes(data)
        entries[role] = {"name": name, "size_bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    manifest = {"schema": 1, "arch": "x86_64", "key": "k1", "kernel_version": "6.12", "files": entries}
    (directory / "manifest.json").write_text(json.dumps(manifest))
    return directory


@pytest.fixture
def record(tmp_path: Path) -> Path:
    return tmp_path / "verified.json"


def _change(path: Path, **fields: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_a_whole_image_is_verified_and_remembered(image: Path, record: Path) -> None:
    found = images.verify(image, Arch.X86_64, record)

    assert (found.kernel, found.initrd, found.rootfs) == tuple(image / name for name in FILES.values())
    assert found.key == "k1"
    assert set(json.loads(record.read_text())) == set(FILES.values())


def test_a_verified_file_is_hashed_again_only_when_it_changed(
    image: Path, record: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[str] = []
    original = images._check_hash

    def check_hash(directory: Path, entry: images._File) -> None:
        hashed.append(entry.name)
        original(directory, entry)

    monkeypatch.setattr(images, "_check_hash", check_hash)

    images.verify(image, Arch.X86_64, record)
    images.verify(image, Arch.X86_64, record)
    assert hashed == list(FILES.values())

    os.utime(image / "rootfs.erofs", ns=(1, 1))
    images.verify(image, Arch.X86_64, record)
    assert hashed[3:] == ["rootfs.erofs"]


def test_an_altered_file_is_refused_although_its_size_is_right(image: Path, record: Path) -> None:
    images.verify(image, Arch.X86_64, record)
    path = image / "rootfs.erofs"
    path.write_bytes(path.read_bytes()[:-1] + b"X")

    with pytest.raises(ImageDamaged, match=r"rootfs\.erofs was altered: sha256 ") as caught:
        images.verify(image, Arch.X86_64, record)
    assert caught.value.hint == f"remove {image}; the next start builds it again"


def test_a_truncated_file_is_refused_with_both_sizes(image: Path, record: Path) -> None:
    path = image / "vmlinux"
    path.write_bytes(path.read_bytes()[:10])

    with pytest.raises(ImageDamaged, match="vmlinux has 10 bytes instead of 1000"):
        images.verify(image, Arch.X86_64, record)


@pytest.mark.parametrize("name", ["initrd.img", "manifest.json"])
def test_a_missing_file_is_refused(image: Path, record: Path, name: str) -> None:
    (image / name).unlink()

    with pytest.raises(ImageDamaged, match=f"{name} is missing"):
        images.verify(image, Arch.X86_64, record)


@pytest.mark.parametrize("fields", [{"arch": "aarch64"}, {"schema": 2}])
def test_an_image_for_something_else_is_refused(image: Path, record: Path, fields: dict[str, object]) -> None:
    _change(image / "manifest.json", **fields)

    with pytest.raises(InvalidArgument, match="need schema 1 for x86_64"):
        images.verify(image, Arch.X86_64, record)


@pytest.mark.parametrize("name", ["../vmlinux", "/etc/passwd", ".."])
def test_a_manifest_cannot_name_files_elsewhere(image: Path, record: Path, name: str) -> None:
    manifest = json.loads((image / "manifest.json").read_text())
    manifest["files"]["kernel"]["name"] = name
    _change(image / "manifest.json", files=manifest["files"])

    with pytest.raises(ImageDamaged, match="names no kernel"):
        images.verify(image, Arch.X86_64, record)


def test_a_manifest_that_is_no_json_is_refused_by_name(image: Path, record: Path) -> None:
    (image / "manifest.json").write_text("{")

    with pytest.raises(InvalidArgument, match="invalid manifest of vm image"):
        images.verify(image, Arch.X86_64, record)


def test_a_directory_of_the_users_choice_must_be_an_image(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no such vm image"):
        images.image_dir(Arch.X86_64, wish=str(tmp_path), progress=lambda _: None)


def _recipe(directory: Path, script: str) -> Path:
    directory.mkdir()
    (directory / "build.py").write_text(script)
    return directory


def test_a_missing_image_is_built_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYENGINE_HOME", str(tmp_path / "home"))
    recipe = _recipe(
        tmp_path / "recipe",
        "import pathlib, sys\n"
        "d = pathlib.Path(sys.argv[4]) / 'x86_64-k'\nd.mkdir()\n(d / 'manifest.json').touch()\n"
        "print('working', flush=True)\nprint(d)\n",
    )
    monkeypatch.setattr(images, "recipe_dir", lambda: recipe)
    said: list[str] = []

    first = images.image_dir(Arch.X86_64, progress=said.append)
    built = len(said)
    again = images.image_dir(Arch.X86_64, progress=said.append)

    assert first == again == tmp_path / "home" / "cache" / "images" / "x86_64-k"
    assert said == ["building the vm image for x86_64 (about a minute, once)", "working"]
    assert len(said) == built


def test_a_build_that_fails_ends_in_its_last_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYENGINE_HOME", str(tmp_path / "home"))
    recipe = _recipe(
        tmp_path / "recipe", "import sys\nprint('working')\nsys.exit('build.py: no space left')\n"
    )
    monkeypatch.setattr(images, "recipe_dir", lambda: recipe)
    said: list[str] = []

    with pytest.raises(ImageDamaged, match="vm image for x86_64 cannot be built: no space left"):
        images.image_dir(Arch.X86_64, progress=said.append)
    assert said[1:] == ["working"]


def test_where_none_can_be_built_it_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYENGINE_HOME", str(tmp_path))
    monkeypatch.setattr(images, "_CAN_BUILD", False)

    with pytest.raises(NotFound, match="no such vm image: for x86_64") as caught:
        images.image_dir(Arch.X86_64, progress=lambda _: None)
    assert "build one on Linux" in caught.value.hint
