"""Run measurements in turns, so that a slow minute of the host hits all of them alike."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.stats import Series

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Measurement:
    """One thing to measure again and again; `measure` returns one value in `unit`."""

    scenario: str
    target: str
    unit: str
    measure: Callable[[], float]
    runs: int = 0  # instead of the common number, for what takes long
    warmups: int | None = None

    @property
    def name(self) -> str:
        """What progress calls it."""
        return f"{self.scenario}, {self.target}"


def interleave(
    measurements: Sequence[Measurement], *, runs: int, warmups: int, progress: Progress = lambda _: None
) -> list[Series]:
    """Return the series of each measurement: warm-ups first and dropped, then one run of each per round.

    Every other round goes backwards. What one leaves behind, such as a grace period of the kernel that the
    next need not wait for, then helps not always the same one.
    """
    values: dict[int, list[float]] = {index: [] for index in range(len(measurements))}
    for one in measurements:
        for _ in range(warmups if one.warmups is None else one.warmups):
            one.measure()
    wanted = [one.runs or runs for one in measurements]
    for number in range(max(wanted, default=0)):
        progress(f"round {number + 1} of {max(wanted)}")
        turns = list(enumerate(measurements))
        for index, one in reversed(turns) if number % 2 else turns:
            if number < wanted[index]:
                values[index].append(one.measure())
    return [
        Series(one.scenario, one.target, one.unit, tuple(values[index]))
        for index, one in enumerate(measurements)
    ]
