"""Mounts that the runtime opens before it makes the container's process: copies, attached nowhere yet.

In a user namespace of its own that process may not enter the directories that
lead to a source, and cannot take mounts apart that came with its namespace; it
is no peer of a shared mount, for its namespace began as a slave; and nobody
inside may map the ids of a mount. The runtime can do all that, where it may
mount at all. The copies are handed on as descriptors.

Source: OCI runtime-spec 1.2.0, config.md, "Linux mount options" (idmap); mount_setattr(2).
"""

import contextlib
import os

import msgspec

from engine.base.errors import NotSupported
from engine.kernel import mount as mounts
from engine.kernel.mount import AT_FDCWD, MountAttr, MountFlag
from engine.runtime import idmaps
from engine.runtime.birth import as_start_failure
from engine.runtime.plan import ContainerPlan
from engine.runtime.rootfs import MountStep
from engine.runtime.userns import IdMap


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
    shared = any(kind is MountFlag.SHARED for kind, _ in step.options.propagation)
    return own_users or shared or step.ids is not None


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
    found: dict[int, int] = {}
    for number, step in enumerate(plan.mounts):
        if wanted_early(step, own_users=own_users):
            found[number] = _open(step, held, undo)
    return Opened(root_fd, found)


def _open(step: MountStep, held: int, undo: contextlib.ExitStack) -> int:
    with as_start_failure(f"mount {step.destination}", step.source):
        tree_fd = mounts.open_tree(AT_FDCWD, step.source, clone=True, recursive=step.options.recursive)
    undo.callback(os.close, tree_fd)
    if step.ids is not None:
        _map_ids(tree_fd, step, step.ids, held)
    return tree_fd


def _map_ids(tree_fd: int, step: MountStep, ids: IdMap, held: int) -> None:
    with as_start_failure(f"map the ids of mount {step.destination}", step.source):
        users_fd = idmaps.namespace_fd(ids, held)
        try:
            mounts.mount_setattr(
                tree_fd, "", MountAttr.IDMAP, recursive=step.options.map_tree, userns_fd=users_fd
            )
        finally:
            os.close(users_fd)
