"""Both channels into one running guest: control by virtio-serial, streams by SSH.

They come up side by side: the control channel hands the guest its identity,
and as soon as the guest says that sshd listens, SSH is linked while the
engine still starts.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable

from engine.base.errors import NotSupported, Unavailable
from hostagent.agent.clock import Heartbeat
from hostagent.channel import keys
from hostagent.channel.control import Control
from hostagent.channel.model import Address
from hostagent.channel.ssh import SshChannel, SshTarget
from hostagent.paths import MachinePaths
from vmguest import protocol
from vmguest.protocol import Message

log = logging.getLogger(__name__)

_CONTROL_TIMEOUT_S = 20.0
_SSH_TIMEOUT_S = 60.0
_PING_TIMEOUT_S = 30.0
_SSH_PHASES = frozenset({"sshd", "network"})
_PING = b"GET /_ping HTTP/1.1\r\nHost: pyengine\r\nConnection: close\r\n\r\n"


class GuestFailed(Unavailable):
    """The guest said why it cannot go on; it powers itself off."""


class Link:
    """One connection of an agent to a guest; closed once, never reopened."""

    def __init__(
        self,
        paths: MachinePaths,
        ssh_port: int,
        *,
        on_message: Callable[[Message], None],
        on_lost: Callable[[str], None],
    ) -> None:
        """Prepare; `on_lost` is called on the loop when either channel breaks."""
        self._loop = asyncio.get_running_loop()
        self._paths = paths
        self._on_message = on_message
        self._on_lost = on_lost
        self._phases: set[str] = set()
        self._sshd = asyncio.Event()
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._ready.add_done_callback(_retrieve)
        self._heart: asyncio.Task[None] | None = None
        self._heartbeat: Heartbeat | None = None
        self._control = Control(on_message=self._heard, on_lost=self._control_lost)
        target = SshTarget("127.0.0.1", ssh_port, keys.ensure_key(paths.host_key), paths.client_key)
        self.ssh = SshChannel(target, on_lost=self._ssh_lost)

    async def open(self, mark: Callable[[str], None]) -> None:
        """Return when the guest is configured, SSH is linked and the guest calls the engine ready.

        Raises:
            GuestFailed: the guest said that it failed.
            EngineError: a channel cannot be had, or broke.
        """
        await self._control.connect(self._paths.control_socket, timeout_s=_CONTROL_TIMEOUT_S)
        steps = [asyncio.create_task(self._open_ssh(mark)), asyncio.create_task(self._wait_ready(mark))]
        try:
            await asyncio.gather(*steps)  # and no TaskGroup: callers want the error itself
        finally:
            for step in steps:
                step.cancel()

    async def _open_ssh(self, mark: Callable[[str], None]) -> None:
        await self._sshd.wait()
        mark("sshd")
        await asyncio.to_thread(self.ssh.open, timeout_s=_SSH_TIMEOUT_S)
        mark("ssh")

    async def _wait_ready(self, mark: Callable[[str], None]) -> None:
        await asyncio.shield(self._ready)
        mark("ready")

    def ping_engine(self, address: Address) -> None:
        """Return when the engine at `address` answers through SSH; blocking.

        Raises:
            Unavailable: it does not.
        """
        stream = self.ssh.connect(address, timeout_s=_PING_TIMEOUT_S)
        try:
            stream.sendall(_PING)
            if not stream.recv(4096).startswith(b"HTTP/1.1 200"):
                raise Unavailable("the engine does not answer through the channel")
        finally:
            stream.close()

    def send(self, kind: str, **fields: object) -> None:
        """Send a message to the guest; raises Unavailable when the channel is down."""
        self._control.send(kind, **fields)

    def push_time(self, now_ns: int) -> None:
        """Tell the guest the time."""
        self._control.send("ping", time_ns=now_ns)

    def beat(self, heartbeat: Heartbeat) -> None:
        """Run `heartbeat` until the link closes."""
        self._heartbeat = heartbeat
        self._heart = asyncio.create_task(heartbeat.run())

    async def close(self) -> None:
        """End both channels; `on_lost` is not called."""
        if self._heart is not None:
            self._heart.cancel()
        self._on_lost = lambda _: None
        if not self._ready.done():
            self._ready.cancel()
        await self._control.close()
        await asyncio.to_thread(self.ssh.close)

    def _heard(self, message: Message) -> None:
        kind = message["type"]
        if kind == "hello":
            self._greet(message)
        elif kind == "pong" and self._heartbeat is not None:
            self._heartbeat.answered(stepped=message.get("stepped") is True)
        elif kind == "failed" and not self._ready.done():
            step, text = str(message.get("step"))[:80], str(message.get("message"))[:400]
            failure = f"machine {self._paths.name}: the guest failed at {step}: {text}"
            self._ready.set_exception(GuestFailed(failure, hint=f"see {self._paths.console_log}"))
        elif kind == "ready" and not self._ready.done():
            self._sshd.set()
            self._ready.set_result(None)
        elif kind == "phase":
            self._phases.add(str(message.get("name")))
            if self._phases >= _SSH_PHASES:
                self._sshd.set()
        self._on_message(message)

    def _greet(self, message: Message) -> None:
        version = protocol.integer(message, "version")
        if version != protocol.VERSION:
            if not self._ready.done():
                self._ready.set_exception(
                    NotSupported(
                        f"the guest speaks version {version} of the control protocol, not {protocol.VERSION}"
                    )
                )
            return
        if message.get("configured") is True:
            return
        self._control.send(
            "configure",
            hostname=self._paths.name,
            time_ns=time.time_ns(),
            ssh_host_key=self._paths.host_key.read_text(encoding="ascii"),
            ssh_authorized_key=keys.ensure_key(self._paths.client_key),
        )

    def _control_lost(self, reason: str) -> None:
        if not self._ready.done():
            self._ready.set_exception(Unavailable(f"machine {self._paths.name}: {reason}"))
        self._on_lost(reason)

    def _ssh_lost(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: the agent is ending
            self._loop.call_soon_threadsafe(lambda: self._on_lost("the ssh link broke"))


def _retrieve(future: "asyncio.Future[None]") -> None:
    """Take note of a failure that nobody may wait for any more."""
    if not future.cancelled():
        future.exception()
