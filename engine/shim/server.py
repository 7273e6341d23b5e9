"""One container's shim: parent of its init, keeper of its streams, log and exit code.

It makes the container, then serves its own socket (0600, root only) until it
is told to go, or until the container has ended, exit.json is durable and
nobody is connected any more. Every rule about status is in `ALLOWED`.

At the end of init, in this order: rest of the output, log flushed, exit.json
durable, attached clients closed, `exited` to every connected daemon.
"""

import contextlib
import enum
import os
import select
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from engine.base.errors import Conflict, EngineError, InvalidArgument, NotSupported
from engine.runtime.cgroups.model import Cgroup
from engine.runtime.errors import StartFailed
from engine.runtime.plan import ContainerPlan, check_terminal_size
from engine.shim.answers import Timeline, failed
from engine.shim.cleanup import write_exit
from engine.shim.daemons import Daemons
from engine.shim.execs import Execs, only
from engine.shim.log import ContainerLog, open_log
from engine.shim.loop import Loop
from engine.shim.oom import was_oom_killed
from engine.shim.peer import Peer, close_all
from engine.shim.protocol import (
    AnyAnswer,
    AnyRequest,
    Attach,
    Delete,
    Done,
    Exec,
    Exit,
    Exited,
    Hello,
    Kill,
    Pause,
    Resize,
    Resume,
    SpanRecord,
    SpawnRequest,
    Start,
)
from engine.shim.stdio import ProcessIO
from engine.shim.verbs import Runtime
from engine.spec.runtime import NamespaceType, Spec

if TYPE_CHECKING:
    from engine.runtime.model import Created

_WAIT_ALL = 0x40000000  # __WALL: children that announce their end with another signal, or none
_KILL_TIMEOUT_NS = 10 * 10**9
_KILL_POLL_MS = 1000
_LINGER_S = 10.0  # for a client that still takes its output when the shim is deleted
_spec_decoder = msgspec.json.Decoder(Spec)


class Status(enum.StrEnum):
    """What the container is doing."""

    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    EXITED = "exited"


_ANY = frozenset(Status)
_ALIVE = _ANY - {Status.EXITED}
ALLOWED: dict[type[AnyRequest], frozenset[Status]] = {
    Start: frozenset({Status.CREATED}),
    Kill: _ALIVE,
    Attach: _ALIVE,
    Exec: frozenset({Status.RUNNING}),
    Resize: _ALIVE,
    Pause: frozenset({Status.RUNNING}),
    Resume: frozenset({Status.PAUSED}),
    Delete: _ANY,
}


class Prepared(msgspec.Struct, frozen=True):
    """What is known of a container before its shim is forked."""

    spec: Spec
    plan: tuple[ContainerPlan, Cgroup] | None  # of the built-in runtime


class Server:
    """Serves one container from its making to its end."""

    def __init__(self, request: SpawnRequest, *, runtime: Runtime, note: Callable[[str], None]) -> None:
        self._request = request
        self._runtime = runtime
        self._note = note
        self._bundle = Path(request.bundle)
        self._exit_path = Path(request.exit_path)
        self._loop = Loop(lambda err: note(f"internal error: {err!r}"))
        self._daemons = Daemons(
            self._loop,
            self._bundle / "shim.sock",
            hello=self._hello,
            serve=self._serve,
            when_gone=self._end_if_done,
        )
        self._status = Status.CREATED
        self._exit: Exit | None = None  # known to be true: announced or about to be
        self._announced = False
        self._recorded = False
        self._deleted = False
        self._log: ContainerLog | None = None
        self._execs = Execs(self._loop, runtime, tell=self._daemons.tell, when_client_gone=self._end_if_done)
        self._spec: Spec
        self._io: ProcessIO
        self._created: Created

    def create(self, timeline: Timeline, prepared: Prepared | None = None) -> None:
        """Make the container; when this raises, nothing of it is left.

        Without `prepared` it does that too, and tells what is wrong.

        Raises:
            EngineError, OSError: as the runtime's `create`, or the log or
                socket could not be opened.
        """
        if self._request.tty_size is not None:
            check_terminal_size(*self._request.tty_size)
        started_ns = time.monotonic_ns()
        with contextlib.ExitStack() as undo:
            self._spec = prepared.spec if prepared else read_spec(self._bundle)
            if self._spec.hooks is not None:
                raise NotSupported("hooks: not supported under the shim: who deletes would have to run them")
            self._exit_path.unlink(missing_ok=True)
            self._log = open_log(self._request, self._loop, warn=self._note)
            if self._log is not None:
                undo.callback(self._log.close)
            self._io = ProcessIO(
                self._loop,
                terminal=self._terminal,
                stdin=self._request.open_stdin,
                stdin_once=self._request.stdin_once,
                log=self._log,
                when_client_gone=self._end_if_done,
            )
            undo.callback(self._io.abandon)
            self._daemons.listen()
            undo.callback(self._daemons.stop_listening)
            self._loop.watch_children(self._reap)
            started_ns = timeline.add("shim", "prepare", started_ns)
            self._created = self._runtime.create(
                self._spec,
                self._bundle,
                self._request.container_id,
                stdio=self._io.child_stdio(),
                rootfs_mounts=self._request.rootfs_mounts,
                **({"prepared": prepared.plan} if prepared and prepared.plan else {}),
            )
            timeline.add("runtime", "create", started_ns)
            undo.pop_all()
        self._io.made(self._created.terminal_fd)
        for warning in self._created.warnings:
            self._note(warning)
        if self._request.tty_size is not None:
            self._io.resize(*self._request.tty_size)

    def run(self, daemon: socket.socket, timeline: Timeline) -> None:
        """Greet `daemon`, then serve to the end."""
        self._daemons.add(daemon, tuple(timeline.spans))
        self._loop.run()
        self._daemons.close()
        if self._log is not None:
            if self._request.durable:
                self._log.sync()  # nobody waits for it any more
            self._log.close()

    # Making

    @property
    def _terminal(self) -> bool:
        return self._spec.process is not None and self._spec.process.terminal

    # Daemons

    def _hello(self, spans: tuple[SpanRecord, ...]) -> Hello:
        """Return all that a new daemon has to know."""
        hello = Hello(
            container_id=self._request.container_id,
            shim_pid=os.getpid(),
            pid=self._created.pid,
            status=self._status.value,
            exit=self._exit if self._announced else None,
            execs=self._execs.known(),
            spans=spans,
        )
        self._execs.forget_ended()
        return hello

    def _serve(self, peer: Peer, request: AnyRequest, fds: list[int]) -> None:
        try:
            answer = self._answer(request, fds)
        except Exception as err:  # noqa: BLE001 (the daemon gets it, whatever it is)
            answer = failed(request.id, err)
            if not isinstance(err, EngineError):
                self._note(f"{type(request).__name__}: {err!r}")
        close_all(fds)
        peer.send(answer)
        if self._deleted:
            self._end_if_done()

    def _answer(self, request: AnyRequest, fds: list[int]) -> AnyAnswer:
        if self._status not in ALLOWED.get(type(request), _ANY):
            verb = type(request).__name__.lower()
            raise Conflict(f"cannot {verb} container {self._request.container_id}: it is {self._status}")
        if isinstance(request, Attach):
            return self._attach(request, fds)
        if isinstance(request, Exec):
            return Done(id=request.id, pid=self._execs.start(request, fds, self._created, self._spec))
        return self._answer_plain(request)

    def _answer_plain(self, request: AnyRequest) -> AnyAnswer:
        """Serve the requests that come without descriptors."""
        match request:
            case Start():
                return self._start(request)
            case Kill():
                return self._kill(request)
            case Resize():
                return self._resize(request)
            case Pause() | Resume():
                return self._freeze(request)
            case Delete():
                return self._delete(request)
            case _:
                raise InvalidArgument("not a request to a shim")

    # Requests

    def _start(self, request: Start) -> Done:
        timeline = Timeline(self._request.trace)
        started_ns = time.monotonic_ns()
        try:
            self._runtime.start(self._created)
        except StartFailed as err:
            self._never_ran(err)
            raise
        timeline.add("runtime", "start", started_ns)
        self._status = Status.RUNNING
        return Done(id=request.id, spans=tuple(timeline.spans))

    def _kill(self, request: Kill) -> Done:
        cgroup, pidfd = self._created.cgroup, self._created.pidfd
        if request.exec_id:
            cgroup, pidfd = "", self._execs.live(request.exec_id).created.pidfd
        elif not self._is_alive():
            raise Conflict(f"cannot kill container {self._request.container_id}: it is exiting")
        if not self._runtime.kill(cgroup, pidfd, request.signal, everyone=request.everyone):
            raise Conflict(f"cannot kill container {self._request.container_id}: it is exiting")
        if request.signal == signal.SIGKILL and self._status is Status.PAUSED:
            self._thaw()  # a frozen process does not die before it runs again
        return Done(id=request.id)

    def _attach(self, request: Attach, fds: list[int]) -> Done:
        io = self._execs.live(request.exec_id).io if request.exec_id else self._io
        io.attach(only(fds), request.streams)
        fds.clear()
        return Done(id=request.id)

    def _resize(self, request: Resize) -> Done:
        check_terminal_size(request.width, request.height)
        io = self._execs.live(request.exec_id).io if request.exec_id else self._io
        if not io.resize(request.width, request.height):
            raise Conflict(f"cannot resize container {self._request.container_id}: it has no terminal")
        return Done(id=request.id)

    def _freeze(self, request: Pause | Resume) -> Done:
        if isinstance(request, Pause):
            self._runtime.pause(self._created.cgroup)
            self._status = Status.PAUSED
        else:
            self._thaw()
        return Done(id=request.id)

    def _thaw(self) -> None:
        self._runtime.resume(self._created.cgroup)
        self._status = Status.RUNNING

    def _delete(self, request: Delete) -> Done:
        if not self._deleted:
            if self._is_alive():
                self._end_all()
            self._remove()
            self._deleted = True
            self._loop.later(_LINGER_S, self._loop.stop)
        return Done(id=request.id)

    def _end_all(self) -> None:
        """Kill every process of the container and wait until init has ended.

        Exec processes are reaped on the way: the kernel lets an init end only
        after every process of its PID namespace has been.
        """
        self._runtime.kill(self._created.cgroup, self._created.pidfd, signal.SIGKILL, everyone=True)
        if self._status is Status.PAUSED:
            self._thaw()
        deadline_ns = time.monotonic_ns() + _KILL_TIMEOUT_NS
        self._reap()
        while self._is_alive():
            if time.monotonic_ns() > deadline_ns:
                raise Conflict(
                    f"cannot end container {self._request.container_id}: "
                    f"process {self._created.pid} does not die",
                    hint="it waits for a device or a network file system; try again when that answers",
                )
            poll = select.poll()
            for pidfd in (self._created.pidfd, *self._execs.live_pidfds()):
                poll.register(pidfd, select.POLLIN)
            poll.poll(_KILL_POLL_MS)
            self._reap()

    # Ends

    def _is_alive(self) -> bool:
        return self._status is not Status.EXITED

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG | _WAIT_ALL)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self._child_ended(pid, os.waitstatus_to_exitcode(status))

    def _child_ended(self, pid: int, code: int) -> None:
        ended = Exit(
            code=code if code >= 0 else 128 - code, signal=max(0, -code), finished_at_ns=time.time_ns()
        )
        if pid == self._created.pid and self._is_alive():
            self._init_ended(ended)
        else:
            self._execs.child_ended(pid, ended)

    def _init_ended(self, ended: Exit) -> None:
        self._status = Status.EXITED
        if not self._has_own_pids():  # otherwise the kernel has ended them all
            try:
                self._runtime.kill(self._created.cgroup, self._created.pidfd, signal.SIGKILL, everyone=True)
            except (EngineError, OSError) as err:  # `delete` tries again; the end must be told all the same
                self._note(f"processes of the container not killed: {err}")
        self._io.ended(lambda: self._finish(ended))

    def _has_own_pids(self) -> bool:
        spaces = self._spec.linux.namespaces
        return any(space.type is NamespaceType.PID and not space.path for space in spaces)

    def _finish(self, ended: Exit) -> None:
        if self._log is not None:
            self._log.finish()
        oom_killed = was_oom_killed(self._created.cgroup)
        self._exit = Exit(
            code=ended.code,
            signal=ended.signal,
            oom_killed=oom_killed,
            finished_at_ns=ended.finished_at_ns,
            error=ended.error,
        )
        self._record(self._exit)
        self._io.close_clients(self._announce)

    def _record(self, ended: Exit) -> None:
        try:
            write_exit(self._exit_path, ended, durable=self._request.durable)
        except OSError as err:  # kept in memory, and this process alive, until a daemon has asked
            self._note(f"{self._exit_path}: not written: {os.strerror(err.errno or 0).lower()}")
        else:
            self._recorded = True

    def _announce(self) -> None:
        self._announced = True
        if self._exit is not None:
            self._daemons.tell(Exited(exit=self._exit))
        self._end_if_done()

    def _never_ran(self, err: StartFailed) -> None:
        """The program could not be executed: init has ended, or is about to."""
        self._status = Status.EXITED
        self._exit = Exit(code=err.exit_code, finished_at_ns=time.time_ns(), error=str(err))
        self._record(self._exit)
        self._announced = True
        self._io.abandon()

    def _end_if_done(self) -> None:
        if self._deleted:
            settled = self._exit is not None and not self._has_clients()
            if settled and not self._daemons.have_queued:
                self._loop.stop()
        elif self._announced and self._recorded and not self._daemons.are_there and not self._has_clients():
            self._remove()
            self._loop.stop()

    def _has_clients(self) -> bool:
        return self._io.has_clients or self._execs.have_clients

    def _remove(self) -> None:
        """Remove what the container has on this machine apart from its bundle's files."""
        self._daemons.stop_listening()
        self._runtime.delete(self._created.cgroup, self._bundle)
        if self._log is not None:
            self._log.settle()  # from here on a next run may open it


def read_spec(bundle: Path) -> Spec:
    """Return the configuration of a bundle.

    Raises:
        InvalidArgument: it is none.
        OSError: it cannot be read.
    """
    path = bundle / "config.json"
    return decode_spec(path.read_bytes(), str(path))


def decode_spec(data: bytes, name: str = "config.json") -> Spec:
    """Return the bundle's configuration, by a decoder that is ready before the fork.

    Raises:
        InvalidArgument: it is not one; the message begins with `name`.
    """
    try:
        return _spec_decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as err:
        raise InvalidArgument(f"invalid {name}: {err}") from err
