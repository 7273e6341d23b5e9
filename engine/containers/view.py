"""Containers as docker's API shows them; pure.

Source: Docker Engine API v1.51, ContainerSummary, ContainerInspectResponse.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from engine.base.paths import ContainerDir
from engine.base.units import human_duration
from engine.containers.live import Container
from engine.containers.model import MountPoint, State, Status, stamp, words
from engine.networks.model import Endpoint, PortBinding, Sandbox

_STATUS_TEXTS = {
    Status.CREATED: "Created",
    Status.RUNNING: "Up {start}",
    Status.PAUSED: "Up {start} (Paused)",
    Status.RESTARTING: "Restarting ({code}) {end} ago",
    Status.EXITED: "Exited ({code}) {end} ago",
    Status.REMOVING: "Removal In Progress",
    Status.DEAD: "Dead",
}
_NO_SANDBOX = Sandbox(container_id="", mode="", netns_path=None)


def status_text(state: State, now_ns: int) -> str:
    """Return the `Status` column of docker ps."""
    return _STATUS_TEXTS[state.status].format(
        start=human_duration((now_ns - state.started_ns) / 1e9),
        end=human_duration((now_ns - state.finished_ns) / 1e9),
        code=state.exit_code,
    )


def summary(
    container: Container,
    sandbox: Sandbox | None,
    volume_paths: Mapping[str, str],
    size: tuple[int, int] | None,
) -> dict[str, Any]:
    """Return docker's ContainerSummary; `size` is (written, with image) in bytes."""
    definition, state = container.definition, container.state
    shown: dict[str, Any] = {
        "Id": container.id,
        "Names": [f"/{container.name}"],
        "Image": definition.image_name,
        "ImageID": definition.image_id,
        "Command": " ".join(_quoted(word) for word in definition.argv),
        "Created": definition.created_ns // 10**9,
        "Ports": _summary_ports(container, sandbox),
        "Labels": definition.config.labels,
        "State": state.status.value,
        "Status": status_text(state, time.time_ns()),
        "HostConfig": {"NetworkMode": definition.host.network_mode},
        "NetworkSettings": {"Networks": _networks(container, sandbox)},
        "Mounts": [mount(point, volume_paths) for point in definition.mounts],
    }
    if size is not None:
        shown |= {"SizeRw": size[0], "SizeRootFs": size[1]}
    return shown


def _quoted(word: str) -> str:
    return f"'{word}'" if " " in word else word


def _summary_ports(container: Container, sandbox: Sandbox | None) -> list[dict[str, Any]]:
    bindings = (sandbox or _NO_SANDBOX).ports
    ports: list[dict[str, Any]] = [
        {
            "IP": binding.host_ip,
            "PrivatePort": binding.container_port,
            "PublicPort": binding.host_port,
            "Type": binding.proto,
        }
        for binding in bindings
    ]
    published = {(binding.container_port, binding.proto) for binding in bindings}
    if sandbox is not None:
        for key in container.definition.config.exposed_ports or {}:
            number, _, proto = key.partition("/")
            if (int(number), proto) not in published:
                ports.append({"PrivatePort": int(number), "Type": proto})
    return ports


def details(
    container: Container,
    sandbox: Sandbox | None,
    *,
    directory: ContainerDir,
    volume_paths: Mapping[str, str],
    driver: str,
    size: tuple[int, int] | None,
) -> dict[str, Any]:
    """Return docker's ContainerInspectResponse."""
    definition = container.definition
    argv = definition.argv
    etc = directory.etc
    shows_log = definition.host.log_config.type == "json-file"  # as docker: other forms are not for others
    shown: dict[str, Any] = {
        "Id": container.id,
        "Created": stamp(definition.created_ns),
        "Path": argv[0] if argv else "",
        "Args": list(argv[1:]),
        "State": state_document(container.state),
        "Image": definition.image_id,
        "ResolvConfPath": str(etc / "resolv.conf"),
        "HostnamePath": str(etc / "hostname"),
        "HostsPath": str(etc / "hosts"),
        "LogPath": str(directory.log) if shows_log else "",
        "Name": f"/{container.name}",
        "RestartCount": container.state.restart_count,
        "Driver": driver,
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": list(container.exec_ids) or None,
        "HostConfig": msgspec.to_builtins(definition.host),
        "GraphDriver": {"Name": driver, "Data": {"UpperDir": str(directory.upper)}},
        "Mounts": [mount(point, volume_paths) for point in definition.mounts],
        "Config": _config(container),
        "NetworkSettings": _network_settings(container, sandbox),
    }
    if size is not None:
        shown |= {"SizeRw": size[0], "SizeRootFs": size[1]}
    return shown


def state_document(state: State) -> dict[str, Any]:
    """Return docker's ContainerState."""
    return {
        "Status": state.status.value,
        "Running": state.live or state.status is Status.RESTARTING,
        "Paused": state.status is Status.PAUSED,
        "Restarting": state.status is Status.RESTARTING,
        "OOMKilled": state.oom_killed,
        "Dead": state.status is Status.DEAD,
        "Pid": state.pid,
        "ExitCode": state.exit_code,
        "Error": state.error,
        "StartedAt": stamp(state.started_ns),
        "FinishedAt": stamp(state.finished_ns),
    }


def _config(container: Container) -> dict[str, Any]:
    definition = container.definition
    document: dict[str, Any] = msgspec.to_builtins(definition.config)
    return document | {
        "Hostname": definition.hostname,
        "Image": definition.image_name,
        "Cmd": list(words(definition.config.cmd)) or None,
        "Entrypoint": list(words(definition.config.entrypoint)) or None,
    }


def mount(point: MountPoint, volume_paths: Mapping[str, str]) -> dict[str, Any]:
    """Return docker's MountPoint."""
    shown: dict[str, Any] = {
        "Type": point.type,
        "Source": volume_paths.get(point.name, "") if point.type == "volume" else point.source,
        "Destination": point.destination,
        "Mode": point.mode,
        "RW": point.rw,
        "Propagation": point.propagation or ("rprivate" if point.type == "bind" else ""),
    }
    if point.type == "volume":
        shown |= {"Name": point.name, "Driver": "local"}
    return shown


def _network_settings(container: Container, sandbox: Sandbox | None) -> dict[str, Any]:
    networks = _networks(container, sandbox)
    first = next(iter((sandbox or _NO_SANDBOX).endpoints), None)
    return {
        "Bridge": "",
        "SandboxID": container.id if sandbox else "",
        "SandboxKey": str(sandbox.netns_path or "") if sandbox else "",
        "Ports": port_map(container, sandbox),
        "EndpointID": first.endpoint_id if first else "",
        "Gateway": first.gateway if first else "",
        "IPAddress": first.ipv4 if first else "",
        "IPPrefixLen": first.prefix if first else 0,
        "MacAddress": first.mac if first else "",
        "GlobalIPv6Address": "",
        "GlobalIPv6PrefixLen": 0,
        "IPv6Gateway": "",
        "Networks": networks,
    }


def port_map(container: Container, sandbox: Sandbox | None) -> dict[str, list[dict[str, str]] | None]:
    """Return docker's PortMap: each exposed or published port with where it is reachable now."""
    if sandbox is None:
        return {}
    result: dict[str, list[dict[str, str]] | None] = dict.fromkeys(
        container.definition.config.exposed_ports or {}
    )
    for binding in sandbox.ports:
        entries = result.get(_key(binding)) or []
        entries.append({"HostIp": binding.host_ip, "HostPort": str(binding.host_port)})
        result[_key(binding)] = entries
    return result


def _key(binding: PortBinding) -> str:
    return f"{binding.container_port}/{binding.proto}"


def _networks(container: Container, sandbox: Sandbox | None) -> dict[str, Any]:
    mode = container.definition.host.network_mode
    if mode.startswith("container:"):
        return {}
    endpoints: Sequence[Endpoint] = sandbox.endpoints if sandbox else ()
    if not endpoints:
        return {mode: _endpoint(None)}
    return {endpoint.network: _endpoint(endpoint) for endpoint in endpoints}


def _endpoint(endpoint: Endpoint | None) -> dict[str, Any]:
    return {
        "IPAMConfig": None,
        "Links": None,
        "Aliases": None,
        "DriverOpts": None,
        "GwPriority": 0,
        "NetworkID": endpoint.network_id if endpoint else "",
        "EndpointID": endpoint.endpoint_id if endpoint else "",
        "Gateway": endpoint.gateway if endpoint else "",
        "IPAddress": endpoint.ipv4 if endpoint else "",
        "MacAddress": endpoint.mac if endpoint else "",
        "IPPrefixLen": endpoint.prefix if endpoint else 0,
        "IPv6Gateway": "",
        "GlobalIPv6Address": "",
        "GlobalIPv6PrefixLen": 0,
        "DNSNames": None,
    }
