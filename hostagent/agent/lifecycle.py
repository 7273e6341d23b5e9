"""The life of one machine, from its agent's point of view.

    start: image -> disk and keys -> QEMU -> control channel -> SSH -> engine answers
    stop:  ask the guest -> quit QEMU -> kill QEMU, each with its deadline

One start or stop runs at a time; whoever asks meanwhile waits for the same
one and hears its progress. A QEMU that ends unasked is noticed at once, and
what then holds is the table of `hostagent.machine.model`.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from engine.base.errors import Conflict, EngineError, Unavailable
from hostagent.agent.clock import Heartbeat
from hostagent.agent.forward import ENGINE_SOCKET
from hostagent.agent.link import GuestFailed, Link
from hostagent.agent.ports import Ports
from hostagent.channel import keys
from hostagent.channel.model import Address, Stream
from hostagent.machine import accel, disk, images, store
from hostagent.machine.driver import Driver, Ended, VirtualMachine
from hostagent.machine.images import Image
from hostagent.machine.model import Event, Machine, Status, advance
from hostagent.paths import MachinePaths
from vmguest.protocol import Message, ProtocolError

log = logging.getLogger(__name__)

START_TIMEOUT_S = 180.0
STOP_TIMEOUT_S = 30
_QUIT_TIMEOUT_S = 10.0
_RELINK_S = 20.0
_END_NOTICE_S = 1.0
_SPACE_POLL_S = 2.0

Progress = Callable[[str], None]


@dataclass(slots=True)
class Boot:
    """Times of the last start, in ms since QEMU was launched and since the guest's kernel began."""

    started_ns: int = field(default_factory=time.monotonic_ns)
    host_ms: dict[str, int] = field(default_factory=dict)
    guest_ms: dict[str, int] = field(default_factory=dict)
    kernel: str = ""

    def mark(self, name: str) -> None:
        """Note that `name` is done now."""
        self.host_ms.setdefault(name, (time.monotonic_ns() - self.started_ns) // 1_000_000)


class Lifecycle:
    """One machine's status and everything that changes it."""

    def __init__(self, paths: MachinePaths, driver: Driver, ports: Ports) -> None:
        self.paths = paths
        self.status = Status.STOPPED
        self.reason = ""
        self.boot = Boot()
        self.machine: VirtualMachine | None = None
        self.ports = ports
        self._driver = driver
        self._loop = asyncio.get_running_loop()
        self._link: Link | None = None
        self._subscribers: list[Progress] = []
        self._starting: asyncio.Task[None] | None = None
        self._adopting = False
        self._stopping: asyncio.Task[None] | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._relinking: asyncio.Task[None] | None = None
        self._resuming: asyncio.Task[None] | None = None

    # -- what others ask ------------------------------------------------------------------------------

    async def start(self, progress: Progress = lambda _: None) -> None:
        """Return when the engine in the machine answers; harmless when it does already.

        Raises:
            EngineError: it could not be started; nothing of it is left running.
        """
        if self._stopping is not None:
            await asyncio.wait({self._stopping})
        if self.status is Status.RUNNING:
            return
        if self.status is Status.DEGRADED:
            if self._relinking is not None:
                progress(f"reconnecting to machine {self.paths.name}")
                await asyncio.wait({self._relinking})
            self._check_running()
            return
        self._subscribers.append(progress)
        try:
            if self._starting is None:
                self._advance(Event.START)
                self._starting = asyncio.create_task(self._start())
            await _outcome(self._starting, f"machine {self.paths.name} was stopped while it started")
        finally:
            self._subscribers.remove(progress)

    async def stop(self, *, force: bool = False) -> None:
        """Return when the machine is off; with `force` the plug is pulled."""
        if self._stopping is None:
            self._stopping = asyncio.create_task(self._stop(force=force))
        await _outcome(self._stopping, f"machine {self.paths.name}: stopping was interrupted")

    async def adopt(self) -> bool:
        """Take over a virtual machine that an earlier agent left; true when there was one.

        Raises:
            EngineError: there is one, and it cannot be taken over.
        """
        found = await self._driver.adopt()
        if found is None:
            return False
        log.info("adopting the running %s, process %d", found.facts.emulator, found.facts.pid)
        self._advance(Event.START)
        self._adopting = True
        self._starting = asyncio.create_task(self._adopt(found))
        self._starting.add_done_callback(_log_failure)
        return True

    def connect(self, address: Address, timeout_s: float) -> Stream:
        """Return a stream to `address` in the guest; blocking, for threads.

        Raises:
            Unavailable: the machine is down or unreachable.
        """
        link = self._link
        if link is None:
            raise Unavailable(self._why_down())
        return link.ssh.connect(address, timeout_s=timeout_s)

    async def why_lost(self) -> str:
        """Return one line for a client whose connection to the engine ended without an answer."""
        if self.machine is not None and self.status is not Status.STOPPING:
            with contextlib.suppress(TimeoutError):  # the links break a moment before the machine has ended
                async with asyncio.timeout(_END_NOTICE_S):
                    await self.machine.wait()
                await asyncio.sleep(0)  # let the watcher, who was first in line, take note
        if self.status is Status.RUNNING:
            return f"machine {self.paths.name}: the engine closed the connection without an answer"
        return self._why_down()

    def _why_down(self) -> str:
        reason = self.reason or f"it is {self.status}"
        return f"machine {self.paths.name} {reason}; the next command starts it again"

    # -- start ----------------------------------------------------------------------------------------

    async def _start(self) -> None:
        self.boot = Boot()
        self.reason = ""
        try:
            settings = await asyncio.to_thread(store.load, self.paths.name)
            qemu = await asyncio.to_thread(accel.find_qemu, settings.arch)
            image = await asyncio.to_thread(self._prepare, settings)
            self._tell(f"starting machine {settings.name}")
            tries = await asyncio.to_thread(accel.candidates, settings.accel, settings.arch, qemu)
            self.boot.started_ns = time.monotonic_ns()
            self.machine = await self._driver.launch(settings, image, tries)
            self.boot.mark("qemu")
            await self._link_up(self.machine)
        except (EngineError, TimeoutError, OSError, asyncio.CancelledError) as err:
            await self._give_up(err)
            raise
        except Exception as err:
            log.exception("machine %s did not start", self.paths.name)
            await self._give_up(err)
            raise EngineError(
                f"machine {self.paths.name}: internal error: {type(err).__name__}: {err}",
                hint=f"see {self.paths.agent_log}",
            ) from err
        finally:
            self._starting = None
        self._advance(Event.READY)
        self._tend(self.machine)
        log.info("machine %s runs after %d ms", self.paths.name, self.boot.host_ms["running"])

    def _prepare(self, settings: Machine) -> Image:
        directory = images.image_dir(settings.arch, wish=settings.image, progress=self._tell_from_thread)
        image = images.verify(directory, settings.arch, self.paths.image_record)
        disk.ensure_disk(self.paths.data_disk, settings.disk_size_bytes)
        keys.ensure_key(self.paths.client_key)
        keys.ensure_key(self.paths.host_key)
        return image

    async def _adopt(self, found: VirtualMachine) -> None:
        self.boot = Boot()
        self.machine = found
        try:
            await self._link_up(found)
        except BaseException as err:
            self.reason = f"was found running, but it cannot be reached: {err}"
            await self._give_up(err)
            raise
        finally:
            self._starting = None
            self._adopting = False
        self._advance(Event.READY)
        self._tend(found)

    async def _link_up(self, machine: VirtualMachine) -> None:
        """Return when the engine answers through the channel.

        Raises:
            Unavailable: the guest said that it failed, or the machine ended.
            TimeoutError: neither happened in time.
        """
        link = Link(self.paths, machine.ssh_port, on_message=self._message, on_lost=self._link_lost)
        self._link = link
        ended = asyncio.ensure_future(machine.wait())
        ready = asyncio.ensure_future(link.open(self.boot.mark))
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                await asyncio.wait({ended, ready}, return_when=asyncio.FIRST_COMPLETED)
            if _broke(ready):  # the channels break a moment before the emulator that held them has ended
                await asyncio.wait({ended}, timeout=_END_NOTICE_S)
            if ended.done() and (_broke(ready) or not ready.done()):
                raise Unavailable(
                    f"machine {self.paths.name}: qemu {ended.result().reason} while the guest was booting",
                    hint=f"see {self.paths.console_log} and {self.paths.qemu_log}",
                )
            await ready
            await asyncio.to_thread(link.ping_engine, ENGINE_SOCKET)
            self.boot.mark("running")
        except TimeoutError as err:
            raise TimeoutError(
                f"machine {self.paths.name}: not ready in {START_TIMEOUT_S:.0f} s: {self.paths.console_log}"
            ) from err
        finally:
            ended.cancel()
            ready.cancel()
        link.beat(Heartbeat(link.push_time, on_silent=lambda: log.warning("the guest does not answer")))

    async def _give_up(self, err: BaseException) -> None:
        """Leave nothing running after a failed start."""
        if self.machine is not None:  # first, so that nothing waits for an answer of the guest any more
            await self.machine.quit(timeout_s=_QUIT_TIMEOUT_S)
            self.machine = None
        await self._drop_link()
        self.reason = self.reason or f"did not start: {err}"
        if self.status is Status.STARTING:
            self._advance(Event.FAIL)

    # -- while it runs --------------------------------------------------------------------------------

    def _tend(self, machine: VirtualMachine) -> None:
        self._watcher = asyncio.create_task(self._watch(machine))
        machine.on_stall(self._stalled)

    async def _watch(self, machine: VirtualMachine) -> None:
        ended = await machine.wait()
        self._ended(ended)
        await self._drop_link()

    def _ended(self, ended: Ended) -> None:
        log.info("qemu %s", ended.reason)
        self.machine = None
        if self._relinking is not None:
            self._relinking.cancel()
        if self.status is Status.STOPPING:
            self.reason = ""
        else:
            self.reason = (
                f"stopped unexpectedly: qemu {ended.reason}" if not ended.by_guest else "powered itself off"
            )
        self._advance(Event.OFF if ended.by_guest else Event.EXIT)

    def _stalled(self, reason: str) -> None:
        """Take note that the host's disk refused a write; go on when there is room again."""
        if self.status is not Status.RUNNING or self.machine is None:
            return
        self.reason = f"is paused, the host cannot write its disk: {reason}; it goes on when there is space"
        log.warning("machine %s %s", self.paths.name, self.reason)
        self._advance(Event.STALL)
        self._resuming = asyncio.create_task(self._resume(self.machine))

    async def _resume(self, machine: VirtualMachine) -> None:
        while self.status is Status.DEGRADED:
            await asyncio.sleep(_SPACE_POLL_S)  # no system tells when a disk has space again
            if (
                await asyncio.to_thread(disk.has_space, self.paths.data_disk)
                and self.status is Status.DEGRADED
            ):
                with contextlib.suppress(Unavailable):
                    await machine.resume()
                    self.reason = ""
                    self._advance(Event.RESUME)

    def _link_lost(self, reason: str) -> None:
        """Take note that the channel broke; it is tried again unless the machine ended too."""
        if self.status is not Status.RUNNING:
            return
        log.warning("the channel was lost: %s", reason)
        self.reason = f"cannot be reached: {reason}"
        self._advance(Event.LINK_LOST)
        self._relinking = asyncio.create_task(self._relink())

    async def _relink(self) -> None:
        machine = self.machine
        try:
            while machine is not None and self.status is Status.DEGRADED:
                await self._drop_link()
                try:
                    async with asyncio.timeout(_RELINK_S):
                        await self._link_up(machine)
                except (EngineError, TimeoutError) as err:
                    log.warning("the channel is still down: %s", err)
                    await asyncio.sleep(1)
                else:
                    self.reason = ""
                    self._advance(Event.LINK_BACK)
        finally:
            self._relinking = None

    def _message(self, message: Message) -> None:
        """Take what the guest says of its own accord."""
        kind = message["type"]
        if kind == "phase":
            name, at_ms = message.get("name"), message.get("at_ms")
            if not isinstance(name, str) or not isinstance(at_ms, int):
                raise ProtocolError("phase: not a name and a time")
            self.boot.guest_ms.setdefault(name[:40], at_ms)
        elif kind == "ready":
            self.boot.kernel = str(message.get("kernel", ""))[:80]
        elif kind == "ports" and self._link is not None:
            reply = self.ports.handle(message.get("request"))
            if message.get("id"):
                fields = {"ok": reply.ok, "host_port": reply.host_port, "error": reply.error}
                self._link.send("ports", id=message["id"], reply=fields)
            elif not reply.ok:
                log.warning("a port could not be published again: %s", reply.error)

    # -- stop -----------------------------------------------------------------------------------------

    async def _stop(self, *, force: bool) -> None:
        try:
            await self._bring_down(force=force)
        finally:
            self._stopping = None

    async def _bring_down(self, *, force: bool) -> None:
        if self._starting is not None:
            if force or not self._adopting:  # what was found running deserves a clean end
                self._starting.cancel()
            await asyncio.wait({self._starting})
        machine, watcher = self.machine, self._watcher
        if machine is None or watcher is None:
            self.status, self.reason = Status.STOPPED, ""
            return
        self._advance(Event.STOP)
        if not force:
            await self._ask_guest(machine)
        if self.machine is not None:
            await machine.quit(timeout_s=_QUIT_TIMEOUT_S)
        await watcher
        self.ports.close()

    async def _ask_guest(self, machine: VirtualMachine) -> None:
        """Let the guest power off by itself, within the deadline."""
        if self._link is None:
            return
        try:
            self._link.send("shutdown", timeout_s=STOP_TIMEOUT_S // 2)
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await machine.wait()
        except Unavailable as err:
            log.warning("the guest cannot be asked to power off: %s", err)
        except TimeoutError:
            log.warning("the guest did not power off within %d s", STOP_TIMEOUT_S)

    async def close(self) -> None:
        """Let everything go; a virtual machine that runs stays running, for the next agent."""
        for task in (self._starting, self._relinking, self._resuming, self._watcher):
            if task is not None:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, EngineError, TimeoutError):
                    await task
        self.ports.close()
        await self._drop_link()

    async def _drop_link(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            await link.close()

    def _check_running(self) -> None:
        if self.status is not Status.RUNNING:
            raise Unavailable(f"machine {self.paths.name} {self.reason or self.status}")

    def _advance(self, event: Event) -> None:
        self.status = advance(self.paths.name, self.status, event)
        log.debug("machine %s is %s", self.paths.name, self.status)

    def _tell(self, text: str) -> None:
        for subscriber in list(self._subscribers):
            subscriber(text)

    def tell(self, text: str) -> None:
        """Pass on a line of the driver's."""
        log.info("%s", text)
        self._tell(text)

    def _tell_from_thread(self, text: str) -> None:
        self._loop.call_soon_threadsafe(self._tell, text)


def _broke(ready: "asyncio.Future[None]") -> bool:
    """Tell whether the link failed, and not because the guest said that it did."""
    if not ready.done() or ready.cancelled():
        return False
    err = ready.exception()
    return isinstance(err, Unavailable) and not isinstance(err, GuestFailed)


async def _outcome(task: "asyncio.Task[None]", when_cancelled: str) -> None:
    """Wait for `task` without owning it: that this caller gives up does not end it.

    Raises:
        Conflict: it was cancelled; else whatever it raised.
    """
    await asyncio.wait({task})
    if task.cancelled():
        raise Conflict(when_cancelled)
    task.result()


def _log_failure(task: "asyncio.Task[None]") -> None:
    if not task.cancelled() and task.exception() is not None:
        log.error("the machine that was found running could not be taken over: %s", task.exception())
