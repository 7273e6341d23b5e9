"""The containers of `pyengine-oci`: one directory each below its root.

    ROOT/ID/            made first, exclusively: it is the claim on the id
      config.json       the spec as it was at `create`, whatever becomes of the bundle's
      state.json        written when there is a process; without it the making was cut short
      start.sock        here the process waits for `start`; gone once that was sent

The status is derived from these, from the process and from the freezer; it is never saved.
"""

import contextlib
import enum
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from engine.base import jsonio
from engine.base.errors import AlreadyExists, Conflict, InvalidArgument, NotFound
from engine.base.unixsocket import short_address
from engine.kernel import process
from engine.runtime import state
from engine.runtime.cgroups.select import cgroup_at
from engine.runtime.state import State
from engine.spec.runtime import Spec

_ID_SIGNS = "_+-."  # besides letters and digits
_ID_MAX = 255
NOT_RUNNING = "container not running"
"""runc's words for a container that has ended, which containerd looks for after a kill."""


class Status(enum.StrEnum):
    """What a container is doing; the first four are the specification's."""

    CREATING = "creating"
    CREATED = "created"
    RUNNING = "running"
    STOPPED = "stopped"
    PAUSED = "paused"


_ALIVE = frozenset({Status.CREATED, Status.RUNNING, Status.PAUSED})
ALLOWED: dict[str, frozenset[Status]] = {
    "start": frozenset({Status.CREATED}),
    "kill": _ALIVE,
    "exec": frozenset({Status.CREATED, Status.RUNNING}),
    "pause": frozenset({Status.CREATED, Status.RUNNING}),
    "resume": frozenset({Status.PAUSED}),
    "update": _ALIVE,
    "events": _ALIVE,
    "delete": frozenset({Status.CREATED, Status.STOPPED}),  # and any, with --force
    "ps": _ALIVE,
}


class Container(msgspec.Struct, frozen=True):
    """One directory of the store."""

    id: str
    path: Path

    @property
    def state_path(self) -> Path:
        """Where `create` leaves what the other verbs need."""
        return self.path / "state.json"

    @property
    def config_path(self) -> Path:
        """The spec that the container was made of."""
        return self.path / "config.json"

    def state(self) -> State:
        """Return what `create` left.

        Raises:
            Conflict: it left nothing.
            InvalidArgument: the file is damaged.
        """
        try:
            return state.read(self.state_path)
        except FileNotFoundError:
            raise Conflict(
                f"container {self.id} is not complete", hint="remove it with delete --force"
            ) from None

    def spec(self) -> Spec:
        """Return the spec that the container was made of."""
        return jsonio.read(self.config_path, Spec)

    def rewrite(self, spec: Spec) -> None:
        """Replace the spec, whole: later verbs go by what is in force now."""
        fresh = self.path / ".config.json"
        fresh.write_bytes(jsonio.encode(spec))
        fresh.replace(self.config_path)

    def status(self) -> Status:
        """Return what it is doing now."""
        if not self.state_path.exists():
            return Status.CREATING
        found = self.state()
        if state.start_time(found.pid) != found.start_time or state.is_zombie(found.pid):
            return Status.STOPPED
        if cgroup_at(found.cgroup).is_frozen():
            return Status.PAUSED
        return Status.CREATED if self._start_socket.exists() else Status.RUNNING

    def demand(self, verb: str) -> State:
        """Return the state of a container that `verb` can be done to.

        Raises:
            Conflict: its status does not allow it.
        """
        found, status = self.state(), self.status()
        if status not in ALLOWED[verb]:
            why = NOT_RUNNING if status is Status.STOPPED else f"it is {status}"
            raise Conflict(f"cannot {verb} container {self.id}: {why}")
        return found

    @contextlib.contextmanager
    def pidfd(self) -> Iterator[int]:
        """Lend a descriptor of the container's process, surely of it and of no later one of that number.

        Raises:
            Conflict: it has ended.
        """
        found = self.state()
        fd = -1
        try:
            with contextlib.suppress(ProcessLookupError):
                fd = process.pidfd_open(found.pid)
            if fd < 0 or state.start_time(found.pid) != found.start_time:
                raise Conflict(f"{self.id}: {NOT_RUNNING}")
            yield fd
        finally:
            if fd >= 0:
                os.close(fd)

    # The way from `start` to the process that waits

    @property
    def _start_socket(self) -> Path:
        return self.path / "start.sock"

    def listen(self) -> socket.socket:
        """Return the socket at which the process will wait for `start`."""

        def bind(sock: socket.socket, address: str) -> None:
            sock.bind(address)
            sock.listen(1)

        return self._socket(bind, self._start_socket.name)

    def connect(self) -> socket.socket:
        """Return the line to the process that waits for `start`; of two callers one gets it.

        Raises:
            Conflict: another one has started it.
        """
        taken = self.path / "start.taken"
        try:
            os.rename(self._start_socket, taken)  # of two, one succeeds
        except FileNotFoundError:
            raise Conflict(f"container {self.id} has been started already") from None
        try:
            return self._socket(lambda sock, address: sock.connect(address), taken.name)
        except ConnectionRefusedError:
            raise Conflict(f"{self.id}: {NOT_RUNNING}") from None
        finally:
            taken.unlink()

    def _socket(self, use: Callable[[socket.socket, str], None], name: str) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        try:
            with short_address(self.path / name) as address:
                use(sock, address)
        except BaseException:
            sock.close()
            raise
        return sock

    def remove(self) -> None:
        """Forget the container, whose directory holds files only; repeating it is harmless."""
        with contextlib.suppress(FileNotFoundError):
            for name in os.listdir(self.path):
                os.unlink(self.path / name)
            os.rmdir(self.path)


class Store:
    """All containers below one root."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def claim(self, container_id: str) -> Container:
        """Make the directory of a new container.

        Raises:
            InvalidArgument: it is no id.
            AlreadyExists: the id is taken.
        """
        container = self._at(container_id)
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            container.path.mkdir(mode=0o700)
        except FileExistsError:
            raise AlreadyExists(f"container id is taken: {container_id}") from None
        return container

    def find(self, container_id: str) -> Container:
        """Return a container.

        Raises:
            NotFound: there is none of that id.
        """
        container = self._at(container_id)
        if not container.path.is_dir():
            raise NotFound("container", container_id)
        return container

    def all(self) -> list[Container]:
        """Return the containers, by id."""
        try:
            names = sorted(os.listdir(self._root))
        except FileNotFoundError:
            return []
        return [Container(name, self._root / name) for name in names if (self._root / name).is_dir()]

    def _at(self, container_id: str) -> Container:
        plain = container_id.isascii() and all(sign.isalnum() or sign in _ID_SIGNS for sign in container_id)
        plain = plain and container_id not in ("", ".", "..")
        if not plain or len(container_id) > _ID_MAX:
            raise InvalidArgument(f"invalid container id: {container_id!r}")
        return Container(container_id, self._root / container_id)
