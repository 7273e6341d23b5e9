import os
import re
import shutil
import tempfile
from pathlib import Path

import build  # type: ignore[import-not-found,unused-ignore]
import debian  # type: ignore[import-not-found,unused-ignore]
import pytest
import rootfs  # type: ignore[import-not-found,unused-ignore]

from engine.base.errors import EngineError

RECIPE = Path(__file__).parents[3] / "images" / "vm"
OLD = debian.Package("kmod", "1", "a" * 64, 1)
NEW = debian.Package("kmod", "2", "b" * 64, 1)


@pytest.mark.parametrize("arch", ["x86_64", "aarch64"])
def test_the_lock_holds_what_the_recipe_names_and_nothing_else(arch: str) -> None:
    recipe = build.load_recipe(arch)

    names = {package.name for package in recipe.packages}
    kernels = {name for name in names if name.startswith("linux-image-")}
    assert names - kernels == set(recipe.settings["packages"])
    assert len(kernels) == 1
    assert {wheel.name for wheel in recipe.wheels} == set(recipe.settings["wheels"])
    assert all(re.fullmatch("[0-9a-f]{64}", part.sha256) for part in (*recipe.packages, *recipe.wheels))


def test_an_image_is_named_after_its_sources(tmp_path: Path) -> None:
    recipe = build.load_recipe("x86_64")
    source = tmp_path / "engine"
    source.mkdir()
    (source / "a.py").write_text("1")
    first = build.image_name(recipe, [source])

    (source / "a.pyc").write_text("cache")
    assert build.image_name(recipe, [source]) == first
    (source / "a.py").write_text("2")
    assert build.image_name(recipe, [source]) != first
    assert first.startswith("x86_64-")


class _Apt:
    """A mirror that has only kmod 2."""

    def __init__(self) -> None:
        self.downloaded: list[debian.Package] = []

    def available(self, packages: list[debian.Package]) -> set[debian.Package]:
        return {NEW} & set(packages)

    def resolve(self, names: list[str]) -> dict[str, debian.Package]:
        return {name: {"kmod": NEW}[name] for name in names}

    def download(self, packages: list[debian.Package], into: Path) -> None:
        for package in packages:
            self.downloaded.append(package)
            (into / package.file_name).touch()


def test_a_version_gone_from_the_mirror_is_replaced_by_the_newest_loudly(tmp_path: Path) -> None:
    apt = _Apt()
    lines: list[str] = []

    taken = debian.fetch([OLD], apt, tmp_path, lines.append)

    assert taken == {"kmod": NEW}
    assert apt.downloaded == [NEW]
    assert lines[0] == "WARNING: kmod 1 is gone: taking kmod 2 instead"


def test_what_lies_in_the_cache_is_not_asked_for(tmp_path: Path) -> None:
    (tmp_path / OLD.file_name).touch()
    apt = _Apt()

    assert debian.fetch([OLD], apt, tmp_path, lambda _: None) == {"kmod": OLD}
    assert apt.downloaded == []


def test_pruning_drops_by_pattern_keeps_by_pattern_and_removes_empty_directories(tmp_path: Path) -> None:
    for name in ("usr/share/man/a", "usr/share/doc/x/copyright", "usr/share/doc/x/README", "usr/bin/x"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "usr/share/link").symlink_to("nowhere")

    rootfs.prune(tmp_path, ["usr/share/**"], ["usr/share/doc/*/copyright"])

    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if not path.is_dir())
    assert left == ["usr/bin/x", "usr/share/doc/x/copyright"]
    assert not (tmp_path / "usr/share/man").exists()


def test_an_interrupted_step_leaves_no_directory(tmp_path: Path) -> None:
    def interrupted() -> None:
        with build._temporary(tmp_path) as work:
            (work / "deep").mkdir()
            (work / "deep").chmod(0o500)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()

    assert list(tmp_path.iterdir()) == []


def test_missing_programs_are_named_with_their_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda program: None if program == "mkfs.erofs" else program)

    with pytest.raises(EngineError, match="install erofs-utils"):
        build._check_programs()


def test_no_output_directory_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert build.main(["--arch", "x86_64"]) == 1
    assert "--output is missing" in capsys.readouterr().err


def test_old_builds_go_and_the_newest_stay(tmp_path: Path) -> None:
    for age, name in enumerate(["x86_64-a", "x86_64-b", "x86_64-c", "aarch64-a"]):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (100 - age, 100 - age))
    (tmp_path / "x86_64-file").touch()

    build._forget_old(tmp_path, "x86_64-", keep=2)

    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "aarch64-a",
        "x86_64-a",
        "x86_64-b",
        "x86_64-file",
    ]


def test_a_tree_is_copied_where_it_cannot_be_linked(tmp_path: Path) -> None:
    source, target = tmp_path / "source", Path(tempfile.mkdtemp(dir="/dev/shm")) / "target"
    (source / "bin").mkdir(parents=True)
    (source / "bin/tool").write_text("tool")
    (source / "bin/tool").chmod(0o755)
    (source / "link").symlink_to("bin/tool")
    try:
        rootfs.link_tree(source, target)

        assert (target / "bin/tool").read_text() == "tool"
        assert (target / "bin/tool").stat().st_mode & 0o777 == 0o755
        assert os.readlink(target / "link") == "bin/tool"
    finally:
        shutil.rmtree(target.parent)
