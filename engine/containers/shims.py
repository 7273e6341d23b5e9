"""The daemon's side of nursery and shims.

`Shims` owns the nursery, restarts it when it dies, and hands out one `Shim` a
container. A shim outlives the daemon: the next daemon finds it by `adopt`.

Nothing here blocks the event loop, and every wait has a deadline.
"""

import asyncio
import logging
import socket
import time
from pathlib import Path
from typing import Protocol

from engine.base import process
from engine.base.errors import EngineError, Unavailable
from engine.base.paths import Run
from engine.base.unixsocket import short_address
from engine.containers.shim import REQUEST_TIMEOUT_S, Shim
from engine.containers.shimlink import Link, StartFailed
from engine.shim.cleanup import read_exit, remove_leftovers
from engine.shim.launch import nursery_argv
from engine.shim.protocol import Exit, Exited, Failed, Hello, Spawn, SpawnRequest

__all__ = ["Exit", "Shims", "SpawnRequest", "StartFailed", "read_exit"]

log = logging.getLogger(__name__)

_SPAWN_TIMEOUT_S = 60.0  # a guest under emulation imports the runtime in seconds
_END_TIMEOUT_S = 10.0
_RESTART_DELAY_S = 1.0


class _Child(Protocol):
    """What is used of subprocess.Popen."""

    def wait(self, timeout: float | None = None) -> int: ...
    def kill(self) -> None: ...


class Shims:
    """Every shim of one engine; `open` once, `close` once."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._link: Link | None = None
        self._process: _Child | None = None
        self._restarting: asyncio.Task[None] | None = None
        self._closing = False
        self._shims: set[Shim] = set()
        self._abandoning: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Start the nursery; it loads while the caller goes on."""
        self._run.shims.mkdir(mode=0o700, parents=True, exist_ok=True)
        await self._start_nursery()

    async def close(self) -> None:
        """End the nursery and close every connection; containers and their shims live on."""
        self._closing = True
        if self._restarting is not None:
            self._restarting.cancel()
        for shim in list(self._shims):
            shim.close()
        if self._link is not None:
            self._link.close()
        if self._process is not None:
            await asyncio.to_thread(_end, self._process)

    async def spawn(self, request: SpawnRequest) -> Shim:
        """Start a shim and create its container; init waits for `Shim.start`.

        The bundle directory exists and holds config.json. When this raises,
        or is cancelled, nothing of the attempt is left: no process, cgroup,
        socket or bundle directory.

        Raises:
            StartFailed: the runtime could not create the container.
            Unavailable: the nursery ended meanwhile; try again.
            TimeoutError: no answer in time.
        """
        try:
            try:
                return await self._spawn_once(request)
            except Unavailable:
                if self._link is not None and self._link.is_open:
                    raise
                log.info(
                    "container %s: the nursery ended before it was made; once more", request.container_id
                )
                return await self._spawn_once(request)
        except EngineError:  # the shim has said why, or was never made
            await asyncio.shield(asyncio.to_thread(remove_leftovers, Path(request.bundle)))
            raise

    async def _spawn_once(self, request: SpawnRequest) -> Shim:
        ours, theirs = socket.socketpair()
        shim = self._open(request.container_id, Path(request.bundle), Path(request.exit_path), ours)
        try:
            with theirs:
                nursery = await self._nursery()
                nursery.send(Spawn(request=request, sent_ns=time.monotonic_ns()), fds=[theirs.fileno()])
            await shim.greeted(_SPAWN_TIMEOUT_S)
        except EngineError:
            shim.close()
            raise
        except BaseException:  # cancelled or late: it may be about to come up
            self._abandoning = asyncio.ensure_future(self._abandon(shim, Path(request.bundle)))
            await asyncio.shield(self._abandoning)
            raise
        return shim

    async def _abandon(self, shim: Shim, bundle: Path) -> None:
        try:
            await shim.greeted(_END_TIMEOUT_S)
            await shim.delete()
        except (EngineError, TimeoutError):
            shim.close()
            await asyncio.to_thread(remove_leftovers, bundle)

    def bundles(self) -> list[str]:
        """Return the ids for which there is a bundle, and so perhaps a shim: what a new daemon adopts."""
        return sorted(entry.name for entry in self._run.shims.iterdir())

    async def adopt(self, container_id: str, *, exit_path: Path) -> Shim | None:
        """Connect to the live shim of `container_id`; None when there is none.

        Where there is none, what it may have left (processes of the
        container, its cgroup, the bundle directory) is removed first; how the
        container ended is in `exit_path` (see `read_exit`) or is not known.

        Raises:
            TimeoutError: the shim is there but does not answer.
        """
        bundle = self._run.shim(container_id)
        sock = await asyncio.to_thread(_connect, bundle.socket)
        if sock is None:
            await asyncio.to_thread(remove_leftovers, bundle.path)
            return None
        shim = self._open(container_id, bundle.path, exit_path, sock)
        try:
            await shim.greeted(REQUEST_TIMEOUT_S)
        except Unavailable:  # it ended between connect and hello
            shim.close()
            await asyncio.to_thread(remove_leftovers, bundle.path)
            return None
        except BaseException:
            shim.close()
            raise
        return shim

    async def _nursery(self) -> Link:
        if self._link is None or not self._link.is_open:
            if self._closing:
                raise Unavailable("nursery: the engine is closing")
            if self._restarting is not None:
                await asyncio.shield(self._restarting)
        if self._link is None or not self._link.is_open:
            raise Unavailable("nursery: not running", hint="see the engine's log for why it ended")
        return self._link

    async def _start_nursery(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                self._process = await asyncio.to_thread(
                    process.spawn, nursery_argv(theirs.fileno()), output_fd=2, pass_fds=[theirs.fileno()]
                )
            except BaseException:
                ours.close()
                raise
        self._link = Link(ours, name="nursery", on_event=_ignore, on_lost=self._nursery_lost)

    def _nursery_lost(self) -> None:
        if not self._closing:
            log.error("nursery ended; starting another")
            self._restarting = asyncio.get_running_loop().create_task(self._restart_nursery())

    async def _restart_nursery(self) -> None:
        if self._process is not None:
            code = await asyncio.to_thread(_end, self._process)
            if code > 0:  # it failed by itself, most likely at once: do not spin
                await asyncio.sleep(_RESTART_DELAY_S)
        await self._start_nursery()

    def _open(self, container_id: str, bundle: Path, exit_path: Path, sock: socket.socket) -> Shim:
        """Return a shim behind `sock`; it is closed with the others, unless it was before."""
        shim = Shim(container_id, bundle, exit_path, sock, on_close=self._shims.discard)
        self._shims.add(shim)
        return shim


def _connect(path: Path) -> socket.socket | None:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(_END_TIMEOUT_S)
        with short_address(path) as address:
            sock.connect(address)
    except (FileNotFoundError, ConnectionRefusedError):
        sock.close()
        return None
    except BaseException:
        sock.close()
        raise
    return sock


def _end(child: _Child) -> int:
    """Wait for a nursery whose connection is closed; kill it when it does not end."""
    try:
        return child.wait(_END_TIMEOUT_S)
    except Exception:  # noqa: BLE001 (subprocess is not imported here: TimeoutExpired by any name)
        child.kill()
        return child.wait()


def _ignore(message: Hello | Exited | Failed) -> None:
    log.warning("nursery: %s", message)
