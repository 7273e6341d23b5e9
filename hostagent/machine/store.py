"""The machines of this user: one directory each, with one versioned file of settings.

A machine exists when its settings file does; it is written last and removed
first. Changes are made under a lock, so of two `machine init` one wins.
"""

import contextlib
import datetime
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace

import msgspec

from engine.base import jsonio
from engine.base.atomicfile import write_atomic
from engine.base.errors import AlreadyExists, Conflict, InvalidArgument, NotFound, Unavailable
from engine.base.lockfile import Locked, LockFile
from hostagent.machine.model import Accel, Arch, Machine, check, check_name
from hostagent.paths import MachinePaths, host_paths, make_directories

_VERSION = 1


class _Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """machine.json, version 1."""

    version: int
    name: str
    cpus: int
    memory_mib: int
    disk_size_bytes: int
    arch: Arch
    accel: Accel
    image: str
    created: str


class _Version(msgspec.Struct, frozen=True):
    version: int


def create(machine: Machine) -> Machine:
    """Write the settings of a new machine and return them with the time of creation.

    Raises:
        InvalidArgument: the name or a setting is out of its limits.
        AlreadyExists: the name is taken.
    """
    check(machine)
    paths = MachinePaths(machine.name)
    with _locked(paths):
        if paths.settings.exists():
            raise AlreadyExists(f"machine {machine.name} already exists")
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        made = replace(machine, created=now)
        write_atomic(paths.settings, _encode(made))
    return made


def load(name: str) -> Machine:
    """Return the settings of the machine `name`.

    Raises:
        NotFound: there is none.
        InvalidArgument: the name is malformed, or the file is damaged.
        Conflict: a newer pyengine wrote the file.
    """
    path = MachinePaths(check_name(name)).settings
    try:
        data = path.read_bytes()
    except FileNotFoundError as err:
        raise NotFound("machine", name, hint=f"pyengine machine init {name}") from err
    version = jsonio.decode(data, _Version, noun=str(path)).version
    if version != _VERSION:
        raise Conflict(f"{path}: version {version}, this pyengine knows {_VERSION}", hint="use the newer one")
    document = jsonio.decode(data, _Document, noun=str(path))
    if document.name != name:
        raise InvalidArgument(f"invalid {path}: it is for machine {document.name}")
    fields = msgspec.structs.asdict(document)
    del fields["version"]
    return check(Machine(**fields))


def names() -> list[str]:
    """Return the names of all machines, sorted."""
    try:
        entries = sorted(os.listdir(host_paths().machines))
    except FileNotFoundError:
        return []
    return [name for name in entries if MachinePaths(name).settings.exists()]


def remove(name: str) -> None:
    """Remove the settings, then keys, disk, logs and sockets of a machine that does not run.

    The caller holds the machine's own lock, or knows that nobody does.

    Raises:
        NotFound: there is no such machine.
    """
    paths = MachinePaths(check_name(name))
    if not paths.settings.exists():
        raise NotFound("machine", name)
    with _locked(paths):
        paths.settings.unlink(missing_ok=True)
        for directory in (paths.directory, paths.logs):
            if directory.exists():
                shutil.rmtree(directory)
        for path in (
            paths.docker_socket,
            paths.agent_socket,
            paths.qmp_socket,
            paths.control_socket,
            paths.pidfile,
        ):
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def _locked(paths: MachinePaths) -> Iterator[None]:
    make_directories(paths)  # a reboot of the host forgets that of the lock
    lock = LockFile(paths.settings_lock)
    try:
        lock.acquire()
    except Locked as err:
        raise Unavailable(
            f"machine {paths.name} is being created or removed by process {err.holder_pid}"
        ) from err
    try:
        yield
    finally:
        lock.release()


def _encode(machine: Machine) -> bytes:
    return jsonio.encode_pretty(
        _Document(
            version=_VERSION,
            name=machine.name,
            cpus=machine.cpus,
            memory_mib=machine.memory_mib,
            disk_size_bytes=machine.disk_size_bytes,
            arch=machine.arch,
            accel=machine.accel,
            image=machine.image,
            created=machine.created,
        )
    )
