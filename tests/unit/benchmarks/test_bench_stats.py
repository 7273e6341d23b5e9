import pytest

from benchmarks.stats import Series, ratio


def _series(*values: float, unit: str = "s") -> Series:
    return Series("container start", "native", unit, values)


def test_one_slow_run_does_not_move_the_median_or_its_spread() -> None:
    series = _series(1.0, 1.25, 0.75, 1.0, 60.0)

    assert (series.median, series.mad) == (1.0, 0.25)
    assert (series.least, series.most) == (0.75, 60.0)


def test_a_single_value_has_no_spread() -> None:
    assert (_series(2.0).median, _series(2.0).mad) == (2.0, 0.0)


def test_a_ratio_is_of_medians() -> None:
    assert ratio(_series(3.0, 3.0, 90.0), _series(2.0)) == 1.5


@pytest.mark.parametrize("baseline", [_series(0.0), _series(1.0, unit="bytes")])
def test_what_cannot_be_compared_is_refused(baseline: Series) -> None:
    with pytest.raises(ValueError, match="compar"):
        ratio(_series(1.0), baseline)
