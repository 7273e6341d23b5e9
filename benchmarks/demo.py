"""pyengine demo: the main job once, and what each layer of it costs.

Nothing is made for it alone: it uses the default machine, and leaves it
running, so that the next command is quick.
"""

import os
import platform
from dataclasses import dataclass
from typing import Any

import click

from benchmarks import memory
from benchmarks.commands import environment, pyengine, timed
from benchmarks.report import amount, table
from benchmarks.targets import native as natives
from engine.base.errors import EngineError
from hostagent.cli.command import command
from hostagent.cli.machines import preload_directory, progress_line
from hostagent.client.docker import Engine
from hostagent.paths import selected_machine

_RUNS = 3
_NONE = "-"


@dataclass(frozen=True, slots=True)
class Place:
    """One row of the table."""

    name: str
    kernel: str
    start: str
    memory: str


@command("demo")
def demo() -> int:
    """Start the machine, run a container in it, and compare host, machine and containers."""
    from hostagent.machine import launch, observe  # noqa: PLC0415 (with the machine's modules)

    name = selected_machine()
    ran_before = observe.status_of(name)["state"] == "running"
    socket = launch.ensure_running(name, progress=progress_line)
    status = observe.status_of(name)
    start = _start_text(status, ran_before=ran_before)
    click.echo(f"machine {name} runs{' already' if ran_before else ''}, under {status.get('accel')}")
    click.echo()
    _show_container()
    places = [_host(), _machine(status, start), *_containers(name, str(socket))]
    click.echo("\n".join(_lines(places, status)))
    return 0


def _show_container() -> None:
    words = ["run", "--rm", "busybox", "sh", "-c", 'echo "hello from a container on kernel $(uname -r)"']
    click.echo(f"$ pyengine run --rm busybox sh -c '{words[-1]}'")
    _, done = timed([*pyengine(), *words], environment())
    click.echo(done.stdout.decode(errors="replace"))


def _host() -> Place:
    seconds = min(timed(["true"], {"PATH": "/bin:/usr/bin"})[0] for _ in range(_RUNS))
    return Place("process on this host", platform.release(), amount(seconds, "s"), _NONE)


def _start_text(status: dict[str, Any], *, ran_before: bool) -> str:
    """Return how long the last start took, from the emulator's launch to the engine's first answer."""
    milliseconds = (status.get("boot") or {}).get("host_ms", {}).get("running")
    if milliseconds is None:
        return _NONE  # this agent found the machine running
    text = amount(milliseconds / 1000, "s")
    return f"{text} (earlier)" if ran_before else text


def _machine(status: dict[str, Any], start: str) -> Place:
    used = status.get("resident_bytes")
    kernel = str(status.get("kernel") or _NONE)
    return Place("virtual machine", kernel, start, amount(float(used), "bytes") if used else _NONE)


def _containers(name: str, socket: str) -> list[Place]:
    with Engine(f"unix://{socket}") as engine:
        kernel = str(engine.get("/version")["KernelVersion"])
    env = environment({"PYENGINE_INSTANCE": name})
    argv = [*pyengine(), "run", "--rm", "busybox", "true"]
    seconds = sorted(timed(argv, env)[0] for _ in range(_RUNS))[_RUNS // 2]
    rss = _container_memory([*pyengine()], env)
    found = [Place("container in the machine", kernel, amount(seconds, "s"), rss)]
    native = _native()
    return [*found, native] if native else found


def _container_memory(argv: list[str], env: dict[str, str]) -> str:
    """Return what an idle shell holds inside, as its own kernel counts it."""
    script = "grep Rss: /proc/1/smaps_rollup"
    _, done = timed([*argv, "run", "--rm", "busybox", "sh", "-c", f"{script}; true"], env)
    words = done.stdout.decode(errors="replace").split()
    return amount(int(words[1]) * 1024, "bytes") if len(words) > 1 else _NONE


def _native() -> Place | None:
    """Measure a container on the host's own kernel, where that is possible."""
    preload = preload_directory()
    if natives.reason_against(preload):
        return None
    try:
        with natives.opened(preload) as native:
            seconds = sorted(native.run_true() for _ in range(_RUNS + 1))[_RUNS // 2]
            with native.idle_container() as pid:
                used = amount(memory.resident_bytes(pid), "bytes")
    except (EngineError, OSError) as err:
        progress_line(f"no native container: {err}")
        return None
    return Place("container on this host", os.uname().release, amount(seconds, "s"), used)


def _lines(places: list[Place], status: dict[str, Any]) -> list[str]:
    rows = [("WHERE", "KERNEL", "START", "MEMORY")]
    rows += [(place.name, place.kernel, place.start, place.memory) for place in places]
    reason = status.get("accel_reason") or ""
    accel = f"The machine runs under {status.get('accel')}" + (f" ({reason})." if reason else ".")
    native = any(place.name == "container on this host" for place in places)
    hint = [] if native else ["As root on Linux, this also shows a container on the host's own kernel."]
    return [
        *table(rows),
        "",
        "A container is a process: it shares the kernel it runs on, and starts in a fraction of a second.",
        "A virtual machine boots a kernel of its own, and holds memory of its own for it.",
        accel,
        *hint,
        "The machine stays up for the next command; `pyengine machine stop` ends it.",
    ]
