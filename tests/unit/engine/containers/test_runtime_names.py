from pathlib import Path

import pytest

from engine.base.errors import InvalidArgument, NotSupported
from engine.containers import runtimes


@pytest.mark.parametrize("name", ["", "pyengine"])
def test_the_built_in_runtime_is_no_program(name: str) -> None:
    assert runtimes.find(name, directories=()) == ""


def test_others_are_found_by_name_in_fixed_places_only(tmp_path: Path) -> None:
    (tmp_path / "runc").touch(mode=0o755)
    (tmp_path / "kata").touch(mode=0o755)
    places = ("/nowhere", str(tmp_path))

    assert runtimes.find("runc", directories=places) == str(tmp_path / "runc")
    assert runtimes.installed(directories=places) == {
        "pyengine": "pyengine-oci",
        "runc": str(tmp_path / "runc"),
    }
    with pytest.raises(NotSupported, match="runtime crun is not installed"):
        runtimes.find("crun", directories=places)


@pytest.mark.parametrize("name", ["kata", "/bin/sh", "../runc", "RUNC"])
def test_an_unknown_runtime_is_refused_in_dockers_words(name: str) -> None:
    with pytest.raises(InvalidArgument, match=f"unknown or invalid runtime name: {name}"):
        runtimes.find(name)
