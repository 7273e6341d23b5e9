"""What the runtime and the shim cost, side by side with runc and crun.

run          a container of one bundle to its end: all namespaces, filter, control group
               nursery        by a fork of the nursery, through the shim, without the daemon
               pyengine-oci   by the command, which starts an interpreter
               runc, crun     by theirs
exec         a program in a container that runs: through the engine's API, and by each command
starts       100 containers through shim and runtime, 8 at a time
log          200 MB of a container's standard output through shim and json-file log
memory       of a shim that has nothing to do
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import environment, memory, report, results
from benchmarks.results import Results
from benchmarks.runner import Measurement, Progress, interleave
from benchmarks.stats import Series
from benchmarks.targets import bundles, native, runtimes
from benchmarks.targets.companion import Companion
from benchmarks.targets.native import Native
from benchmarks.targets.runtimes import OURS, PEERS, Runtime, Runtimes
from benchmarks.targets.trial import Trial
from engine.base import jsonio
from engine.base.process import module_argv
from engine.spec.runtime import Spec
from hostagent.cli.machines import preload_directory

RUN, EXEC, STARTS, LOG, MEMORY = "run", "exec", "starts", "log", "memory: idle shim, private"
NURSERY, ENGINE = "nursery", "engine"
_STARTS_COUNT, _STARTS_PARALLEL = 100, 8
_LOG_BYTES = 200 * 10**6
_LINES_BYTES = 10**6
_LONG_PART, _MIN_LONG = 4, 3  # what takes seconds is run less often
_MB = 10**6
_MIB = 1 << 20
_TRUE = ("/bin/true",)
_STAYS = ("/bin/sleep", "86400")
_TALKS = ("/bin/cat", *(["/lines"] * (_LOG_BYTES // _LINES_BYTES)))


@dataclass(frozen=True, slots=True)
class Options:
    """How much to measure."""

    runs: int = 20
    warmups: int = 3


@dataclass(frozen=True, slots=True)
class _Places:
    """What is run where."""

    native: Native
    trial: Trial
    runtimes: Runtimes
    commands: tuple[Runtime, ...]
    bundle: Callable[..., Path]  # given a name, which is its control group's too, and words to run


def measure(options: Options, progress: Progress) -> Results:
    """Measure, in turns, with every runtime that is installed.

    Raises:
        NotSupported: this is not root on Linux, or there is no image yet.
        EngineError: something could not be run.
    """
    found = environment.collect()
    commands, left_out = _commands()
    with contextlib.ExitStack() as stack:
        progress("starting a private native engine")
        places = _open(stack, commands)
        series = interleave(
            list(_measurements(stack, places, options)),
            runs=options.runs,
            warmups=options.warmups,
            progress=progress,
        )
        progress("memory")
        series.append(_memory(places))
    return results.build("runtime", found, series, left_out, goals(series))


def _commands() -> tuple[tuple[Runtime, ...], list[str]]:
    found: list[Runtime] = []
    left_out: list[str] = []
    for name in (OURS, *PEERS):
        argv = runtimes.find(name)
        if argv is None:
            left_out.append(f"{name}: not installed")
        else:
            found.append(Runtime(name, argv))
    return tuple(found), left_out


def _open(stack: contextlib.ExitStack, commands: tuple[Runtime, ...]) -> _Places:
    engine = stack.enter_context(native.opened(preload_directory()))
    base = engine.directory / "bench"
    base.mkdir()
    with engine.idle_container() as pid:
        spec = _engine_spec(engine)
        rootfs = bundles.make_rootfs(base / "rootfs", Path(f"/proc/{pid}/root/bin/busybox"))
    (rootfs / "lines").write_bytes(lines(_LINES_BYTES))

    def bundle(name: str, *args: str) -> Path:
        made = bundles.portable(
            spec, args=args, rootfs=str(rootfs), cgroup=f"/pyengine-bench-{engine.pid}-{name}"
        )
        return bundles.make(base / name, made)

    trial_directory = base / "shims"
    trial_directory.mkdir()
    companion = Companion([*module_argv("engine.shim.trial"), str(trial_directory)])
    stack.callback(companion.close)
    return _Places(
        native=engine,
        trial=Trial(companion),
        runtimes=stack.enter_context(runtimes.opened(base / "states")),
        commands=commands,
        bundle=bundle,
    )


def _engine_spec(engine: Native) -> Spec:
    """Return the configuration that the engine has given to its one container."""
    (path,) = (engine.directory / "run/shims").glob("*/config.json")
    return jsonio.read(path, Spec)


def lines(size_bytes: int) -> bytes:
    """Return text as programs write it: lines of 20 to 139 characters; pure."""
    found: list[bytes] = []
    size = 0
    while size < size_bytes:
        width = 20 + (len(found) * 37) % 120
        found.append(b"%06d %s\n" % (len(found), b"quick brown fox "[:16] * 9))
        found[-1] = found[-1][: width - 1] + b"\n"
        size += width
    return b"".join(found)[: size_bytes - 1] + b"\n"


def _measurements(stack: contextlib.ExitStack, places: _Places, options: Options) -> Iterator[Measurement]:
    def run_by(command: Runtime) -> Callable[[], float]:
        bundle = places.bundle(f"true-{command.name}", *_TRUE)
        return lambda: places.runtimes.run(command, bundle)

    def exec_by(command: Runtime) -> Callable[[], float]:
        bundle = places.bundle(f"stays-{command.name}", *_STAYS)
        held = stack.enter_context(places.runtimes.held(command, bundle))
        return lambda: places.runtimes.execute(command, held)

    true, talks = places.bundle("true", *_TRUE), places.bundle("talks", *_TALKS)
    long_runs = max(_MIN_LONG, options.runs // _LONG_PART)
    yield Measurement(RUN, NURSERY, "s", lambda: places.trial.run(true))
    for command in places.commands:
        yield Measurement(RUN, command.name, "s", run_by(command))
    yield Measurement(EXEC, ENGINE, "s", stack.enter_context(places.native.exec_true()))
    for command in places.commands:
        yield Measurement(EXEC, command.name, "s", exec_by(command))
    yield Measurement(
        STARTS,
        NURSERY,
        "starts/s",
        lambda: _STARTS_COUNT / places.trial.run(true, count=_STARTS_COUNT, parallel=_STARTS_PARALLEL),
        runs=long_runs,
        warmups=1,
    )
    yield Measurement(
        LOG,
        NURSERY,
        "MB/s",
        lambda: _LOG_BYTES / _MB / places.trial.run(talks, log=True),
        runs=long_runs,
        warmups=0,
    )


def _memory(places: _Places) -> Series:
    with places.trial.held(places.bundle("stays", *_STAYS)) as shim_pid:
        memory.wait_until_asleep(shim_pid)
        return Series(MEMORY, NURSERY, "bytes", (float(memory.private_bytes(shim_pid)),))


@dataclass(frozen=True, slots=True)
class _Goal:
    """What one row is wanted to be: at most (or at least) `bound`, or so many times another row."""

    row: tuple[str, str]
    bound: float
    baseline: str = ""  # the target of the row that `bound` is a multiple of
    at_least: bool = False


_GOALS = (
    _Goal((RUN, NURSERY), 1.0, baseline="crun"),
    _Goal((RUN, OURS), 2.0, baseline="runc"),
    _Goal((EXEC, ENGINE), 0.015),
    _Goal((MEMORY, NURSERY), 3.0 * _MIB),
    _Goal((STARTS, NURSERY), 40.0, at_least=True),
    _Goal((LOG, NURSERY), 60.0, at_least=True),
)


def goals(series: Sequence[Series]) -> list[str]:
    """Return a line for each goal whose rows were measured; pure."""
    rows = {(one.scenario, one.target): one for one in series}
    found: list[str] = []
    for goal in _GOALS:
        row, unit = rows.get(goal.row), ""
        if row is None:
            continue
        value, bound = row.median, report.amount(goal.bound, row.unit)
        if goal.baseline:
            baseline = rows.get((goal.row[0], goal.baseline))
            if baseline is None:
                continue
            value, bound = row.median / baseline.median, f"{goal.bound:g} times {goal.baseline}"
            unit = f"{value:.2f} times"
        met = value >= goal.bound if goal.at_least else value <= goal.bound
        found.append(
            f"{'met' if met else 'missed'}: {row.scenario}, {row.target}: "
            f"{unit or report.amount(value, row.unit)}, "
            f"wanted at {'least' if goal.at_least else 'most'} {bound}"
        )
    return found
