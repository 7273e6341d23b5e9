"""What the runtime needs of a container's control group, whichever layout the machine has."""

from typing import Protocol

from engine.base.errors import Conflict
from engine.spec.runtime import Resources


class StillPopulated(Conflict):
    """The control group still has processes."""


class OomWatch(Protocol):
    """A descriptor to poll, and how often it happened since it was asked last."""

    fd: int
    poll_events: int

    def take(self) -> int:
        """Return how many times; the descriptor is quiet after."""

    def close(self) -> None:
        """Give the descriptor back."""


class Cgroup(Protocol):
    """One control group. Made by `create`, gone by `remove`; all between may be called in any order."""

    @property
    def path(self) -> str:
        """Absolute, below the root of every hierarchy."""

    def create(self, resources: Resources) -> list[str]:
        """Make it, with its limits; return warnings. What was made is removed again on failure."""

    def give(self, owner: int) -> None:
        """Let a user of the host divide it further, in the layout that is safe for it: cgroup2."""

    def update(self, resources: Resources) -> list[str]:
        """Change its limits, without the device rules; return warnings."""

    def birth_fd(self) -> int | None:
        """Return a descriptor to clone into, owned by the caller; None where a process must move itself."""

    def doors(self) -> list[int]:
        """Return the descriptors, owned by the caller, by which a process that was not born here moves in.

        It writes `0`, itself, to each. It has one thread only.
        """

    def beside(self, pid: int) -> "Cgroup":
        """Return where a process is put that is to be with `pid`, which was born here."""

    def processes(self) -> list[int]:
        """Return the pids here and below, as the caller's PID namespace sees them."""

    def signal(self, signal_number: int) -> int:
        """Signal all processes, also those that are just being forked; return how many there were."""

    def freeze(self, frozen: bool, *, timeout_s: float) -> None:
        """Stop or let run all processes; return once that is so."""

    def is_frozen(self) -> bool:
        """Tell whether all processes are stopped."""

    def statistics(self) -> dict[str, object]:
        """Return what its processes use, in the words of runc's events."""

    def watch_oom(self) -> OomWatch:
        """Return what tells that the kernel kills here for want of memory; owned by the caller.

        Raises:
            NotSupported: this machine has no memory controller.
        """

    def remove(self, *, timeout_s: float) -> None:
        """Remove it and all below; its last processes may still be ending.

        Raises:
            StillPopulated: they did not end within `timeout_s`.
        """
