"""pyengine machine: make, start, stop, remove and look at virtual machines.

The words and flags are podman's, where podman has them.
"""

import json
import os
import sys
import time
from typing import Any

import click

from engine.base.errors import AlreadyExists, InvalidArgument, NotFound
from engine.base.units import human_size
from hostagent.cli.command import Group, argument, command, switch, value
from hostagent.cli.machines import progress_line
from hostagent.cli.table import write_listing
from hostagent.machine import model
from hostagent.machine.model import Accel, Arch, Machine
from hostagent.paths import MachinePaths, selected_machine

_MIB, _GIB = 1 << 20, 1 << 30
_FOLLOW_S = 0.2
_SSH_TIMEOUT_S = 60.0
_COLUMNS = ("Name", "State", "CPUs", "Memory", "DiskSize", "DiskUsed", "Accel", "Created")
_HEADERS = {
    "Name": "NAME", "State": "STATE", "CPUs": "CPUS", "Memory": "MEMORY", "DiskSize": "DISK SIZE",
    "DiskUsed": "DISK USED", "Accel": "ACCEL", "Created": "CREATED", "Resident": "RESIDENT",
}  # fmt: skip


@command(
    "init",
    argument("name", required=False),
    value("--cpus", type=int, default=2, metavar="N", help="Number of virtual processors"),
    value("-m", "--memory", default="1g", metavar="SIZE", help="Memory; a number alone is MiB"),
    value("--disk-size", default="64g", metavar="SIZE", help="Data disk; a number alone is GiB"),
    value("--accel", default="auto", metavar="NAME", help="auto, kvm, hvf, whpx or tcg"),
    value("--arch", default="", metavar="ARCH", help="x86_64 or aarch64 (default: this host's)"),
    value(
        "--image", default="", metavar="DIR", help="Image of the virtual machine (default: pyengine's own)"
    ),
    switch("--now", help="Start the machine now"),
)
def init(**flags: Any) -> int:  # noqa: ANN401 (one value a flag)
    """Create a virtual machine."""
    from hostagent.machine import accel, images, launch, store  # noqa: PLC0415 (not for the other verbs)

    name = selected_machine() if flags["name"] is None else flags["name"]
    wish = model.check(
        Machine(
            name,
            cpus=flags["cpus"],
            memory_mib=model.parse_size(flags["memory"], noun="memory", default_unit="m") // _MIB,
            disk_size_bytes=model.parse_size(flags["disk_size"], noun="disk size", default_unit="g"),
            arch=_choice(Arch, flags["arch"], "arch") if flags["arch"] else accel.host_arch(),
            accel=_choice(Accel, flags["accel"], "accelerator"),
            image=os.path.abspath(flags["image"]) if flags["image"] else "",
        )
    )
    if MachinePaths(name).settings.exists():
        raise AlreadyExists(f"machine {name} already exists")
    images.image_dir(wish.arch, wish=wish.image, progress=progress_line)
    store.create(wish)
    if flags["now"]:
        launch.ensure_running(name, progress=progress_line)
    click.echo(name)
    return 0


@command("start", argument("name", required=False))
def start(name: str | None) -> int:
    """Start a virtual machine, made first if it is the default one, and wait until its engine answers."""
    from hostagent.machine import launch, observe  # noqa: PLC0415 (not for the other verbs)

    name = selected_machine() if name is None else name
    before = time.monotonic()
    if observe.status_of(name)["state"] == "running":
        click.echo(f"machine {name} runs already")
        return 0
    launch.ensure_running(name, progress=progress_line)
    status = observe.status_of(name)
    click.echo(f"machine {name} runs under {status.get('accel')} after {time.monotonic() - before:.1f} s")
    return 0


@command(
    "stop",
    argument("name", required=False),
    switch("-f", "--force", help="Pull the plug instead of asking the guest"),
)
def stop(name: str | None, force: bool) -> int:
    """Stop a virtual machine."""
    from hostagent.machine import observe  # noqa: PLC0415 (not for the other verbs)

    name = selected_machine() if name is None else name
    stopped = observe.stop(name, force=force)
    click.echo(name if stopped else f"machine {name} was not running")
    return 0


@command(
    "rm",
    argument("name", required=False),
    switch("-f", "--force", help="Stop it first if it runs"),
)
def rm(name: str | None, force: bool) -> int:
    """Remove a virtual machine with its disk: all images, containers and volumes in it."""
    from hostagent.machine import observe  # noqa: PLC0415 (not for the other verbs)

    name = selected_machine() if name is None else name
    observe.remove(name, force=force)
    click.echo(name)
    return 0


@command(
    "ls",
    value("--format", default="", help="Format output: table, json, 'table TEMPLATE' or TEMPLATE"),
    switch("-q", "--quiet", help="Only display names"),
)
def ls(**flags: Any) -> int:  # noqa: ANN401 (one value a flag)
    """List virtual machines."""
    from hostagent.machine import observe, store  # noqa: PLC0415 (not for the other verbs)

    found = [(store.load(name), observe.status_of(name)) for name in store.names()]
    if flags["format"] == "json":
        click.echo(json.dumps([_podman_object(*pair) for pair in found], indent=4))
        return 0
    rows = [_row(*pair) for pair in found]
    quiet = "Name" if flags["quiet"] else None
    write_listing(rows, form=flags["format"], columns=_COLUMNS, headers=_HEADERS, quiet=quiet)
    return 0


@command(
    "inspect",
    argument("name", required=False),
    value("--format", default="", metavar="json", help="json is the only format, and the default"),
)
def inspect(name: str | None, format: str) -> int:  # noqa: A002 (the flag's name)
    """Show everything that is known of a virtual machine."""
    from hostagent.machine import observe  # noqa: PLC0415 (not for the other verbs)

    if format not in {"", "json"}:
        raise InvalidArgument(f"invalid format: {format!r}", hint="--format json")
    click.echo(json.dumps([observe.inspect(selected_machine() if name is None else name)], indent=4))
    return 0


@command(
    "ssh",
    argument("words", nargs=-1, required=False, metavar="[NAME] [--] [COMMAND] [ARG...]"),
    interspersed=False,
)
def ssh(words: tuple[str, ...]) -> int:
    """Run a command, or a shell, in a virtual machine: ssh [NAME] [--] [COMMAND ARG...]."""
    from hostagent.cli import machine_ssh  # noqa: PLC0415 (brings paramiko along)
    from hostagent.machine import observe, store  # noqa: PLC0415 (not for the other verbs)

    name, argv = _split_ssh(words, set(store.names()))
    store.load(name)
    status = observe.status_of(name)
    if "ssh_port" not in status:
        raise InvalidArgument(f"machine {name} is {status['state']}", hint=f"pyengine machine start {name}")
    return machine_ssh.run(MachinePaths(name), int(status["ssh_port"]), argv, timeout_s=_SSH_TIMEOUT_S)


@command(
    "logs",
    argument("name", required=False),
    switch("--agent", help="The host agent's log instead of the guest's console"),
    switch("--qemu", help="The emulator's output instead of the guest's console"),
    switch("-p", "--previous", help="The guest's console of the start before"),
    switch("-f", "--follow", help="Go on as the log grows"),
    value("-n", "--tail", default="all", metavar="N", help="Only the last N lines"),
)
def logs(**flags: Any) -> int:  # noqa: ANN401 (one value a flag)
    """Show a virtual machine's console, or what its agent or emulator said."""
    from hostagent.machine import store  # noqa: PLC0415 (not for the other verbs)

    name = selected_machine() if flags["name"] is None else flags["name"]
    store.load(name)
    paths = MachinePaths(name)
    wished = [
        path
        for flag, path in (
            ("agent", paths.agent_log),
            ("qemu", paths.qemu_log),
            ("previous", paths.previous_console_log),
        )
        if flags[flag]
    ]
    if len(wished) > 1:
        raise InvalidArgument(
            "machine logs: only one of --agent, --qemu and --previous can be shown at a time"
        )
    [path] = wished or [paths.console_log]
    try:
        with path.open("rb") as file:
            _show_log(file.fileno(), flags["tail"], follow=flags["follow"])
    except FileNotFoundError as err:
        raise NotFound("log", str(path), hint=f"machine {name} has not been started yet") from err
    return 0


def _show_log(fd: int, tail: str, *, follow: bool) -> None:
    if tail != "all" and not (tail.isascii() and tail.isdigit()):
        raise InvalidArgument(f"invalid number of lines: {tail!r}")
    data = b""
    while chunk := os.read(fd, 1 << 20):
        data += chunk
    lines = data.splitlines(keepends=True)
    sys.stdout.buffer.writelines(lines if tail == "all" else lines[max(0, len(lines) - int(tail)) :])
    sys.stdout.buffer.flush()
    while follow:
        chunk = os.read(fd, 1 << 20)
        sys.stdout.buffer.write(chunk)
        sys.stdout.buffer.flush()
        if not chunk:
            time.sleep(_FOLLOW_S)  # no system tells of a growing file in one way


def _split_ssh(words: tuple[str, ...], names: set[str]) -> tuple[str, list[str]]:
    """Return the machine and the command: the first word is a machine if one has that name, or before --."""
    rest = list(words)
    name = selected_machine()
    if rest and (rest[0] in names or rest[1:2] == ["--"]):
        name = rest.pop(0)
    if rest and rest[0] == "--":
        rest.pop(0)
    return name, rest


def _row(machine: Machine, status: dict[str, Any]) -> dict[str, str]:
    return {
        "Name": machine.name,
        "State": status["state"],
        "CPUs": str(machine.cpus),
        "Memory": f"{machine.memory_mib} MiB",
        "DiskSize": f"{machine.disk_size_bytes / _GIB:g} GiB",
        "DiskUsed": human_size(int(status.get("disk_used_bytes", 0))),
        "Accel": str(status.get("accel", machine.accel)),
        "Created": machine.created,
        "Resident": human_size(int(status.get("resident_bytes", 0))),
    }


def _podman_object(machine: Machine, status: dict[str, Any]) -> dict[str, Any]:
    """Return the object of `podman machine list --format json`, with the state added."""
    started_ns = status.get("started_ns")
    return {
        "Name": machine.name,
        "Default": machine.name == selected_machine(),
        "Created": machine.created,
        "State": status["state"],
        "Running": status["state"] == "running",
        "Starting": status["state"] == "starting",
        "LastUp": _rfc3339(started_ns) if started_ns else "",
        "VMType": "qemu",
        "Accel": status.get("accel", str(machine.accel)),
        "CPUs": machine.cpus,
        "Memory": machine.memory_mib * _MIB,
        "DiskSize": machine.disk_size_bytes,
        "DiskUsed": status.get("disk_used_bytes", 0),
        "Port": status.get("ssh_port", 0),
        "RemoteUsername": "root",
        "IdentityPath": str(MachinePaths(machine.name).client_key),
    }


def _rfc3339(time_ns: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time_ns / 1e9))


def _choice(kind: Any, text: str, noun: str) -> Any:  # noqa: ANN401 (a StrEnum and its member)
    try:
        return kind(text)
    except ValueError as err:
        known = ", ".join(kind)
        raise InvalidArgument(f"invalid {noun}: {text[:40]!r}", hint=f"one of {known}") from err


machine = Group("machine", init, start, stop, rm, ls, inspect, ssh, logs, help="Manage virtual machines.")
machine.add_command(ls, "list")
