"""From a request to a `Definition`: the image's defaults merged in, mounts resolved, nonsense refused."""

import os
import signal as signals
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from pathlib import Path

import msgspec

from engine.base import ids
from engine.base.errors import InvalidArgument, NotFound, NotSupported
from engine.containers import limits, logoptions, mounts, restart, spec
from engine.containers.model import Definition, MountPoint, now_ns, words
from engine.containers.runtimes import BUILT_IN, INSTALLED, Runtimes
from engine.images.documents import parse_platform
from engine.images.model import Image
from engine.images.platforms import fits, host_platform
from engine.networks.model import CONTAINER_PREFIX, DEFAULT_MODES, PortMapping, check_mac
from engine.spec.distribution import Platform
from engine.spec.docker import ContainerConfig, CreateRequest, EndpointSettings, HostConfig

_CONFIG_FIELDS = ContainerConfig.__struct_fields__
_NETWORK_MODES = frozenset(("", "default", "bridge", "host", "none"))
_PORT_MAX = 65535
_HOSTNAME_MAX = 64
_INITS = tuple(map(Path, ("/usr/bin/docker-init", "/usr/libexec/docker/docker-init", "/usr/bin/tini-static")))
_MOUNTINFO = Path("/proc/self/mountinfo")
_ONLINE = Path("/sys/devices/system/cpu/online")

FindMounts = Callable[[str], tuple[MountPoint, ...]]  # of the container with this name


def define(
    request: CreateRequest,
    name: str,
    image: Image,
    find_mounts: FindMounts,
    runtimes: Runtimes = INSTALLED,
) -> Definition:
    """Return what the container will be; nothing is made yet.

    Raises:
        InvalidArgument, NotSupported: as they say, in docker's words where it has some.
    """
    host = request.host_config
    config = msgspec.structs.replace(merge(request, image), mac_address=_mac_address(request))
    spec.refuse(host)
    if runtimes.find(host.runtime).path and host.ipc_mode.startswith(CONTAINER_PREFIX):
        raise NotSupported(
            f"IPC mode {host.ipc_mode} is not supported with runtime {host.runtime or runtimes.default}",
            hint=f"only {BUILT_IN} shares /dev/shm with another container",
        )
    restart.check(host)
    _check_config(request)
    _check_network(request)
    logoptions.settings(host.log_config)
    port_mappings(config, host)
    definition = Definition(
        id=ids.new_id(),
        name=name,
        created_ns=now_ns(),
        image_id=image.id,
        image_name=request.image,
        chain_ids=image.chain_ids,
        config=config,
        host=_with_defaults(host, runtimes),
        networking=request.networking_config,
    )
    if not definition.argv:
        raise InvalidArgument("no command specified")
    points = {point.destination: point for point in mounts.plan(config, host)}
    for other, rw in mounts.volumes_from(host.volumes_from or ()):
        for point in _mounts_of(other, find_mounts):
            points.setdefault(point.destination, replace(point, rw=point.rw and rw, anonymous=False))
    return replace(definition, mounts=tuple(points.values()))


def _mounts_of(name: str, find_mounts: FindMounts) -> tuple[MountPoint, ...]:
    try:
        return find_mounts(name)
    except NotFound as err:  # docker's client takes a 404 of create for a missing image, and pulls
        raise InvalidArgument(f"No such container: {name}") from err


def check_platform(image: Image, reference: str, platform: str) -> None:
    """Check that `image` is one for `platform`, as ``os/arch[/variant]``; empty: any will do.

    Raises:
        InvalidArgument: it is not written so.
        NotFound: the image here is for another one; docker's client then pulls.
    """
    if not platform or not image.config.architecture:
        return
    own = Platform(os=image.config.os, architecture=image.config.architecture, variant=image.config.variant)
    if not fits(own, parse_platform(platform)):
        raise NotFound(f"image for {platform}", reference)


def warnings(request: CreateRequest, image: Image, platform: str) -> tuple[str, ...]:
    """Return what a user should know of a container that is made all the same."""
    found = []
    check = image.config.defaults.healthcheck
    if check is not None and (check.test or ("NONE",)) != ("NONE",) and request.healthcheck is None:
        found.append("the image's health check is not run by this engine")
    own, here = image.config, host_platform()
    if not platform and own.architecture and own.architecture != here.architecture:
        found.append(
            f"The requested image's platform ({own.os}/{own.architecture}) does not match the detected host "
            f"platform ({here}) and no specific platform was requested"
        )
    return tuple(found)


def merge(request: CreateRequest, image: Image) -> ContainerConfig:
    """Return the container's own configuration over the image's, as docker does."""
    defaults = image.config.defaults
    own = ContainerConfig(**{field: getattr(request, field) for field in _CONFIG_FIELDS})
    entrypoint, cmd = own.entrypoint, own.cmd
    if entrypoint is None:
        entrypoint = defaults.entrypoint
        if not words(cmd):
            cmd = defaults.cmd
    elif words(entrypoint) == ("",):  # `--entrypoint ""` takes the image's away
        entrypoint = None
    volumes = {**(defaults.volumes or {}), **(own.volumes or {})}
    exposed = {**(defaults.exposed_ports or {}), **(own.exposed_ports or {})}
    return msgspec.structs.replace(
        own,
        entrypoint=words(entrypoint) if entrypoint is not None else None,
        cmd=words(cmd) if cmd is not None else None,
        env=spec.merge_env(defaults.env or (), own.env),
        labels={**(defaults.labels or {}), **own.labels},
        user=own.user or defaults.user or "",
        working_dir=own.working_dir or defaults.working_dir or "",
        stop_signal=own.stop_signal or defaults.stop_signal or "",
        volumes={path: {} for path in volumes} or None,
        exposed_ports={_port_key(port): {} for port in exposed} or None,
    )


def _with_defaults(host: HostConfig, runtimes: Runtimes) -> HostConfig:
    """Return `host` with what inspect shows filled in."""
    return msgspec.structs.replace(
        host,
        network_mode="bridge" if host.network_mode in {"", "default"} else host.network_mode,
        ipc_mode=host.ipc_mode or "private",
        cgroupns_mode=host.cgroupns_mode or ("host" if host.privileged else "private"),
        shm_size=host.shm_size or spec.DEFAULT_SHM_BYTES,
        runtime=host.runtime or runtimes.default,
        log_config=msgspec.structs.replace(
            host.log_config, type=host.log_config.type or logoptions.DEFAULT_DRIVER
        ),
        restart_policy=msgspec.structs.replace(host.restart_policy, name=host.restart_policy.name or "no"),
    )


def _check_config(request: CreateRequest) -> None:
    if request.healthcheck is not None and request.healthcheck.test not in {(), ("NONE",)}:
        raise NotSupported("Healthcheck is not supported by this engine", hint="leave it out")
    if request.working_dir and not request.working_dir.startswith("/"):
        raise InvalidArgument(
            f"the working directory '{request.working_dir}' is invalid, it needs to be an absolute path"
        )
    for noun, text in (("hostname", request.hostname), ("domainname", request.domainname)):
        allowed = text.isascii() and len(text) <= _HOSTNAME_MAX
        if text and not (allowed and text.replace("-", "").replace(".", "").replace("_", "").isalnum()):
            raise InvalidArgument(f"invalid {noun}: {text}")
    if request.hostname and request.host_config.uts_mode == "host":
        raise InvalidArgument("conflicting options: hostname and the UTS mode")
    if request.stop_signal:
        parse_signal(request.stop_signal)
    if request.network_disabled:
        raise NotSupported("NetworkDisabled is not supported by this engine", hint="use --network none")
    for key in (*request.labels, *request.labels.values(), *words(request.cmd), *words(request.entrypoint)):
        if "\0" in key:
            raise InvalidArgument("invalid configuration: NUL in a string")


def _check_network(request: CreateRequest) -> None:
    mode = request.host_config.network_mode
    joins = mode.startswith(CONTAINER_PREFIX)
    if mode not in _NETWORK_MODES and not joins:
        raise NotSupported(f"network {mode!r}: user-defined networks are not supported yet")
    if joins:
        _check_joined_network(request)
    for name, endpoint in request.networking_config.endpoints_config.items():
        if name not in _NETWORK_MODES and name != mode:
            raise NotSupported(f"network {name!r}: user-defined networks are not supported yet")
        if endpoint is not None:
            _check_endpoint(endpoint)
    if _mac_address(request) and mode not in DEFAULT_MODES:
        raise InvalidArgument("conflicting options: mac-address and the network mode")


def _check_joined_network(request: CreateRequest) -> None:
    """Refuse what belongs to the container whose network is joined.

    Source: moby v28, runconfig/hostconfig_unix.go, validateNetContainerMode.
    """
    host = request.host_config
    conflicts = (
        (request.hostname, "hostname and the network mode"),
        (host.dns, "dns and the network mode"),
        (host.extra_hosts, "custom host-to-IP mapping and the network mode"),
        (
            host.port_bindings or host.publish_all_ports,
            "port publishing and the container type network mode",
        ),
        (request.exposed_ports, "port exposing and the container type network mode"),
    )
    for asked, what in conflicts:
        if asked:
            raise InvalidArgument(f"conflicting options: {what}")


def _mac_address(request: CreateRequest) -> str:
    """Return the hardware address that is asked for, in the old place or the new; "" for none.

    Raises:
        InvalidArgument: it is none, or two are asked for.
    """
    endpoints = request.networking_config.endpoints_config.values()
    asked = {request.mac_address, *(endpoint.mac_address for endpoint in endpoints if endpoint)} - {""}
    if len(asked) > 1:
        raise InvalidArgument(
            "the container-wide MAC address must match the endpoint-specific MAC address for the main "
            "network, or be left empty"
        )
    return check_mac(asked.pop()) if asked else ""


def _check_endpoint(endpoint: EndpointSettings) -> None:
    if endpoint.links:
        raise NotSupported("links are not supported by this engine", hint="leave them out")
    if endpoint.aliases:
        raise InvalidArgument(
            "network-scoped alias is supported only for containers in user defined networks"
        )
    if endpoint.driver_opts:
        raise NotSupported("network driver options are not supported by this engine")
    ipam = endpoint.ipam_config
    if ipam is not None and (ipam.ipv4_address or ipam.ipv6_address or ipam.link_local_ips):
        raise InvalidArgument("user specified IP address is supported on user defined networks only")


def _port_key(port: str) -> str:
    number, proto = split_port(port)
    return f"{number}/{proto}"


def split_port(text: str) -> tuple[int, str]:
    """Return number and protocol of `80/tcp` or `80`.

    Raises:
        InvalidArgument: docker's words.
    """
    number, _, proto = text.partition("/")
    proto = (proto or "tcp").lower()
    if not number.isascii() or not number.isdigit() or not 0 < int(number[:8]) <= _PORT_MAX:
        raise InvalidArgument(f"invalid containerPort: {text}")
    if proto not in {"tcp", "udp"}:
        raise NotSupported(f"protocol {proto!r} of port {text} is not supported")
    return int(number), proto


def port_mappings(config: ContainerConfig, host: HostConfig) -> tuple[PortMapping, ...]:
    """Return the ports to publish.

    Raises:
        InvalidArgument: docker's words.
    """
    result = []
    for key, bindings in host.port_bindings.items():
        number, proto = split_port(key)
        for binding in bindings or ():
            port = _host_port(binding.host_port)
            result.append(PortMapping(number, proto, binding.host_ip, port))
    if host.publish_all_ports:
        published = {(mapping.container_port, mapping.proto) for mapping in result}
        result += [
            PortMapping(number, proto)
            for number, proto in map(split_port, config.exposed_ports or {})
            if (number, proto) not in published
        ]
    return tuple(result)


def _host_port(text: str) -> int | None:
    if not text or text == "0":
        return None
    if "-" in text:
        raise NotSupported(f"host port range {text!r} is not supported", hint="name one port, or none")
    if not text.isascii() or not text.isdigit() or not 0 < int(text[:8]) <= _PORT_MAX:
        raise InvalidArgument(f"invalid port specification: {text!r}")
    return int(text)


def parse_signal(text: str) -> int:
    """Return the number of a signal given as `9`, `KILL` or `SIGKILL`.

    Raises:
        InvalidArgument: there is none such; docker's words.
    """
    upper = text.upper().removeprefix("SIG")
    if upper.isascii() and upper.isdigit() and 0 < int(upper[:4]) < signals.NSIG:
        return int(upper)
    base, _, offset = upper.partition("+")
    if base == "RTMIN" and offset.isascii() and offset.isdigit() and int(offset[:3]) < 31:  # noqa: PLR2004
        return signals.SIGRTMIN + int(offset)
    try:
        return signals.Signals[f"SIG{upper}"]
    except KeyError as err:
        raise InvalidArgument(f"Invalid signal: {text}") from err


async def make_volumes(
    definition: Definition,
    layers: tuple[Path, ...],
    create: Callable[[str | None, Mapping[str, str]], Awaitable[str]],
    populate: Callable[[str, tuple[Path, ...], str], Awaitable[object]],
) -> Definition:
    """Make the volumes that a container names, and fill the empty ones from its image.

    Returns:
        The definition with the names of the volumes.

    Args:
        definition: as `define` made it.
        layers: of the image, lowest first.
        create: makes a volume with labels, or finds it, and returns its name.
        populate: copies what the image has at a path into an empty volume.
    """
    result = []
    for point in definition.mounts:
        if point.type != "volume":
            result.append(point)
            continue
        name = await create(point.name or None, point.labels)
        if "nocopy" not in point.options:
            await populate(name, layers, point.destination)
        result.append(replace(point, name=name))
    return replace(definition, mounts=tuple(result))


def online_processors() -> frozenset[int]:
    """Return the numbers of the machine's processors; blocking."""
    return limits.number_list(_ONLINE.read_text(encoding="ascii"), "processors online")


def find_init(host: HostConfig) -> Path | None:
    """Return the program that is to be process 1 of a container that asks for one; blocking.

    In a process namespace that is not its own there is no process 1 to be.

    Raises:
        NotSupported: this machine has none.
    """
    if not host.init or host.pid_mode:
        return None
    for path in _INITS:
        if path.is_file():
            return path
    raise NotSupported(
        "HostConfig.Init: this machine has no docker-init and no tini-static", hint="install tini"
    )


def check_binds(definition: Definition) -> None:
    """Make the missing sources of `-v` binds, and refuse what cannot be mounted as asked; blocking.

    Raises:
        InvalidArgument: docker's words.
    """
    for point in definition.mounts:
        if point.type != "bind" or os.path.lexists(point.source):
            continue
        if "must-exist" in point.options:
            raise InvalidArgument(
                f'invalid mount config for type "bind": bind source path does not exist: {point.source}'
            )
        os.makedirs(point.source, 0o755, exist_ok=True)
    for point in definition.mounts:
        if point.type == "bind" and point.propagation.endswith(("shared", "slave")):
            mountinfo = _MOUNTINFO.read_text(encoding="utf-8", errors="surrogateescape")
            mounts.check_propagation(point, os.path.realpath(point.source), mountinfo)
