"""Processes added to running containers: made, started, remembered with their exit codes."""

import asyncio
import contextlib
import signal
import socket
import struct
from dataclasses import dataclass

from engine.base import detachkeys, ids
from engine.base.errors import Conflict, EngineError, InvalidArgument, NotFound, Unavailable
from engine.containers import spec
from engine.containers.core import Core
from engine.containers.launcher import Launcher
from engine.containers.lifecycle import start_text
from engine.containers.live import Container
from engine.containers.model import Status
from engine.containers.shim import Shim
from engine.containers.shimlink import StartFailed
from engine.spec.docker import ExecRequest
from engine.spec.runtime import Process

_KEPT = 1000  # ended ones, so that their exit codes can be asked for
_STDERR = 2
_CANNOT_RUN, _NO_PROGRAM = 126, 127
_KILLED = 128 + signal.SIGKILL
_FRAME = struct.Struct(">BxxxI")


@dataclass(slots=True)
class Exec:
    """One exec instance."""

    id: str
    container: Container
    request: ExecRequest
    started: bool = False
    running: bool = False
    exit_code: int | None = None
    pid: int = 0
    shim: Shim | None = None  # once started


@dataclass(frozen=True, slots=True)
class Client:
    """A hijacked connection: borrowed socket, bytes read ahead, the head that it waits for."""

    socket: socket.socket
    prefix: bytes
    greeting: bytes


class Execs:
    """All exec instances of one engine; they are not kept over a restart, as in docker."""

    def __init__(self, core: Core, launcher: Launcher) -> None:
        self._core = core
        self._launcher = launcher
        self._execs: dict[str, Exec] = {}

    def get(self, exec_id: str) -> Exec:
        """Return an instance.

        Raises:
            NotFound: kind "exec".
        """
        found = self._execs.get(exec_id)
        if found is None:
            raise NotFound("exec", exec_id)
        return found

    def create(self, container: Container, request: ExecRequest) -> str:
        """Remember what is to be run and return its id.

        Raises:
            Conflict: the container does not run, or is paused; docker's words.
            InvalidArgument: no command, or bad detach keys.
        """
        if container.state.status is Status.PAUSED:
            raise Conflict(f"container {container.name} is paused, unpause the container before exec")
        container.running_shim()
        if not request.cmd:
            raise InvalidArgument("no exec command specified")
        detachkeys.parse(request.detach_keys)
        self._forget_old()
        made = Exec(ids.new_id(), container, request)
        self._execs[made.id] = made
        container.exec_ids.append(made.id)
        self._core.publish(container, f"exec_create: {' '.join(request.cmd)}", execID=made.id)
        return made.id

    async def start(
        self, exec_id: str, *, client: Client | None, tty_size: tuple[int, int] | None = None
    ) -> None:
        """Run it; with `client`, joined to its connection. Returns once it runs.

        A program that cannot be executed, or not as that user, is told to the
        client on its stderr, as docker does, and leaves 126 or 127.

        Raises:
            Conflict: it was started already, or the container does not run.
            InvalidArgument: without a client: the program cannot be executed.
        """
        one = self.get(exec_id)
        if one.started:
            raise Conflict(f"exec {exec_id} has already run")
        shim = one.container.running_shim()
        one.started = True
        try:
            process = await asyncio.to_thread(self._process, one)
            one.pid = await self._start(one, shim, process, client, tty_size)
        except (StartFailed, InvalidArgument) as err:
            found_none = isinstance(err, StartFailed) and err.exit_code == _NO_PROGRAM
            self._note_end(one, _NO_PROGRAM if found_none else _CANNOT_RUN)
            text = _exec_text(err, one.request.cmd)
            if client is None:
                raise InvalidArgument(text) from err
            await _tell(client, text, framed=not one.request.tty)
            return
        except EngineError:
            one.started = False
            raise
        one.running, one.shim = True, shim
        self._core.publish(one.container, f"exec_start: {' '.join(one.request.cmd)}", execID=one.id)
        self._core.begin(asyncio.get_running_loop().create_task(self._watch(one, shim)))

    async def _start(
        self,
        one: Exec,
        shim: Shim,
        process: Process,
        client: Client | None,
        tty_size: tuple[int, int] | None,
    ) -> int:
        request = one.request
        if request.console_size and tty_size is None:
            tty_size = (request.console_size[1], request.console_size[0])
        if client is None:
            return await shim.exec_start(one.id, process, tty_size=tty_size)
        return await shim.exec_start(
            one.id,
            process,
            client=client.socket,
            stdin=request.attach_stdin,
            stdout=request.attach_stdout or request.tty,
            stderr=request.attach_stderr,
            prefix=client.prefix,
            greeting=client.greeting,
            detach_keys=detachkeys.parse(request.detach_keys),
            framed=not request.tty,
            tty_size=tty_size if request.tty else None,
        )

    def _process(self, one: Exec) -> Process:
        request, definition = one.request, one.container.definition
        identity = self._launcher.identity(one.container, request.user or definition.config.user)
        return spec.process(
            definition,
            identity,
            self._launcher.mode,
            args=request.cmd,
            env=spec.environment(definition, identity.home, extra=request.env, tty=request.tty),
            cwd=request.working_dir or definition.config.working_dir,
            terminal=request.tty,
            privileged=request.privileged,
        )

    async def _watch(self, one: Exec, shim: Shim) -> None:
        try:
            code = (await shim.exec_wait(one.id)).code
        except Unavailable:
            if self._core.closing:
                return
            code = _KILLED  # the container ended, and the kernel every process in it
        self._note_end(one, code)
        self._core.publish(one.container, "exec_die", execID=one.id, exitCode=str(code))

    def _note_end(self, one: Exec, code: int) -> None:
        one.running, one.exit_code = False, code
        if one.id in one.container.exec_ids:
            one.container.exec_ids.remove(one.id)

    async def resize(self, exec_id: str, *, width: int, height: int) -> None:
        """Set the terminal's size; Conflict when it has none or does not run."""
        one = self.get(exec_id)
        await one.container.running_shim().resize(width, height, exec_id=one.id)

    async def document(self, exec_id: str) -> dict[str, object]:
        """Return docker's ExecInspectResponse.

        A client asks for the exit code as soon as its streams end. The shim
        says how the process ended just after it has closed them, so it is
        asked something first: by the time it answers, that has been heard.
        """
        one = self.get(exec_id)
        if one.running and one.shim is not None:
            with contextlib.suppress(EngineError, TimeoutError):
                await one.shim.kill(0, exec_id=one.id)
            ended = one.shim.execs.get(one.id)
            if ended is not None:
                self._note_end(one, ended.code)
        request = one.request
        return {
            "ID": one.id,
            "Running": one.running,
            "ExitCode": one.exit_code,
            "ProcessConfig": {
                "tty": request.tty,
                "entrypoint": request.cmd[0],
                "arguments": list(request.cmd[1:]),
                "privileged": request.privileged,
                "user": request.user,
            },
            "OpenStdin": request.attach_stdin,
            "OpenStderr": request.attach_stderr,
            "OpenStdout": request.attach_stdout,
            "CanRemove": one.exit_code is not None,
            "ContainerID": one.container.id,
            "DetachKeys": request.detach_keys,
            "Pid": one.pid,
        }

    def _forget_old(self) -> None:
        ended = [one.id for one in self._execs.values() if one.exit_code is not None or _orphan(one)]
        for exec_id in ended[: max(0, len(ended) - _KEPT)]:
            del self._execs[exec_id]


def _orphan(one: Exec) -> bool:
    return not one.container.state.live


def _exec_text(err: EngineError, cmd: tuple[str, ...]) -> str:
    if not isinstance(err, StartFailed):
        return str(err)
    return f"OCI runtime exec failed: exec failed: {start_text(err, cmd)}"


async def _tell(client: Client, text: str, *, framed: bool) -> None:
    data = f"{text}\r\n".encode()
    if framed:
        data = _FRAME.pack(_STDERR, len(data)) + data
    await asyncio.get_running_loop().sock_sendall(client.socket, client.greeting + data)
