"""`config.json` of an OCI bundle, as types.

Sequences are tuples so that every struct is immutable and hashable: a compiled
seccomp filter is cached under its `Seccomp`. Fields that this engine does not
act on are kept where a validator must see them to refuse them by name; all
other unknown fields are ignored, as the specification asks.

Source: OCI runtime-spec 1.2.0, config.md and config-linux.md.
"""

import enum

import msgspec

OCI_VERSION = "1.2.0"


class _Document(msgspec.Struct, rename="camel", omit_defaults=True, frozen=True, kw_only=True):
    """What all structs of this module share."""


class User(_Document, frozen=True, kw_only=True):
    """Ids of the process, as numbers: names are the engine's business."""

    uid: int = 0
    gid: int = 0
    umask: int | None = None
    additional_gids: tuple[int, ...] = ()


class ConsoleSize(_Document, frozen=True, kw_only=True):
    """Initial size of the terminal, in characters."""

    height: int
    width: int


class Capabilities(_Document, frozen=True, kw_only=True):
    """The five sets, by name (`CAP_CHOWN`)."""

    bounding: tuple[str, ...] = ()
    effective: tuple[str, ...] = ()
    inheritable: tuple[str, ...] = ()
    permitted: tuple[str, ...] = ()
    ambient: tuple[str, ...] = ()


class Rlimit(_Document, frozen=True, kw_only=True):
    """One resource limit: `type` is `RLIMIT_NOFILE` and its like."""

    type: str
    hard: int
    soft: int


class Scheduler(_Document, frozen=True, kw_only=True):
    """How the kernel shares processors; times in nanoseconds, for SCHED_DEADLINE."""

    policy: str
    nice: int = 0
    priority: int = 0
    flags: tuple[str, ...] = ()
    runtime: int = 0
    deadline: int = 0
    period: int = 0


class IoPriority(_Document, frozen=True, kw_only=True):
    """Class and level, 0 the most urgent, of input and output."""

    io_class: str = msgspec.field(name="class")
    priority: int = 0


class Process(_Document, frozen=True, kw_only=True):
    """What runs: the container's own process, or one that joins it."""

    cwd: str
    args: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    terminal: bool = False
    console_size: ConsoleSize | None = None
    user: User = User()
    capabilities: Capabilities | None = None
    rlimits: tuple[Rlimit, ...] = ()
    no_new_privileges: bool = False
    oom_score_adj: int | None = None
    apparmor_profile: str = ""
    selinux_label: str = ""
    scheduler: Scheduler | None = None
    io_priority: IoPriority | None = None


class Root(_Document, frozen=True, kw_only=True):
    """The root file system: absolute, or relative to the bundle."""

    path: str
    readonly: bool = False


class IdMapping(_Document, frozen=True, kw_only=True):
    """One range of a user namespace."""

    container_id: int = msgspec.field(name="containerID")
    host_id: int = msgspec.field(name="hostID")
    size: int


class Mount(_Document, frozen=True, kw_only=True):
    """One mount, made in the order of the list."""

    destination: str
    type: str = ""
    source: str = ""
    options: tuple[str, ...] = ()
    uid_mappings: tuple[IdMapping, ...] = ()
    gid_mappings: tuple[IdMapping, ...] = ()


class Hook(_Document, frozen=True, kw_only=True):
    """A program of the host that the runtime is asked to run."""

    path: str
    args: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    timeout: int | None = None


class Hooks(_Document, frozen=True, kw_only=True):
    """Programs by the moment at which they run."""

    prestart: tuple[Hook, ...] = ()
    create_runtime: tuple[Hook, ...] = ()
    create_container: tuple[Hook, ...] = ()
    start_container: tuple[Hook, ...] = ()
    poststart: tuple[Hook, ...] = ()
    poststop: tuple[Hook, ...] = ()


class NamespaceType(enum.StrEnum):
    """Kinds of Linux namespaces, by the specification's names."""

    PID = "pid"
    NETWORK = "network"
    MOUNT = "mount"
    IPC = "ipc"
    UTS = "uts"
    USER = "user"
    CGROUP = "cgroup"
    TIME = "time"


class Namespace(_Document, frozen=True, kw_only=True):
    """A new namespace, or with `path` an existing one to join."""

    type: NamespaceType
    path: str = ""


class Device(_Document, frozen=True, kw_only=True):
    """A device node to make; `type` is c, u, b or p, `file_mode` holds the permission bits."""

    path: str
    type: str
    major: int = 0
    minor: int = 0
    file_mode: int | None = None
    uid: int = 0
    gid: int = 0


class DeviceRule(_Document, frozen=True, kw_only=True, omit_defaults=False):
    """One rule of the device cgroup; None and -1 mean any number, `access` is of r, w and m.

    runc demands `access`.
    """

    allow: bool
    type: str = "a"
    major: int | None = None
    minor: int | None = None
    access: str = "rwm"


class Memory(_Document, frozen=True, kw_only=True):
    """Memory limits in bytes; -1: none. `swap` is memory and swap together."""

    limit: int | None = None
    reservation: int | None = None
    swap: int | None = None
    kernel: int | None = None
    kernel_tcp: int | None = msgspec.field(name="kernelTCP", default=None)
    swappiness: int | None = None
    disable_oom_killer: bool = msgspec.field(name="disableOOMKiller", default=False)
    use_hierarchy: bool | None = None
    check_before_update: bool = False


class Cpu(_Document, frozen=True, kw_only=True):
    """Processor limits: `quota`, `burst`, periods and `realtime_runtime` in microseconds."""

    shares: int | None = None
    quota: int | None = None
    period: int | None = None
    burst: int | None = None
    realtime_runtime: int | None = None
    realtime_period: int | None = None
    cpus: str = ""
    mems: str = ""
    idle: int | None = None


class Pids(_Document, frozen=True, kw_only=True):
    """Number of tasks; 0 or less: no limit."""

    limit: int


class WeightDevice(_Document, frozen=True, kw_only=True):
    """Weight of one block device."""

    major: int
    minor: int
    weight: int | None = None
    leaf_weight: int | None = None


class ThrottleDevice(_Document, frozen=True, kw_only=True):
    """Bytes or operations a second of one block device."""

    major: int
    minor: int
    rate: int = 0


class BlockIO(_Document, frozen=True, kw_only=True):
    """Limits of block devices."""

    weight: int | None = None
    leaf_weight: int | None = None
    weight_device: tuple[WeightDevice, ...] = ()
    throttle_read_bps_device: tuple[ThrottleDevice, ...] = ()
    throttle_write_bps_device: tuple[ThrottleDevice, ...] = ()
    throttle_read_iops_device: tuple[ThrottleDevice, ...] = msgspec.field(
        name="throttleReadIOPSDevice", default=()
    )
    throttle_write_iops_device: tuple[ThrottleDevice, ...] = msgspec.field(
        name="throttleWriteIOPSDevice", default=()
    )


class HugepageLimit(_Document, frozen=True, kw_only=True):
    """Bytes of huge pages of one size, as `2MB`."""

    page_size: str
    limit: int


class InterfacePriority(_Document, frozen=True, kw_only=True):
    """Priority of what leaves by one interface."""

    name: str
    priority: int


class NetworkResources(_Document, frozen=True, kw_only=True):
    """Marks on what the container sends; legacy control groups only."""

    class_id: int | None = msgspec.field(name="classID", default=None)
    priorities: tuple[InterfacePriority, ...] = ()


class Rdma(_Document, frozen=True, kw_only=True):
    """Limits of one RDMA device; None: no limit."""

    hca_handles: int | None = None
    hca_objects: int | None = None


class Resources(_Document, frozen=True, kw_only=True):
    """Limits of the container's control group."""

    devices: tuple[DeviceRule, ...] = ()
    memory: Memory | None = None
    cpu: Cpu | None = None
    pids: Pids | None = None
    block_io: BlockIO | None = msgspec.field(name="blockIO", default=None)
    hugepage_limits: tuple[HugepageLimit, ...] = ()
    network: NetworkResources | None = None
    rdma: dict[str, Rdma] = {}
    unified: dict[str, str] = {}


class SeccompArg(_Document, frozen=True, kw_only=True):
    """One condition on an argument; `value_two` belongs to SCMP_CMP_MASKED_EQ."""

    index: int
    value: int
    value_two: int = 0
    op: str


class SeccompRule(_Document, frozen=True, kw_only=True):
    """What happens to some system calls, when all `args` hold."""

    names: tuple[str, ...]
    action: str
    errno_ret: int | None = None
    args: tuple[SeccompArg, ...] = ()


class Seccomp(_Document, frozen=True, kw_only=True):
    """A system call filter; rules with `args` are asked before those without."""

    default_action: str
    default_errno_ret: int | None = None
    architectures: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    listener_path: str = ""
    listener_metadata: str = ""
    syscalls: tuple[SeccompRule, ...] = ()


class Personality(_Document, frozen=True, kw_only=True):
    """The execution domain; no flags exist."""

    domain: str
    flags: tuple[str, ...] = ()


class TimeOffset(_Document, frozen=True, kw_only=True):
    """How far a clock of a time namespace is from the host's."""

    secs: int = 0
    nanosecs: int = 0


class Linux(_Document, frozen=True, kw_only=True):
    """Everything that only Linux has."""

    namespaces: tuple[Namespace, ...] = ()
    uid_mappings: tuple[IdMapping, ...] = ()
    gid_mappings: tuple[IdMapping, ...] = ()
    devices: tuple[Device, ...] = ()
    cgroups_path: str = ""
    resources: Resources | None = None
    sysctl: dict[str, str] = {}
    seccomp: Seccomp | None = None
    rootfs_propagation: str = ""
    masked_paths: tuple[str, ...] = ()
    readonly_paths: tuple[str, ...] = ()
    mount_label: str = ""
    intel_rdt: dict[str, object] | None = None
    personality: Personality | None = None
    time_offsets: dict[str, TimeOffset] = {}


class Spec(_Document, frozen=True, kw_only=True):
    """A whole config.json."""

    oci_version: str
    process: Process | None = None
    root: Root | None = None
    hostname: str = ""
    domainname: str = ""
    mounts: tuple[Mount, ...] = ()
    hooks: Hooks | None = None
    annotations: dict[str, str] = {}
    linux: Linux = Linux()
