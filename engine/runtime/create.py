"""Make a container up to the point where its program is about to be executed."""

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

import msgspec

from engine.base.errors import InvalidArgument, NotSupported
from engine.kernel.process import CloneFlag
from engine.runtime import changeroot, hooks, idmaps, init, listener, sources, state, sysctl
from engine.runtime.birth import (
    NAMES,
    READY_TIMEOUT_S,
    as_start_failure,
    bear,
    end,
    give_pipes,
    held_capabilities,
    last_capability,
    own_executable,
    set_groups,
)
from engine.runtime.cgroups import place
from engine.runtime.cgroups.model import Cgroup
from engine.runtime.cgroups.none import NoCgroup
from engine.runtime.cgroups.select import cgroup_at, mounted
from engine.runtime.cgroups.v1 import LegacyCgroup
from engine.runtime.changeroot import RootChange
from engine.runtime.model import Created, Stdio
from engine.runtime.plan import NAMESPACES, ContainerPlan, plan_container
from engine.spec.runtime import Mount, NamespaceType, Resources, Spec


def create(
    spec: Spec,
    bundle: Path,
    container_id: str,
    *,
    stdio: Stdio,
    rootfs_mounts: Sequence[Mount] = (),
    state_path: Path | None = None,
    listener_fd: int | None = None,
    prepared: tuple[ContainerPlan, Cgroup] | None = None,
    preserved_fds: Sequence[int] = (),
) -> Created:
    """Make the container of `spec` as a child of this process; its program waits for `start`.

    `rootfs_mounts` (such as the overlay of an image) are made at
    `spec.root.path`, inside the container's own mount namespace: the host
    never has them, so nothing of them can leak. state.json is written to
    `state_path`, or to the bundle. With `listener_fd`, a listening socket that
    is borrowed, any process that connects to it may `start` the container, and
    the line of the result leads nowhere. The program also gets `preserved_fds`, by the numbers that
    they have here. The control group is that of `place.path_of`.
    `prepared` is what `prepare` has returned for the same, in this process or one that it is a fork of.
    This process must be single-threaded.

    Raises:
        InvalidArgument: the spec cannot be carried out as written.
        NotSupported: it asks for what this engine or kernel does not have.
        StartFailed: a step failed; nothing of the container is left.
    """
    plan, cgroup = prepared or prepare(spec, bundle, container_id, rootfs_mounts=rootfs_mounts)
    with contextlib.ExitStack() as undo:
        warnings = _make_cgroup(spec, cgroup, undo)
        created = _bear(plan, cgroup, stdio, warnings, listener_fd, preserved_fds=preserved_fds)
        undo.callback(_abandon, created)
        path = state_path or bundle / "state.json"
        with as_start_failure("write", str(path)):
            state.write(
                path, state.new_state(container_id, bundle, created.pid, cgroup.path, spec.annotations)
            )
        undo.pop_all()
    return msgspec.structs.replace(
        created, state_path=path, agent=listener.agent_of(spec, container_id, bundle)
    )


def _make_cgroup(spec: Spec, cgroup: Cgroup, undo: contextlib.ExitStack) -> list[str]:
    """Make the control group, which `undo` removes, and give it to whom it shall be; return warnings."""
    owner = place.owner_of(spec)
    with as_start_failure("make control group", cgroup.path):
        warnings = cgroup.create(spec.linux.resources or Resources())
        undo.callback(cgroup.remove, timeout_s=5.0)
        if owner is not None:
            cgroup.give(owner)
    return warnings


def prepare(
    spec: Spec, bundle: Path, container_id: str, *, rootfs_mounts: Sequence[Mount] = (), pivot: bool = True
) -> tuple[ContainerPlan, Cgroup]:
    """Return what `create` would do, and the control group it would make; nothing is changed.

    What it asks of the machine it asks once: a process that forks others which create should call
    this first, so that they find it known. Without `pivot` the container's root is to lie over the host's.

    Raises:
        InvalidArgument, NotSupported: as `create`.
    """
    own_executable()
    _refuse_sysctls_of_host(spec)
    own_users = any(space.type is NamespaceType.USER for space in spec.linux.namespaces)
    if not own_users and not idmaps.may_mount(held_capabilities()):
        raise NotSupported(
            "a container without a user namespace of its own needs root",
            hint="spec --rootless writes a config.json that has one",
        )
    plan = plan_container(
        spec,
        bundle,
        container_id,
        layers=rootfs_mounts,
        last_capability=last_capability(),
        held_capabilities=held_capabilities(),
        set_groups=set_groups,
        pivot=pivot,
    )
    if plan.root_change is RootChange.CHROOT:
        with as_start_failure("try to mount on a detached tree"):
            if not changeroot.mounts_on_detached():
                raise NotSupported("linux.namespaces: without a new mount namespace this needs Linux 6.15")
    return plan, cgroup_at(place.path_of(spec.linux.cgroups_path, container_id))


def _refuse_sysctls_of_host(spec: Spec) -> None:
    """Refuse a sysctl of a namespace that is joined by a path which leads to this process' own."""
    kinds = {sysctl.kind_of(sysctl.file_of(key)): key for key in spec.linux.sysctl}
    for space in spec.linux.namespaces:
        key = kinds.get(NAMESPACES[space.type]) if space.path and space.type in NAMESPACES else None
        if key is None:
            continue
        with as_start_failure("join namespace", space.path):
            ours = os.path.samefile(space.path, f"/proc/self/ns/{NAMES[NAMESPACES[space.type]]}")
        if ours:
            raise InvalidArgument(f"sysctl {key}: the {space.type} namespace that is joined is the host's")


def _bear(
    plan: ContainerPlan,
    cgroup: Cgroup,
    stdio: Stdio,
    warnings: list[str],
    listener_fd: int | None,
    *,
    preserved_fds: Sequence[int],
) -> Created:
    around = init.Surroundings(
        own_executable=own_executable(),
        cgroup_binds=cgroup.binds() if isinstance(cgroup, LegacyCgroup | NoCgroup) else {},
        cgroup_mount=str(mounted().unified or ""),
        listener_fd=listener_fd,
        opened=sources.NOTHING,
        preserved=tuple(preserved_fds),
    )
    users = None if plan.users_path else plan.users
    if not plan.first.process.terminal:
        give_pipes(stdio, plan.first.pipes_owner)
    with contextlib.ExitStack() as undo:
        around = msgspec.structs.replace(around, opened=sources.open_all(plan, held_capabilities(), undo))
        existing = []
        for kind, path in _joined_by_parent(plan):
            with as_start_failure("join namespace", path):
                namespace_fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            undo.callback(os.close, namespace_fd)
            existing.append((kind, namespace_fd))
        users_fd = None
        if plan.users_path:
            with as_start_failure("join namespace", plan.users_path):
                users_fd = os.open(plan.users_path, os.O_RDONLY | os.O_CLOEXEC)
            undo.callback(os.close, users_fd)
        return bear(
            lambda line_fd: init.run(plan, line_fd, stdio, around),
            cgroup,
            namespaces=plan.new_namespaces,
            existing=existing,
            users_fd=users_fd,
            map_ids=None if users is None else lambda pid: idmaps.write(pid, users, held_capabilities()),
            warnings=[*plan.first.masks.warnings, *plan.warnings, *warnings],
            time_offsets=plan.time_offsets,
            when_mounted=lambda pid: hooks.run_all(
                plan.hooks.create_runtime, plan.hooks.document("creating", pid), plan.hooks.bundle
            ),
            patience_s=hooks.patience(plan.hooks.create_container, READY_TIMEOUT_S),
        )


def _joined_by_parent(plan: ContainerPlan) -> list[tuple[CloneFlag, str]]:
    """Return the namespaces that init cannot join: a PID namespace, and from another user namespace any."""
    joined = list(plan.joined) if plan.first.own_users else []
    return [*joined, (CloneFlag.NEWPID, plan.pid_namespace)] if plan.pid_namespace else joined


def _abandon(created: Created) -> None:
    os.close(created.control_fd)
    if created.terminal_fd is not None:
        os.close(created.terminal_fd)
    end(created.pid, created.pidfd)
