"""Processes: clone3, pidfds, namespaces to join, descriptors to close.

`clone3` goes round the C library, so Python's own fork hooks are called by
hand around it: without them the interpreter of the child is in an undefined
state (3.13 aborts).

Source: Linux man-pages 6.9: clone(2), pidfd_open(2), setns(2), close_range(2).
"""

import ctypes
import enum
import os
import signal

from engine.kernel.libc import INT, POINTER, UINT, ULONG, fail, function, syscall
from engine.kernel.syscalls import NATIVE

CLONE_PIDFD = 0x1000
CLONE_PARENT = 0x8000
CLONE_CLEAR_SIGHAND = 0x100000000
CLONE_INTO_CGROUP = 0x200000000


class CloneFlag(enum.IntFlag):
    """`CLONE_NEW*`: the kinds of namespaces, for clone3, unshare and setns."""

    NONE = 0
    NEWTIME = 0x80
    NEWNS = 0x20000
    NEWCGROUP = 0x2000000
    NEWUTS = 0x4000000
    NEWIPC = 0x8000000
    NEWUSER = 0x10000000
    NEWPID = 0x20000000
    NEWNET = 0x40000000


class _CloneArgs(ctypes.Structure):
    """`struct clone_args`, all 88 bytes of Linux 5.7."""

    _fields_ = tuple(
        (name, ctypes.c_uint64)
        for name in (
            "flags",
            "pidfd",
            "child_tid",
            "parent_tid",
            "exit_signal",
            "stack",
            "stack_size",
            "tls",
            "set_tid",
            "set_tid_size",
            "cgroup",
        )
    )


# A call through PyDLL keeps the interpreter lock, as os.fork does.
_raw = ctypes.PyDLL(None, use_errno=True)
_clone3 = _raw.syscall
_clone3.argtypes = (ctypes.c_long, POINTER, ULONG)
_clone3.restype = ctypes.c_long
_before_fork = ctypes.pythonapi.PyOS_BeforeFork
_after_fork_child = ctypes.pythonapi.PyOS_AfterFork_Child
_after_fork_parent = ctypes.pythonapi.PyOS_AfterFork_Parent
_before_fork.restype = _after_fork_child.restype = _after_fork_parent.restype = None

_setns = function("setns", INT, INT)
_unshare = function("unshare", INT)
_pidfd_open = syscall("pidfd_open", INT, UINT)
_pidfd_send_signal = syscall("pidfd_send_signal", INT, INT, POINTER, UINT)
_close_range = syscall("close_range", UINT, UINT, UINT)


def clone3(
    namespaces: CloneFlag = CloneFlag.NONE, *, cgroup_fd: int | None = None, sibling: bool = False
) -> tuple[int, int]:
    """Fork this single-threaded process; return (pid, pidfd) in the parent and (0, -1) in the child.

    The child is in the new `namespaces`, ends with SIGCHLD, and has all caught
    signals back at their defaults. With `cgroup_fd` (a directory of cgroup2)
    it is born there. A `sibling` is the child of this process' parent, who reaps it.

    Raises:
        OSError: as clone3(2); there is no child.
    """
    flags = CLONE_PIDFD | CLONE_CLEAR_SIGHAND | namespaces
    pidfd = ctypes.c_int(-1)
    args = _CloneArgs(pidfd=ctypes.addressof(pidfd), exit_signal=signal.SIGCHLD)
    if sibling:
        flags |= CLONE_PARENT
        args.exit_signal = 0  # the kernel takes this process' own
    if cgroup_fd is not None:
        flags |= CLONE_INTO_CGROUP
        args.cgroup = cgroup_fd
    args.flags = flags
    address, size = ctypes.addressof(args), ctypes.sizeof(args)
    _before_fork()
    pid: int = _clone3(NATIVE["clone3"], address, size)
    if pid == 0:
        _after_fork_child()
        return 0, -1
    _after_fork_parent()
    if pid < 0:
        fail(f"clone3({flags:#x}, cgroup_fd={cgroup_fd})")
    return pid, pidfd.value


def setns(fd: int, namespaces: CloneFlag = CloneFlag.NONE) -> None:
    """Join the namespace `fd`, or those kinds of the process whose pidfd it is."""
    if _setns(fd, namespaces) < 0:
        fail(f"setns({fd}, {namespaces!r})")


def unshare(namespaces: CloneFlag) -> None:
    """Leave these kinds of namespaces for new ones."""
    if _unshare(namespaces) < 0:
        fail(f"unshare({namespaces!r})")


def pidfd_open(pid: int) -> int:
    """Return a descriptor of the process `pid`; readable once it has ended.

    Raises:
        ProcessLookupError: there is none.
    """
    fd: int = _pidfd_open(pid, 0)
    if fd < 0:
        fail(f"pidfd_open({pid})")
    return fd


def pidfd_send_signal(pidfd: int, signal_number: int) -> None:
    """Send a signal to exactly that process.

    Raises:
        ProcessLookupError: it has been reaped.
    """
    if _pidfd_send_signal(pidfd, signal_number, None, 0) < 0:
        fail(f"pidfd_send_signal({pidfd}, {signal_number})")


def in_user_namespace(uid_map: str | None = None) -> bool:
    """Tell whether this process' user namespace is not the first one, whose map (`uid_map`) is of all ids.

    Source: user_namespaces(7).
    """
    if uid_map is None:
        with open("/proc/self/uid_map", "rb") as file:
            uid_map = file.read().decode()
    return uid_map.split() != ["0", "0", str(0xFFFFFFFF)]


def is_host_root() -> bool:
    """Tell whether this process is root of the first user namespace, to whom the whole machine belongs."""
    return os.geteuid() == 0 and not in_user_namespace()


def set_oom_score_adj(score: int) -> None:
    """Say how ready the kernel shall be to kill this process for want of memory: -1000 (never) to 1000.

    Raises:
        PermissionError: it would be lowered, and CAP_SYS_RESOURCE is missing.
    """
    fd = os.open("/proc/self/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, b"%d" % score)
    finally:
        os.close(fd)


def close_range(first: int, last: int = 0xFFFFFFFF) -> None:
    """Close every descriptor from `first` to `last`, both included."""
    if _close_range(first, last, 0) < 0:
        fail(f"close_range({first}, {last})")
