"""Mounts that the runtime opens before it makes the container's process: copies, attached nowhere yet.

In a user namespace of its own that process may not enter the directories that
lead to a source, and cannot take mounts apart that came with its namespace; it
is no peer of a shared mount, for its namespace began as a slave; and nobody
inside may map the ids of a mount. The runtime can do all that, where it may
mount at all. The copies are handed on as descriptors.

A source below `/proc/PID/root` is a mount of that process' namespace, which only a process in there may
copy: a child goes there and hands the copy back. It looks from the root of the process, and follows no links.

Source: OCI runtime-spec 1.2.0, config.md, "Linux mount options" (idmap); mount_setattr(2).
"""

import contextlib
import errno
import os
import socket
import struct

import msgspec

from engine.base.errors import NotSupported
from engine.kernel import mount as mounts
from engine.kernel import process as kernel
from engine.kernel.mount import AT_FDCWD, MountAttr, MountFlag
from engine.kernel.openat2 import IN_ROOT, Resolve, openat2
from engine.kernel.process import CloneFlag
from engine.runtime import idmaps, seal
from engine.runtime.birth import as_start_failure
from engine.runtime.plan import ContainerPlan
from engine.runtime.rootfs import MountStep
from engine.runtime.userns import IdMap

_FAULT = struct.Struct("=i")  # errno
_WAIT_ALL = 0x40000000  # __WALL


class Opened(msgspec.Struct, frozen=True):
    """Descriptors of detached mounts, owned by whoever opened them."""

    root_fd: int | None  # the root, when it is a directory without layers
    steps: dict[int, int]  # number of the step -> its mount

    def all_fds(self) -> tuple[int, ...]:
        """Return the descriptors, in the order in which `moved_to` numbers them."""
        return (*(() if self.root_fd is None else (self.root_fd,)), *self.steps.values())

    def moved_to(self, first_fd: int) -> "Opened":
        """Return the same after the descriptors have been moved to `first_fd` and above."""
        places = range(first_fd, first_fd + len(self.all_fds()))
        root_fd = None if self.root_fd is None else first_fd
        return Opened(root_fd, dict(zip(self.steps, places[len(places) - len(self.steps) :], strict=True)))

    def close_steps(self) -> None:
        """Close the mounts of the steps, once they are attached."""
        for fd in self.steps.values():
            os.close(fd)


NOTHING = Opened(None, {})


def wanted_early(step: MountStep, *, own_users: bool) -> bool:
    """Tell whether the source of `step` is the runtime's to open."""
    if step.fstype != "bind" or step.options.remount:
        return False
    return own_users or _is_shared(step) or step.ids is not None or of_another(step.source) is not None


def _is_shared(step: MountStep) -> bool:
    return any(kind is MountFlag.SHARED for kind, _ in step.options.propagation)


def of_another(source: str) -> tuple[str, str] | None:
    """Return (directory of a process, path inside its root) of a source below /proc/PID/root; pure."""
    directory, found, path = source.partition("/root/")
    return (directory, path) if found and directory.startswith("/proc/") else None


def open_all(plan: ContainerPlan, held: int, undo: contextlib.ExitStack) -> Opened:
    """Open what is wanted early, by a process with the capabilities `held`; `undo` closes it.

    Raises:
        NotSupported: an id-mapped mount is asked of a process that cannot mount.
        StartFailed: a source cannot be opened, or its ids not be mapped.
    """
    own_users = plan.first.own_users
    if not idmaps.may_mount(held):
        for step in plan.mounts:
            if step.ids is not None:
                raise NotSupported(f"mount {step.destination}: mapping ids needs CAP_SYS_ADMIN on the host")
        return NOTHING
    root_fd = None
    if own_users and not plan.layers:
        with as_start_failure("bind the root", plan.root_path):
            root_fd = mounts.open_tree(AT_FDCWD, plan.root_path, clone=True, recursive=True)
            undo.callback(os.close, root_fd)
            _part(root_fd, plan.root_propagation)
    found: dict[int, int] = {}
    for number, step in enumerate(plan.mounts):
        if wanted_early(step, own_users=own_users):
            found[number] = _open(step, held, undo, plan.root_propagation)
    return Opened(root_fd, found)


def early_propagation(kind: MountFlag) -> MountFlag:
    """Return that of the mounts while the container is being made, of whose root `kind` is asked; pure.

    Never shared with the host, whatever it is to be in the end.
    """
    return kind if kind in (MountFlag.SLAVE, MountFlag.PRIVATE) else MountFlag.SLAVE


def _part(tree_fd: int, kind: MountFlag) -> None:
    """Do to a copy what its namespace would have: a copy of a shared mount is its peer, and tells the host.

    And the root of a container that is one cannot be pivoted to.
    """
    mounts.mount_setattr(tree_fd, "", propagation=early_propagation(kind), recursive=True)


def _open(step: MountStep, held: int, undo: contextlib.ExitStack, kind: MountFlag) -> int:
    with as_start_failure(f"mount {step.destination}", step.source):
        other = of_another(step.source)
        if other is None:
            tree_fd = mounts.open_tree(AT_FDCWD, step.source, clone=True, recursive=step.options.recursive)
        else:
            tree_fd = _open_in(*other, recursive=step.options.recursive)
        undo.callback(os.close, tree_fd)
        if not _is_shared(step):
            _part(tree_fd, kind)
    if step.ids is not None:
        _map_ids(tree_fd, step, step.ids, held)
    return tree_fd


def _open_in(directory: str, path: str, *, recursive: bool) -> int:
    """Return a detached copy of the mount at `path` in the root of the process whose `directory` is given."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        pid, pidfd = kernel.clone3()
        if pid == 0:
            try:
                _send_tree(theirs, directory, path, recursive=recursive)
            finally:
                os._exit(1)
        os.close(pidfd)
        theirs.close()
        packet, fds, _, _ = socket.recv_fds(ours, _FAULT.size, 1, socket.MSG_CMSG_CLOEXEC)
        os.waitpid(pid, _WAIT_ALL)
    (number,) = _FAULT.unpack(packet) if packet else (errno.ECHILD,)
    if number:
        raise OSError(number, os.strerror(number), path)
    return fds[0]


def _send_tree(line: socket.socket, directory: str, path: str, *, recursive: bool) -> None:
    """Enter the process' mount namespace and send the copy, or the errno of what failed."""
    seal.seal()
    try:
        root_fd = os.open(f"{directory}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        namespace_fd = os.open(f"{directory}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        kernel.setns(namespace_fd, CloneFlag.NEWNS)
        source_fd = openat2(root_fd, path, os.O_PATH, resolve=IN_ROOT | Resolve.NO_SYMLINKS)
        tree_fd = mounts.open_tree(source_fd, "", clone=True, recursive=recursive)
    except OSError as err:
        line.send(_FAULT.pack(err.errno or errno.EPERM))
        return
    socket.send_fds(line, [_FAULT.pack(0)], [tree_fd])


def _map_ids(tree_fd: int, step: MountStep, ids: IdMap, held: int) -> None:
    with as_start_failure(f"map the ids of mount {step.destination}", step.source):
        users_fd = idmaps.namespace_fd(ids, held)
        try:
            mounts.mount_setattr(
                tree_fd, "", MountAttr.IDMAP, recursive=step.options.map_tree, userns_fd=users_fd
            )
        finally:
            os.close(users_fd)
