from collections.abc import Sequence
from dataclasses import replace

import pytest

from engine.base.errors import InvalidArgument, NotFound
from engine.containers import filters
from engine.containers.live import Container
from engine.containers.model import State, Status
from tests.support.definitions import container


def _made(name: str, created_ns: int, state: State, **body: object) -> Container:
    one = container(name, state, **body)
    one.definition = replace(one.definition, created_ns=created_ns)
    return one


WEB = _made(
    "web",
    1,
    State(status=Status.RUNNING),
    Labels={"tier": "front", "team": "a"},
    ExposedPorts={"80/tcp": {}},
    HostConfig={"Binds": ["data:/data"], "PortBindings": {"80/tcp": [{"HostPort": "8080"}]}},
)
DB = _made("db", 2, State(status=Status.EXITED, exit_code=3), Labels={"tier": "back"})
NEW = _made("web-2", 3, State(), HostConfig={"NetworkMode": "none"})
ALL = {one.name: one for one in (WEB, DB, NEW)}


def _find(name: str) -> Container:
    if name not in ALL:
        raise NotFound("container", name)
    return ALL[name]


def _passing(**chosen: Sequence[str]) -> list[str]:
    wanted = {name.replace("_", "-"): values for name, values in chosen.items()}
    tests = filters.tests(wanted, _find, {"bb": WEB.definition.image_id}.get)  # type: ignore[arg-type]
    return [name for name, one in ALL.items() if all(test(one) for test in tests)]


@pytest.mark.parametrize(
    ("chosen", "names"),
    [
        ({}, ["web", "db", "web-2"]),
        ({"id": [DB.id[:12]]}, ["db"]),
        ({"name": ["web"]}, ["web", "web-2"]),
        ({"name": ["^/web$"]}, ["web"]),
        ({"name": ["db", "2$"]}, ["db", "web-2"]),
        ({"label": ["tier"]}, ["web", "db"]),
        ({"label": ["tier=front", "team"]}, ["web"]),
        ({"status": ["running", "created"]}, ["web", "web-2"]),
        ({"exited": ["3"]}, ["db"]),
        ({"exited": ["0"]}, []),  # neither what runs nor what never ran
        ({"ancestor": ["busybox"]}, ["web", "db", "web-2"]),
        ({"ancestor": ["bb"]}, ["web", "db", "web-2"]),
        ({"ancestor": ["other"]}, []),
        ({"before": ["web-2"]}, ["web", "db"]),
        ({"since": ["web"]}, ["db", "web-2"]),
        ({"volume": ["data"]}, ["web"]),
        ({"volume": ["/data"]}, ["web"]),
        ({"network": ["none"]}, ["web-2"]),
        ({"publish": ["80"]}, ["web"]),
        ({"expose": ["80/tcp"]}, ["web"]),
        ({"health": ["healthy"]}, []),
        ({"health": ["none"]}, ["web", "db", "web-2"]),
        ({"status": ["running"], "name": ["db"]}, []),
    ],
)
def test_a_filter_lets_through_what_docker_does(chosen: dict[str, list[str]], names: list[str]) -> None:
    assert _passing(**chosen) == names


@pytest.mark.parametrize(
    "chosen",
    [{"color": ["red"]}, {"status": ["asleep"]}, {"exited": ["x"]}, {"name": ["("]}],
)
def test_a_filter_without_sense_is_refused(chosen: dict[str, list[str]]) -> None:
    with pytest.raises(InvalidArgument):
        _passing(**chosen)


def test_a_filter_by_an_unknown_container_names_it() -> None:
    with pytest.raises(NotFound, match="gone"):
        _passing(before=["gone"])


def test_prune_takes_its_own_filters() -> None:
    tests = filters.prune_tests({"label!": ["tier=back"], "until": ["1h"]})

    assert [name for name, one in ALL.items() if all(test(one) for test in tests)] == ["web", "web-2"]
    with pytest.raises(InvalidArgument):
        filters.prune_tests({"status": ["exited"]})
