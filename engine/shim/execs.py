"""The exec processes of one container: made in it, reaped and remembered by its shim."""

import os
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from engine.base.errors import Conflict, InvalidArgument
from engine.runtime.model import Created
from engine.runtime.plan import check_terminal_size
from engine.shim.loop import Loop
from engine.shim.protocol import Exec, Exit, Exited
from engine.shim.stdio import ProcessIO
from engine.shim.verbs import Runtime
from engine.spec.runtime import Spec

_KEPT = 1000  # ended, and not yet told to any daemon


@dataclass(slots=True)
class ExecProcess:
    """One exec process; `exit` is None while it runs, and `settled` true once its output is passed on."""

    created: Created
    io: ProcessIO
    exit: Exit | None = None
    settled: bool = False


class Execs:
    """All of them, by the id that the daemon gave."""

    def __init__(
        self,
        loop: Loop,
        runtime: Runtime,
        *,
        tell: Callable[[Exited], bool],
        when_client_gone: Callable[[], None],
    ) -> None:
        """Begin with none.

        Args:
            loop: that watches their streams.
            runtime: that makes them.
            tell: passes an end on; False when there is no daemon to hear it.
            when_client_gone: called after each client's end.
        """
        self._loop = loop
        self._runtime = runtime
        self._tell = tell
        self._when_client_gone = when_client_gone
        self._processes: dict[str, ExecProcess] = {}

    def start(self, request: Exec, fds: list[int], init: Created, spec: Spec) -> int:
        """Run a process beside `init` and return its pid; takes the client's socket out of `fds`.

        Raises:
            Conflict: the id is taken.
            InvalidArgument: the terminal's size is none.
            StartFailed: nothing of the process is left, and nothing was sent to the client.
        """
        if request.exec_id in self._processes:
            raise Conflict(f"exec {request.exec_id} has been started already")
        if request.streams is not None:
            only(fds)
        if request.tty_size is not None:
            check_terminal_size(*request.tty_size)
        io = ProcessIO(
            self._loop,
            terminal=request.process.terminal,
            stdin=request.streams is not None and request.streams.stdin,
            stdin_once=True,
            discard=request.streams is None,
            when_client_gone=self._when_client_gone,
        )
        try:
            created = self._enter(request, io, init, spec)
        except BaseException:
            io.abandon()
            raise
        self._processes[request.exec_id] = ExecProcess(created, io)
        if request.streams is not None:
            io.attach(only(fds), request.streams)
            fds.clear()
        return created.pid

    def live(self, exec_id: str) -> ExecProcess:
        """Return a process that runs.

        Raises:
            Conflict: it does not, or never did.
        """
        process = self._processes.get(exec_id)
        if process is None or process.exit is not None:
            raise Conflict(f"exec {exec_id} is not running")
        return process

    def live_pidfds(self) -> list[int]:
        """Return the pidfds of those that run."""
        return [process.created.pidfd for process in self._processes.values() if process.exit is None]

    def known(self) -> dict[str, Exit | None]:
        """Return how each has ended; None for those that run, or whose output is still under way."""
        return {
            exec_id: process.exit if process.settled else None for exec_id, process in self._processes.items()
        }

    @property
    def have_clients(self) -> bool:
        """Whether somebody is still attached to one."""
        return any(process.io.has_clients for process in self._processes.values())

    def child_ended(self, pid: int, ended: Exit) -> None:
        """A child of the shim was reaped: if it is one of these, its end is told after its output."""
        for exec_id, process in self._processes.items():
            if process.created.pid == pid and process.exit is None:
                self._ended(exec_id, process, ended)
                return

    def forget_ended(self) -> None:
        """Some daemon knows of all that have ended."""
        self._keep_ended(0)

    def _enter(self, request: Exec, io: ProcessIO, init: Created, spec: Spec) -> Created:
        created = self._runtime.enter(
            init.pid,
            spec,
            request.process,
            stdio=io.child_stdio(),
            cgroup=init.cgroup,
            target_pidfd=init.pidfd,
        )
        if init.agent is not None:  # who answers for the container answers for this process too
            created = msgspec.structs.replace(
                created, agent=msgspec.structs.replace(init.agent, container_pid=init.pid)
            )
        io.made(created.terminal_fd)
        if request.tty_size is not None:
            io.resize(*request.tty_size)
        try:
            self._runtime.start(created)
        except BaseException:
            os.close(created.pidfd)
            raise
        return created

    def _ended(self, exec_id: str, process: ExecProcess, ended: Exit) -> None:
        os.close(process.created.pidfd)
        process.exit = ended
        process.io.ended(lambda: process.io.close_clients(lambda: self._settled(exec_id, process, ended)))

    def _settled(self, exec_id: str, process: ExecProcess, ended: Exit) -> None:
        process.settled = True
        if self._tell(Exited(exec_id=exec_id, exit=ended)):
            self._processes.pop(exec_id, None)
        self._keep_ended(_KEPT)

    def _keep_ended(self, count: int) -> None:
        ended = [exec_id for exec_id, process in self._processes.items() if process.settled]
        for exec_id in ended[: max(0, len(ended) - count)]:
            del self._processes[exec_id]


def only(fds: list[int]) -> int:
    """Return the one descriptor that came with a message.

    Raises:
        InvalidArgument: none came, or several.
    """
    if len(fds) != 1:
        raise InvalidArgument(f"one descriptor expected, {len(fds)} came")
    return fds[0]
