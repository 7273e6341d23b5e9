from pathlib import Path

import pytest

from engine.base.errors import InvalidArgument
from engine.volumes import filters
from engine.volumes.model import ANONYMOUS_LABEL, Volume, check_name
from engine.volumes.service import InUse

WEB = Volume("web-data", "2026-01-01T00:00:00Z", {"tier": "front", "empty": ""})


def nobody(_name: str) -> list[str]:
    return []


def somebody(_name: str) -> list[str]:
    return ["c1"]


@pytest.mark.parametrize(
    ("given", "used", "expected"),
    [
        ({}, nobody, True),
        ({"name": ["web"]}, nobody, True),
        ({"name": ["^data"]}, nobody, False),
        ({"name": ["db", "data$"]}, nobody, True),
        ({"name": ["("]}, nobody, False),
        ({"label": ["tier"]}, nobody, True),
        ({"label": ["tier=front", "empty="]}, nobody, True),
        ({"label": ["tier=front", "absent"]}, nobody, False),
        ({"label!": ["tier=back"]}, nobody, True),
        ({"label!": ["tier"]}, nobody, False),
        ({"driver": ["local"]}, nobody, True),
        ({"driver": ["nfs"]}, nobody, False),
        ({"dangling": ["true"]}, nobody, True),
        ({"dangling": ["true"]}, somebody, False),
        ({"dangling": ["0"]}, somebody, True),
        ({"dangling": ["0"]}, nobody, False),
    ],
)
def test_filters_match_as_dockers_do(given: dict[str, list[str]], used: InUse, expected: bool) -> None:
    assert filters.matches(WEB, given, used=used) is expected


def test_unknown_and_malformed_filters_are_refused_by_name() -> None:
    with pytest.raises(InvalidArgument, match="invalid filter 'colour'"):
        filters.check({"colour": ["red"]}, filters.LIST_FILTERS)
    with pytest.raises(InvalidArgument, match="dangling"):
        filters.matches(WEB, {"dangling": ["maybe"]}, used=nobody)


@pytest.mark.parametrize("name", ["ab", "a.b-c_d", "0" * 64])
def test_names_of_dockers_grammar_are_taken(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name", ["", "a", "-ab", "a/b", "..", ".ab", "a b", "ä1", "a\n", "ab\n", "a" * 256, "a\0b"]
)
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(InvalidArgument):
        check_name(name)


def test_a_volume_is_shown_in_dockers_shape(tmp_path: Path) -> None:
    assert Volume("v1", "2026-01-01T00:00:00Z", {}).document(tmp_path) == {
        "CreatedAt": "2026-01-01T00:00:00Z",
        "Driver": "local",
        "Labels": None,
        "Mountpoint": str(tmp_path),
        "Name": "v1",
        "Options": None,
        "Scope": "local",
    }
    assert Volume("v1", "", {ANONYMOUS_LABEL: ""}).anonymous
