import itertools

import pytest

from engine.base.errors import Conflict
from engine.containers.model import LIVE, TRANSITIONS, Event, State, Status, WrongStatus, stamp
from tests.support.definitions import container


@pytest.mark.parametrize(("status", "event"), list(itertools.product(Status, Event)))
def test_a_status_changes_only_as_the_table_says(status: Status, event: Event) -> None:
    one = container(state=State(status=status, pid=5))

    if event in TRANSITIONS.get(status, {}):
        one.advance(event)
        assert one.state.status is TRANSITIONS[status][event]
        assert one.state.pid == (5 if one.state.status in LIVE else 0)
    else:
        with pytest.raises(WrongStatus):
            one.advance(event)
        assert one.state.status is status


def test_every_status_can_be_reached_and_left() -> None:
    reached = {Status.CREATED, *(status for row in TRANSITIONS.values() for status in row.values())}

    assert reached == set(Status)
    assert set(TRANSITIONS) == set(Status)


def test_what_is_live_cannot_be_removed() -> None:
    assert all(Event.REMOVE not in TRANSITIONS[status] for status in LIVE)


def test_a_container_without_processes_has_no_shim_to_give() -> None:
    with pytest.raises(Conflict, match="is not running"):
        container().running_shim()


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (0, "0001-01-01T00:00:00Z"),
        (1_700_000_000_000_000_000, "2023-11-14T22:13:20Z"),
        (1_700_000_000_120_000_003, "2023-11-14T22:13:20.120000003Z"),
        (1_700_000_000_120_000_000, "2023-11-14T22:13:20.12Z"),
    ],
)
def test_a_moment_is_written_as_docker_does(ns: int, text: str) -> None:
    assert stamp(ns) == text
