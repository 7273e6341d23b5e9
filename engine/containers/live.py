"""One container in the daemon's memory: its definition, its state, and who waits for it."""

import asyncio
import contextlib
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field

from engine.base.errors import Conflict
from engine.containers.model import Definition, Event, State, Status, WrongStatus
from engine.containers.shim import Shim


@dataclass(frozen=True, slots=True)
class Ended:
    """What `wait` answers; why a start failed is told to who started, as docker's clients expect."""

    exit_code: int
    error: str = ""  # why the container that was to be removed was not


@dataclass(slots=True)
class Attachment:
    """A client's hijacked socket that waits for the container to start; owns it."""

    client: socket.socket
    prefix: bytes
    stdin: bool
    stdout: bool
    stderr: bool
    detach_keys: bytes

    def close(self) -> None:
        """Hang up."""
        self.client.close()


@dataclass(slots=True, eq=False)
class Container:
    """Everything about one container that is not on disk; for the event loop only."""

    definition: Definition
    name: str
    state: State
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    shim: Shim | None = None
    pending: list[Attachment] = field(default_factory=list)
    exec_ids: list[str] = field(default_factory=list)
    exit_waiters: set["asyncio.Future[Ended]"] = field(default_factory=set)
    removal_waiters: set["asyncio.Future[Ended]"] = field(default_factory=set)
    restart_delay_s: float = 0.0
    restart_task: "asyncio.Task[None] | None" = None
    damaged: bool = False

    @property
    def id(self) -> str:
        """The whole id."""
        return self.definition.id

    def advance(self, event: Event, **changes: object) -> None:
        """Move to the next state.

        Raises:
            WrongStatus: `event` is not allowed now.
        """
        try:
            self.state = self.state.advance(event, **changes)
        except KeyError:
            raise WrongStatus(self.id, self.state.status, event) from None

    def running_shim(self) -> Shim:
        """Return the shim of a container that has processes.

        Raises:
            Conflict: it has none; docker's words.
        """
        if self.shim is None or not self.state.live:
            raise Conflict(f"container {self.id} is not running")
        return self.shim

    def attributes(self, **more: str) -> Mapping[str, str]:
        """Return what an event says about it."""
        return {
            **self.definition.config.labels,
            "image": self.definition.image_name,
            "name": self.name,
            **more,
        }

    def wait_exit(self) -> "asyncio.Future[Ended]":
        """Return a future of the next exit."""
        return _waiter(self.exit_waiters)

    def wait_removal(self) -> "asyncio.Future[Ended]":
        """Return a future of the removal."""
        return _waiter(self.removal_waiters)

    def tell_exit(self, ended: Ended) -> None:
        """Wake who waits for the exit."""
        _tell(self.exit_waiters, ended)

    def tell_removal(self) -> None:
        """Wake who waits for the removal, and for an exit that will not come any more."""
        ended = self.ended()
        _tell(self.exit_waiters, ended)
        _tell(self.removal_waiters, ended)

    def tell_removal_failed(self, error: str) -> None:
        """Tell who waits for the removal that it is not to be waited for."""
        _tell(self.removal_waiters, Ended(self.state.exit_code, error))

    def ended(self) -> Ended:
        """Return how the last run ended."""
        return Ended(self.state.exit_code)

    def hang_up(self) -> None:
        """Close the clients that wait for a start that will not come."""
        for attachment in self.pending:
            attachment.close()
        self.pending.clear()

    @property
    def removable(self) -> bool:
        """Tell whether it may be removed without force."""
        return self.state.status not in {Status.RUNNING, Status.PAUSED, Status.RESTARTING}


def _waiter(waiters: "set[asyncio.Future[Ended]]") -> "asyncio.Future[Ended]":
    future: asyncio.Future[Ended] = asyncio.get_running_loop().create_future()
    waiters.add(future)
    future.add_done_callback(waiters.discard)
    return future


def _tell(waiters: "set[asyncio.Future[Ended]]", ended: Ended) -> None:
    for future in list(waiters):
        with contextlib.suppress(asyncio.InvalidStateError):
            future.set_result(ended)
