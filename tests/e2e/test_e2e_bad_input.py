"""What can be wrong before a machine runs: one clear line, the right exit code, nothing left behind."""

import json
import shutil
from pathlib import Path

import pytest

from tests.support.home import Home, Result


def _refused(result: Result, *words: str) -> None:
    assert result.code != 0, result
    for word in words:
        assert word in result.error, result


def test_no_qemu(home: Home) -> None:
    result = home.run("machine", "start", env={"PATH": "/nowhere"})

    _refused(result, "qemu")
    assert home.qemu_pids() == []


@pytest.mark.parametrize("name", ["UPPER", "a/b", "../x", "-x", "", "x" * 40, "a b"])
def test_a_malformed_name(home: Home, name: str) -> None:
    _refused(home.run("machine", "init", "--", name), "name")

    assert not list(home.directory.glob("data/machines/*"))


def test_a_name_that_is_taken(home: Home) -> None:
    home.output("machine", "init", "one")

    _refused(home.run("machine", "init", "one"), "one", "exists")


def test_an_unknown_machine(home: Home) -> None:
    _refused(home.run("machine", "inspect", "nobody"), "nobody")
    _refused(home.run("machine", "rm", "nobody"), "nobody")


@pytest.fixture
def image(machine: Home, tmp_path: Path) -> Path:
    """A copy of the image that may be spoiled."""
    [built] = [path.parent for path in machine.directory.glob("cache/images/*/manifest.json")]
    copy = tmp_path / "image"
    shutil.copytree(built, copy)
    return copy


def _start_with(home: Home, image: Path) -> Result:
    home.output("machine", "init", "--image", str(image))
    return home.run("machine", "start")


def test_an_image_that_is_not_there(home: Home, tmp_path: Path) -> None:
    missing = tmp_path / "nothing"

    result = home.run("machine", "init", "--image", str(missing))
    if result.code == 0:
        result = home.run("machine", "start")
    _refused(result, str(missing))


def test_an_image_with_a_file_missing(home: Home, image: Path) -> None:
    (image / "rootfs.erofs").unlink()

    _refused(_start_with(home, image), "rootfs.erofs")
    assert home.qemu_pids() == []


def test_a_truncated_image(home: Home, image: Path) -> None:
    with (image / "rootfs.erofs").open("r+b") as file:
        file.truncate(4096)

    _refused(_start_with(home, image), "rootfs.erofs")
    assert home.qemu_pids() == []


def test_an_image_with_a_wrong_hash(home: Home, image: Path) -> None:
    with (image / "vmlinux").open("r+b") as file:
        file.seek(4096)
        file.write(b"spoiled")

    _refused(_start_with(home, image), "vmlinux")
    assert home.qemu_pids() == []


def test_a_manifest_that_is_no_manifest(home: Home, image: Path) -> None:
    (image / "manifest.json").write_text(json.dumps({"schema": 99}))

    _refused(_start_with(home, image), "manifest")
    assert home.qemu_pids() == []


def test_an_engine_that_does_not_answer(home: Home) -> None:
    _refused(home.run("--host", f"unix://{home.directory}/nothing.sock", "ps"), "nothing.sock")
