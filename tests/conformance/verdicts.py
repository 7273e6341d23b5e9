"""What a run of a suite came to, and whether that is what it came to before; pure.

A name may stand for several assertions (the runtime-tools repeat theirs for each
mount and each round), so verdicts are counted by name.
"""

import enum
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field


class Verdict(enum.StrEnum):
    """How one test ended."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Tally:
    """The verdicts of one run, counted by the test's name."""

    passed: Mapping[str, int] = field(default_factory=dict)
    failed: Mapping[str, int] = field(default_factory=dict)
    skipped: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Score:
    """How many count, of those that do."""

    passed: int
    failed: int
    skipped: int


def tally(verdicts: Iterable[tuple[str, Verdict]]) -> Tally:
    """Return the counts of `verdicts`."""
    counts: dict[Verdict, Counter[str]] = {verdict: Counter() for verdict in Verdict}
    for name, verdict in verdicts:
        counts[verdict][name] += 1
    return Tally(*(dict(sorted(counts[verdict].items())) for verdict in Verdict))


def score(run: Tally, void: Iterable[str]) -> Score:
    """Return the score of `run` without the tests in `void`, which a runtime that does nothing passes."""
    left_out = set(void)
    return Score(
        *(
            sum(count for name, count in counts.items() if name not in left_out)
            for counts in (run.passed, run.failed, run.skipped)
        )
    )


def by_group(counts: Mapping[str, int]) -> dict[str, int]:
    """Return how many of `counts` each file or program of a suite has: what a name is before the colon."""
    groups: Counter[str] = Counter()
    for name, count in counts.items():
        groups[name.partition(": ")[0]] += count
    return dict(groups)


def regressions(run: Tally, passed: Mapping[str, int], failed: Mapping[str, int]) -> list[str]:
    """Return what is worse than before: tests that fail and did not, groups of which less passes.

    `passed` is what passed before, by group; `failed` what failed, by test. So a baseline names
    only what is to be mended, and still notices a test that has become silent.
    """
    fails = [f"{name}: fails" for name, count in run.failed.items() if count > failed.get(name, 0)]
    now = by_group(run.passed)
    shrunk = [
        f"{group}: {now.get(group, 0)} passed, {count} did"
        for group, count in passed.items()
        if now.get(group, 0) < count
    ]
    return sorted(fails + shrunk)
