"""Docker's configuration -> OCI config.json; pure: the same input gives the same document.

Whatever a request asks for is either in the result or refused by name
(`refuse`); nothing is dropped in silence. What only the moment of the start
knows (network namespace, user ids, host paths of volumes) comes in a `Launch`.

Source: OCI runtime-spec 1.2.0; docker's defaults.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.base.errors import InvalidArgument, NotSupported
from engine.containers import limits, security
from engine.containers.model import Definition
from engine.containers.syscalls import default_profile
from engine.containers.users import Identity
from engine.runtime import defaults
from engine.spec.docker import DeviceMapping, HostConfig
from engine.spec.runtime import (
    OCI_VERSION,
    ConsoleSize,
    Device,
    DeviceRule,
    Linux,
    Mount,
    Namespace,
    NamespaceType,
    Process,
    Root,
    Spec,
    User,
)

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DEFAULT_SHM_BYTES = 64 * 1024 * 1024
CGROUP_PARENT = "/pyengine"
_INIT = "/sbin/docker-init"  # as docker has it
_SYSCTL = re.compile(r"[a-z0-9_]+(?:[./][a-z0-9_-]+)+\Z", re.ASCII)
_SYSCTLS = frozenset(
    (
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
    )
)
_REPLACEABLE = frozenset(("/dev/shm", "/dev/mqueue"))  # noqa: S108 (defaults that a mount of the user's replaces)

# Fields of HostConfig that this engine does not act on, with the values that ask for nothing.
_REFUSED: dict[str, tuple[object, ...]] = {
    "blkio_weight": (0,),
    "blkio_weight_device": (None, []),
    "blkio_device_read_bps": (None, []),
    "blkio_device_write_bps": (None, []),
    "blkio_device_read_iops": (None, []),
    "blkio_device_write_iops": (None, []),
    "cgroup": ("",),
    "cpu_count": (0,),
    "cpu_percent": (0,),
    "cpu_realtime_period": (0,),
    "cpu_realtime_runtime": (0,),
    "device_cgroup_rules": (None, ()),
    "device_requests": (None, []),
    "io_maximum_bandwidth": (0,),
    "io_maximum_iops": (0,),
    "isolation": ("", "default"),
    "kernel_memory": (0,),
    "kernel_memory_tcp": (0,),
    "links": (None, ()),
    "storage_opt": (None, {}),
    "userns_mode": ("", "host"),
}


@dataclass(frozen=True, slots=True)
class HostDevice:
    """A device of the host, already looked at."""

    path: str  # in the container
    type: str  # "c" or "b"
    major: int
    minor: int
    mode: int
    uid: int
    gid: int
    access: str = "rwm"


@dataclass(frozen=True, slots=True)
class Launch:
    """What only the moment of the start knows."""

    rootfs: Path
    identity: Identity
    netns_path: Path | None  # None: the host's
    etc: Mapping[str, Path]  # file in the container -> file on the host
    mounts: Sequence[Mount] = ()  # the user's, with host paths, in order
    devices: Sequence[HostDevice] = ()
    pid_namespace: str = ""  # path of one to join
    ipc_namespace: str = ""
    shared_memory: str = ""  # what /dev/shm shows: that of the container whose IPC namespace is joined
    machine: str = "x86_64"
    mode: security.Mode = security.Mode.STRICT
    tty_size: tuple[int, int] | None = None  # width, height
    init: Path | None = None  # static program that is to be process 1, on the host


def refuse(definition_host: HostConfig) -> None:
    """Refuse, by name, what a request asks for and this engine does not do.

    Raises:
        NotSupported: the first such field.
        InvalidArgument: a value that can never be right.
    """
    host = definition_host
    for field, neutral in _REFUSED.items():
        value = getattr(host, field)
        if not any(value == allowed and type(value) is type(allowed) for allowed in neutral):
            name = _wire_name(field)
            raise NotSupported(f"HostConfig.{name} is not supported by this engine", hint="leave it out")
    if host.cgroupns_mode not in {"", "private", "host"}:
        raise InvalidArgument(f"invalid cgroup namespace mode: {host.cgroupns_mode}")
    if host.uts_mode not in {"", "host"}:
        raise InvalidArgument(f"invalid UTS mode: {host.uts_mode}")
    if host.ipc_mode not in {"", "private", "shareable", "host", "none"} and not _joins(host.ipc_mode):
        raise InvalidArgument(f"invalid IPC mode: {host.ipc_mode}")
    if host.pid_mode not in {"", "host"} and not _joins(host.pid_mode):
        raise InvalidArgument(f"invalid PID mode: {host.pid_mode}")
    security.SecurityOptions(host.security_opt or ())
    security.capabilities(security.Mode.STRICT, host)
    limits.check(host)
    limits.rlimits(host.ulimits or ())
    _sysctls(host, own_network=_has_own_network(host))


def _joins(mode: str) -> bool:
    return mode.startswith("container:") and len(mode) > len("container:")


def _wire_name(field: str) -> str:
    return next(
        (
            encoded
            for name, encoded in zip(
                HostConfig.__struct_fields__, HostConfig.__struct_encode_fields__, strict=True
            )
            if name == field
        ),
        field,
    )


def merge_env(image: Iterable[str], own: Iterable[str]) -> tuple[str, ...]:
    """Return the environment of the image overridden by the container's; `NAME` alone removes it.

    Raises:
        InvalidArgument: an entry without a name, or with a NUL.
    """
    result: dict[str, str] = {}
    for entry in (*image, *own):
        name, equals, _ = entry.partition("=")
        if not name or "\0" in entry:
            raise InvalidArgument(f"invalid environment variable: {entry}")
        if equals:
            result[name] = entry
        else:
            result.pop(name, None)
    return tuple(result.values())


def environment(
    definition: Definition, home: str, *, extra: Iterable[str] = (), tty: bool
) -> tuple[str, ...]:
    """Return the environment of a process: docker's defaults, the container's, `extra`, HOME."""
    defaults = [f"PATH={DEFAULT_PATH}", f"HOSTNAME={definition.hostname}"]
    if tty:
        defaults.append("TERM=xterm")
    merged = merge_env(defaults, (*definition.config.env, *extra))
    if not any(entry.startswith("HOME=") for entry in merged):
        merged = (*merged, f"HOME={home}")
    return merged


def process(
    definition: Definition,
    identity: Identity,
    mode: security.Mode,
    *,
    args: Sequence[str],
    env: tuple[str, ...],
    cwd: str,
    terminal: bool,
    privileged: bool = False,
    tty_size: tuple[int, int] | None = None,
) -> Process:
    """Return a process of the container: its own, or an exec's. Both get their rights here."""
    host = definition.host
    held = security.capabilities(mode, HostConfig(privileged=True) if privileged else host)
    options = security.SecurityOptions(host.security_opt or ())
    return Process(
        cwd=cwd or "/",
        args=tuple(args),
        env=env,
        terminal=terminal,
        console_size=ConsoleSize(width=tty_size[0], height=tty_size[1]) if tty_size else None,
        user=User(uid=identity.uid, gid=identity.gid, additional_gids=identity.additional_gids),
        capabilities=security.sets(held, identity.uid),
        rlimits=limits.rlimits(host.ulimits or ()),
        no_new_privileges=options.no_new_privileges,
        oom_score_adj=host.oom_score_adj,  # also 0: the shim has the engine's, which protects it
    )


def plan(definition: Definition, launch: Launch) -> Spec:
    """Return the config.json of a container."""
    config, host = definition.config, definition.host
    own = process(
        definition,
        launch.identity,
        launch.mode,
        args=definition.argv if launch.init is None else (_INIT, "--", *definition.argv),
        env=environment(definition, launch.identity.home, tty=config.tty),
        cwd=config.working_dir,
        terminal=config.tty,
        tty_size=launch.tty_size,
    )
    return Spec(
        oci_version=OCI_VERSION,
        process=own,
        root=Root(path=str(launch.rootfs), readonly=host.readonly_rootfs),
        hostname="" if host.uts_mode == "host" else definition.hostname,
        domainname="" if host.uts_mode == "host" else config.domainname,
        mounts=_mounts(host, launch),
        annotations=dict(host.annotations),
        linux=_linux(definition, launch),
    )


def _linux(definition: Definition, launch: Launch) -> Linux:
    host = definition.host
    held = security.capabilities(launch.mode, host)
    confined = security.SecurityOptions(host.security_opt or ()).seccomp and not host.privileged
    masked = defaults.MASKED_PATHS if host.masked_paths is None else host.masked_paths
    readonly = defaults.READONLY_PATHS if host.readonly_paths is None else host.readonly_paths
    return Linux(
        namespaces=_namespaces(host, launch),
        devices=tuple(
            Device(
                path=device.path,
                type=device.type,
                major=device.major,
                minor=device.minor,
                file_mode=device.mode,
                uid=device.uid,
                gid=device.gid,
            )
            for device in launch.devices
        ),
        cgroups_path=cgroup_path(definition),
        resources=limits.resources(host, _device_rules(host, launch), launch.mode),
        sysctl=_sysctls(host, own_network=_has_own_network(host)),
        seccomp=default_profile(held, launch.machine) if confined else None,
        masked_paths=() if host.privileged else masked,
        readonly_paths=() if host.privileged else readonly,
    )


def cgroup_path(definition: Definition) -> str:
    """Return the container's control group, below the root of every hierarchy."""
    parent = definition.host.cgroup_parent.strip("/")
    return f"{'/' + parent if parent else CGROUP_PARENT}/{definition.id}"


def _namespaces(host: HostConfig, launch: Launch) -> tuple[Namespace, ...]:
    result = [Namespace(type=NamespaceType.MOUNT)]
    if launch.netns_path is not None:
        result.append(Namespace(type=NamespaceType.NETWORK, path=str(launch.netns_path)))
    if host.pid_mode != "host":
        result.append(Namespace(type=NamespaceType.PID, path=launch.pid_namespace))
    if host.ipc_mode != "host":
        result.append(Namespace(type=NamespaceType.IPC, path=launch.ipc_namespace))
    if host.uts_mode != "host":
        result.append(Namespace(type=NamespaceType.UTS))
    if host.cgroupns_mode != "host" and not (host.privileged and not host.cgroupns_mode):
        result.append(Namespace(type=NamespaceType.CGROUP))
    return tuple(result)


def _has_own_network(host: HostConfig) -> bool:
    return host.network_mode != "host" and not host.network_mode.startswith("container:")


def _mounts(host: HostConfig, launch: Launch) -> tuple[Mount, ...]:
    """Return all mounts, outer ones first: a volume on /etc must not hide hosts and resolv.conf."""
    asked = [*_etc_mounts(launch, host), *launch.mounts]
    if launch.init is not None:
        asked.append(user_mount(_INIT, "bind", str(launch.init), ("bind", "rprivate", "ro")))
    own = sorted(asked, key=lambda mount: mount.destination.count("/"))
    replaced = {mount.destination for mount in own} & _REPLACEABLE
    if host.ipc_mode == "none":
        replaced.add("/dev/shm")  # noqa: S108 (the container's)
    default = _default_mounts(host, launch.shared_memory)
    return (*(mount for mount in default if mount.destination not in replaced), *own)


def _default_mounts(host: HostConfig, shared_memory: str) -> list[Mount]:
    flags = defaults.SAFE
    readonly = () if host.privileged else ("ro",)
    mounts = [
        Mount(destination="/proc", type="proc", source="proc", options=flags),
        defaults.DEV_MOUNT,
        defaults.PTS_MOUNT,
        Mount(destination="/sys", type="sysfs", source="sysfs", options=(*flags, *readonly)),
        Mount(destination="/sys/fs/cgroup", type="cgroup", source="cgroup", options=(*flags, *readonly)),
        Mount(destination="/dev/mqueue", type="mqueue", source="mqueue", options=flags),
    ]
    if host.ipc_mode == "host" or shared_memory:
        source = shared_memory or "/dev/shm"  # noqa: S108 (the host's)
        shm = Mount(destination="/dev/shm", type="bind", source=source, options=("rbind", "rprivate"))  # noqa: S108 (the container's)
    else:
        size = host.shm_size or DEFAULT_SHM_BYTES
        shm = Mount(
            destination="/dev/shm",  # noqa: S108 (the container's)
            type="tmpfs",
            source="shm",
            options=(*flags, "mode=1777", f"size={size}"),
        )
    return [*mounts, shm]


def _etc_mounts(launch: Launch, host: HostConfig) -> list[Mount]:
    options = ("rbind", "rprivate", *(("ro",) if host.readonly_rootfs else ()))
    taken = {mount.destination for mount in launch.mounts}
    return [
        Mount(destination=destination, type="bind", source=str(source), options=options)
        for destination, source in launch.etc.items()
        if destination not in taken
    ]


def _device_rules(host: HostConfig, launch: Launch) -> tuple[DeviceRule, ...]:
    if host.privileged:
        return (DeviceRule(allow=True, access="rwm"),)
    extra = tuple(
        DeviceRule(allow=True, type=device.type, major=device.major, minor=device.minor, access=device.access)
        for device in launch.devices
    )
    return (*security.device_rules(launch.mode), *extra)


def _sysctls(host: HostConfig, *, own_network: bool) -> dict[str, str]:
    """Return the sysctls of a container's own namespaces; none of the host's can be named.

    Raises:
        InvalidArgument: a key that is not namespaced, or a value of more than one line.
    """
    result: dict[str, str] = {}
    if own_network and host.network_mode != "none":
        result = {"net.ipv4.ip_unprivileged_port_start": "0", "net.ipv4.ping_group_range": "0 2147483647"}
    for key, value in (host.sysctls or {}).items():
        namespaced = key in _SYSCTLS or key.startswith(("net.", "fs.mqueue."))
        if not namespaced or not _SYSCTL.match(key) or "/" in key:
            raise InvalidArgument(
                f"sysctl '{key}' is not allowed: it is not of the container's own namespaces"
            )
        if not value.isascii() or not value.isprintable() or "+" in value:
            raise InvalidArgument(f"sysctl '{key}': invalid value")
        if key.startswith("net.") and not own_network:
            raise InvalidArgument(f"sysctl '{key}' not allowed in host network namespace")
        result[key] = value
    return result


def user_mount(destination: str, kind: str, source: str, options: Sequence[str]) -> Mount:
    """Return one mount of the user's."""
    return Mount(destination=destination, type=kind, source=source, options=tuple(options))


def device_request(mapping: DeviceMapping) -> tuple[str, str, str]:
    """Return host path, container path and access of one `Devices` entry.

    Raises:
        InvalidArgument: docker's words.
    """
    access = mapping.cgroup_permissions or "rwm"
    if not mapping.path_on_host.startswith("/dev/") or set(access) - set("rwm"):
        raise InvalidArgument(f"invalid device specification: {mapping.path_on_host}:{access}")
    target = mapping.path_in_container or mapping.path_on_host
    if not target.startswith("/"):
        raise InvalidArgument(f"invalid device path: {target}")
    return mapping.path_on_host, target, access
