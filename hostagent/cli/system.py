"""pyengine version, info."""

import platform
import sys
from typing import Any

import click

from engine.base.errors import EngineError
from engine.base.units import human_size
from engine.base.version import VERSION
from hostagent.cli.app import current
from hostagent.cli.command import command, value
from hostagent.cli.documents import write_document
from hostagent.cli.exits import ExitWith


@command("version", value("-f", "--format", default="", help="Format output: json or TEMPLATE"))
def version(format: str) -> int:  # noqa: A002 (the flag's name)
    """Show the version information of the command line and of the engine."""
    client = {
        "Version": VERSION,
        "PythonVersion": platform.python_version(),
        "Os": sys.platform,
        "Arch": platform.machine(),
    }
    server, failure = _server()
    if format:
        write_document({"Client": client, "Server": server}, format)
    else:
        click.echo("\n".join(_version_lines(client, server)))
    if failure is not None:
        raise failure
    return 0


def _server() -> tuple[dict[str, Any] | None, EngineError | None]:
    try:
        return current().engine.get("/version"), None
    except EngineError as err:
        return None, err


def _version_lines(client: dict[str, str], server: dict[str, Any] | None) -> list[str]:
    lines = ["Client: pyengine"]
    lines += [
        f" {name + ':':<18}{client[key]}"
        for name, key in (("Version", "Version"), ("Python version", "PythonVersion"))
    ]
    lines.append(f" {'OS/Arch:':<18}{client['Os']}/{client['Arch']}")
    if server is None:
        return lines
    lines += ["", f"Server: {(server.get('Platform') or {}).get('Name', 'unknown')}"]
    lines += [
        f" {'Version:':<18}{server.get('Version', '')}",
        f" {'API version:':<18}{server.get('ApiVersion', '')} (minimum {server.get('MinAPIVersion', '')})",
        f" {'OS/Arch:':<18}{server.get('Os', '')}/{server.get('Arch', '')}",
        f" {'Kernel:':<18}{server.get('KernelVersion', '')}",
    ]
    return lines


@command("info", value("-f", "--format", default="", help="Format output: json or TEMPLATE"))
def info(format: str) -> int:  # noqa: A002 (the flag's name)
    """Display system-wide information."""
    document = current().engine.get("/info")
    if format:
        write_document(document, format)
        return 0
    try:
        lines = _info_lines(document)
    except KeyError as err:
        raise ExitWith(1, f"the engine's answer lacks {err}") from err
    click.echo("\n".join(lines))
    return 0


def _info_lines(document: dict[str, Any]) -> list[str]:
    plugins = document.get("Plugins") or {}
    return [
        f"Containers: {document['Containers']}",
        f" Running: {document['ContainersRunning']}",
        f" Paused: {document['ContainersPaused']}",
        f" Stopped: {document['ContainersStopped']}",
        f"Images: {document['Images']}",
        f"Server Version: {document['ServerVersion']}",
        f"Storage Driver: {document['Driver']}",
        f"Logging Driver: {document['LoggingDriver']}",
        f"Cgroup Driver: {document['CgroupDriver']}",
        f"Cgroup Version: {document['CgroupVersion']}",
        *(f"{name}: {' '.join(plugins.get(name) or [])}" for name in ("Volume", "Network", "Log")),
        f"Runtimes: {' '.join(document['Runtimes'])}",
        f"Default Runtime: {document['DefaultRuntime']}",
        f"Kernel Version: {document['KernelVersion']}",
        f"Operating System: {document['OperatingSystem']}",
        f"OSType: {document['OSType']}",
        f"Architecture: {document['Architecture']}",
        f"CPUs: {document['NCPU']}",
        f"Total Memory: {human_size(document['MemTotal'], digits=4)}",
        f"Name: {document['Name']}",
        f"ID: {document['ID']}",
        f"Root Dir: {document['DockerRootDir']}",
    ]
