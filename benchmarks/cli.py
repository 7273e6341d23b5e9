"""pyengine bench."""

from pathlib import Path

import click

from benchmarks import report, results
from benchmarks.results import Results
from benchmarks.scenarios import runtime as runtimes
from benchmarks.scenarios import startup as scenario
from engine.base.errors import InvalidArgument
from hostagent.cli.command import Group, command, value, values
from hostagent.cli.machines import progress_line

_OUTPUT = "benchmarks/out"
_RUNS_MAX = 1000


@command(
    "startup",
    value("-n", "--runs", type=int, default=20, metavar="INT", help="Measured runs of each container start"),
    value("--warmups", type=int, default=3, metavar="INT", help="Runs before, that do not count"),
    values("--target", help=f"Where to measure: {', '.join(scenario.TARGETS)} (default: all)"),
    value("-o", "--output", default=_OUTPUT, metavar="DIR", help="Where the JSON document goes"),
    value("--format", default="table", help="What is printed: table or json"),
)
def startup(
    runs: int,
    warmups: int,
    target: tuple[str, ...],
    output: str,
    format: str,  # noqa: A002 (the flag's name)
) -> int:
    """Measure container start against virtual machine start, and what each holds in memory."""
    _check(runs, warmups, format)
    for name in target:
        if name not in scenario.TARGETS:
            raise InvalidArgument(f"unknown target {name!r}: want one of {', '.join(scenario.TARGETS)}")
    options = scenario.Options(runs, warmups, target or scenario.TARGETS)
    return _tell(scenario.measure(options, progress_line), output, format)


@command(
    "runtime",
    value("-n", "--runs", type=int, default=20, metavar="INT", help="Measured runs of each container start"),
    value("--warmups", type=int, default=3, metavar="INT", help="Runs before, that do not count"),
    value("-o", "--output", default=_OUTPUT, metavar="DIR", help="Where the JSON document goes"),
    value("--format", default="table", help="What is printed: table or json"),
)
def runtime(
    runs: int,
    warmups: int,
    output: str,
    format: str,  # noqa: A002 (the flag's name)
) -> int:
    """Measure runtime and shim side by side with runc and crun; as root on Linux."""
    _check(runs, warmups, format)
    return _tell(runtimes.measure(runtimes.Options(runs, warmups), progress_line), output, format)


def _check(runs: int, warmups: int, style: str) -> None:
    if not 1 <= runs <= _RUNS_MAX or not 0 <= warmups <= _RUNS_MAX:
        raise InvalidArgument(f"--runs wants 1 to {_RUNS_MAX}, --warmups 0 to {_RUNS_MAX}")
    if style not in {"table", "json"}:
        raise InvalidArgument(f"invalid --format {style!r}: want table or json")


def _tell(found: Results, output: str, style: str) -> int:
    path = results.write(found, Path(output))
    if style == "json":
        click.echo(path.read_text(encoding="utf-8"))
    else:
        click.echo("\n".join(report.lines(found)))
    progress_line(f"written to {path}")
    return 0


bench = Group("bench", startup, runtime, help="Measure containers against virtual machines.")
