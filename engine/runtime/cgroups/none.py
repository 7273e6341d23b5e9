"""A container without a control group: an unprivileged user's, where none is delegated to it.

Its processes stay where the runtime is, so they cannot be counted, stopped or limited.
"""

import os

from engine.base.errors import NotSupported
from engine.kernel.cgroup import Hierarchies
from engine.runtime.cgroups.limits_v1 import limits_anything
from engine.runtime.cgroups.model import OomWatch
from engine.spec.runtime import Resources


class NoCgroup:
    """Stands for the absent group."""

    path = ""

    def __init__(self, where: Hierarchies) -> None:
        self._where = where

    def binds(self) -> dict[str, str]:
        """Return what to bind into /sys/fs/cgroup on a legacy machine: where this process is."""
        with open("/proc/self/cgroup", "rb") as file:
            return own_directories(file.read().decode(), self._where)

    def create(self, resources: Resources) -> list[str]:
        """Do nothing; the devices are kept by there being no right to make nodes.

        Raises:
            NotSupported: limits are asked for.
        """
        if limits_anything(resources):
            raise NotSupported(
                "the container has no control group: it cannot be limited",
                hint="none is delegated to this user",
            )
        return []

    def give(self, owner: int) -> None:
        """Do nothing."""

    def update(self, resources: Resources) -> list[str]:
        """Refuse.

        Raises:
            NotSupported: always.
        """
        del resources
        raise NotSupported("the container has no control group: it cannot be limited")

    def birth_fd(self) -> int | None:
        """Return None: the process is born where its parent is."""
        return None

    def doors(self) -> list[int]:
        """Return none."""
        return []

    def beside(self, pid: int) -> "NoCgroup":
        """Return this."""
        del pid
        return self

    def processes(self) -> list[int]:
        """Refuse.

        Raises:
            NotSupported: always.
        """
        raise NotSupported("the container has no control group: its processes are not known")

    def signal(self, signal_number: int) -> int:
        """Return 0: nobody is known; the process id is signalled instead."""
        del signal_number
        return 0

    def freeze(self, frozen: bool, *, timeout_s: float) -> None:
        """Refuse.

        Raises:
            NotSupported: always.
        """
        del frozen, timeout_s
        raise NotSupported("the container has no control group: it can be neither paused nor resumed")

    def is_frozen(self) -> bool:
        """Return False."""
        return False

    def statistics(self) -> dict[str, object]:
        """Refuse.

        Raises:
            NotSupported: always.
        """
        raise NotSupported("the container has no control group: what it uses is not known")

    def watch_oom(self) -> OomWatch:
        """Refuse.

        Raises:
            NotSupported: always.
        """
        raise NotSupported("the container has no control group: its want of memory is not known")

    def remove(self, *, timeout_s: float) -> None:
        """Do nothing."""


def own_directories(text: str, where: Hierarchies) -> dict[str, str]:
    """Return the directories of a process with this /proc/PID/cgroup, by the names of their hierarchies."""
    found = {}
    for line in text.splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            if controller in where.legacy:
                point = str(where.legacy[controller])
                found[os.path.basename(point)] = f"{point}{path}".rstrip("/")
    return found
