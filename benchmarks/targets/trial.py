"""Containers through a nursery and shims without a daemon: `engine.shim.trial`, asked."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import msgspec

from benchmarks.targets.companion import Companion
from engine.base.errors import Unavailable


class _Answer(msgspec.Struct, frozen=True):
    seconds: float = 0.0
    shim_pid: int = 0
    error: str = ""


class Trial:
    """The program's orders, by name."""

    def __init__(self, companion: Companion) -> None:
        self._companion = companion

    def run(self, bundle: Path, *, count: int = 1, parallel: int = 1, log: bool = False) -> float:
        """Run so many containers of a bundle to their end; return wall-clock seconds for all.

        Raises:
            Unavailable: one failed.
        """
        order = {"bundle": str(bundle), "count": count, "parallel": parallel, "log": log}
        return self._ask(order).seconds

    @contextlib.contextmanager
    def held(self, bundle: Path) -> Iterator[int]:
        """Run a container that stays, and yield its shim's process id."""
        pid = self._ask({"bundle": str(bundle), "hold": True}).shim_pid
        try:
            yield pid
        finally:
            self._ask({})

    def _ask(self, order: dict[str, object]) -> _Answer:
        answer = self._companion.ask(order, _Answer)
        if answer.error:
            raise Unavailable(f"container through nursery and shim: {answer.error}")
        return answer
