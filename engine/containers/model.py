"""What a container is, and the table of its life.

`Definition` is what it was created from and never changes; `State` is what
happens to it. Every rule about status is in `TRANSITIONS`: code asks
`advance`; nothing else assigns a status::

    created --start--> running --exit--> exited --start--> running
                        |  ^                |
                   pause|  |unpause         | (restart policy)
                        v  |                v
                       paused           restarting --start--> running
    any but running and paused --remove--> removing --remove failed--> dead

Source: Docker Engine API v1.51, ContainerState.
"""

import enum
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from engine.base.errors import Conflict
from engine.base.ids import short
from engine.spec.docker import ContainerConfig, HostConfig, NetworkingConfig

SCHEMA = 1
NANOSECONDS = 1_000_000_000


class Status(enum.StrEnum):
    """Docker's seven."""

    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    RESTARTING = "restarting"
    REMOVING = "removing"
    EXITED = "exited"
    DEAD = "dead"


class Event(enum.StrEnum):
    """What can happen to a container."""

    START = "start"
    START_FAILED = "start failed"
    EXIT = "exit"
    PAUSE = "pause"
    UNPAUSE = "unpause"
    WAIT_TO_RESTART = "wait to restart"
    GIVE_UP_RESTART = "give up restart"
    REMOVE = "remove"
    REMOVE_FAILED = "remove failed"


TRANSITIONS: dict[Status, dict[Event, Status]] = {
    Status.CREATED: {
        Event.START: Status.RUNNING,
        Event.START_FAILED: Status.CREATED,
        Event.REMOVE: Status.REMOVING,
    },
    Status.RUNNING: {Event.PAUSE: Status.PAUSED, Event.EXIT: Status.EXITED},
    Status.PAUSED: {Event.UNPAUSE: Status.RUNNING, Event.EXIT: Status.EXITED},
    Status.EXITED: {
        Event.START: Status.RUNNING,
        Event.START_FAILED: Status.EXITED,
        Event.WAIT_TO_RESTART: Status.RESTARTING,
        Event.REMOVE: Status.REMOVING,
    },
    Status.RESTARTING: {
        Event.START: Status.RUNNING,
        Event.START_FAILED: Status.EXITED,
        Event.GIVE_UP_RESTART: Status.EXITED,
        Event.REMOVE: Status.REMOVING,
    },
    Status.REMOVING: {Event.REMOVE_FAILED: Status.DEAD},
    Status.DEAD: {Event.REMOVE: Status.REMOVING},
}

LIVE = frozenset((Status.RUNNING, Status.PAUSED))


class WrongStatus(Conflict):
    """The event is not allowed in the container's status."""

    def __init__(self, container_id: str, status: Status, event: Event) -> None:
        super().__init__(f"cannot {event} container {short(container_id)}: it is {status}")
        self.status = status
        self.event = event


@dataclass(frozen=True, slots=True)
class State:
    """Where a container is in its life; times are wall-clock nanoseconds, 0 for never."""

    status: Status = Status.CREATED
    pid: int = 0  # of the init process while it lives
    exit_code: int = 0
    error: str = ""
    oom_killed: bool = False
    started_ns: int = 0
    finished_ns: int = 0
    restart_count: int = 0
    stopped_by_user: bool = False  # so that a restart policy lets it be

    @property
    def live(self) -> bool:
        """Tell whether it has processes."""
        return self.status in LIVE

    def advance(self, event: Event, **changes: Any) -> "State":  # noqa: ANN401 (fields of State)
        """Return the state after `event`, with `changes`; `self` is unchanged.

        Raises:
            KeyError: `event` is not allowed now; `WrongStatus` is the caller's to word.
        """
        status = TRANSITIONS[self.status][event]
        if status not in LIVE:
            changes.setdefault("pid", 0)
        return replace(self, status=status, **changes)


@dataclass(frozen=True, slots=True)
class MountPoint:
    """One mount that the user or the image asked for, as `inspect` shows it."""

    type: str  # "bind", "volume" or "tmpfs"
    destination: str
    source: str = ""  # host path of a bind; of a volume it is asked for at each start
    name: str = ""  # of a volume
    rw: bool = True
    mode: str = ""
    propagation: str = ""
    recursive: bool = True
    options: tuple[str, ...] = ()  # of a tmpfs
    anonymous: bool = False  # a volume that goes with the container
    labels: Mapping[str, str] = field(default_factory=dict)  # of a volume that has yet to be made


@dataclass(frozen=True, slots=True)
class Definition:
    """What a container was created from; the content of its config.json."""

    id: str
    name: str  # at creation; the database has the name of now
    created_ns: int
    image_id: str
    image_name: str
    chain_ids: tuple[str, ...]
    config: ContainerConfig  # merged with the image's
    host: HostConfig
    networking: NetworkingConfig = field(default_factory=NetworkingConfig)
    mounts: tuple[MountPoint, ...] = ()
    schema: int = SCHEMA

    @property
    def argv(self) -> tuple[str, ...]:
        """Program and arguments."""
        return (*words(self.config.entrypoint), *words(self.config.cmd))

    @property
    def hostname(self) -> str:
        """The host name inside."""
        return self.config.hostname or short(self.id)


def words(value: tuple[str, ...] | str | None) -> tuple[str, ...]:
    """Return a command in docker's two forms as a list."""
    if value is None:
        return ()
    return (value,) if isinstance(value, str) else value


def now_ns() -> int:
    """Return the wall clock."""
    return time.time_ns()


def stamp(ns: int) -> str:
    """Return a time as docker writes it: RFC 3339 with nanoseconds, UTC; 0 is Go's zero time."""
    if ns <= 0:
        return "0001-01-01T00:00:00Z"
    seconds, fraction = divmod(ns, NANOSECONDS)
    text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    digits = f"{fraction:09d}".rstrip("0")
    return f"{text}.{digits}Z" if digits else f"{text}Z"
