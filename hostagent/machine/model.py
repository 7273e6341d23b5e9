"""What a machine is: its settings, and the statuses it goes through.

The settings are the only thing kept on disk. The status never is: it follows
from who holds the machine's locks, and from what its agent knows.

::

    stopped --START--> starting --READY--> running <--LINK_BACK, RESUME-- degraded
       ^                  |                   |  '---LINK_LOST, STALL---^  |
       |                 FAIL,EXIT           EXIT                        EXIT
       |                  v                   v                           v
       |                broken <--------------+---------------------------'
       |                  '--START--> starting
       +---- EXIT, OFF -- stopping <--STOP-- starting, running, degraded
"""

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from engine.base import units
from engine.base.errors import Conflict, InvalidArgument
from hostagent.paths import NAME_MAX_CHARS

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?\Z", re.ASCII)
_RESERVED = frozenset(
    {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(10))}
)

CPUS_MAX = 64
MEMORY_MIN_MIB = 256
MEMORY_MAX_MIB = 1 << 20
DISK_MIN_BYTES = 256 << 20
DISK_MAX_BYTES = 16 << 40


class Arch(enum.StrEnum):
    """Processor of the guest, in the kernel's words."""

    X86_64 = "x86_64"
    AARCH64 = "aarch64"


class Accel(enum.StrEnum):
    """What runs the guest's instructions; `auto` is only a wish."""

    AUTO = "auto"
    KVM = "kvm"
    HVF = "hvf"
    WHPX = "whpx"
    TCG = "tcg"


@dataclass(frozen=True, slots=True)
class Machine:
    """The settings of one machine."""

    name: str
    cpus: int = 2
    memory_mib: int = 1024
    disk_size_bytes: int = 64 << 30
    arch: Arch = Arch.X86_64
    accel: Accel = Accel.AUTO
    image: str = ""  # directory of a VM image; empty: the one that comes with pyengine
    created: str = ""  # RFC 3339, UTC


class Status(enum.StrEnum):
    """Where a machine is in its life."""

    STOPPED = "stopped"
    STARTING = "starting"
    RUNNING = "running"
    DEGRADED = "degraded"  # the VM runs, but nothing reaches the engine in it
    STOPPING = "stopping"
    BROKEN = "broken"  # it failed to start, or ended without being asked


class Event(enum.StrEnum):
    """What moves a machine from one status to another."""

    START = "start"
    READY = "become ready"
    LINK_LOST = "lose its channel"
    LINK_BACK = "regain its channel"
    FAIL = "fail"
    STALL = "stall"  # the host could not write to its disk, so the emulator paused the guest
    RESUME = "resume"
    STOP = "stop"
    OFF = "power off"  # the guest shut itself down
    EXIT = "exit"  # the emulator ended


TRANSITIONS: Mapping[Status, Mapping[Event, Status]] = MappingProxyType({
    Status.STOPPED: {Event.START: Status.STARTING},
    Status.STARTING: {
        Event.READY: Status.RUNNING,
        Event.FAIL: Status.BROKEN,
        Event.EXIT: Status.BROKEN,
        Event.OFF: Status.BROKEN,
        Event.STOP: Status.STOPPING,
    },
    Status.RUNNING: {
        Event.LINK_LOST: Status.DEGRADED,
        Event.STALL: Status.DEGRADED,
        Event.EXIT: Status.BROKEN,
        Event.OFF: Status.STOPPED,
        Event.STOP: Status.STOPPING,
    },
    Status.DEGRADED: {
        Event.LINK_BACK: Status.RUNNING,
        Event.RESUME: Status.RUNNING,
        Event.EXIT: Status.BROKEN,
        Event.OFF: Status.STOPPED,
        Event.STOP: Status.STOPPING,
    },
    Status.STOPPING: {Event.EXIT: Status.STOPPED, Event.OFF: Status.STOPPED, Event.FAIL: Status.BROKEN},
    Status.BROKEN: {Event.START: Status.STARTING},
})  # fmt: skip


class WrongStatus(Conflict):
    """The machine's status does not allow the event."""

    def __init__(self, name: str, status: Status, event: Event) -> None:
        super().__init__(f"machine {name} cannot {event}: it is {status}")
        self.status = status
        self.event = event


def advance(name: str, status: Status, event: Event) -> Status:
    """Return the status that follows.

    Raises:
        WrongStatus: the table has no such transition.
    """
    after = TRANSITIONS[status].get(event)
    if after is None:
        raise WrongStatus(name, status, event)
    return after


def check_name(name: str) -> str:
    """Return `name`, which becomes a directory, part of a socket's path, and the guest's hostname.

    Raises:
        InvalidArgument: it does not fit the grammar.
    """
    if not _NAME.match(name) or len(name) > NAME_MAX_CHARS or name in _RESERVED:
        raise InvalidArgument(
            f"invalid machine name: {name[:64]!r}",
            hint=f"up to {NAME_MAX_CHARS} lower-case letters, digits and inner hyphens",
        )
    return name


def check(machine: Machine) -> Machine:
    """Return `machine` when each setting is within its limits.

    Raises:
        InvalidArgument: one is not; the message names it, its value and the limits.
    """
    check_name(machine.name)
    _within("cpus", machine.cpus, 1, CPUS_MAX)
    _within("memory", machine.memory_mib, MEMORY_MIN_MIB, MEMORY_MAX_MIB, " MiB")
    _within("disk size", machine.disk_size_bytes, DISK_MIN_BYTES, DISK_MAX_BYTES, " bytes")
    return machine


def _within(noun: str, value: int, low: int, high: int, unit: str = "") -> None:
    if not low <= value <= high:
        raise InvalidArgument(f"invalid {noun}: {value}{unit}: must be from {low} to {high}{unit}")


def parse_size(text: str, *, noun: str, default_unit: str = "") -> int:
    """Return the bytes that `text` stands for: a number and k, m, g or t (powers of 1024).

    `default_unit` counts when `text` has no unit.

    Raises:
        InvalidArgument: it is not such a size.
    """
    wanted = text.strip()
    try:
        return units.parse_size(wanted + default_unit if wanted[-1:].isdigit() else wanted)
    except InvalidArgument as err:
        raise InvalidArgument(
            f"invalid {noun}: {text[:40]!r}", hint="a number with k, m, g or t, such as 2g"
        ) from err
