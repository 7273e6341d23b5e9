"""What a container's first process does before it becomes the program.

It starts as a fork of the runtime in new namespaces and never returns. It
sees the host's files until pivot_root, and imports nothing from the first
line on. Order: join namespaces, mounts, devices, masks, root, then `enter`.
"""

import os
import socket
from collections.abc import Callable, Sequence
from typing import NoReturn

import msgspec

from engine.kernel import loopback, process, system
from engine.kernel import mount as mounts
from engine.kernel.mount import AT_FDCWD, MountAttr
from engine.kernel.process import CloneFlag
from engine.runtime import changeroot, devices, enter, hooks, masks, seal, userns
from engine.runtime.changeroot import RootChange
from engine.runtime.handshake import InitLine
from engine.runtime.model import Stdio
from engine.runtime.options import MountOptions
from engine.runtime.plan import ContainerPlan
from engine.runtime.progress import Progress
from engine.runtime.rootfs import MountStep, Rootfs, mount_root, new_filesystem
from engine.runtime.sources import Opened, early_propagation

_CGROUP_TYPES = frozenset({"cgroup", "cgroup2"})
_FAILED = 1
_MAP_BYTES = 16384  # 340 ranges


class OtherIds(OSError):
    """A user namespace that is joined has other ids than the spec says."""


class Surroundings(msgspec.Struct, frozen=True):
    """What init needs to know of the host; read before the fork."""

    own_executable: tuple[int, int]  # device and inode of this interpreter
    cgroup_binds: dict[str, str]  # legacy: name below /sys/fs/cgroup -> the container's directory
    cgroup_mount: str  # unified: where the host has it; "" on a legacy machine
    listener_fd: int | None  # where `start` will connect; None: it comes by the line
    opened: Opened  # mounts that the runtime has opened
    preserved: tuple[int, ...] = ()  # descriptors that the program gets besides its streams


def run(plan: ContainerPlan, line_fd: int, stdio: Stdio, around: Surroundings) -> NoReturn:
    """Be the first process of `plan`."""
    guarded(
        lambda line, progress: _become(plan, line, progress, around),
        line_fd,
        around.listener_fd,
        None if plan.first.process.terminal else stdio,
        more_fds=(*around.opened.all_fds(), *around.preserved),
        users=plan if plan.first.own_users else None,
    )


def guarded(
    body: Callable[[InitLine, Progress], None],
    line_fd: int,
    keep_fd: int | None,
    stdio: Stdio | None,
    *,
    more_fds: Sequence[int] = (),
    users: ContainerPlan | None = None,
) -> NoReturn:
    """Seal this process, run `body`, which does not return, and report why it failed.

    With `users`, its plan, it is in another user namespace. The ids of a new one are mapped first: the
    files in /proc of a sealed process belong to the host's root, so an unprivileged runtime could not.
    """
    progress = Progress()
    try:
        if users is None or users.users_path:  # others may be in the namespace, and must not look in here
            seal.seal()
        os.umask(0)
        enter.take_descriptors(line_fd, keep_fd, stdio, more_fds)
        line = InitLine(enter.LINE_FD)
        try:
            if users is not None:
                _take_users(users, line, progress)
                seal.seal()
            os.setsid()
            body(line, progress)
        except BaseException as err:  # noqa: BLE001 (a child of fork must not unwind into the parent's code)
            enter.report(line, progress, err)
    finally:
        os._exit(_FAILED)


def _take_users(plan: ContainerPlan, line: InitLine, progress: Progress) -> None:
    """Become root of the user namespace that this process is in, of the ids that were promised."""
    if not plan.users_path:
        line.await_mapped()
    enter.score_oom(plan.first, line)
    if plan.users_path and plan.users is not None:
        for name, ranges in (("uid_map", plan.users.uids), ("gid_map", plan.users.gids)):
            progress.at("compare the ids of the user namespace", plan.users_path)
            with open(f"/proc/self/{name}", "rb", buffering=0) as file:
                if sorted(map(bytes.split, file.read(_MAP_BYTES).splitlines())) != sorted(
                    map(bytes.split, userns.text(ranges).encode().splitlines())
                ):
                    raise OtherIds(0, f"its {name} is not the one of config.json", plan.users_path)
    progress.at("become root of the user namespace")
    enter.be_root_inside()


def _become(plan: ContainerPlan, line: InitLine, progress: Progress, around: Surroundings) -> None:
    if not plan.first.own_users:
        enter.score_oom(plan.first, line)
    _join(plan, progress)
    _name_host(plan, progress)
    views = _kernel_views(plan, progress)
    rootfs = _make_root(plan, progress, around)
    _run_hooks(plan, line, progress)
    terminal_fd = None
    if plan.first.process.terminal:
        progress.at("open a terminal")
        master_fd, terminal_fd = devices.open_terminal(rootfs.fd)
        devices.bind_console(rootfs, terminal_fd)
        devices.size_terminal(master_fd, plan.first.process)
        line.terminal(master_fd)
        os.close(master_fd)
    _set_sysctl(plan, progress)
    masks.make_readonly(rootfs, plan.readonly_paths, progress)
    masks.hide(rootfs, plan.masked_paths, progress)
    progress.at("make the working directory", plan.first.process.cwd)
    os.close(rootfs.make_directories(plan.first.process.cwd))
    if plan.root_readonly:
        progress.at("make the root read-only")
        mounts.mount_setattr(rootfs.fd, "", MountAttr.RDONLY)
    _change_root(plan, rootfs, views, progress)
    if terminal_fd is not None:
        enter.use_terminal(terminal_fd)
    mounted = any(step.fstype in _CGROUP_TYPES for step in plan.mounts)
    if plan.own_cgroup_namespace and (around.cgroup_binds or not mounted):  # else it was left to mount
        progress.at("leave the control group namespace")
        process.unshare(CloneFlag.NEWCGROUP)
    listener_fd = None if around.listener_fd is None else enter.KEPT_FD
    enter.run(
        plan.first,
        line,
        progress,
        around.own_executable,
        listener_fd=listener_fd,
        found=plan.hooks,
        preserved=enter.Preserved(around.preserved, enter.MOUNTS_FD + len(around.opened.all_fds())),
    )


def _join(plan: ContainerPlan, progress: Progress) -> None:
    for kind, path in plan.joined if not plan.first.own_users else ():
        progress.at("join namespace", path)
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if kind == CloneFlag.NEWUTS and (plan.hostname or plan.domainname):
                _refuse_own_names(fd)
            process.setns(fd, kind)
        finally:
            os.close(fd)
    if plan.own_network:
        progress.at("bring up the loopback interface")
        loopback.up()


def _refuse_own_names(uts_fd: int) -> None:
    """Refuse to name the host: a joined namespace is named as a new one, but not the one we are in."""
    if os.path.samestat(os.fstat(uts_fd), os.stat("/proc/self/ns/uts")):
        raise OSError(0, "it is the host's own, which is not to be renamed")


def _name_host(plan: ContainerPlan, progress: Progress) -> None:
    progress.at("set the host name", plan.hostname)
    if plan.hostname:
        socket.sethostname(plan.hostname)
    if plan.domainname:
        system.setdomainname(plan.domainname)


def _make_root(plan: ContainerPlan, progress: Progress, around: Surroundings) -> Rootfs:
    opened = around.opened.moved_to(enter.MOUNTS_FD)
    rootfs = _found_root(plan, progress, opened)
    for number, step in enumerate(plan.mounts):
        if step.fstype in _CGROUP_TYPES:
            _mount_cgroup(plan, rootfs, step, around)
        else:
            rootfs.mount(step, opened.steps.get(number))
    opened.close_steps()
    if not any(step.destination == "/dev" and step.fstype == "bind" for step in plan.mounts):
        devices.make_all(rootfs, plan.devices, progress)
    return rootfs


def _found_root(plan: ContainerPlan, progress: Progress, opened: Opened) -> Rootfs:
    if plan.root_change is RootChange.CHROOT:
        progress.at("copy the root", plan.root_path)
        return Rootfs(changeroot.detached(plan.root_path), progress, attached=False)
    progress.at("set the propagation of mounts")
    early = early_propagation(plan.root_propagation)
    mounts.mount_setattr(AT_FDCWD, "/", propagation=early, recursive=True)
    tree_fd = opened.root_fd
    if plan.root_change is RootChange.MOVE and tree_fd is None:
        progress.at("bind the root", plan.root_path)
        tree_fd = mounts.open_tree(AT_FDCWD, plan.root_path, clone=True, recursive=True)
    return Rootfs(mount_root(plan.root_path, plan.layers, progress, tree_fd), progress)


def _kernel_views(plan: ContainerPlan, progress: Progress) -> list[str]:
    """Return what is to be unmounted of an old root that stays; the container's own is not there yet."""
    if plan.root_change is not RootChange.MOVE:
        return []
    progress.at("list the mounts")
    with open("/proc/self/mountinfo", "rb", buffering=0) as file:
        return changeroot.kernel_views(os.fsdecode(file.read()))


def _change_root(plan: ContainerPlan, rootfs: Rootfs, views: Sequence[str], progress: Progress) -> None:
    progress.at("change the root", plan.root_path)
    if plan.root_change is RootChange.CHROOT:
        changeroot.chroot(rootfs.fd)
        return
    if plan.root_change is RootChange.MOVE:
        changeroot.move(rootfs.fd, views)
    else:
        changeroot.pivot(rootfs.fd)
    progress.at("set the propagation of the root")
    mounts.mount_setattr(AT_FDCWD, "/", propagation=plan.root_propagation)  # each mount has had its own


def _run_hooks(plan: ContainerPlan, line: InitLine, progress: Progress) -> None:
    """Let those of the host run, then run those of these namespaces; the root is still the host's."""
    found = plan.hooks
    if found.create_runtime:
        progress.at("wait for hooks")
        line.await_hooks()
    if not found.create_container:
        return

    def become() -> None:
        os.umask(enter.DEFAULT_UMASK)
        os.chdir(found.bundle)

    document = found.document("creating", os.getpid())
    for step in found.create_container:
        progress.at(f"{step.kind} hook", step.path)
        hooks.run(step, document, become)


def _mount_cgroup(plan: ContainerPlan, rootfs: Rootfs, step: MountStep, around: Surroundings) -> None:
    progress = rootfs.progress
    if around.cgroup_binds:
        _mount_legacy(rootfs, step, progress, around)
        return
    if not plan.own_cgroup_namespace:
        rootfs.mount(MountStep(step.destination, "bind", around.cgroup_mount, step.options))
        return
    # The namespace begins where this process is: in the container's control group.
    progress.at("leave the control group namespace")
    process.unshare(CloneFlag.NEWCGROUP)
    rootfs.mount(MountStep(step.destination, "cgroup2", "cgroup", step.options))


def _mount_legacy(rootfs: Rootfs, step: MountStep, progress: Progress, around: Surroundings) -> None:
    """Show each hierarchy's directory of this container under its usual name."""
    progress.at(f"mount {step.destination}")
    flags = step.options.attr_set
    base = MountStep(
        step.destination,
        "tmpfs",
        "tmpfs",
        MountOptions(attr_set=flags & ~MountAttr.RDONLY, data=(("mode", "755"),)),
    )
    tree_fd = new_filesystem(base, progress)
    try:
        rootfs.attach(tree_fd, base)
        for name, directory in around.cgroup_binds.items():
            options = MountOptions(attr_set=flags, bind=True)
            rootfs.mount(MountStep(f"{step.destination}/{name}", "bind", directory, options))
        if flags & MountAttr.RDONLY:
            mounts.mount_setattr(tree_fd, "", MountAttr.RDONLY)
    finally:
        os.close(tree_fd)


def _set_sysctl(plan: ContainerPlan, progress: Progress) -> None:
    """Write through the host's /proc: what is there is of the writer's namespaces."""
    for name, value in plan.sysctl.items():
        progress.at("set sysctl", name)
        fd = os.open(f"/proc/sys/{name}", os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            os.write(fd, os.fsencode(value))
        finally:
            os.close(fd)
