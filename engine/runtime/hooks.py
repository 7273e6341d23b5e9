"""Programs that config.json asks for around a container's life: planned first, then run one after another.

    prestart, createRuntime   host's namespaces        create: the mounts are made, the root is the host's
    createContainer           the container's          create: right after, before pivot_root
    startContainer            the container's          start: inside, confined as the container's program is
    poststart                 host's namespaces        start: the program runs
    poststop                  host's namespaces        delete: nothing of the container is left

A hook that fails ends the container, except at poststop, where it is a warning. Its path is looked up
where it runs: only startContainer's is the container's. That one inherits the environment of the container's
program, all others the runtime's own: a variable of an image must not reach a program of the host
(CVE-2025-23266).

Source: OCI runtime-spec 1.2.0, config.md, "POSIX-platform Hooks"; runtime.md, "Lifecycle".
"""

import contextlib
import errno
import fcntl
import os
import select
import signal
import struct
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

import msgspec

from engine.base import jsonio
from engine.kernel import prctl, process
from engine.runtime import seal
from engine.runtime.errors import StartFailed
from engine.runtime.program import parse_environment
from engine.spec.runtime import OCI_VERSION, Hook, Spec

KINDS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
STEPS = frozenset(f"{kind} hook" for kind in KINDS)  # of a `StartFailed`
_STATUSES = ("creating", "created", "running", "stopped")
_OUTPUT_BYTES = 1024  # the end of what a failing hook wrote, for the message
_CHUNK_BYTES = 65536
_SLICE_MS = 60_000
_FAULT = struct.Struct("=i")
_FAULT_FD = 3
_OUT_OF_THE_WAY = 64
_WAIT_ALL = 0x40000000  # __WALL


class HookFailed(OSError):
    """It ran and ended badly, or not in time; `strerror` says how, and `errno` is 0."""


class HookStep(msgspec.Struct, frozen=True):
    """One program to run."""

    kind: str  # the specification's name of the moment
    path: str
    arguments: tuple[bytes, ...]
    environment: Mapping[bytes, bytes] | None  # None: of who runs it
    timeout_s: int | None


class HookPlan(msgspec.Struct, frozen=True):
    """The hooks of one container, and what they are told of it."""

    create_runtime: tuple[HookStep, ...]  # those of prestart first
    create_container: tuple[HookStep, ...]
    start_container: tuple[HookStep, ...]
    poststart: tuple[HookStep, ...]
    poststop: tuple[HookStep, ...]
    bundle: str
    documents: Mapping[str, bytes]  # status -> the state without a pid, encoded before there is a process

    def document(self, status: str, pid: int | None = None) -> bytes:
        """Return the state as JSON; no call of it encodes or imports anything."""
        text = self.documents[status]
        return text if pid is None else b'{"pid":%d,' % pid + text[1:]


def plan(spec: Spec, bundle: Path | str, container_id: str) -> HookPlan:
    """Return what is to be run, and when; `validate` has seen to paths, words and time-outs."""
    hooks = spec.hooks
    inside = {
        os.fsencode(name): os.fsencode(value)
        for name, value in parse_environment(spec.process.env if spec.process else ()).items()
    }

    def steps(
        kind: str, found: Sequence[Hook], inherited: Mapping[bytes, bytes] | None = None
    ) -> tuple[HookStep, ...]:
        return tuple(_step(kind, hook, inherited) for hook in found)

    state = {
        "ociVersion": OCI_VERSION,
        "id": container_id,
        "bundle": str(bundle),
        "annotations": spec.annotations,
    }
    documents = {status: jsonio.encode({**state, "status": status}) for status in _STATUSES} if hooks else {}
    return HookPlan(
        create_runtime=(
            *steps("prestart", hooks.prestart if hooks else ()),
            *steps("createRuntime", hooks.create_runtime if hooks else ()),
        ),
        create_container=steps("createContainer", hooks.create_container if hooks else ()),
        start_container=steps("startContainer", hooks.start_container if hooks else (), inside),
        poststart=steps("poststart", hooks.poststart if hooks else ()),
        poststop=steps("poststop", hooks.poststop if hooks else ()),
        bundle=str(bundle),
        documents=documents,
    )


def _step(kind: str, hook: Hook, inherited: Mapping[bytes, bytes] | None) -> HookStep:
    environment = inherited
    if hook.env:
        own = parse_environment(hook.env)
        environment = {os.fsencode(name): os.fsencode(value) for name, value in own.items()}
    arguments = tuple(os.fsencode(word) for word in hook.args or (hook.path,))
    return HookStep(kind, hook.path, arguments, environment, hook.timeout)


def patience(steps: Sequence[HookStep], otherwise_s: float) -> float | None:
    """Return how long to wait for who runs `steps` and needs `otherwise_s` besides; None: for ever."""
    total = otherwise_s
    for step in steps:
        if step.timeout_s is None:
            return None
        total += step.timeout_s
    return total


def run_all(steps: Sequence[HookStep], document: bytes, directory: str) -> None:
    """Run `steps` here, from `directory`, up to the first that fails.

    Raises:
        StartFailed: that one, and why.
    """
    for step in steps:
        try:
            run(step, document, lambda: os.chdir(directory))
        except HookFailed as err:
            raise StartFailed(f"{step.kind} hook", 0, f"{step.path}: {err.strerror}") from err
        except OSError as err:
            raise StartFailed(f"{step.kind} hook", err.errno or 0, step.path) from err


def run_poststop(plan: HookPlan, warn: Callable[[str], None]) -> None:
    """Run all that is to run after a container is gone; what fails is told and changes nothing."""
    for step in plan.poststop:
        try:
            run_all((step,), plan.document("stopped"), plan.bundle if os.path.isdir(plan.bundle) else "/")
        except StartFailed as err:
            warn(str(err))


def run(step: HookStep, document: bytes, become: Callable[[], None]) -> None:
    """Fork, `become`, execute; give it `document` and wait for its end.

    Makes system calls only, so that a sealed process may call it. This process must be single-threaded.

    Raises:
        HookFailed: it failed, or was killed because its time was over.
        OSError: it could not be executed.
    """
    with contextlib.ExitStack() as ours, contextlib.ExitStack() as theirs, contextlib.ExitStack() as given:
        stdin_fd, give_fd = _pipe(theirs, given)
        output_fd, stdout_fd = _pipe(ours, theirs)
        fault_fd, tell_fd = _pipe(ours, theirs)
        pid, pidfd = process.clone3()
        if pid == 0:
            _execute(step, become, (stdin_fd, stdout_fd, tell_fd))
        ours.callback(os.close, pidfd)
        theirs.close()
        try:
            output = _Talk(pidfd, output_fd).to_end(give_fd, document, given.close, step.timeout_s)
        finally:
            _kill_unless_ended(pid, pidfd)
            _, status = os.waitpid(pid, _WAIT_ALL)
        fault = os.read(fault_fd, _FAULT.size)
    if fault:
        (number,) = _FAULT.unpack(fault)
        raise OSError(number, os.strerror(number), step.path)
    _judge(os.waitstatus_to_exitcode(status), output)


def _pipe(reader: contextlib.ExitStack, writer: contextlib.ExitStack) -> tuple[int, int]:
    read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
    reader.callback(os.close, read_fd)
    writer.callback(os.close, write_fd)
    return read_fd, write_fd


def _judge(code: int, output: bytes) -> None:
    if code == 0:
        return
    how = f"exited with status {code}" if code > 0 else f"killed by signal {-code}"
    said = b" ".join(output.split()).decode("utf-8", "replace")
    raise HookFailed(0, f"{how}: {said}" if said else how)


def _execute(step: HookStep, become: Callable[[], None], fds: tuple[int, int, int]) -> NoReturn:
    """Be the hook; the number of what fails before leaves by the last descriptor."""
    tell_fd = fds[2]
    try:
        prctl.set_pdeathsig(signal.SIGKILL)  # nobody would look after its time
        stdin_fd, stdout_fd, tell_fd = (fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _OUT_OF_THE_WAY) for fd in fds)
        for number, fd in enumerate((stdin_fd, stdout_fd, stdout_fd)):
            os.dup2(fd, number)
        tell_fd = os.dup2(tell_fd, _FAULT_FD, inheritable=False)
        process.close_range(_FAULT_FD + 1)
        os.setsid()  # its descendants are reached by its group
        become()
        seal.reset_signals()
        if step.environment is None:
            os.execv(step.path, step.arguments)  # noqa: S606 (config.json names it)
        os.execve(step.path, step.arguments, step.environment)  # noqa: S606 (config.json names it)
    except OSError as err:
        os.write(tell_fd, _FAULT.pack(err.errno or errno.EIO))
    finally:
        os._exit(127)


class _Talk:
    """Give a hook its document and collect the end of what it writes."""

    def __init__(self, pidfd: int, output_fd: int) -> None:
        self._pidfd = pidfd
        self._output_fd = output_fd
        self._poll = select.poll()
        self._poll.register(pidfd, select.POLLIN)
        self._poll.register(output_fd, select.POLLIN)
        os.set_blocking(output_fd, False)
        self._output = b""

    def to_end(
        self, give_fd: int, document: bytes, given: Callable[[], None], timeout_s: int | None
    ) -> bytes:
        """Write `document` to `give_fd`, which `given` closes, and return the output when it has ended."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        os.set_blocking(give_fd, False)
        self._poll.register(give_fd, select.POLLOUT)
        pending = document
        while True:
            left_ms = _SLICE_MS if deadline is None else int((deadline - time.monotonic()) * 1000) + 1
            if left_ms <= 0:
                raise HookFailed(0, f"timed out after {timeout_s} s")
            ready = dict(self._poll.poll(min(left_ms, _SLICE_MS)))
            if give_fd in ready:
                pending = _give(give_fd, pending)
                if not pending:
                    self._poll.unregister(give_fd)
                    given()
            if self._output_fd in ready and not self._collect():
                self._poll.unregister(self._output_fd)
            if self._pidfd in ready:
                self._collect()
                return self._output

    def _collect(self) -> bool:
        data = _take(self._output_fd)
        self._output = (self._output + data)[-_OUTPUT_BYTES:]
        return bool(data)


def _give(fd: int, pending: bytes) -> bytes:
    try:
        return pending[os.write(fd, pending) :]
    except BlockingIOError:
        return pending
    except BrokenPipeError:  # it does not read: that is its choice
        return b""


def _take(fd: int) -> bytes:
    try:
        return os.read(fd, _CHUNK_BYTES)
    except BlockingIOError:
        return b""


def _kill_unless_ended(pid: int, pidfd: int) -> None:
    """Kill the process, and then its group, while its number is surely its own; one that has ended stays."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    if poll.poll(0):
        return
    with contextlib.suppress(ProcessLookupError):
        process.pidfd_send_signal(pidfd, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
