from pathlib import Path

import pytest

from engine.base.errors import InvalidArgument, NotSupported
from engine.containers.runtimes import Program, Runtimes


@pytest.fixture
def place(tmp_path: Path) -> str:
    for name in ("runc", "kata"):
        (tmp_path / name).touch(mode=0o755)
    (tmp_path / "crun").touch(mode=0o644)
    (tmp_path / "youki").mkdir()
    return str(tmp_path)


@pytest.mark.parametrize("name", ["", "pyengine", "io.containerd.runc.v2"])
def test_the_built_in_runtime_is_no_program(name: str) -> None:
    assert Runtimes(directories=()).find(name) == Program()


def test_known_ones_are_found_by_name_in_fixed_places_only(place: str) -> None:
    found = Runtimes(directories=("/nowhere", place))

    assert found.find("runc") == Program(f"{place}/runc")
    assert found.listed() == {
        "pyengine": Program("pyengine-oci"),
        "io.containerd.runc.v2": Program("pyengine-oci"),
        "runc": Program(f"{place}/runc"),
    }
    with pytest.raises(NotSupported, match="runtime crun is not installed"):
        found.find("crun")


@pytest.mark.parametrize("name", ["kata", "/bin/sh", "../runc", "RUNC"])
def test_an_unknown_runtime_is_refused_in_dockers_words(name: str) -> None:
    with pytest.raises(InvalidArgument, match=f"unknown or invalid runtime name: {name}"):
        Runtimes().find(name)


def test_configured_ones_have_a_path_or_a_name_and_arguments(place: str) -> None:
    configured = {
        "debug": Program("/bin/sh", ("--debug", "--log-level=debug")),
        "kata": Program("kata"),
        "runc": Program("/bin/true"),
        "gone": Program("/nowhere/runtime"),
        "folder": Program("youki"),
    }
    found = Runtimes(configured, default="debug", directories=(place,))

    assert found.find("debug") == found.find("") == configured["debug"]
    assert found.find("kata") == Program(f"{place}/kata")
    assert found.find("runc") == Program("/bin/true")
    for name in ("gone", "folder"):
        with pytest.raises(NotSupported, match=f"runtime {name} is not installed: .* is no program"):
            found.find(name)
    assert configured.items() <= found.listed().items()
