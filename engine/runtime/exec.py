"""Add a process to a running container."""

import os
from collections.abc import Sequence
from typing import NoReturn

from engine.kernel import prctl
from engine.kernel import process as kernel
from engine.kernel.process import CloneFlag
from engine.runtime import changeroot, devices, idmaps, init
from engine.runtime import enter as last_steps
from engine.runtime.birth import (
    as_start_failure,
    bear,
    give_pipes,
    held_capabilities,
    last_capability,
    own_executable,
    set_groups,
)
from engine.runtime.cgroups.select import cgroup_at
from engine.runtime.handshake import InitLine
from engine.runtime.model import Created, Stdio
from engine.runtime.plan import ProcessPlan, namespaces_of, plan_process, shares_mounts
from engine.runtime.progress import Progress
from engine.spec.runtime import NamespaceType, Process, Spec

_JOINED = (
    CloneFlag.NEWNS | CloneFlag.NEWCGROUP | CloneFlag.NEWUTS | CloneFlag.NEWIPC | CloneFlag.NEWNET
)  # the PID namespace is the parent's to join: it takes effect for children only


def enter(
    target_pid: int,
    spec: Spec,
    process: Process,
    *,
    stdio: Stdio,
    cgroup: str,
    target_pidfd: int | None = None,
    preserved_fds: Sequence[int] = (),
) -> Created:
    """Make `process` inside the container whose init is `target_pid`; it waits for `start`.

    It joins all namespaces of the target and its control group (`Created.cgroup`),
    and is confined as the container's own process is: seccomp of `spec`, rlimits,
    capabilities and user of `process`, which also gets `preserved_fds` by their
    numbers. With `target_pidfd` the target cannot be confused with a later
    process of the same number. Undo is the caller's
    business only in so far as it reaps the child.

    Raises:
        StartFailed: as `create`; also when the container has ended.
    """
    plan = plan_process(
        spec,
        process,
        last_capability=last_capability(),
        held_capabilities=held_capabilities(),
        set_groups=set_groups,
    )
    own = own_executable()
    joined = _JOINED
    if any(space.type is NamespaceType.TIME for space in spec.linux.namespaces):
        joined |= CloneFlag.NEWTIME
    if not process.terminal:
        give_pipes(stdio, plan.pipes_owner)
    with as_start_failure("find the container's process", str(target_pid)):
        pidfd = kernel.pidfd_open(target_pid) if target_pidfd is None else os.dup(target_pidfd)
    # What is shared with the host cannot be joined with the rights of a user namespace, ours or its own.
    inside = plan.own_users or kernel.in_user_namespace()
    spaces = namespaces_of(spec) & ~CloneFlag.NEWPID if inside else joined
    own_pids = not inside or bool(namespaces_of(spec) & CloneFlag.NEWPID)
    rootless = plan.own_users and not idmaps.may_mount(held_capabilities())
    root_fd = None
    try:
        if shares_mounts(spec):
            # To join leads to the root of the namespace; the container's is another one.
            with as_start_failure("find the container's root"):
                root_fd = os.open(f"/proc/{target_pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
                kernel.pidfd_send_signal(pidfd, 0)  # still the same process
            spaces = spaces if namespaces_of(spec) & CloneFlag.NEWNS else spaces & ~CloneFlag.NEWNS
        if rootless:
            # Only from inside the user namespace may the other be joined, and there is no way back: the
            # whole process stays there, which costs it nothing that an unprivileged user had.
            prctl.set_dumpable(False)
            with as_start_failure("join the container's user namespace"):
                kernel.setns(pidfd, CloneFlag.NEWUSER | (namespaces_of(spec) & CloneFlag.NEWPID))
            spaces &= ~CloneFlag.NEWUSER
        return bear(
            lambda line_fd: _run(
                plan,
                line_fd,
                pidfd,
                stdio=stdio,
                own=own,
                spaces=spaces,
                root_fd=root_fd,
                preserved_fds=tuple(preserved_fds),
            ),
            cgroup_at(cgroup).beside(target_pid),
            existing=[(CloneFlag.NEWPID, pidfd)] if own_pids and not rootless else [],
            warnings=plan.masks.warnings,
        )
    finally:
        os.close(pidfd)
        if root_fd is not None:
            os.close(root_fd)


def _run(
    plan: ProcessPlan,
    line_fd: int,
    pidfd: int,
    *,
    stdio: Stdio,
    own: tuple[int, int],
    spaces: CloneFlag,
    root_fd: int | None,
    preserved_fds: tuple[int, ...],
) -> NoReturn:
    kept_fds = () if root_fd is None else (root_fd,)
    preserved = last_steps.Preserved(preserved_fds, last_steps.MOUNTS_FD + len(kept_fds))

    def body(line: InitLine, progress: Progress) -> None:
        last_steps.score_oom(plan, line)
        progress.at("join the container's namespaces")
        kernel.setns(last_steps.KEPT_FD, spaces)
        os.close(last_steps.KEPT_FD)
        if kept_fds:
            progress.at("change the root")
            changeroot.chroot(last_steps.MOUNTS_FD)
        if plan.own_users:
            last_steps.be_root_inside()
        if plan.process.terminal:
            _open_terminal(plan, line, progress)
        last_steps.run(plan, line, progress, own, preserved=preserved)

    streams = None if plan.process.terminal else stdio
    init.guarded(body, line_fd, pidfd, streams, more_fds=(*kept_fds, *preserved_fds))


def _open_terminal(plan: ProcessPlan, line: InitLine, progress: Progress) -> None:
    progress.at("open a terminal")
    root_fd = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        master_fd, slave_fd = devices.open_terminal(root_fd)
    finally:
        os.close(root_fd)
    devices.size_terminal(master_fd, plan.process)
    line.terminal(master_fd)
    os.close(master_fd)
    last_steps.use_terminal(slave_fd)
