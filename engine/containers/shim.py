"""One container's shim, seen from the daemon: what it is asked, and what is known of it.

A shim that is killed takes its container with it: the connection breaks, the
container's cgroup is killed, and `wait` answers with exit.json if the shim got
that far, else with 255.

Nothing here blocks the event loop, and every wait but `wait` and `exec_wait`
(a container may run for years) has a deadline.
"""

import asyncio
import logging
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from engine.base import trace
from engine.base.errors import Conflict, EngineError, NotFound, Unavailable
from engine.containers.shimlink import Link, StartFailed, error_of
from engine.shim.cleanup import read_exit, remove_leftovers
from engine.shim.protocol import (
    Attach,
    Delete,
    Exec,
    Exit,
    Exited,
    Failed,
    Hello,
    Kill,
    Pause,
    Resize,
    Resume,
    SpanRecord,
    Start,
    Streams,
)
from engine.spec.runtime import Process

log = logging.getLogger(__name__)

DETACH_KEYS = b"\x10\x11"  # ctrl-p, ctrl-q
REQUEST_TIMEOUT_S = 60.0


class Shim:
    """One container's shim, seen from the daemon.

    Attributes:
        container_id: of the container.
        pid: of its init process; 0 before `greeted`.
        shim_pid: of the shim.
        status: "created", "running", "paused" or "exited", as last heard.
        spans: of nursery, shim and runtime, when the spawn request asked.
        execs: exec processes known when the connection was made; None: still running.
    """

    def __init__(
        self,
        container_id: str,
        bundle: Path,
        exit_path: Path,
        sock: socket.socket,
        *,
        on_close: Callable[["Shim"], None],
    ) -> None:
        """Take the connection `sock`; `on_close` is called when it is dropped."""
        loop = asyncio.get_running_loop()
        self.container_id = container_id
        self.pid = 0
        self.shim_pid = 0
        self.status = "created"
        self.spans: tuple[trace.Span, ...] = ()
        self._on_close = on_close
        self._bundle = bundle
        self._exit_path = exit_path
        self._hello: asyncio.Future[Hello] = loop.create_future()
        self._exit: asyncio.Future[Exit] = loop.create_future()
        self._execs: dict[str, asyncio.Future[Exit]] = {}
        self._cleaning: asyncio.Task[None] | None = None
        self._deleting = False
        self._link = Link(sock, name=f"shim {container_id[:12]}", on_event=self._event, on_lost=self._lost)

    @property
    def execs(self) -> dict[str, Exit | None]:
        """Exec processes by id, with how they ended; None for those that run."""
        return {
            exec_id: future.result() if future.done() and not future.exception() else None
            for exec_id, future in self._execs.items()
        }

    @property
    def exit(self) -> Exit | None:
        """How the container ended, if it has."""
        return self._exit.result() if self._exit.done() and not self._exit.exception() else None

    async def start(self) -> None:
        """Let init execute the container's program; returns once it has.

        Raises:
            StartFailed: it could not (126, 127); shim, cgroup and bundle are gone.
        """
        try:
            await self._request(Start(id=self._link.next_id()))
        except StartFailed:
            await self.delete()
            raise
        self.status = "running"

    async def wait(self) -> Exit:
        """Return how the container ended, once logs are flushed and exit.json is durable.

        Any number of callers. A lost shim gives code 255 with `error` set.

        Raises:
            Unavailable: this connection was closed by `Shims.close`.
        """
        return await asyncio.shield(self._exit)

    async def kill(self, signal: int, *, all: bool = False, exec_id: str = "") -> None:  # noqa: A002
        """Send `signal` to init, to every process (`all`), or to one exec process.

        Raises:
            Conflict: it has ended already.
        """
        await self._request(Kill(id=self._link.next_id(), signal=signal, everyone=all, exec_id=exec_id))

    async def attach(
        self,
        client: socket.socket,
        *,
        stdin: bool,
        stdout: bool,
        stderr: bool,
        prefix: bytes = b"",
        greeting: bytes = b"",
        exec_id: str = "",
        detach_keys: bytes = DETACH_KEYS,
        framed: bool,
    ) -> None:
        """Join a client's hijacked socket to the container's streams.

        Once this returns, no byte of output is lost to the client, and the
        caller closes its own copy of `client` (a plain close, no shutdown).
        The shim closes the last copy when the output ends, the client leaves
        or types `detach_keys` (looked for with a terminal only).

        Args:
            client: any connected stream socket.
            stdin: the client's input goes to the process; its end (shutdown
                for writing) ends the process's, where the container has stdin_once.
            stdout: the client gets it; a terminal counts as stdout.
            stderr: likewise.
            prefix: input that was read from the socket along with the request.
            greeting: written to the client by the shim before anything else,
                such as the "101 UPGRADED" head: a client that has seen it can
                start the container without losing output.
            exec_id: an exec process instead of init.
            detach_keys: a sequence of bytes; empty for none.
            framed: 8-byte headers; False writes the bytes as they are.

        Raises:
            Conflict: the process has ended.
        """
        streams = Streams(
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            framed=framed,
            prefix=prefix,
            greeting=greeting,
            detach_keys=detach_keys,
        )
        message = Attach(id=self._link.next_id(), streams=streams, exec_id=exec_id)
        await self._request(message, fds=[client.fileno()])

    async def exec_start(
        self,
        exec_id: str,
        process: Process,
        *,
        client: socket.socket | None = None,
        stdin: bool = False,
        stdout: bool = True,
        stderr: bool = True,
        prefix: bytes = b"",
        greeting: bytes = b"",
        detach_keys: bytes = DETACH_KEYS,
        framed: bool = True,
        tty_size: tuple[int, int] | None = None,
    ) -> int:
        """Run one more process in the container and return its pid in the engine's PID namespace.

        Without `client` its output is discarded and stdin is /dev/null; with
        one, see `attach`: the streams are joined before the program runs, the
        end of the client's input is the process's, and `greeting` is written
        only once the program has been executed.

        Raises:
            StartFailed: 126, 127; nothing was written to the client.
            Conflict: the container does not run, is paused, or `exec_id` is taken.
        """
        streams = None
        if client is not None:
            streams = Streams(
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                framed=framed,
                prefix=prefix,
                greeting=greeting,
                detach_keys=detach_keys,
            )
        future = self._execs.get(exec_id)
        if future is not None:
            raise Conflict(f"exec {exec_id} of container {self.container_id} has been started already")
        self._execs[exec_id] = asyncio.get_running_loop().create_future()
        message = Exec(
            id=self._link.next_id(), exec_id=exec_id, process=process, streams=streams, tty_size=tty_size
        )
        try:
            done = await self._request(message, fds=[client.fileno()] if client is not None else [])
        except BaseException:
            self._execs.pop(exec_id, None)
            raise
        return done

    async def exec_wait(self, exec_id: str) -> Exit:
        """Return how an exec process ended, once its output has been passed on.

        Raises:
            NotFound: no such exec was started here.
        """
        future = self._execs.get(exec_id)
        if future is None:
            raise NotFound("exec instance", exec_id)
        return await asyncio.shield(future)

    async def resize(self, width: int, height: int, *, exec_id: str = "") -> None:
        """Set the terminal's size in characters.

        Raises:
            Conflict: no terminal, or the process has ended.
        """
        await self._request(Resize(id=self._link.next_id(), width=width, height=height, exec_id=exec_id))

    async def pause(self) -> None:
        """Freeze every process of the container; Conflict unless it runs."""
        await self._request(Pause(id=self._link.next_id()))
        self.status = "paused"

    async def resume(self) -> None:
        """Thaw them; Conflict unless it is paused."""
        await self._request(Resume(id=self._link.next_id()))
        self.status = "running"

    async def delete(self) -> None:
        """Kill what still runs, end the shim, remove cgroup and bundle directory. Idempotent."""
        self._deleting = True
        if self._link.is_open:
            try:
                await self._request(Delete(id=self._link.next_id()))
            except Unavailable:
                log.debug("shim %s ended before delete", self.container_id)
        if self._cleaning is not None:
            await asyncio.shield(self._cleaning)
        self.close()
        await asyncio.to_thread(remove_leftovers, self._bundle)

    def close(self) -> None:
        """Drop the connection; the shim and its container live on. Waiters get Unavailable."""
        self._link.close()
        self._on_close(self)
        gone = Unavailable(f"shim {self.container_id[:12]}: connection closed")
        futures: list[asyncio.Future[Any]] = [self._hello, self._exit, *self._execs.values()]
        for future in futures:
            if not future.done():
                future.set_exception(gone)
                future.exception()  # nobody needs to have waited

    async def greeted(self, timeout_s: float) -> None:
        """Wait for the shim's hello; raises StartFailed, Unavailable or TimeoutError."""
        try:
            async with asyncio.timeout(timeout_s):
                hello = await asyncio.shield(self._hello)
        except TimeoutError as err:
            raise TimeoutError(f"shim {self.container_id[:12]}: no sign of life in {timeout_s} s") from err
        self.pid, self.shim_pid, self.status = hello.pid, hello.shim_pid, hello.status
        self.spans = tuple(trace.Span(*_fields(span)) for span in hello.spans)

    async def _request(
        self,
        message: "Start | Kill | Attach | Exec | Resize | Pause | Resume | Delete",
        *,
        fds: tuple[int, ...] | list[int] = (),
    ) -> int:
        return (await self._link.request(message, fds=fds, timeout_s=REQUEST_TIMEOUT_S)).pid

    def _event(self, message: Hello | Exited | Failed) -> None:
        if isinstance(message, Failed):
            if not self._hello.done():
                self._hello.set_exception(error_of(message))
                self._hello.exception()
        elif isinstance(message, Hello):
            for exec_id, ended in message.execs.items():
                self._exec_future(exec_id, ended)
            if message.exit is not None:
                self._exited(message.exit)
            if not self._hello.done():
                self._hello.set_result(message)
        elif message.exec_id:
            self._exec_future(message.exec_id, message.exit)
        else:
            self._exited(message.exit)

    def _exec_future(self, exec_id: str, ended: Exit | None) -> None:
        future = self._execs.setdefault(exec_id, asyncio.get_running_loop().create_future())
        if ended is not None and not future.done():
            future.set_result(ended)

    def _exited(self, ended: Exit) -> None:
        self.status = "exited"
        if not self._exit.done():
            self._exit.set_result(ended)

    def _lost(self) -> None:
        """The connection broke: an ended shim, or a killed one whose container must not run on."""
        if not self._hello.done():
            self._hello.set_exception(Unavailable(f"shim {self.container_id[:12]}: ended before it answered"))
            self._hello.exception()
        elif self._hello.exception() is None and not self._deleting and not self._exit.done():
            self._cleaning = asyncio.get_running_loop().create_task(self._clean_up_lost())

    async def _clean_up_lost(self) -> None:
        log.error("shim of container %s ended; killing the container", self.container_id)
        lost = Exit(code=255, finished_at_ns=time.time_ns(), error="exit status lost: shim lost")
        try:
            await asyncio.to_thread(remove_leftovers, self._bundle)
            ended = await asyncio.to_thread(read_exit, self._exit_path)
        except (EngineError, OSError) as err:
            log.exception("container %s: not all of it could be removed", self.container_id)
            ended = msgspec.structs.replace(lost, error=f"{lost.error}: {err}")
        for exec_id in list(self._execs):
            self._exec_future(exec_id, lost)
        self._exited(ended or lost)


def _fields(span: SpanRecord) -> tuple[str, str, int, int]:
    return span.layer, span.name, span.started_ns, span.duration_ns
