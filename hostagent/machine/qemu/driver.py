"""The QEMU driver: launches detached, adopts, and tells how it ended.

Who runs is told by a lock: QEMU inherits the descriptor of `machine.lock`, so
the lock is free if and only if QEMU is gone, whatever became of the agent.
The record beside it (pid, start time, accelerator, SSH port) only describes.
"""

import asyncio
import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from engine.base import jsonio
from engine.base.atomicfile import write_atomic
from engine.base.errors import Conflict, InvalidArgument, NotSupported, Unavailable
from engine.base.lockfile import Locked, LockFile
from engine.base.process import spawn
from hostagent.machine import accel as accel_module
from hostagent.machine import processes
from hostagent.machine.accel import Qemu, Verdict
from hostagent.machine.driver import Ended, Facts
from hostagent.machine.images import Image
from hostagent.machine.model import Accel, Machine
from hostagent.machine.qemu import lastwords
from hostagent.machine.qemu.argv import GUEST_SSH_PORT, Launch, argv
from hostagent.machine.qemu.qmp import Qmp
from hostagent.paths import MachinePaths

log = logging.getLogger(__name__)

_QMP_TIMEOUT_S = 30.0
_ADOPT_TIMEOUT_S = 10.0
_LIFE_POLL_S = 0.05
_LOCK_POLL_S = 0.05
_LAST_EVENTS_S = 0.5
_NS = 1_000_000_000

Progress = Callable[[str], None]


class _Process(Protocol):
    """What is needed of a `Popen`."""

    @property
    def pid(self) -> int: ...

    def wait(self) -> int: ...

    def kill(self) -> None: ...


class _Record(msgspec.Struct, frozen=True):
    """vm.json: what a new agent must know of the QEMU that it finds."""

    pid: int
    start_token: str
    accel: Accel
    accel_reason: str
    emulator: str
    image_key: str
    started_ns: int
    ssh_port: int


class QemuMachine:
    """One running QEMU."""

    def __init__(
        self, record: _Record, qmp: Qmp, paths: MachinePaths, ended: "asyncio.Future[Ended]"
    ) -> None:
        self._record = record
        self._ended = ended
        self._paths = paths
        self.qmp = qmp

    @property
    def facts(self) -> Facts:
        """What is known of it."""
        record = self._record
        return Facts(
            record.pid,
            record.accel,
            record.accel_reason,
            record.emulator,
            record.image_key,
            record.started_ns,
        )

    @property
    def ssh_port(self) -> int:
        """The port of 127.0.0.1 that leads to the guest's sshd."""
        return self._record.ssh_port

    async def wait(self) -> Ended:
        """Return when it has ended."""
        return await asyncio.shield(self._ended)

    def on_stall(self, callback: Callable[[str], None]) -> None:
        """Call `callback` when a failed write made QEMU stop the guest."""

        def heard(name: str, event: Mapping[str, object]) -> None:
            data = event.get("data")
            if name == "BLOCK_IO_ERROR" and isinstance(data, dict) and data.get("action") == "stop":
                callback(str(data.get("reason", "write error")).lower())

        self.qmp.on_event = heard

    async def resume(self) -> None:
        """Let the guest run on."""
        await self.qmp.resume()

    async def quit(self, *, timeout_s: float) -> None:
        """End it through QMP, or by a signal when it does not listen."""
        quitting = asyncio.ensure_future(self.qmp.quit())
        try:
            async with asyncio.timeout(timeout_s):
                await self.wait()
        except TimeoutError:
            await asyncio.to_thread(processes.kill, self._record.pid, self._record.start_token)
            await self.wait()
        finally:
            quitting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await quitting


class QemuDriver:
    """Starts and finds the QEMU of one machine; `progress` hears what takes long or went wrong."""

    def __init__(self, paths: MachinePaths, *, progress: Progress) -> None:
        self._paths = paths
        self._progress = progress
        self._watchers: list[asyncio.Future[None]] = []

    async def launch(self, machine: Machine, image: Image, tries: Sequence[tuple[Accel, str]]) -> QemuMachine:
        """Start QEMU with the first accelerator of `tries` that shows life; see `Driver.launch`."""
        qemu = await asyncio.to_thread(accel_module.find_qemu, machine.arch)
        reason = ""
        for number, (accel, known_reason) in enumerate(tries):
            reason = reason or known_reason
            last = number == len(tries) - 1
            try:
                running = await self._launch_one(machine, image, qemu, accel, reason)
            except (Unavailable, TimeoutError) as err:
                if last or accel is Accel.TCG:
                    raise
                reason = f"{accel}: {err}"
            else:
                silent = accel is not Accel.TCG and not await self._shows_life(running)
                if not silent:
                    if accel is not Accel.TCG:
                        accel_module.remember(accel, qemu, Verdict(works=True))
                    return running
                await running.quit(timeout_s=2.0)
                reason = f"{accel} gave no sign of life within {accel_module.SIGN_OF_LIFE_S:.0f} s"
                if last:
                    raise NotSupported(
                        f"machine {machine.name}: {reason}", hint="make it with --accel auto or tcg"
                    )
            accel_module.remember(accel, qemu, Verdict(works=False, reason=reason))
            self._progress(f"{reason}; using tcg from now on, which is slower")
        raise NotSupported(f"machine {machine.name}: no accelerator to try")

    async def adopt(self) -> QemuMachine | None:
        """Return the QEMU that an earlier agent left running, or None.

        Raises:
            Conflict: something holds the machine's lock that is not a QEMU we know.
        """
        if not self._lock_held():
            return None
        record = self._read_record()
        if record is None or not await asyncio.to_thread(processes.alive, record.pid, record.start_token):
            raise Conflict(
                f"machine {self._paths.name}: {self._paths.machine_lock} is held, but not by a qemu of ours",
                hint="end that process, or restart the host",
            )
        qmp = Qmp(self._paths.qmp_socket)
        await qmp.connect(timeout_s=_ADOPT_TIMEOUT_S, alive=self._lock_held)
        ended: asyncio.Future[Ended] = asyncio.get_running_loop().create_future()
        machine = QemuMachine(record, qmp, self._paths, ended)
        self._watchers.append(asyncio.ensure_future(self._watch_adopted(machine, ended)))
        return machine

    async def _launch_one(
        self, machine: Machine, image: Image, qemu: Qemu, accel: Accel, reason: str
    ) -> QemuMachine:
        process = await asyncio.to_thread(self._spawn, machine, image, qemu, accel)
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[Ended] = loop.create_future()
        qmp = Qmp(self._paths.qmp_socket)
        exit_code: asyncio.Future[int] = loop.create_future()
        _wait_in_thread(process, loop, exit_code)
        self._watchers.append(asyncio.ensure_future(self._watch_child(exit_code, qmp, ended)))
        try:
            port = await _unless(exit_code, _ask_port(qmp, alive=lambda: not exit_code.done()))
        except BaseException as err:
            if not exit_code.done():
                process.kill()
            how = await asyncio.shield(ended)
            if isinstance(err, Unavailable):
                raise Unavailable(f"qemu {how.reason}", hint=f"see {self._paths.qemu_log}") from err
            raise
        token = await asyncio.to_thread(processes.start_token, process.pid)
        record = _Record(
            process.pid, token, accel, reason, f"qemu {qemu.version}", image.key, time.time_ns(), port
        )
        write_atomic(self._paths.pidfile, jsonio.encode(record))
        return QemuMachine(record, qmp, self._paths, ended)

    def _spawn(self, machine: Machine, image: Image, qemu: Qemu, accel: Accel) -> _Process:
        paths = self._paths
        lock = LockFile(paths.machine_lock)
        try:
            lock.acquire()
        except Locked as err:
            raise Conflict(f"machine {machine.name} runs already, as process {err.holder_pid}") from err
        try:
            if _size(paths.console_log) > 0:  # an accelerator that showed no life leaves an empty one
                os.replace(paths.console_log, paths.previous_console_log)
            for stale in (paths.qmp_socket, paths.control_socket, paths.pidfile, paths.console_log):
                stale.unlink(missing_ok=True)
            launch = Launch(
                name=machine.name,
                arch=machine.arch,
                accel=accel,
                cpus=machine.cpus,
                memory_mib=machine.memory_mib,
                kernel=image.kernel,
                initrd=image.initrd,
                rootfs=image.rootfs,
                data_disk=paths.data_disk,
                qmp_socket=paths.qmp_socket,
                control_socket=paths.control_socket,
                console_log=paths.console_log,
                sandbox=qemu.sandbox,
                qboot=qemu.qboot,
                binary=qemu.path,
            )
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_CLOEXEC", 0)
            log_fd = os.open(paths.qemu_log, flags, 0o600)
            try:
                inherited = () if os.name == "nt" else (lock.fileno(),)
                return spawn(argv(launch), output_fd=log_fd, pass_fds=inherited)
            finally:
                os.close(log_fd)
        finally:
            lock.release()  # our copy; QEMU's holds on

    async def _shows_life(self, machine: QemuMachine) -> bool:
        """Tell whether the console log gets its first byte in time, or the machine already ended."""
        deadline = time.monotonic() + accel_module.SIGN_OF_LIFE_S
        ended = asyncio.ensure_future(machine.wait())
        try:
            while time.monotonic() < deadline:
                if _size(self._paths.console_log) > 0:
                    return True
                done, _ = await asyncio.wait({ended}, timeout=_LIFE_POLL_S)
                if done:
                    return False
            return False
        finally:
            ended.cancel()

    async def _watch_child(
        self, exit_code: "asyncio.Future[int]", qmp: Qmp, ended: "asyncio.Future[Ended]"
    ) -> None:
        code = await exit_code
        try:
            # Closing reads the last events, such as that the guest powered off. It is not waited for long:
            # an emulator that aborts while its monitor negotiates can leave the client library waiting.
            async with asyncio.timeout(_LAST_EVENTS_S):
                await qmp.close()
        except TimeoutError:
            log.debug("the monitor of qemu did not close in time")
        finally:
            if not ended.done():
                reason = self._describe(code, by_guest=qmp.guest_shut_down)
                ended.set_result(Ended(qmp.guest_shut_down, reason))

    async def _watch_adopted(self, machine: QemuMachine, ended: "asyncio.Future[Ended]") -> None:
        await machine.qmp.gone.wait()
        while self._lock_held():  # noqa: ASYNC110 (another process's lock tells nobody when it is dropped)
            await asyncio.sleep(_LOCK_POLL_S)
        by_guest = machine.qmp.guest_shut_down
        ended.set_result(Ended(by_guest, "powered off" if by_guest else "ended"))

    def _describe(self, code: int, *, by_guest: bool) -> str:
        if by_guest:
            panic = lastwords.panic(self._paths.console_log)
            return f"powered off after a kernel panic ({panic})" if panic else "powered off"
        if code < 0:
            said = lastwords.last_line(self._paths.qemu_log, otherwise="")
            return f"was killed by signal {-code}" + (f": {said}" if said else "")
        if code == 0:
            return "ended"
        return f"ended with exit status {code}: {lastwords.last_line(self._paths.qemu_log)}"

    def _lock_held(self) -> bool:
        lock = LockFile(self._paths.machine_lock)
        try:
            lock.acquire()
        except Locked:
            return True
        lock.release()
        return False

    def _read_record(self) -> _Record | None:
        try:
            return jsonio.read(self._paths.pidfile, _Record)
        except (OSError, InvalidArgument):
            return None


async def _ask_port(qmp: Qmp, *, alive: Callable[[], bool]) -> int:
    await qmp.connect(timeout_s=_QMP_TIMEOUT_S, alive=alive)
    return await qmp.ssh_port(GUEST_SSH_PORT)


async def _unless(exit_code: "asyncio.Future[int]", asking: Coroutine[None, None, int]) -> int:
    """Return what `asking` gives, unless the emulator ends first.

    Raises:
        Unavailable: it did.
    """
    task = asyncio.ensure_future(asking)
    try:
        await asyncio.wait({task, exit_code}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise Unavailable("qemu ended before its monitor answered")
        return task.result()
    finally:
        task.cancel()
        task.add_done_callback(_retrieve)
        await asyncio.wait({task}, timeout=_LAST_EVENTS_S)  # the client library may not heed a cancellation


def _retrieve(task: "asyncio.Task[int]") -> None:
    """Take note of a failure that nobody waits for any more."""
    if not task.cancelled():
        task.exception()


def _wait_in_thread(
    process: _Process, loop: asyncio.AbstractEventLoop, exit_code: "asyncio.Future[int]"
) -> None:
    """Resolve `exit_code` when `process`, our child, has ended."""

    def resolve(code: int) -> None:
        if not exit_code.done():
            exit_code.set_result(code)

    def wait() -> None:
        code = process.wait()
        with contextlib.suppress(RuntimeError):  # the loop is closed: the agent ends before QEMU
            loop.call_soon_threadsafe(resolve, code)

    threading.Thread(target=wait, name="qemu-wait", daemon=True).start()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
