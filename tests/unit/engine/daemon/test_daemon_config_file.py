import json
from pathlib import Path

import pytest

from engine.base.errors import InvalidArgument
from engine.containers.runtimes import Program
from engine.daemon import configfile
from engine.daemon.configfile import ConfigFile


def file_of(tmp_path: Path, **content: object) -> ConfigFile:
    path = tmp_path / "daemon.json"
    path.write_text(json.dumps({name.replace("_", "-"): value for name, value in content.items()}))
    return configfile.read(path, is_needed=True)


def test_runtimes_come_from_file_and_flags(tmp_path: Path) -> None:
    file = file_of(
        tmp_path,
        default_runtime="debug",
        runtimes={"debug": {"path": "/opt/crun", "runtimeArgs": ["--debug"]}, "plain": {"path": "youki"}},
    )

    made = configfile.runtimes(file, ("flag=/opt/a=b",), "")

    assert made.configured == {
        "debug": Program("/opt/crun", ("--debug",)),
        "plain": Program("youki"),
        "flag": Program("/opt/a=b"),
    }
    assert made.default == "debug"


def test_a_file_that_nobody_asked_for_may_be_missing(tmp_path: Path) -> None:
    assert configfile.read(tmp_path / "none", is_needed=False) == ConfigFile()
    with pytest.raises(InvalidArgument, match="unable to configure the daemon"):
        configfile.read(tmp_path / "none", is_needed=True)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[]", "expected `object`, got `array`"),
        ("{", "daemon.json: "),
        ('{"storage-driver": "vfs"}', "unknown field `storage-driver`"),
        ('{"runtimes": {"a": {}}}', r"missing required field `path` - at `\$.runtimes"),
        ('{"runtimes": {"a": {"path": "/a", "runtimeType": "x"}}}', "unknown field `runtimeType`"),
        ('{"runtimes": {"a": {"path": 7}}}', "expected `str`, got `int`"),
    ],
)
def test_what_the_file_may_not_hold_is_refused_by_name(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "daemon.json").write_text(content)

    with pytest.raises(InvalidArgument, match=words):
        configfile.read(tmp_path / "daemon.json", is_needed=False)


@pytest.mark.parametrize(
    ("names", "added", "default", "words"),
    [
        (["pyengine"], (), "", "runtime name 'pyengine' is reserved"),
        ([], ("io.containerd.runc.v2=/x",), "", "runtime name 'io.containerd.runc.v2' is reserved"),
        (["a"], ("a=/x",), "", "runtime 'a' was already registered"),
        ([], ("a",), "", "invalid --add-runtime 'a': want NAME=PATH"),
        ([], ("a=",), "", "invalid --add-runtime 'a='"),
        ([], (), "kata", "specified default runtime 'kata' does not exist"),
    ],
)
def test_runtimes_without_sense_are_refused(
    names: list[str], added: tuple[str, ...], default: str, words: str, tmp_path: Path
) -> None:
    file = file_of(tmp_path, runtimes={name: {"path": "/x"} for name in names})

    with pytest.raises(InvalidArgument, match=words):
        configfile.runtimes(file, added, default)


def test_the_default_may_not_be_given_twice(tmp_path: Path) -> None:
    file = file_of(tmp_path, default_runtime="runc")

    with pytest.raises(InvalidArgument, match="both as a flag and in the configuration file"):
        configfile.runtimes(file, (), "crun")
