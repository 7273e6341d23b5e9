import hashlib
import io
import json
import subprocess
import tarfile
from pathlib import Path

import pytest
from busybox import applets, write_image  # type: ignore[import-not-found,unused-ignore]

from engine.base.errors import EngineError

PROGRAM = b"\x7fELF...\0text\0[\0[[\0acpid\0ash\0busybox\0cat\0sh\0\0more\0"


def test_applets_are_the_run_of_names_that_begins_with_brackets() -> None:
    assert applets(PROGRAM) == ["[", "[[", "acpid", "ash", "busybox", "cat", "sh"]


def test_a_program_without_applets_is_refused() -> None:
    with pytest.raises(EngineError, match="no table of applets"):
        applets(b"\x7fELF")


@pytest.mark.requires("busybox")
def test_applets_are_those_that_busybox_lists() -> None:
    listed = subprocess.run(["/bin/busybox", "--list"], capture_output=True, check=True).stdout.split()

    assert sorted(applets(Path("/bin/busybox").read_bytes())) == sorted(name.decode() for name in listed)


def test_the_archive_names_its_parts_by_their_hashes(tmp_path: Path) -> None:
    write_image(tmp_path / "busybox.tar", busybox=PROGRAM, architecture="arm64")

    with tarfile.open(tmp_path / "busybox.tar") as archive:
        parts = {member.name: archive.extractfile(member).read() for member in archive}  # type: ignore[union-attr]
    [entry] = json.loads(parts["manifest.json"])
    config = json.loads(parts[entry["Config"]])
    [layer_name] = entry["Layers"]
    assert entry["RepoTags"] == ["busybox:latest"]
    assert entry["Config"] == f"{hashlib.sha256(parts[entry['Config']]).hexdigest()}.json"
    assert config["architecture"] == "arm64"
    assert config["rootfs"]["diff_ids"] == [f"sha256:{hashlib.sha256(parts[layer_name]).hexdigest()}"]
    with tarfile.open(fileobj=io.BytesIO(parts[layer_name])) as layer:
        names = layer.getnames()
        assert layer.getmember("bin/sh").linkname == "busybox"
        assert layer.getmember("tmp").mode == 0o1777
    assert "bin/busybox" in names
    assert len(names) == len(set(names))


def test_two_writings_are_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_image(tmp_path / name, busybox=PROGRAM, architecture="amd64")

    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
