"""What a driver of virtual machines does; `hostagent.machine.qemu.driver` is the first of them.

Life of a virtual machine: `launch` starts it, detached, so that it outlives
the agent; `adopt` finds one that an earlier agent started; `wait` resolves
when it has ended, and why. A driver holds the machine's lock in a way that
ends with the virtual machine, not with the agent.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from hostagent.machine.images import Image
from hostagent.machine.model import Accel, Machine


@dataclass(frozen=True, slots=True)
class Ended:
    """How a virtual machine ended."""

    by_guest: bool  # it powered itself off
    reason: str  # one line: "powered off", "killed by signal 9", "exit status 1: ..."


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a running virtual machine."""

    pid: int
    accel: Accel
    accel_reason: str
    emulator: str  # "qemu 7.2.22"
    image_key: str
    started_ns: int  # wall clock


class VirtualMachine(Protocol):
    """One running virtual machine."""

    @property
    def facts(self) -> Facts:
        """What is known of it."""

    @property
    def ssh_port(self) -> int:
        """The port of 127.0.0.1 that leads to the guest's sshd."""

    async def wait(self) -> Ended:
        """Return when it has ended; to any number of callers."""

    def on_stall(self, callback: Callable[[str], None]) -> None:
        """Call `callback` with the reason when a failed write on the host made it pause."""

    async def resume(self) -> None:
        """Let it run on after a stall; the write is done again."""

    async def quit(self, *, timeout_s: float) -> None:
        """End it at once, as by pulling the plug; kill it when it does not in `timeout_s`."""


class Driver(Protocol):
    """Starts and finds the virtual machine of one machine."""

    async def launch(
        self, machine: Machine, image: Image, tries: Sequence[tuple[Accel, str]]
    ) -> VirtualMachine:
        """Start it with the first accelerator of `tries` under which it shows life.

        Raises:
            Conflict: it runs already.
            NotSupported: the emulator or the asked-for accelerator does not work here.
            Unavailable: it ended at once; the message has its last words.
        """

    async def adopt(self) -> VirtualMachine | None:
        """Return the one that runs already, or None."""
