"""Documents of the Docker Engine API that containers are made of, as types.

Names on the wire are docker's; where PascalCase of the field is not docker's
spelling the name is given. Unknown fields are ignored, as docker does. Fields
that docker knows and this engine does not act on are listed here too
(`Any`, default None), so that a caller who sets one is told by name.

Source: Docker Engine API v1.51, definitions ContainerConfig, HostConfig,
NetworkingConfig, Resources, Mount.
"""

from typing import Any

import msgspec


class _Document(msgspec.Struct, rename="pascal", frozen=True, kw_only=True):
    """What all structs of this module share."""


class HealthConfig(_Document, frozen=True, kw_only=True):
    """How to probe whether a container is healthy."""

    test: tuple[str, ...] = ()
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


class ContainerConfig(_Document, frozen=True, kw_only=True):
    """What belongs to the container wherever it runs."""

    hostname: str = ""
    domainname: str = ""
    user: str = ""
    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    exposed_ports: dict[str, Any] | None = None
    tty: bool = False
    open_stdin: bool = False
    stdin_once: bool = False
    env: tuple[str, ...] = ()
    cmd: tuple[str, ...] | str | None = None
    healthcheck: HealthConfig | None = None
    args_escaped: bool = False
    image: str = ""
    volumes: dict[str, Any] | None = None
    working_dir: str = ""
    entrypoint: tuple[str, ...] | str | None = None
    network_disabled: bool = False
    mac_address: str = ""
    on_build: tuple[str, ...] | None = None
    labels: dict[str, str] = {}
    stop_signal: str = ""
    stop_timeout: int | None = None
    shell: tuple[str, ...] | None = None


class LogConfig(_Document, frozen=True, kw_only=True):
    """Where output goes."""

    type: str = ""
    config: dict[str, str] = {}


class RestartPolicy(_Document, frozen=True, kw_only=True):
    """What happens when the container ends."""

    name: str = ""
    maximum_retry_count: int = 0


class PortBinding(_Document, frozen=True, kw_only=True):
    """A wish for a port of the host; an empty port is an ephemeral one, `8000-8010` a range."""

    host_ip: str = ""
    host_port: str = ""


class Ulimit(_Document, frozen=True, kw_only=True):
    """One resource limit, named as in setrlimit(2), lower case."""

    name: str = ""
    hard: int = 0
    soft: int = 0


class DeviceMapping(_Document, frozen=True, kw_only=True):
    """A device of the host."""

    path_on_host: str = ""
    path_in_container: str = ""
    cgroup_permissions: str = ""


class BindOptions(_Document, frozen=True, kw_only=True):
    """How a bind mount is made."""

    propagation: str = ""
    non_recursive: bool = False
    create_mountpoint: bool = False
    read_only_non_recursive: bool = False
    read_only_force_recursive: bool = False


class VolumeDriverConfig(_Document, frozen=True, kw_only=True):
    """Driver of a volume."""

    name: str = ""
    options: dict[str, str] = {}


class VolumeOptions(_Document, frozen=True, kw_only=True):
    """How a volume is made and mounted."""

    no_copy: bool = False
    labels: dict[str, str] = {}
    driver_config: VolumeDriverConfig | None = None
    subpath: str = ""


class TmpfsOptions(_Document, frozen=True, kw_only=True):
    """How a tmpfs is made."""

    size_bytes: int = 0
    mode: int = 0
    options: tuple[tuple[str, ...], ...] = ()


class Mount(_Document, frozen=True, kw_only=True):
    """One mount, spelled out (`--mount`)."""

    target: str = ""
    source: str = ""
    type: str = ""
    read_only: bool = False
    consistency: str = ""
    bind_options: BindOptions | None = None
    volume_options: VolumeOptions | None = None
    image_options: dict[str, Any] | None = None
    tmpfs_options: TmpfsOptions | None = None


class HostConfig(_Document, frozen=True, kw_only=True):
    """What depends on the host that the container runs on."""

    binds: tuple[str, ...] | None = None
    container_id_file: str = msgspec.field(name="ContainerIDFile", default="")
    log_config: LogConfig = LogConfig()
    network_mode: str = ""
    port_bindings: dict[str, tuple[PortBinding, ...] | None] = {}
    restart_policy: RestartPolicy = RestartPolicy()
    auto_remove: bool = False
    volume_driver: str = ""
    volumes_from: tuple[str, ...] | None = None
    mounts: tuple[Mount, ...] = ()
    console_size: tuple[int, int] = (0, 0)  # height, width
    annotations: dict[str, str] = {}
    cap_add: tuple[str, ...] | None = None
    cap_drop: tuple[str, ...] | None = None
    cgroupns_mode: str = ""
    dns: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    extra_hosts: tuple[str, ...] | None = None
    group_add: tuple[str, ...] | None = None
    ipc_mode: str = ""
    cgroup: str = ""
    links: tuple[str, ...] | None = None
    oom_score_adj: int = 0
    pid_mode: str = ""
    privileged: bool = False
    publish_all_ports: bool = False
    readonly_rootfs: bool = False
    security_opt: tuple[str, ...] | None = None
    storage_opt: dict[str, str] | None = None
    tmpfs: dict[str, str] | None = None
    uts_mode: str = msgspec.field(name="UTSMode", default="")
    userns_mode: str = ""
    shm_size: int = 0
    sysctls: dict[str, str] | None = None
    runtime: str = ""
    isolation: str = ""
    masked_paths: tuple[str, ...] | None = None
    readonly_paths: tuple[str, ...] | None = None
    init: bool | None = None

    cpu_shares: int = 0
    memory: int = 0
    nano_cpus: int = 0
    cgroup_parent: str = ""
    blkio_weight: int = 0
    blkio_weight_device: Any = None
    blkio_device_read_bps: Any = None
    blkio_device_write_bps: Any = None
    blkio_device_read_iops: Any = msgspec.field(name="BlkioDeviceReadIOps", default=None)
    blkio_device_write_iops: Any = msgspec.field(name="BlkioDeviceWriteIOps", default=None)
    cpu_period: int = 0
    cpu_quota: int = 0
    cpu_realtime_period: int = 0
    cpu_realtime_runtime: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    devices: tuple[DeviceMapping, ...] | None = None
    device_cgroup_rules: tuple[str, ...] | None = None
    device_requests: Any = None
    kernel_memory: int = 0
    kernel_memory_tcp: int = msgspec.field(name="KernelMemoryTCP", default=0)
    memory_reservation: int = 0
    memory_swap: int = 0
    memory_swappiness: int | None = None
    oom_kill_disable: bool | None = None
    pids_limit: int | None = None
    ulimits: tuple[Ulimit, ...] | None = None
    cpu_count: int = 0
    cpu_percent: int = 0
    io_maximum_iops: int = msgspec.field(name="IOMaximumIOps", default=0)
    io_maximum_bandwidth: int = msgspec.field(name="IOMaximumBandwidth", default=0)


class EndpointIpam(_Document, frozen=True, kw_only=True):
    """Addresses asked for."""

    ipv4_address: str = msgspec.field(name="IPv4Address", default="")
    ipv6_address: str = msgspec.field(name="IPv6Address", default="")
    link_local_ips: tuple[str, ...] = msgspec.field(name="LinkLocalIPs", default=())


class EndpointSettings(_Document, frozen=True, kw_only=True):
    """How the container is joined to one network."""

    ipam_config: EndpointIpam | None = msgspec.field(name="IPAMConfig", default=None)
    links: tuple[str, ...] | None = None
    aliases: tuple[str, ...] | None = None
    mac_address: str = ""
    driver_opts: dict[str, str] | None = None
    gw_priority: int = 0


class NetworkingConfig(_Document, frozen=True, kw_only=True):
    """The networks that the container joins."""

    endpoints_config: dict[str, EndpointSettings | None] = {}


class CreateRequest(ContainerConfig, frozen=True, kw_only=True):
    """Body of ContainerCreate: the config with the host's part beside it."""

    host_config: HostConfig = HostConfig()
    networking_config: NetworkingConfig = NetworkingConfig()


class ExecRequest(_Document, frozen=True, kw_only=True):
    """Body of ContainerExec."""

    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    console_size: tuple[int, int] | None = None  # height, width
    detach_keys: str = ""
    tty: bool = False
    env: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    privileged: bool = False
    user: str = ""
    working_dir: str = ""


class ExecStartRequest(_Document, frozen=True, kw_only=True):
    """Body of ExecStart."""

    detach: bool = False
    tty: bool = False
    console_size: tuple[int, int] | None = None


class VolumeCreateRequest(_Document, frozen=True, kw_only=True):
    """Body of VolumeCreate."""

    name: str = ""
    driver: str = ""
    driver_opts: dict[str, str] = {}
    labels: dict[str, str] = {}
    cluster_volume_spec: Any = None


class AuthRequest(_Document, frozen=True, kw_only=True):
    """Body of SystemAuth."""

    username: str = msgspec.field(name="username", default="")
    password: str = msgspec.field(name="password", default="")
    serveraddress: str = msgspec.field(name="serveraddress", default="")
