"""The OCI runtimes as commands: runc and crun where they are installed, and `pyengine-oci`.

All of them are run by one stopwatch in a mount namespace of its own, in which
`/sys/fs/cgroup/unified` is covered: crun refuses hosts with both versions.
"""

import contextlib
import itertools
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.stopwatch import Lap
from benchmarks.targets.companion import Companion
from engine.base.errors import Unavailable
from engine.base.process import module_argv

PEERS = ("runc", "crun")
OURS = "pyengine-oci"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_ALONE = 'mountpoint -q "$1" && mount -t tmpfs tmpfs "$1"; shift; exec "$@"'
_UNIFIED = "/sys/fs/cgroup/unified"
_QUIET = 'exec "$@" >/dev/null 2>&1'  # a container that stays must not hold the stopwatch's pipes


@dataclass(frozen=True, slots=True)
class Runtime:
    """One program; `argv` are its first words."""

    name: str
    argv: tuple[str, ...]


def find(name: str) -> tuple[str, ...] | None:
    """Return the first words of a runtime's command line, None when it is not installed."""
    if name == OURS:
        script = Path(sys.executable).with_name(OURS)
        return (str(script),) if script.exists() else tuple(module_argv("engine.runtime.entry"))
    path = shutil.which(name, path=_PATH)
    return (path,) if path else None


class Runtimes:
    """Runs bundles with any of them; states lie below a directory of its own."""

    def __init__(self, stopwatch: Companion, directory: Path) -> None:
        self._stopwatch = stopwatch
        self._directory = directory
        self._numbers = itertools.count()

    def run(self, runtime: Runtime, bundle: Path) -> float:
        """Time `run`, in the foreground."""
        return self._time(*self._words(runtime), "run", "--bundle", str(bundle), f"run{next(self._numbers)}")

    @contextlib.contextmanager
    def held(self, runtime: Runtime, bundle: Path) -> Iterator[str]:
        """Run a container that stays, and yield its id."""
        name, words = f"held{next(self._numbers)}", self._words(runtime)
        self._time("sh", "-c", _QUIET, "sh", *words, "run", "--detach", "--bundle", str(bundle), name)
        try:
            yield name
        finally:
            self._time(*words, "delete", "--force", name)

    def execute(self, runtime: Runtime, name: str) -> float:
        """Time `exec` of a program that ends at once."""
        return self._time(*self._words(runtime), "exec", name, "/bin/true")

    def _words(self, runtime: Runtime) -> list[str]:
        return [*runtime.argv, "--root", str(self._directory / runtime.name)]

    def _time(self, *words: str) -> float:
        lap = self._stopwatch.ask(words, Lap)
        if lap.error:
            raise Unavailable(lap.error)
        return lap.seconds


@contextlib.contextmanager
def opened(directory: Path) -> Iterator[Runtimes]:
    """Start the stopwatch; states are kept below `directory`."""
    stopwatch = Companion(
        ["unshare", "--mount", "sh", "-c", _ALONE, "sh", _UNIFIED, *module_argv("benchmarks.stopwatch")]
    )
    try:
        yield Runtimes(stopwatch, directory)
    finally:
        stopwatch.close()
