"""The command line of a nursery: an interpreter with nothing in it but this package and msgspec."""

import sys
from pathlib import Path

import msgspec

import engine

_PROGRAM = (
    "import sys; sys.path[:0] = sys.argv[2:]; from engine.runtime.ownimage import protect; "
    "protect(sys.orig_argv); from engine.shim.nursery import main; main(int(sys.argv[1]))"
)


def nursery_argv(daemon_fd: int) -> list[str]:
    """Return the words that start a nursery which serves the socket `daemon_fd`, inherited."""
    paths = [str(Path(module.__file__ or "").parents[1]) for module in (engine, msgspec)]
    return [sys.executable, "-I", "-S", "-c", _PROGRAM, str(daemon_fd), *dict.fromkeys(paths)]
