"""The parent's half of making a process: clone it, move it, wait until it is ready.

The child's half is `init` or `exec`; the line between them is drawn in `handshake`.
"""

import contextlib
import errno
import os
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import NoReturn

from engine.kernel import capabilities, process
from engine.kernel.process import CloneFlag
from engine.runtime import handshake, idmaps, listener
from engine.runtime.cgroups.model import Cgroup
from engine.runtime.errors import StartFailed
from engine.runtime.handshake import Kind, Report
from engine.runtime.model import Created
from engine.runtime.userns import IdMap

READY_TIMEOUT_S = 120.0  # a mount of a sick disk may take long; it must not take forever
_WAIT_ALL = 0x40000000  # __WALL
NAMES = {
    CloneFlag.NEWPID: "pid",
    CloneFlag.NEWNET: "net",
    CloneFlag.NEWIPC: "ipc",
    CloneFlag.NEWUTS: "uts",
    CloneFlag.NEWCGROUP: "cgroup",
    CloneFlag.NEWUSER: "user",
}
Child = Callable[[int], None]  # given its end of the line; does not return


@cache
def last_capability() -> int:
    """Return the highest capability of this kernel; asked once a process."""
    return capabilities.last_capability()


@cache
def held_capabilities() -> int:
    """Return what this process may pass on, as a mask; asked once a process."""
    _, permitted, _ = capabilities.capget()
    return permitted


def set_groups(ids: IdMap) -> bool:
    """Tell whether a user namespace that this process maps will let its processes set groups."""
    return idmaps.groups_can_be_set(ids, held_capabilities())


@cache
def own_executable() -> tuple[int, int]:
    """Return device and inode of this interpreter."""
    found = os.stat("/proc/self/exe")
    return found.st_dev, found.st_ino


def bear(
    child: Child,
    cgroup: Cgroup,
    *,
    namespaces: CloneFlag = CloneFlag.NONE,
    existing: Sequence[tuple[CloneFlag, int]] = (),
    map_ids: Callable[[int], None] | None = None,
    warnings: Sequence[str] = (),
    time_offsets: bytes | None = None,
    when_mounted: Callable[[int], None] | None = None,
    patience_s: float | None = READY_TIMEOUT_S,
) -> Created:
    """Fork `child` into `namespaces`, `cgroup` and `existing` namespaces; return when it is READY.

    `map_ids` is told the process' id, and maps the ids of its new user namespace.

    With `time_offsets`, lines for /proc/self/timens_offsets, it is born in a new time namespace.
    `when_mounted` is called with its pid, if and when it says that its mounts are made.

    Raises:
        NotSupported: `map_ids` says so.
        StartFailed: it could not be made; it has been reaped.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        with contextlib.ExitStack() as around:
            if time_offsets is not None:
                with as_start_failure("make a time namespace"):
                    around.enter_context(_children_at(time_offsets))
            pid, pidfd = _clone(child, theirs.fileno(), cgroup, namespaces, existing)
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
    report = Report(list(warnings))
    try:
        ours.settimeout(patience_s)
        if map_ids is not None:
            with as_start_failure("map the ids of the user namespace"):
                map_ids(pid)
                ours.send(Kind.MAPPED.value)
        _bring_up(ours, pid, cgroup, report, when_mounted)
    except BaseException:
        end(pid, pidfd)
        ours.close()
        if report.terminal_fd is not None:
            os.close(report.terminal_fd)
        raise
    return Created(
        pid=pid,
        pidfd=pidfd,
        terminal_fd=report.terminal_fd,
        cgroup=cgroup.path,
        warnings=tuple(report.warnings),
        control_fd=ours.detach(),
    )


def _clone(
    child: Child,
    line_fd: int,
    cgroup: Cgroup,
    namespaces: CloneFlag,
    existing: Sequence[tuple[CloneFlag, int]],
) -> tuple[int, int]:
    with as_start_failure("clone"), contextlib.ExitStack() as undo:
        birth_fd = cgroup.birth_fd()
        if birth_fd is not None:
            undo.callback(os.close, birth_fd)
        for kind, namespace_fd in existing:
            undo.enter_context(_children_in(kind, namespace_fd))
        pid, pidfd = process.clone3(namespaces, cgroup_fd=birth_fd)
        if pid == 0:
            try:
                child(line_fd)
            finally:
                os._exit(1)
    return pid, pidfd


@contextlib.contextmanager
def _children_in(kind: CloneFlag, namespace_fd: int) -> Iterator[None]:
    """Let this process' children be born in another namespace of a kind; its own is as before after."""
    own_fd = os.open(f"/proc/self/ns/{NAMES[kind]}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        process.setns(namespace_fd, kind)
        try:
            yield
        finally:
            process.setns(own_fd, kind)
    finally:
        os.close(own_fd)


@contextlib.contextmanager
def _children_at(offsets: bytes) -> Iterator[None]:
    """Let this process' children be born in a new time namespace; its own is not changed.

    Offsets can be written only while nobody is in the namespace: so it is not made by clone3.
    """
    own_fd = os.open("/proc/self/ns/time", os.O_RDONLY | os.O_CLOEXEC)
    try:
        process.unshare(CloneFlag.NEWTIME)
        try:
            if offsets:
                fd = os.open("/proc/self/timens_offsets", os.O_WRONLY | os.O_CLOEXEC)
                try:
                    os.write(fd, offsets)
                finally:
                    os.close(fd)
            yield
        finally:
            process.setns(own_fd, CloneFlag.NEWTIME)
    finally:
        os.close(own_fd)


def _bring_up(
    ours: socket.socket,
    pid: int,
    cgroup: Cgroup,
    report: Report,
    when_mounted: Callable[[int], None] | None,
) -> None:
    failed: OSError | None = None
    try:
        cgroup.attach(pid)
        ours.send(Kind.JOINED.value)
    except OSError as err:
        # It may have ended with something to say; if it lives, it now learns that it is given up.
        failed = err
        with contextlib.suppress(OSError):
            ours.shutdown(socket.SHUT_WR)
    try:
        handshake.wait_ready(ours, report, None if when_mounted is None else lambda: when_mounted(pid))
    except TimeoutError:
        raise StartFailed("init", errno.ETIMEDOUT, "") from None
    except OSError as err:
        raise StartFailed("init", err.errno or 0, "") from err
    except StartFailed as err:
        if failed is None or err.step != "init":
            raise
        raise StartFailed("join control group", failed.errno or 0, cgroup.path) from failed


def end(pid: int, pidfd: int) -> None:
    """Kill and reap a child that is not to be; closes `pidfd`."""
    with contextlib.suppress(ProcessLookupError):
        process.pidfd_send_signal(pidfd, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, _WAIT_ALL)
    os.close(pidfd)


def start(created: Created, *, patience_s: float | None = READY_TIMEOUT_S) -> None:
    """Let the process execute its program; return once the program runs, at most after `patience_s`.

    Raises:
        StartFailed: it could not be executed (`exit_code` 127 or 126), or a
            last step before failed (125). The process has ended; the caller
            reaps it and calls `delete`.
    """
    with socket.socket(fileno=created.control_fd) as line:
        line.settimeout(patience_s)
        try:
            line.send(Kind.START.value)
            packet, fds = handshake.receive(line)
            if packet == Kind.LISTENER.value and fds:
                _hand_over(created, fds[0])
                line.send(Kind.TAKEN.value)
                packet, _ = handshake.receive(line)
        except TimeoutError:
            raise StartFailed("start", errno.ETIMEDOUT, "") from None
        except OSError as err:
            raise StartFailed("start", err.errno or 0, "the process has ended") from err
    if packet[:1] == Kind.ERROR.value:
        raise handshake.decode_error(packet)


def _refuse_without_agent() -> NoReturn:
    raise StartFailed("hand over the seccomp listener", 0, "no agent is known for this process")


def _hand_over(created: Created, listener_fd: int) -> None:
    """Give the listener to the agent; a process that nobody would answer for is ended."""
    try:
        if created.agent is None:
            _refuse_without_agent()
        with as_start_failure("hand over the seccomp listener to", created.agent.path):
            listener.hand_over(created.agent, created.pid, listener_fd)
    except StartFailed:
        with contextlib.suppress(ProcessLookupError):
            os.kill(created.pid, signal.SIGKILL)  # it waits for an answer: the number is surely its own
        raise
    finally:
        os.close(listener_fd)


@contextlib.contextmanager
def as_start_failure(step: str, text: str = "") -> Iterator[None]:
    """Turn an `OSError` of the host's side into a `StartFailed`."""
    try:
        yield
    except OSError as err:
        raise StartFailed(step, err.errno or 0, text or str(err.filename or "")) from err
