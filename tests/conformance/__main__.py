"""Run suites that others wrote against OCI runtimes: `make conformance`.

    python -m tests.conformance [--suite NAME]... [--runtime NAME]... [--update]

Each run writes one JSON result to out/conformance/ and is compared with its baseline: a test
that passed there and does not here is a failure. `--update` writes the baselines instead.
"""

import argparse
import datetime
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from engine.base import jsonio
from tests.conformance import children, crun_suite, enclosure, runtime_tools
from tests.conformance.runtimes import NAMES, Runtime, idle, runtime
from tests.conformance.verdicts import Score, Tally, by_group, regressions, score, tally

_SUITES = {module.NAME: module.Suite for module in (crun_suite, runtime_tools)}
_VARIABLE = "PYENGINE_SUITES"
_BASELINES = Path(__file__).with_name("baselines")
_RESULTS = Path("out/conformance")


class Expected(msgspec.Struct, frozen=True):
    """What one runtime came to when the baseline was written: passed by group, failed by test."""

    version: str
    date: str
    score: Score
    passed: dict[str, int]
    failed: dict[str, int]


class Baseline(msgspec.Struct):
    """What is expected of a suite; `void` are the tests that a runtime which does nothing passes."""

    revision: str = ""
    void: list[str] = []
    runtimes: dict[str, Expected] = {}


def main() -> int:
    """Do what the command line says; return the exit status."""
    parser = argparse.ArgumentParser(prog="conformance", description="Run OCI suites of others.")
    parser.add_argument("--suite", action="append", choices=tuple(_SUITES))
    parser.add_argument("--runtime", action="append", choices=NAMES)
    parser.add_argument("--update", action="store_true", help="write the baselines")
    flags = parser.parse_args()
    suites = Path(os.environ.get(_VARIABLE, ""))
    wanted = flags.suite or list(_SUITES)
    missing = [name for name in wanted if not (suites / name / ".git").exists()]
    if _VARIABLE not in os.environ or missing:
        sys.stderr.write(
            f"conformance: set {_VARIABLE} to a directory with git check-outs of"
            f" {' and '.join(missing or wanted)}; see tests/conformance/README.md\n"
        )
        return 1
    return enclosure.run(lambda scratch: _run_all(wanted, suites, scratch, flags))


def _run_all(wanted: Sequence[str], suites: Path, scratch: Path, flags: argparse.Namespace) -> int:
    children.adopt_orphans()
    failed = False
    for name in wanted:
        directory = scratch / name
        directory.mkdir()
        failed |= _run_suite(name, suites / name, directory, flags)
    return int(failed)


def _run_suite(name: str, checkout: Path, directory: Path, flags: argparse.Namespace) -> bool:
    """Run one suite with each runtime; return whether something fails that passed before."""
    suite = _SUITES[name](checkout.absolute(), directory)
    path = _BASELINES / f"{name}.json"
    baseline = jsonio.read(path, Baseline) if path.exists() else Baseline()
    if flags.update:
        runs = [tally(suite.run(nothing)) for nothing in idle()]
        baseline.void = sorted({test for run in runs for test in run.passed})
        baseline.revision = suite.revision
    worse = False
    for chosen in map(runtime, flags.runtime or NAMES):
        run = tally(suite.run(chosen))
        _report(name, suite.revision, chosen, run, baseline)
        if flags.update:
            today = datetime.datetime.now(datetime.UTC).date().isoformat()
            baseline.runtimes[chosen.name] = Expected(
                chosen.version(), today, score(run, baseline.void), by_group(run.passed), dict(run.failed)
            )
        elif chosen.name in baseline.runtimes:
            before = baseline.runtimes[chosen.name]
            lost = regressions(run, before.passed, before.failed)
            sys.stdout.writelines(f"  {line}\n" for line in lost)
            worse |= bool(lost)
    if flags.update:
        path.write_bytes(jsonio.encode_pretty(baseline))
    return worse


def _report(name: str, revision: str, chosen: Runtime, run: Tally, baseline: Baseline) -> None:
    points = score(run, baseline.void)
    _RESULTS.mkdir(parents=True, exist_ok=True)
    result = {
        "suite": name,
        "revision": revision,
        "runtime": chosen.name,
        "version": chosen.version(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "score": points,
        "left_out": baseline.void,
        "tests": run,
    }
    (_RESULTS / f"{name}-{chosen.name}.json").write_bytes(jsonio.encode_pretty(result))
    sys.stdout.write(
        f"{name} {revision}, {chosen.name}: {points.passed} passed, {points.failed} failed,"
        f" {points.skipped} skipped; {len(baseline.void)} names left out\n"
    )
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
