"""The line of an event, as docker prints it."""

import time
from collections.abc import Iterator

import pytest

from hostagent.cli.events import line_of

EVENT = {
    "Type": "container",
    "Action": "start",
    "Actor": {"ID": "abc", "Attributes": {"name": "web", "image": "busybox"}},
    "timeNano": 1_700_000_000_120_000_000,
}


@pytest.fixture
def zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("zone", "stamp"),
    [
        ("UTC", "2023-11-14T22:13:20.120000000Z"),
        ("XXX-5:30", "2023-11-15T03:43:20.120000000+05:30"),
        ("XXX+3", "2023-11-14T19:13:20.120000000-03:00"),
    ],
    indirect=["zone"],
)
@pytest.mark.usefixtures("zone")
def test_an_event_has_the_time_of_rfc_3339(stamp: str) -> None:
    assert line_of(EVENT) == f"{stamp} container start abc (image=busybox, name=web)"
