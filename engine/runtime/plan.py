"""Everything about a container that can be decided before there is a process; pure.

`plan_container` and `plan_process` refuse what cannot be carried out, so that
the sealed process has only system calls left to make.

Source: OCI runtime-spec 1.2.0, config.md and config-linux.md.
"""

import resource
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from engine.base.errors import InvalidArgument, NotSupported
from engine.kernel.mount import MountFlag
from engine.kernel.process import CloneFlag
from engine.runtime import hooks, identity, scheduling, seccomp, sysctl, userns, validate
from engine.runtime.changeroot import RootChange
from engine.runtime.hooks import HookPlan
from engine.runtime.identity import CapabilityMasks
from engine.runtime.options import propagation_of
from engine.runtime.program import parse_environment
from engine.runtime.rootfs import MountStep, clean, plan, warnings_of
from engine.runtime.scheduling import Scheduling
from engine.runtime.userns import IdMap
from engine.spec.runtime import Device, Mount, NamespaceType, Process, Rlimit, Spec, TimeOffset

NAMESPACES = {
    NamespaceType.PID: CloneFlag.NEWPID,
    NamespaceType.NETWORK: CloneFlag.NEWNET,
    NamespaceType.MOUNT: CloneFlag.NEWNS,
    NamespaceType.IPC: CloneFlag.NEWIPC,
    NamespaceType.UTS: CloneFlag.NEWUTS,
    NamespaceType.CGROUP: CloneFlag.NEWCGROUP,
    NamespaceType.TIME: CloneFlag.NEWTIME,
    NamespaceType.USER: CloneFlag.NEWUSER,
}
_TERMINAL_MAX = (1 << 16) - 1
OCI_VERSION_MIN = "1.0.0"
_RLIMIT_MAX = (1 << 63) - 1  # what Python hands on; no count comes near
_CLOCKS = frozenset({"monotonic", "boottime"})


class ProcessPlan(msgspec.Struct, frozen=True):
    """How one process is confined and what it executes."""

    process: Process
    masks: CapabilityMasks
    environment: Mapping[str, str]
    rlimits: tuple[tuple[int, int, int], ...]  # (resource, soft, hard)
    filter: bytes | None
    filter_flags: int
    last_capability: int
    scheduling: Scheduling
    set_groups: bool = True  # False: its user namespace forbids it
    own_users: bool = False  # it has a user namespace that is not the runtime's
    pipes_owner: int | None = None  # there, and if the spec tells: what its user is on the host


class ContainerPlan(msgspec.Struct, frozen=True):
    """How a container is made; its process is `first`."""

    container_id: str
    first: ProcessPlan
    new_namespaces: CloneFlag  # made by clone3; a new control group namespace is made later, by init
    users: IdMap | None  # of its user namespace, as far as the spec tells
    users_path: str  # an existing user namespace, joined by the parent; "" for none
    joined: tuple[tuple[CloneFlag, str], ...]  # in this order: by init, or by the parent with `users`
    pid_namespace: str  # joined by the parent, as the kernel demands; "" for none
    own_cgroup_namespace: bool
    own_network: bool  # new and empty: its loopback is down
    root_path: str
    root_change: RootChange
    root_readonly: bool
    layers: tuple[Mount, ...]
    root_propagation: MountFlag
    mounts: tuple[MountStep, ...]
    devices: tuple[Device, ...]
    masked_paths: tuple[str, ...]
    readonly_paths: tuple[str, ...]
    sysctl: Mapping[str, str]
    hostname: str
    domainname: str
    hooks: HookPlan
    time_offsets: bytes | None  # for a new time namespace, made by the parent; None: none is
    warnings: tuple[str, ...]  # what is left out, one line each


def plan_container(
    spec: Spec,
    bundle: Path,
    container_id: str,
    *,
    layers: Sequence[Mount],
    last_capability: int,
    held_capabilities: int,
    set_groups: Callable[[IdMap | None], bool] = lambda _: True,
    pivot: bool = True,
) -> ContainerPlan:
    """Return the plan for `spec`, to be carried out by a process with `held_capabilities`, a mask.

    `set_groups` tells whether a user namespace with that map lets its processes set groups. Without
    `pivot` the root is made one without pivot_root.

    Raises:
        InvalidArgument: the spec contradicts itself or names what does not exist.
        NotSupported: it asks for what this runtime does not do.
    """
    _refuse(spec)
    validate.check(spec, leave="process")  # that is plan_process's
    assert spec.process is not None  # noqa: S101 (refused above)
    assert spec.root is not None  # noqa: S101 (refused above)
    new, joined, pid_namespace = _namespaces(spec)
    root_change = RootChange.PIVOT if pivot else RootChange.MOVE
    if shares_mounts(spec):
        _check_shared_mounts(spec, layers)
        root_change = RootChange.CHROOT
    named = bool(spec.hostname or spec.domainname)
    if named and not any(space.type is NamespaceType.UTS for space in spec.linux.namespaces):
        raise InvalidArgument(
            f"{'hostname' if spec.hostname else 'domainname'}: needs a uts namespace in linux.namespaces"
        )
    for field, name in (("hostname", spec.hostname), ("domainname", spec.domainname)):
        if name and spec.linux.sysctl.get(f"kernel.{field}", name) != name:
            raise InvalidArgument(f"{field} {name!r} contradicts linux.sysctl kernel.{field}")
    _check_devices(spec.linux.devices)
    steps = plan(spec.mounts, _users(spec))
    return ContainerPlan(
        container_id=container_id,
        first=plan_process(
            spec,
            spec.process,
            last_capability=last_capability,
            held_capabilities=held_capabilities,
            set_groups=set_groups,
        ),
        users=_users(spec),
        users_path=_users_path(spec),
        new_namespaces=new & ~(CloneFlag.NEWCGROUP | CloneFlag.NEWTIME),
        joined=joined,
        pid_namespace=pid_namespace,
        own_cgroup_namespace=bool(new & CloneFlag.NEWCGROUP),
        own_network=bool(new & CloneFlag.NEWNET),
        root_path=str(bundle / spec.root.path),
        root_change=root_change,
        root_readonly=spec.root.readonly,
        layers=tuple(layers),
        root_propagation=propagation_of(spec.linux.rootfs_propagation or "rslave")[0],
        mounts=steps,
        devices=spec.linux.devices,
        masked_paths=tuple(clean(path) for path in spec.linux.masked_paths),
        readonly_paths=tuple(clean(path) for path in spec.linux.readonly_paths),
        sysctl={
            sysctl.check(key, value, own=namespaces_of(spec), domainname=spec.domainname): value
            for key, value in spec.linux.sysctl.items()
        },
        hostname=spec.hostname,
        domainname=spec.domainname,
        hooks=hooks.plan(spec, bundle, container_id),
        time_offsets=_time_offsets(spec.linux.time_offsets, own=bool(new & CloneFlag.NEWTIME)),
        warnings=warnings_of(steps),
    )


def plan_process(
    spec: Spec,
    process: Process,
    *,
    last_capability: int,
    held_capabilities: int,
    set_groups: Callable[[IdMap | None], bool] = lambda _: True,
) -> ProcessPlan:
    """Return the plan for `process` under the filter of `spec`.

    In a user namespace of the container every capability is there to be given.

    Raises:
        InvalidArgument, NotSupported: as `plan_container`.
    """
    validate.check(process, "process")
    if not process.args or not process.args[0]:
        raise InvalidArgument("process.args: names no program")
    for asked, what in (
        (process.apparmor_profile, "apparmorProfile"),
        (process.selinux_label, "selinuxLabel"),
    ):
        if asked:
            raise NotSupported(f"process.{what}: not supported by this runtime")
    users = _users(spec)
    groups = set_groups(users)
    own_users = bool(namespaces_of(spec) & CloneFlag.NEWUSER)
    if users is not None:
        userns.check_process(process, users)
    userns.check_groups(process, set_groups=groups)
    if own_users:
        held_capabilities = (1 << last_capability + 1) - 1
    profile = spec.linux.seccomp
    return ProcessPlan(
        process=process,
        masks=identity.masks(process.capabilities, last=last_capability, held=held_capabilities),
        environment=parse_environment(process.env),
        rlimits=_rlimits(process.rlimits),
        filter=seccomp.compile_profile(profile) if profile else None,
        filter_flags=seccomp.flags_of(profile) if profile else 0,
        last_capability=last_capability,
        scheduling=scheduling.plan(process.scheduler, process.io_priority, spec.linux.personality),
        set_groups=groups,
        own_users=own_users,
        pipes_owner=None if users is None else userns.host_id(process.user.uid, users.uids),
    )


def check_terminal_size(width: int, height: int) -> None:
    """Refuse what no terminal can be given.

    Raises:
        InvalidArgument: not within 0 to 65535.
    """
    if not (0 <= width <= _TERMINAL_MAX and 0 <= height <= _TERMINAL_MAX):
        raise InvalidArgument(f"invalid terminal size: {width}x{height}")


def _refuse(spec: Spec) -> None:
    if spec.process is None:
        raise InvalidArgument("process: config.json has none")
    if spec.root is None:
        raise InvalidArgument("root: config.json has none")
    if not spec.oci_version.startswith("1."):
        raise NotSupported(
            f"ociVersion: {validate.shown(spec.oci_version)} is not supported: this runtime knows 1.x"
        )
    linux = spec.linux
    for asked, what in (
        (linux.intel_rdt is not None, "intelRdt"),
        (linux.mount_label, "mountLabel"),
    ):
        if asked:
            raise NotSupported(f"linux.{what}: not supported by this runtime")


def shares_mounts(spec: Spec) -> bool:
    """Tell whether the container of `spec` is in a mount namespace that is not its own."""
    spaces = spec.linux.namespaces
    return not any(space.type is NamespaceType.MOUNT and not space.path for space in spaces)


def _check_shared_mounts(spec: Spec, layers: Sequence[Mount]) -> None:
    for asked, what in (
        (namespaces_of(spec) & CloneFlag.NEWUSER, "a user namespace"),
        (spec.linux.rootfs_propagation, "linux.rootfsPropagation"),
        (layers, "a root of layers"),
    ):
        if asked:
            raise InvalidArgument(f"linux.namespaces: {what} needs a new mount namespace")


def namespaces_of(spec: Spec) -> CloneFlag:
    """Return the kinds of namespaces that the container of `spec` does not share with its runtime."""
    found = CloneFlag.NONE
    for space in spec.linux.namespaces:
        found |= NAMESPACES.get(space.type, CloneFlag.NONE)
    return found


def _users(spec: Spec) -> IdMap | None:
    linux = spec.linux
    given = linux.uid_mappings or linux.gid_mappings
    if namespaces_of(spec) & CloneFlag.NEWUSER:
        if _users_path(spec) and not given:
            return None
        return userns.id_map(linux.uid_mappings, linux.gid_mappings, "linux")
    if given:
        raise InvalidArgument("linux.uidMappings and gidMappings need a user namespace")
    return None


def _users_path(spec: Spec) -> str:
    return next((space.path for space in spec.linux.namespaces if space.type is NamespaceType.USER), "")


def _namespaces(spec: Spec) -> tuple[CloneFlag, tuple[tuple[CloneFlag, str], ...], str]:
    new, joined, pid_namespace = CloneFlag.NONE, [], ""
    seen: set[NamespaceType] = set()
    for space in spec.linux.namespaces:
        if space.type in seen:
            raise InvalidArgument(f"namespace {space.type} is listed twice")
        seen.add(space.type)
        flag = NAMESPACES.get(space.type)
        if flag is None:
            raise NotSupported(f"{space.type} namespaces are not supported")
        if not space.path:
            new |= flag
        elif space.type is NamespaceType.PID:
            pid_namespace = space.path
        elif space.type is not NamespaceType.USER:
            joined.append((flag, space.path))
    # A mount namespace comes last: the paths of the others are in this one.
    return new, tuple(sorted(joined, key=lambda each: each[0] is CloneFlag.NEWNS)), pid_namespace


def _time_offsets(offsets: Mapping[str, TimeOffset], *, own: bool) -> bytes | None:
    """Return what is written to /proc/self/timens_offsets, time_namespaces(7)."""
    if not own:
        if offsets:
            raise InvalidArgument("linux.timeOffsets needs a new time namespace")
        return None
    lines = []
    for clock, offset in offsets.items():
        if clock not in _CLOCKS:
            name = validate.shown(clock)
            raise InvalidArgument(f"linux.timeOffsets: {name} is neither monotonic nor boottime")
        lines.append(f"{clock} {offset.secs} {offset.nanosecs}\n")
    return "".join(lines).encode("ascii")


def _check_devices(devices: Sequence[Device]) -> None:
    seen: set[str] = set()
    for index, device in enumerate(devices):
        name = clean(device.path)
        if name == "/" or name in seen:
            path = validate.shown(device.path)
            raise InvalidArgument(f"linux.devices[{index}].path: not the path of one device: {path}")
        seen.add(name)


def _rlimits(limits: Sequence[Rlimit]) -> tuple[tuple[int, int, int], ...]:
    seen: set[str] = set()
    for limit in limits:
        if limit.type in seen:
            raise InvalidArgument(f"process.rlimits: {limit.type} is listed twice")
        seen.add(limit.type)
    return tuple(_rlimit(limit) for limit in limits)


def _rlimit(limit: Rlimit) -> tuple[int, int, int]:
    if limit.soft > limit.hard:
        raise InvalidArgument(f"process.rlimits: the soft limit of {limit.type} is above the hard one")
    return validate.RLIMITS[limit.type], _infinite(limit.soft), _infinite(limit.hard)


def _infinite(value: int) -> int:
    return resource.RLIM_INFINITY if value > _RLIMIT_MAX else value
