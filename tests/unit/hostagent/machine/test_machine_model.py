import pytest

from engine.base.errors import InvalidArgument
from hostagent.machine import model
from hostagent.machine.model import TRANSITIONS, Event, Machine, Status, WrongStatus

EVERY_PAIR = [(status, event) for status in Status for event in Event]


@pytest.mark.parametrize(("status", "event"), EVERY_PAIR)
def test_event_is_in_the_table_or_refused(status: Status, event: Event) -> None:
    after = TRANSITIONS[status].get(event)

    if after is not None:
        assert model.advance("web", status, event) is after
    else:
        with pytest.raises(WrongStatus, match=f"machine web cannot {event}: it is {status}"):
            model.advance("web", status, event)


def test_every_status_leads_back_to_stopped_or_to_a_start() -> None:
    for status in Status:
        seen, front = {status}, [status]
        while front:
            for after in TRANSITIONS[front.pop()].values():
                if after not in seen:
                    seen.add(after)
                    front.append(after)
        assert Status.STARTING in seen
        assert Status.STOPPED in seen


@pytest.mark.parametrize("name", ["default", "a", "web-1", "0", "n" * 24])
def test_a_good_name_passes(name: str) -> None:
    assert model.check_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "-a",
        "a-",
        "A",
        "a_b",
        "a.b",
        "..",
        "a/b",
        "a b",
        "é",
        "\u0661",
        "n" * 25,
        "con",
        "lpt1",
        "a\n",
        "a\0",
    ],
)
def test_a_bad_name_is_named_in_the_error(name: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid machine name"):
        model.check_name(name)


@pytest.mark.parametrize(
    ("machine", "text"),
    [
        (Machine("m", cpus=0), "invalid cpus: 0: must be from 1"),
        (Machine("m", cpus=1000), "invalid cpus: 1000"),
        (Machine("m", memory_mib=8), "invalid memory: 8 MiB"),
        (Machine("m", disk_size_bytes=1), "invalid disk size: 1 bytes"),
    ],
)
def test_a_setting_out_of_its_limits_is_refused(machine: Machine, text: str) -> None:
    with pytest.raises(InvalidArgument, match=text):
        model.check(machine)


@pytest.mark.parametrize(
    ("text", "unit", "size"),
    [
        ("2g", "", 2 << 30),
        ("512", "m", 512 << 20),
        ("1GiB", "m", 1 << 30),
        ("7", "", 7),
        ("1.5g", "", 3 << 29),
    ],
)
def test_sizes_are_understood(text: str, unit: str, size: int) -> None:
    assert model.parse_size(text, noun="memory", default_unit=unit) == size


@pytest.mark.parametrize("text", ["", "g", "-1", "1x", "\uff11", "1  g", "1" * 40])
def test_a_bad_size_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid memory"):
        model.parse_size(text, noun="memory")
