"""A machine of its own, made for the measurement and removed after it."""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks.commands import environment, pyengine, timed
from engine.base.errors import EngineError, Unavailable
from engine.base.process import run

_TIMEOUT_S = 900.0  # the first start may build the image


class Machine:
    """One machine, driven through the command line."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._env = environment({"PYENGINE_INSTANCE": name})

    def command(self, words: Sequence[str]) -> float:
        """Run `pyengine words` with this machine's engine; return wall-clock seconds."""
        return timed([*pyengine(), *words], self._env, timeout_s=_TIMEOUT_S)[0]

    def cold_start(self) -> float:
        """Stop it if it runs, then time `machine start`: to the answer of the engine inside."""
        self.command(["machine", "stop", self.name])
        return self.command(["machine", "start", self.name])

    def run_true(self) -> float:
        """Time `run --rm busybox true` in the running machine."""
        return self.command(["run", "--rm", "busybox", "true"])

    def inspect(self) -> dict[str, Any]:
        """Return what `machine inspect` says."""
        done = run([*pyengine(), "machine", "inspect", self.name], env=self._env, timeout_s=_TIMEOUT_S)
        found: dict[str, Any] = json.loads(done.stdout)[0]
        return found

    def qemu_bytes(self) -> float:
        """Return the emulator's resident memory."""
        return float(self.inspect()["status"]["resident_bytes"])


def reason_against() -> str:
    """Return why a machine cannot be measured here; empty when it can."""
    for variable, program in (
        ("QEMU_SYSTEM_X86_64", "qemu-system-x86_64"),
        ("QEMU_SYSTEM_AARCH64", "qemu-system-aarch64"),
    ):
        if shutil.which(os.environ.get(variable) or program):
            return ""
    return "machine: qemu is not installed"


@contextlib.contextmanager
def opened() -> Iterator[Machine]:
    """Make and start a machine; stop and remove it after.

    Raises:
        EngineError: it cannot be made or started; one that did not start is kept, as its logs say why.
    """
    machine = Machine(f"bench-{os.getpid()}")
    machine.command(["machine", "init", machine.name])
    try:
        machine.command(["machine", "start", machine.name])
    except EngineError as err:
        hint = f"it is kept for its logs until `pyengine machine rm --force {machine.name}`"
        raise Unavailable(str(err), hint=hint) from err
    try:
        yield machine
    finally:
        with contextlib.suppress(EngineError):
            machine.command(["machine", "rm", "--force", machine.name])
