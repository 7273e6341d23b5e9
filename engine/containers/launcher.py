"""From a definition to a created process: network, files, mounts, config.json, shim.

`Launcher.launch` makes all of it or nothing.
"""

import asyncio
import contextlib
import os
import shutil
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path

from engine.base import diskspace, jsonio, trace
from engine.base.errors import Conflict, InvalidArgument, NotFound
from engine.containers import imagefiles, joining, logoptions, security, spec, users
from engine.containers.core import Core
from engine.containers.creation import check_binds, find_init, port_mappings
from engine.containers.live import Container
from engine.containers.model import Definition, MountPoint
from engine.containers.shim import Shim
from engine.containers.users import Identity
from engine.networks import etcfiles
from engine.networks.model import CONTAINER_PREFIX, HOST, Sandbox, SandboxRequest
from engine.shim.protocol import SpawnRequest
from engine.spec.runtime import Mount

_HOST_GATEWAY = "host-gateway"
_RESOLV_CONF = Path("/etc/resolv.conf")
_HOSTS = Path("/etc/hosts")
_ETC_FILES = ("hostname", "hosts", "resolv.conf")
_SHARED_MEMORY = "root/dev/shm"
_NOT_SHAREABLE = frozenset({"", "private", "none"})


class Launcher:
    """Starts processes for containers; knows no status."""

    def __init__(self, core: Core, mode: security.Mode, machine: str) -> None:
        self._core = core
        self.mode = mode
        self._machine = machine

    async def launch(self, container: Container) -> Shim:
        """Make the container's process, waiting to be started.

        Raises:
            StartFailed: the runtime could not make it.
            EngineError: something it needs is missing or taken; nothing is left.
        """
        core, definition = self._core, container.definition
        sandbox = await core.networks.connect(container.id, self._sandbox_request(container))
        try:
            with contextlib.ExitStack() as held:
                with trace.span("containers", "plan"), diskspace.needed_for(f"container {container.name}"):
                    request = await asyncio.to_thread(self._prepare, container, sandbox, held)
                with trace.span("containers", "spawn"):
                    shim = await core.shims.spawn(request)
        except BaseException:
            await asyncio.shield(core.networks.release(definition.id))
            raise
        current = trace.current.get()
        if current is not None:
            current.spans.extend(shim.spans)
        return shim

    def identity(self, container: Container, user: str) -> Identity:
        """Look `user` up in the container's own files; blocking.

        Raises:
            InvalidArgument: there is no such user or group.
        """
        layers = self._core.layers(container)
        return users.resolve(
            user,
            imagefiles.read(layers, "/etc/passwd"),
            imagefiles.read(layers, "/etc/group"),
            group_add=container.definition.host.group_add or (),
        )

    def _sandbox_request(self, container: Container) -> SandboxRequest:
        definition = container.definition
        mode = definition.host.network_mode
        if mode.startswith(CONTAINER_PREFIX):
            mode = CONTAINER_PREFIX + self._joined(mode, "network").id
        return SandboxRequest(
            mode=mode,
            ports=port_mappings(definition.config, definition.host),
            container_name=container.name,
            mac=definition.config.mac_address,
        )

    def _joined(self, mode: str, what: str) -> Container:
        """Return the running container that `container:<name>` asks for."""
        other = self._core.find(mode.removeprefix(CONTAINER_PREFIX))
        if not other.state.live:
            raise _not_running(what, other)
        return other

    def _prepare(self, container: Container, sandbox: Sandbox, held: contextlib.ExitStack) -> SpawnRequest:
        """Write all files that the shim needs; in a worker thread.

        What it names of other containers is there while `held` is open.
        """
        core, definition = self._core, container.definition
        check_binds(definition)
        self._make_room_for_etc(definition)
        directory = core.root.container(container.id)
        rootfs_mounts = core.snapshotter.prepare(
            container.id, definition.chain_ids, volatile=definition.host.auto_remove
        )
        bundle = core.run.shim(container.id)
        console = definition.host.console_size
        tty_size = (console[1], console[0]) if definition.config.tty and all(console) else None
        ipc = self._process(definition.host.ipc_mode, "IPC", held)
        pids = self._process(definition.host.pid_mode, "PID", held)
        launch = spec.Launch(
            rootfs=bundle.rootfs,
            identity=self.identity(container, definition.config.user),
            netns_path=sandbox.netns_path,
            etc=self._write_etc(container, sandbox),
            mounts=[self._mount(point) for point in definition.mounts],
            devices=_devices(definition),
            pid_namespace=f"{pids}/ns/pid" if pids else "",
            ipc_namespace=f"{ipc}/ns/ipc" if ipc else "",
            shared_memory=f"{ipc}/{_SHARED_MEMORY}" if ipc else "",
            machine=self._machine,
            mode=self.mode,
            tty_size=tty_size,
            init=find_init(definition.host),
        )
        config = jsonio.encode(spec.plan(definition, launch))
        try:
            bundle.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            bundle.rootfs.mkdir(mode=0o700, exist_ok=True)
            bundle.config.write_bytes(config)
        except OSError:
            shutil.rmtree(bundle.path, ignore_errors=True)
            raise
        log = logoptions.settings(definition.host.log_config)
        runtime = self._core.runtimes.find(definition.host.runtime)
        return SpawnRequest(
            container_id=container.id,
            bundle=str(bundle.path),
            exit_path=str(directory.exit),
            durable=not definition.host.auto_remove,
            rootfs_mounts=rootfs_mounts,
            open_stdin=definition.config.open_stdin,
            stdin_once=definition.config.stdin_once,
            tty_size=tty_size,
            log_driver=log.driver,
            log_path=str(directory.log),
            log_max_bytes=log.max_bytes,
            log_max_files=log.max_files,
            log_compress=log.compress,
            log_attrs=logoptions.attributes(definition),
            runtime=runtime.path,
            runtime_args=runtime.arguments,
            trace=trace.current.get() is not None,
        )

    def _process(self, mode: str, what: str, held: contextlib.ExitStack) -> str:
        """Return the directory in /proc of the container that `mode` joins; empty for none."""
        if not mode.startswith(CONTAINER_PREFIX):
            return ""
        other = self._joined(mode, what)
        if what == "IPC" and other.definition.host.ipc_mode in _NOT_SHAREABLE:
            raise Conflict(
                f"can't join IPC of container {other.id}: non-shareable IPC "
                "(hint: use IpcMode:shareable for the donor container)"
            )
        try:
            return held.enter_context(joining.held(other.state.pid, spec.cgroup_path(other.definition)))
        except ProcessLookupError as err:
            raise _not_running(what, other) from err

    def _mount(self, point: MountPoint) -> Mount:
        if point.type == "tmpfs":
            return spec.user_mount(point.destination, "tmpfs", "tmpfs", point.options)
        source = point.source
        if point.type == "volume":
            source = str(self._core.volumes.source_path(point.name))
        options = ["rbind" if point.recursive else "bind", point.propagation or "rprivate"]
        if not point.rw:
            options.append("rro" if point.recursive else "ro")  # as docker: what is mounted below counts
        return spec.user_mount(point.destination, "bind", source, options)

    def _write_etc(self, container: Container, sandbox: Sandbox) -> Mapping[str, Path]:
        definition, host = container.definition, container.definition.host
        if host.network_mode.startswith(CONTAINER_PREFIX):
            directory = self._core.root.container(self._joined(host.network_mode, "network").id).etc
        else:
            directory = self._core.root.container(container.id).etc
            directory.mkdir(mode=0o755, exist_ok=True)
            for name, text in self._etc_files(definition, sandbox).items():
                _write_in_place(directory / name, text)
        return {f"/etc/{name}": directory / name for name in _ETC_FILES}

    def _make_room_for_etc(self, definition: Definition) -> None:
        """Make the files of a read-only volume on /etc that /etc/hosts and the others are mounted over."""
        for point in definition.mounts:
            if point.type == "volume" and not point.rw and point.destination == "/etc":
                _touch(self._core.volumes.source_path(point.name), _ETC_FILES)

    def _etc_files(self, definition: Definition, sandbox: Sandbox) -> dict[str, str]:
        host = definition.host
        own_stack = host.network_mode == HOST
        resolv = _read(_RESOLV_CONF)
        if not own_stack or host.dns or host.dns_search or host.dns_options:
            resolv = etcfiles.resolv_conf(
                resolv, servers=host.dns, search=host.dns_search or None, options=host.dns_options or None
            )
        addresses = [endpoint.ipv4 for endpoint in sandbox.endpoints if endpoint.ipv4]
        gateway = next((endpoint.gateway for endpoint in sandbox.endpoints if endpoint.gateway), "127.0.0.1")
        extra = [_extra_host(entry, gateway) for entry in host.extra_hosts or ()]
        hosts = etcfiles.hosts(
            addresses, definition.hostname, domainname=definition.config.domainname, extra=extra
        )
        return {
            "hostname": etcfiles.hostname_file(definition.hostname),
            "hosts": _read(_HOSTS) if own_stack and not extra else hosts,
            "resolv.conf": resolv,
        }


def _not_running(what: str, other: Container) -> Conflict:
    return Conflict(f"cannot join {what} of a non running container: {other.id}")


def _extra_host(entry: str, gateway: str) -> tuple[str, str]:
    """Return (name, address) of `name:address` or `name=address`."""
    separator = "=" if "=" in entry.partition(":")[0] else ":"
    name, found, address = entry.partition(separator)
    if not found or not name or not address:
        raise InvalidArgument(f'bad format for add-host: "{entry}"')
    return name, gateway if address == _HOST_GATEWAY else address


def _write_in_place(path: Path, text: str) -> None:
    """Write a file that a running container may have mounted: the inode stays."""
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def _touch(directory: Path, names: Sequence[str]) -> None:
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC
    directory_fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        for name in names:
            with contextlib.suppress(FileExistsError):
                os.close(os.open(name, flags, 0o644, dir_fd=directory_fd))
    finally:
        os.close(directory_fd)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ""


def _devices(definition: Definition) -> Sequence[spec.HostDevice]:
    found = []
    for mapping in definition.host.devices or ():
        source, target, access = spec.device_request(mapping)
        found += _devices_at(source, target, access)
    if definition.host.privileged:
        found += _every_device()
    return found


def _devices_at(source: str, target: str, access: str) -> list[spec.HostDevice]:
    """Return the device at `source`, or all below it when it is a directory."""
    try:
        status = os.stat(source)
    except OSError as err:
        raise NotFound("device", source) from err
    if not stat.S_ISDIR(status.st_mode):
        device = _device(status, target, access)
        if device is None:
            raise InvalidArgument(f"not a device: {source}")
        return [device]
    result = []
    for base, _, names in os.walk(source):
        for name in names:
            path = os.path.join(base, name)
            device = _device(os.lstat(path), target + path.removeprefix(source), access)
            if device is not None:
                result.append(device)
    return result


def _every_device() -> list[spec.HostDevice]:
    """Return the host's devices for a privileged container, without terminals and shared memory."""
    skipped = ("/dev/pts", "/dev/shm", "/dev/fd", "/dev/mqueue", "/dev/console")  # noqa: S108 (names only)
    return [device for device in _devices_at("/dev", "/dev", "rwm") if not device.path.startswith(skipped)]


def _device(status: os.stat_result, target: str, access: str) -> spec.HostDevice | None:
    kinds = {stat.S_IFCHR: "c", stat.S_IFBLK: "b"}
    kind = kinds.get(stat.S_IFMT(status.st_mode))
    if kind is None:
        return None
    return spec.HostDevice(
        path=target,
        type=kind,
        major=os.major(status.st_rdev),
        minor=os.minor(status.st_rdev),
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
        access=access,
    )
