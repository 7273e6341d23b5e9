"""Numbers drawn from repeated measurements; pure.

Median and MAD, not mean and deviation: one slow boot must not move the result.
"""

import statistics
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Series:
    """Repeated measurements of one scenario on one target, in one unit; warm-ups already dropped."""

    scenario: str  # "container start", "machine cold start", "memory"
    target: str  # "native", "machine", "host process", "runc"
    unit: str  # "s", "bytes"
    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """Middle value, in `unit`."""
        return statistics.median(self.values)

    @property
    def mad(self) -> float:
        """Median absolute deviation from the median, in `unit`."""
        return statistics.median(abs(value - self.median) for value in self.values)

    @property
    def least(self) -> float:
        """Smallest value, in `unit`."""
        return min(self.values)

    @property
    def most(self) -> float:
        """Largest value, in `unit`."""
        return max(self.values)


def ratio(series: Series, baseline: Series) -> float:
    """Return how many times `baseline` the median of `series` is.

    Raises:
        ValueError: they measure different things, or the baseline is zero.
    """
    if series.unit != baseline.unit:
        raise ValueError(f"not comparable: {series.unit} and {baseline.unit}")
    if baseline.median == 0:
        raise ValueError(f"{baseline.scenario}: nothing to compare with")
    return series.median / baseline.median
