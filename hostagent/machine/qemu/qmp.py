"""The few words of QMP that pyengine needs, over the `qemu.qmp` package.

Source: QEMU QMP reference manual 7.2: query-status, quit, cont, human-monitor-command; event SHUTDOWN.
"""

import asyncio
import contextlib
import logging
import re
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path

from qemu.qmp import ConnectError, ExecInterruptedError, ExecuteError, QMPClient, QMPError, Runstate

from engine.base.errors import EngineError, Unavailable

log = logging.getLogger(__name__)
logging.getLogger("qemu.qmp").setLevel(logging.CRITICAL + 1)  # it logs what it also raises

_HOSTFWD = re.compile(
    r"^\s*TCP\[HOST_FORWARD\]\s+\d+\s+127\.0\.0\.1\s+(\d+)\s+\S+\s+(\d+)", re.ASCII | re.MULTILINE
)
_RETRY_S = 0.02


class Qmp:
    """One connection to one emulator; `gone` is set when it ends, from whichever side."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._client = QMPClient("pyengine")
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing: asyncio.Task[None] | None = None
        self.gone = asyncio.Event()
        self.guest_shut_down = False
        self.on_event: Callable[[str, Mapping[str, object]], None] = lambda _name, _event: None

    async def connect(self, *, timeout_s: float, alive: Callable[[], bool]) -> None:
        """Connect and negotiate; tries again while `alive` says that the emulator is still starting.

        Raises:
            Unavailable: it ended meanwhile.
            TimeoutError: there is no monitor within `timeout_s`.
        """
        try:
            async with asyncio.timeout(timeout_s):
                while not await self._try_connect():
                    if not alive():
                        raise Unavailable("qemu ended before its monitor answered")
                    # a socket file is no event that one can wait for everywhere
                    await asyncio.sleep(_RETRY_S)
        except TimeoutError as err:
            raise TimeoutError(f"{self._path}: no qemu monitor within {timeout_s:.0f} s") from err
        self._spawn(self._watch_events())
        self._spawn(self._watch_end())

    async def _try_connect(self) -> bool:
        try:
            await self._client.connect(str(self._path))
        except ConnectError:
            return False
        except AssertionError:
            # An emulator that aborts while it negotiates resets the connection, and qemu.qmp 0.0.6 then
            # fails in its own clean-up and stays unusable.
            self._client = QMPClient("pyengine")
            return False
        return True

    async def ssh_port(self, guest_port: int) -> int:
        """Return the port of 127.0.0.1 that leads to `guest_port`.

        Raises:
            Unavailable: the emulator does not tell.
        """
        said = await self._execute("human-monitor-command", {"command-line": "info usernet"})
        for match in _HOSTFWD.finditer(str(said)):
            if int(match.group(2)) == guest_port:
                return int(match.group(1))
        raise Unavailable(f"qemu forwards no port to port {guest_port} of the guest")

    async def status(self) -> str:
        """Return the run state: "running", "paused", "io-error", ..."""
        said = await self._execute("query-status")
        return str(said.get("status", "")) if isinstance(said, dict) else ""

    async def resume(self) -> None:
        """Let a paused machine run on."""
        await self._execute("cont")

    async def quit(self) -> None:
        """Make the emulator end at once; it may be gone before it answers."""
        with contextlib.suppress(EngineError):
            await self._execute("quit")

    async def close(self) -> None:
        """Let the connection go; the emulator runs on. Any number of callers share one closing."""
        if self._closing is None:
            self._closing = asyncio.create_task(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        try:
            await self._client.disconnect()
        except (QMPError, OSError, EOFError, AssertionError, asyncio.CancelledError) as err:
            # It raises whatever ended the connection, the cancellation of its own reader included.
            log.debug("qmp connection ended: %r", err)

    async def _execute(self, command: str, arguments: dict[str, object] | None = None) -> object:
        try:
            return await self._client.execute(command, arguments)
        except (ExecuteError, ExecInterruptedError, QMPError) as err:
            raise Unavailable(f"qemu refused {command}: {err}") from err

    async def _watch_events(self) -> None:
        with self._client.listener() as listener:
            async for event in listener:
                name = str(event.get("event", ""))
                log.debug("qmp event %s", event)
                data = event.get("data")
                if name == "SHUTDOWN" and isinstance(data, dict):
                    self.guest_shut_down = bool(data.get("guest"))
                self.on_event(name, event)

    async def _watch_end(self) -> None:
        while self._client.runstate is not Runstate.DISCONNECTING:
            await self._client.runstate_changed()
        self.gone.set()
        await self.close()

    def _spawn(self, coroutine: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
