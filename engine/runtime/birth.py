"""The parent's half of making a process: clone it, wait until it is ready.

The child's half is `init` or `exec`; the line between them is drawn in `handshake`.
"""

import contextlib
import errno
import os
import signal
import socket
import stat
import struct
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import NoReturn

import msgspec

from engine.kernel import capabilities, prctl, process
from engine.kernel.process import CloneFlag
from engine.runtime import handshake, idmaps, listener
from engine.runtime.cgroups.model import Cgroup
from engine.runtime.errors import StartFailed
from engine.runtime.handshake import Kind, Report
from engine.runtime.model import Created, Stdio
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
_BORN = struct.Struct("=ii")  # process id, errno
Child = Callable[[int], None]  # given its end of the line; does not return


class Place(msgspec.Struct, frozen=True):
    """Where a process is born; descriptors are borrowed."""

    cgroup: Cgroup
    namespaces: CloneFlag  # new
    existing: tuple[tuple[CloneFlag, int], ...]
    users_fd: int | None  # an existing user namespace


@cache
def last_capability() -> int:
    """Return the highest capability of this kernel; asked once a process."""
    return capabilities.last_capability()


@cache
def held_capabilities() -> int:
    """Return what this process may pass on, as a mask; asked once a process."""
    _, permitted, _ = capabilities.capget()
    return permitted


def set_groups(ids: IdMap | None) -> bool:
    """Tell whether processes may set groups in a user namespace with that map; None: in this one."""
    return _own_groups() if ids is None else idmaps.groups_can_be_set(ids, held_capabilities())


@cache
def _own_groups() -> bool:
    with open("/proc/self/setgroups", "rb") as file:
        return file.read().strip() == b"allow"


def give_pipes(stdio: Stdio, owner: int | None) -> None:
    """Let a user of another user namespace reopen its streams by name: inside nobody may give them.

    Only pipes, which were made for the process; files and terminals stay whose they are.
    """
    if owner is None or not idmaps.may_map(held_capabilities()):
        return
    for fd in (stdio.stdin_fd, stdio.stdout_fd, stdio.stderr_fd):
        if stat.S_ISFIFO(os.fstat(fd).st_mode):
            with contextlib.suppress(PermissionError):
                os.fchown(fd, owner, -1)


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
    users_fd: int | None = None,
    warnings: Sequence[str] = (),
    time_offsets: bytes | None = None,
    when_mounted: Callable[[int], None] | None = None,
    patience_s: float | None = READY_TIMEOUT_S,
) -> Created:
    """Fork `child` into `namespaces`, `cgroup` and `existing` namespaces; return when it is READY.

    `map_ids` is told the process' id, and maps the ids of its new user namespace; `users_fd` is an
    existing one, to which the new namespaces then belong.

    With `time_offsets`, lines for /proc/self/timens_offsets, it is born in a new time namespace.
    `when_mounted` is called with its pid, if and when it says that its mounts are made.

    Raises:
        NotSupported: `map_ids` says so.
        StartFailed: it could not be made; it has been reaped.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        place = Place(cgroup, namespaces, tuple(existing), users_fd)
        with contextlib.ExitStack() as around:
            if time_offsets is not None:
                with as_start_failure("make a time namespace"):
                    around.enter_context(_children_at(time_offsets))
            pid, pidfd = _clone(child, theirs.fileno(), place)
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
        _await_ready(ours, report, None if when_mounted is None else lambda: when_mounted(pid))
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


def _clone(child: Child, line_fd: int, place: Place) -> tuple[int, int]:
    with as_start_failure("clone"), contextlib.ExitStack() as undo:
        birth_fd = place.cgroup.birth_fd()
        if birth_fd is not None:
            undo.callback(os.close, birth_fd)
        with as_start_failure("join control group", place.cgroup.path):
            doors = place.cgroup.doors()
        for door_fd in doors:
            undo.callback(os.close, door_fd)

        def be_born() -> None:
            _move_in(doors, place.cgroup.path, line_fd)
            child(line_fd)

        if place.users_fd is not None or (place.existing and process.in_user_namespace()):
            return _clone_between(be_born, place, birth_fd)
        for kind, namespace_fd in place.existing:
            undo.enter_context(_children_in(kind, namespace_fd))
        pid, pidfd = process.clone3(place.namespaces, cgroup_fd=birth_fd)
        if pid == 0:
            try:
                be_born()
            finally:
                os._exit(1)
    return pid, pidfd


def _move_in(doors: Sequence[int], path: str, line_fd: int) -> None:
    """Move this process, just born, into its control group; what else it does is done there."""
    try:
        for door_fd in doors:
            os.write(door_fd, b"0")
    except OSError as err:
        os.write(line_fd, handshake.encode_error("join control group", err.errno or 0, path))
        os._exit(1)


def _clone_between(child: Callable[[], None], place: Place, birth_fd: int | None) -> tuple[int, int]:
    """Clone where there is no way back from: in an existing user namespace, or from a user namespace's root.

    The namespaces that such a root came with are the host's, and closed to it once left. So a process
    between us and the child goes there, makes the child as its sibling, and ends.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        between, pidfd = process.clone3()
        if between == 0:
            try:
                _be_between(child, place, birth_fd, theirs)
            finally:
                os._exit(1)
        os.close(pidfd)
        theirs.close()
        packet, fds, _, _ = socket.recv_fds(ours, _BORN.size, 1, socket.MSG_CMSG_CLOEXEC)
        os.waitpid(between, _WAIT_ALL)
    pid, number = _BORN.unpack(packet) if packet else (0, errno.ECHILD)
    if number:
        raise OSError(number, os.strerror(number))
    return pid, fds[0]


def _be_between(child: Callable[[], None], place: Place, birth_fd: int | None, line: socket.socket) -> None:
    # Who has rights here has none there over what is not the users' own; who has none has some only there.
    users = [] if place.users_fd is None else [(CloneFlag.NEWUSER, place.users_fd)]
    joined = [*place.existing, *users] if idmaps.may_mount(held_capabilities()) else [*users, *place.existing]
    prctl.set_dumpable(False)  # from the next line on the users' root could look into this process
    try:
        for kind, namespace_fd in joined:
            process.setns(namespace_fd, kind)
        pid, pidfd = process.clone3(place.namespaces, cgroup_fd=birth_fd, sibling=True)
    except OSError as err:
        line.send(_BORN.pack(0, err.errno or errno.EPERM))
        return
    if pid == 0:
        child()
    socket.send_fds(line, [_BORN.pack(pid, 0)], [pidfd])


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


def _await_ready(line: socket.socket, report: Report, when_mounted: Callable[[], None] | None) -> None:
    try:
        handshake.wait_ready(line, report, when_mounted)
    except TimeoutError:
        raise StartFailed("init", errno.ETIMEDOUT, "") from None
    except OSError as err:
        raise StartFailed("init", err.errno or 0, "") from err


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
