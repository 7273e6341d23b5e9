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
from engine.containers import security
from engine.containers.model import Definition
from engine.containers.syscalls import default_profile
from engine.containers.users import Identity
from engine.runtime import defaults
from engine.spec.docker import DeviceMapping, HostConfig, Ulimit
from engine.spec.runtime import (
    OCI_VERSION,
    ConsoleSize,
    Cpu,
    Device,
    DeviceRule,
    Linux,
    Memory,
    Mount,
    Namespace,
    NamespaceType,
    Pids,
    Process,
    Resources,
    Rlimit,
    Root,
    Spec,
    User,
)

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DEFAULT_SHM_BYTES = 64 * 1024 * 1024
CGROUP_PARENT = "/pyengine"
_INIT = "/sbin/docker-init"  # as docker has it
_NANO_PERIOD = 100_000
_NANO = 1_000_000_000
_PERIOD_MIN_US, _PERIOD_MAX_US, _QUOTA_MIN_US = 1000, 1_000_000, 1000
_PROCESSORS_MAX = 8192  # what a kernel can be built for
_RANGE = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?\Z", re.ASCII)
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
_RLIMITS = frozenset(
    (
        "as",
        "core",
        "cpu",
        "data",
        "fsize",
        "locks",
        "memlock",
        "msgqueue",
        "nice",
        "nofile",
        "nproc",
        "rss",
        "rtprio",
        "rttime",
        "sigpending",
        "stack",
    )
)
_REPLACEABLE = frozenset(("/dev/shm", "/dev/mqueue"))  # noqa: S108 (defaults that a mount of the user's replaces)
_MEMORY_MIN = 6 * 1024 * 1024
_CGROUP_PARENT = re.compile(r"/?[A-Za-z0-9_.-]+(?:/[A-Za-z0-9_.-]+)*\Z", re.ASCII)

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
    _check_limits(host)
    _rlimits(host.ulimits or ())
    _sysctls(host, own_network=_has_own_network(host))


def _joins(mode: str) -> bool:
    return mode.startswith("container:") and len(mode) > len("container:")


def _check_memory(host: HostConfig) -> None:
    if 0 < host.memory < _MEMORY_MIN:
        raise InvalidArgument("Minimum memory limit allowed is 6MB")
    if host.memory_swap > 0 and not host.memory:
        raise InvalidArgument("You should always set the Memory limit when using Memoryswap limit, see usage")
    if 0 < host.memory_swap < host.memory:
        raise InvalidArgument("Minimum memoryswap limit should be larger than memory limit, see usage")
    if 0 < host.memory_reservation < _MEMORY_MIN:
        raise InvalidArgument("Minimum memory reservation allowed is 6MB")
    if 0 < host.memory < host.memory_reservation:
        raise InvalidArgument("Minimum memory limit can not be less than memory reservation limit, see usage")
    if host.memory_swappiness is not None and not -1 <= host.memory_swappiness <= 100:  # noqa: PLR2004 (percent)
        raise InvalidArgument(
            f"Invalid value: {host.memory_swappiness}, valid memory swappiness range is 0-100"
        )


def _check_limits(host: HostConfig) -> None:
    _check_memory(host)
    _check_cpu(host)
    if min(host.memory, host.nano_cpus, host.shm_size, host.cpu_shares) < 0:
        raise InvalidArgument("negative limit")
    if host.cgroup_parent and not _CGROUP_PARENT.match(host.cgroup_parent):
        raise InvalidArgument(f"invalid CgroupParent: {host.cgroup_parent}")
    if ".." in host.cgroup_parent.split("/"):
        raise InvalidArgument(f"invalid CgroupParent: {host.cgroup_parent}")
    if not -1000 <= host.oom_score_adj <= 1000:  # noqa: PLR2004 (the kernel's range)
        raise InvalidArgument(f"Invalid value {host.oom_score_adj}, range for oom score adj is [-1000, 1000]")


def _check_cpu(host: HostConfig) -> None:
    if host.nano_cpus and (host.cpu_quota or host.cpu_period):
        raise InvalidArgument("Conflicting options: Nano CPUs and CPU Period or Quota cannot both be set")
    if host.cpu_period and not _PERIOD_MIN_US <= host.cpu_period <= _PERIOD_MAX_US:
        raise InvalidArgument(
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)"
        )
    if 0 < host.cpu_quota < _QUOTA_MIN_US:
        raise InvalidArgument("CPU cfs quota can not be less than 1ms (i.e. 1000)")


def check_processors(host: HostConfig, online: frozenset[int]) -> None:
    """Refuse more processors, or others, than there are; `online` are the machine's.

    Raises:
        InvalidArgument: docker's words.
    """
    count = len(online)
    if not 0 <= host.nano_cpus <= count * _NANO:
        raise InvalidArgument(
            f"range of CPUs is from 0.01 to {count}.00, as there are only {count} CPUs available"
        )
    if number_list(host.cpuset_cpus, "cpuset cpus") - online:
        available = ",".join(map(str, sorted(online)))
        raise InvalidArgument(
            f"Requested CPUs are not available - requested {host.cpuset_cpus}, available: {available}"
        )


def number_list(text: str, noun: str) -> frozenset[int]:
    """Return the numbers of `0-2,7`, the kernel's and docker's way to write a set of processors.

    Raises:
        InvalidArgument: it is written in another way; docker's words.
    """
    found: set[int] = set()
    for part in text.strip().split(",") if text.strip() else ():
        match = _RANGE.match(part)
        first = int(match[1]) if match else 0
        last = int(match[2] or match[1]) if match else -1
        if not first <= last < _PROCESSORS_MAX:
            raise InvalidArgument(f"Invalid value {text} for {noun}")
        found.update(range(first, last + 1))
    return frozenset(found)


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
        rlimits=_rlimits(host.ulimits or ()),
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
        resources=_resources(host, launch),
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


def _resources(host: HostConfig, launch: Launch) -> Resources:
    return Resources(
        devices=_device_rules(host, launch),
        memory=_memory(host),
        cpu=_cpu(host),
        pids=_pids(host, launch.mode),
    )


def _device_rules(host: HostConfig, launch: Launch) -> tuple[DeviceRule, ...]:
    if host.privileged:
        return (DeviceRule(allow=True, access="rwm"),)
    extra = tuple(
        DeviceRule(allow=True, type=device.type, major=device.major, minor=device.minor, access=device.access)
        for device in launch.devices
    )
    return (*security.device_rules(launch.mode), *extra)


def _memory(host: HostConfig) -> Memory | None:
    swappiness = host.memory_swappiness
    asked = host.memory or host.memory_reservation or host.memory_swap or host.oom_kill_disable
    if not asked and swappiness in {None, -1}:
        return None
    swap = host.memory_swap or (2 * host.memory if host.memory else 0)
    return Memory(
        limit=host.memory or None,
        reservation=host.memory_reservation or None,
        swap=swap or None,
        swappiness=None if swappiness in {None, -1} else swappiness,
        disable_oom_killer=bool(host.oom_kill_disable),
    )


def _cpu(host: HostConfig) -> Cpu | None:
    quota, period = host.cpu_quota, host.cpu_period
    if host.nano_cpus:
        period = _NANO_PERIOD
        quota = host.nano_cpus * period // _NANO
    if not (quota or period or host.cpu_shares or host.cpuset_cpus or host.cpuset_mems):
        return None
    return Cpu(
        shares=host.cpu_shares or None,
        quota=quota or None,
        period=period or None,
        cpus=host.cpuset_cpus,
        mems=host.cpuset_mems,
    )


def _pids(host: HostConfig, mode: security.Mode) -> Pids | None:
    limit = host.pids_limit or 0
    if limit > 0:
        return Pids(limit=limit)
    if limit == 0 and mode is security.Mode.STRICT:
        return Pids(limit=security.STRICT_PIDS_LIMIT)
    return None


def _rlimits(ulimits: Sequence[Ulimit]) -> tuple[Rlimit, ...]:
    result = []
    for limit in ulimits:
        if limit.name not in _RLIMITS:
            raise InvalidArgument(f"invalid ulimit type: {limit.name}")
        if limit.soft > limit.hard >= 0:
            raise InvalidArgument(
                f"ulimit soft limit must be less than or equal to hard limit: {limit.soft} > {limit.hard}"
            )
        unlimited = 2**64 - 1
        result.append(
            Rlimit(
                type=f"RLIMIT_{limit.name.upper()}",
                hard=limit.hard if limit.hard >= 0 else unlimited,
                soft=limit.soft if limit.soft >= 0 else unlimited,
            )
        )
    return tuple(result)


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
