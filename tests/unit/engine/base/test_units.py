"""Sizes and durations, in and out, as docker's go-units and Go's time write them."""

import pytest

from engine.base.errors import InvalidArgument
from engine.base.units import human_duration, human_size, parse_duration_ns, parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [("100", 100), ("100b", 100), ("64m", 64 << 20), ("1.5g", 3 << 29), ("2GiB", 2 << 30), ("2 kb", 2048)],
)
def test_sizes_are_powers_of_1024(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "m", "-1", "1x", "1 m b", "0x10", "1e3", "\u0661m", "1m\n", "1" * 400])
def test_what_is_no_size_is_refused_by_name(text: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid size"):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [("0", 0), ("5s", 5 * 10**9), ("1m30s", 90 * 10**9), ("250ms", 25 * 10**7), ("1.5h", 5400 * 10**9)],
)
def test_durations_are_gos(text: str, nanoseconds: int) -> None:
    assert parse_duration_ns(text) == nanoseconds


@pytest.mark.parametrize("text", ["", "5", "s", "1m 30s", "-5s", "5d", "5s\n", "1" * 400 + "s"])
def test_what_is_no_duration_is_refused_by_name(text: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid duration"):
        parse_duration_ns(text)


@pytest.mark.parametrize(
    ("size", "digits", "text"),
    [(0, 3, "0B"), (999, 3, "999B"), (4_270_000, 3, "4.27MB"), (1_234_567, 4, "1.235MB"), (2e15, 3, "2PB")],
)
def test_sizes_are_written_in_powers_of_1000(size: float, digits: int, text: str) -> None:
    assert human_size(size, digits=digits) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "Less than a second"),
        (1, "1 second"),
        (59, "59 seconds"),
        (60, "About a minute"),
        (150, "2 minutes"),
        (3600, "About an hour"),
        (7200, "2 hours"),
        (47 * 3600, "47 hours"),
        (3 * 86400, "3 days"),
        (20 * 86400, "2 weeks"),
        (90 * 86400, "3 months"),
        (800 * 86400, "2 years"),
    ],
)
def test_durations_are_worded_as_docker_does(seconds: float, text: str) -> None:
    assert human_duration(seconds) == text
