import pytest

from engine.base.errors import InvalidArgument
from hostagent.cli.times import moment


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("1700000000", "1700000000"),
        ("1700000000.5", "1700000000.5"),
        ("2023-11-14T22:13:20Z", "1700000000.000000000"),
        ("2023-11-14T23:13:20+01:00", "1700000000.000000000"),
        ("10m", "1699999400.000000000"),
        ("1.5s", "1699999998.500000000"),
    ],
)
def test_a_moment_takes_three_forms(text: str, at: str) -> None:
    assert moment(text, now_s=1_700_000_000) == at


@pytest.mark.parametrize("text", ["", "yesterday", "-5", "1.2.3", "5 minutes"])
def test_another_form_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid time"):
        moment(text)
