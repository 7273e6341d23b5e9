"""Results as a file: one versioned JSON document a run."""

import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from benchmarks.environment import Environment
from benchmarks.stats import Series
from engine.base import jsonio
from engine.base.atomicfile import write_atomic

SCHEMA = 1


class Row(msgspec.Struct, frozen=True):
    """One series with what is drawn from it."""

    scenario: str
    target: str
    unit: str
    median: float
    mad: float
    least: float
    most: float
    values: tuple[float, ...]


class Results(msgspec.Struct, frozen=True, kw_only=True):
    """One run of a benchmark."""

    schema: int = SCHEMA
    benchmark: str
    started: str  # UTC, RFC 3339
    environment: Environment
    rows: tuple[Row, ...]
    left_out: tuple[str, ...] = ()  # what was not measured, and why
    goals: tuple[str, ...] = ()  # what was wanted, and whether it was reached; a line each


def build(
    benchmark: str,
    environment: Environment,
    series: Sequence[Series],
    left_out: Sequence[str],
    goals: Sequence[str] = (),
) -> Results:
    """Return the document of a run that ends now."""
    rows = [
        Row(one.scenario, one.target, one.unit, one.median, one.mad, one.least, one.most, one.values)
        for one in series
    ]
    return Results(
        benchmark=benchmark,
        started=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        environment=environment,
        rows=tuple(rows),
        left_out=tuple(left_out),
        goals=tuple(goals),
    )


def write(results: Results, directory: Path) -> Path:
    """Write the document and return its path."""
    directory.mkdir(parents=True, exist_ok=True)
    stamp = results.started.replace(":", "").replace("-", "")
    path = directory / f"{results.benchmark}-{stamp}.json"
    write_atomic(path, msgspec.json.format(jsonio.encode(results), indent=1))
    return path


def read(path: Path) -> Results:
    """Read a document back.

    Raises:
        InvalidArgument: it is not one.
    """
    return jsonio.read(path, Results)
