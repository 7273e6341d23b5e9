"""The command line as a user runs it, timed from outside."""

import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from engine.base.process import Completed, module_argv, run

_LEFT_OUT = frozenset({"DOCKER_HOST", "PYENGINE_MODE", "PYENGINE_INSTANCE", "PYTHONDONTWRITEBYTECODE"})


def pyengine() -> list[str]:
    """Return the words that start this installation's command line."""
    script = Path(sys.executable).with_name("pyengine")
    return [str(script)] if script.exists() else module_argv("hostagent.cli.entry")


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the caller's environment without what leads commands elsewhere, or has them compile anew."""
    kept = {name: value for name, value in os.environ.items() if name not in _LEFT_OUT}
    return {**kept, **(more or {})}


def timed(
    argv: Sequence[str], env: Mapping[str, str], *, timeout_s: float = 300.0
) -> tuple[float, Completed]:
    """Run a command to its end; return its wall-clock seconds and what it printed.

    Raises:
        ProcessFailed: it failed.
        TimeoutError: it took too long.
    """
    started = time.perf_counter()
    done = run(argv, env=env, timeout_s=timeout_s)
    return time.perf_counter() - started, done
