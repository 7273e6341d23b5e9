"""pyengine bench."""

from pathlib import Path

import click

from benchmarks import report, results
from benchmarks.scenarios import startup as scenario
from engine.base.errors import InvalidArgument
from hostagent.cli.app import progress_line
from hostagent.cli.command import Group, command, value, values

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
    if not 1 <= runs <= _RUNS_MAX or not 0 <= warmups <= _RUNS_MAX:
        raise InvalidArgument(f"--runs wants 1 to {_RUNS_MAX}, --warmups 0 to {_RUNS_MAX}")
    for name in target:
        if name not in scenario.TARGETS:
            raise InvalidArgument(f"unknown target {name!r}: want one of {', '.join(scenario.TARGETS)}")
    if format not in {"table", "json"}:
        raise InvalidArgument(f"invalid --format {format!r}: want table or json")
    options = scenario.Options(runs, warmups, target or scenario.TARGETS)
    found = scenario.measure(options, progress_line)
    path = results.write(found, Path(output))
    if format == "json":
        click.echo(path.read_text(encoding="utf-8"))
    else:
        click.echo("\n".join(report.lines(found)))
    progress_line(f"written to {path}")
    return 0


bench = Group("bench", startup, help="Measure containers against virtual machines.")
