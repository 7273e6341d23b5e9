"""How long until something runs, and what it holds while it idles.

a process of the host        the floor: fork and exec
a container, native          the same kernel, through all layers
a container in the machine   another kernel, already running
the machine                  kernel boot to the engine's first answer
"""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from benchmarks import environment, memory, results
from benchmarks.commands import timed
from benchmarks.environment import Environment
from benchmarks.results import Results
from benchmarks.runner import Measurement, interleave
from benchmarks.stats import Series
from benchmarks.targets import machine as machines
from benchmarks.targets import native as natives
from benchmarks.targets.machine import Machine
from benchmarks.targets.native import Native
from engine.base.errors import NotSupported
from hostagent.cli.machines import preload_directory

TARGETS = ("native", "machine")
CONTAINER_START, MACHINE_START = "run --rm busybox true", "machine cold start"
_COLD_STARTS_PART = 4  # a cold start takes a hundred times a container's: fewer of them
_MIN_COLD_STARTS = 3

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Options:
    """How much to measure."""

    runs: int = 20
    warmups: int = 3
    targets: tuple[str, ...] = TARGETS


def measure(options: Options, progress: Progress) -> Results:
    """Measure all targets that this host has, in turns.

    Raises:
        NotSupported: none of the targets can be measured here.
        EngineError: one of them failed.
    """
    found = environment.collect()
    left_out: list[str] = []
    with contextlib.ExitStack() as stack:
        machine = _open_machine(stack, options, left_out, progress)
        native = _open_native(stack, options, left_out, progress)
        if machine is None and native is None:
            raise NotSupported("; ".join(left_out))
        if machine is not None:
            found = _with_machine(found, machine)
        series = interleave(
            _measurements(native, machine, options),
            runs=options.runs,
            warmups=options.warmups,
            progress=progress,
        )
        progress("memory")
        series += _memory(native, machine)
    return results.build("startup", found, series, left_out)


def _open_machine(
    stack: contextlib.ExitStack, options: Options, left_out: list[str], progress: Progress
) -> Machine | None:
    if "machine" not in options.targets:
        return None
    reason = machines.reason_against()
    if reason:
        left_out.append(reason)
        return None
    progress("making and starting a machine for the measurement")
    return stack.enter_context(machines.opened())


def _open_native(
    stack: contextlib.ExitStack, options: Options, left_out: list[str], progress: Progress
) -> Native | None:
    if "native" not in options.targets:
        return None
    preload = preload_directory()
    reason = natives.reason_against(preload)
    if reason:
        left_out.append(reason)
        return None
    progress("starting a private native engine")
    return stack.enter_context(natives.opened(preload))


def _measurements(native: Native | None, machine: Machine | None, options: Options) -> Sequence[Measurement]:
    found = [Measurement("a process: true", "host", "s", _process)]
    if native is not None:
        found.append(Measurement(CONTAINER_START, "native", "s", native.run_true))
    if machine is not None:
        cold_starts = max(_MIN_COLD_STARTS, options.runs // _COLD_STARTS_PART)
        # Each after a cold start would meet cold caches, so containers come first in a round.
        found.append(Measurement(CONTAINER_START, "machine", "s", _warm(machine)))
        found.append(
            Measurement(MACHINE_START, "machine", "s", machine.cold_start, runs=cold_starts, warmups=0)
        )
    return found


def _warm(machine: Machine) -> Callable[[], float]:
    def measure() -> float:
        machine.run_true()  # after a cold start the guest has not run anything yet
        return machine.run_true()

    return measure


def _process() -> float:
    return timed(["true"], {"PATH": "/bin:/usr/bin"})[0]


def _memory(native: Native | None, machine: Machine | None) -> list[Series]:
    found = []
    if native is not None:
        found.append(Series("memory: engine daemon, resident", "native", "bytes", (native.daemon_bytes(),)))
        with native.idle_container() as pid:
            shim = memory.parent_of(pid)
            found.append(
                Series("memory: idle shim, private", "native", "bytes", (float(memory.private_bytes(shim)),))
            )
            found.append(
                Series(
                    "memory: idle container, resident",
                    "native",
                    "bytes",
                    (float(memory.resident_bytes(pid)),),
                )
            )
    if machine is not None:
        found.append(Series("memory: emulator, resident", "machine", "bytes", (machine.qemu_bytes(),)))
    return found


def _with_machine(found: Environment, machine: Machine) -> Environment:
    status = machine.inspect()["status"]
    return msgspec.structs.replace(
        found,
        emulator=str(status.get("emulator", "")),
        accelerator=str(status.get("accel", "")),
        accelerator_reason=str(status.get("accel_reason", "")),
    )
