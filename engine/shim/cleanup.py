"""How a container ended, and what is left when its shim has gone."""

import os
from collections.abc import Callable
from pathlib import Path

import msgspec

from engine.base import jsonio
from engine.base.errors import InvalidArgument
from engine.runtime.cgroups import place
from engine.runtime.cgroups.files import remove_tree
from engine.runtime.delete import delete
from engine.shim.protocol import Exit
from engine.spec.runtime import Spec

STATE_NAME = "state"  # in a bundle: what a runtime that is not the built-in one keeps of its container
_CGROUPS = Path("/sys/fs/cgroup")
_REMOVE_TIMEOUT_S = 5.0


def read_exit(path: Path) -> Exit | None:
    """Return what exit.json says, or None when the container has not ended under a shim.

    Raises:
        InvalidArgument: the file is damaged.
    """
    try:
        return jsonio.read(path, Exit)
    except FileNotFoundError:
        return None


def write_exit(path: Path, ended: Exit, *, durable: bool) -> None:
    """Put `ended` at `path`, whole or not at all; `durable`: a power cut later does not undo it.

    The one writer is the shim. As `engine.base.atomicfile`, without the modules that a random name for
    the temporary file would bring into every shim.

    Raises:
        OSError: it may not be there, or not be durable.
    """
    fresh = path.with_name(f".{path.name}.new")
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, msgspec.json.encode(ended))
        if durable:
            os.fsync(fd)
    finally:
        os.close(fd)
    os.rename(fresh, path)
    if not durable:
        return
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def cgroup_of(spec: Spec, container_id: str) -> str:
    """Return the control group that the runtime gives the container."""
    return place.path_of(spec.linux.cgroups_path, container_id)


def remove_leftovers(bundle: Path, *, remove: Callable[[str, Path | None], None] = delete) -> None:
    """Kill what still runs of a container whose shim has gone, and remove its cgroup and bundle.

    Idempotent; does nothing where there is no bundle. Nothing of a container
    is mounted in the host's namespace, so the bundle holds plain files, empty
    directories, and the state of a runtime that is not the built-in one.

    Raises:
        StillRunning: a process could not be ended.
    """
    if not bundle.is_dir():
        return
    try:
        spec = jsonio.read(bundle / "config.json", Spec)
    except (FileNotFoundError, InvalidArgument):
        spec = None  # half-made: the runtime has not seen it
    if spec is not None:
        remove(cgroup_of(spec, bundle.name), bundle)
        if (bundle / STATE_NAME).is_dir():
            remove_other_groups(cgroup_of(spec, bundle.name))
    _remove_tree(bundle)


def remove_other_groups(cgroup: str) -> None:
    """Remove a control group from hierarchies that only other runtimes use, such as `name=systemd`."""
    with os.scandir(_CGROUPS) as entries:
        tops = [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    for top in tops:
        if not os.path.exists(f"{top}/cgroup.procs"):
            continue
        remove_tree(f"{top}/{cgroup.lstrip('/')}", timeout_s=_REMOVE_TIMEOUT_S)


def _remove_tree(directory: str | Path) -> None:
    with os.scandir(directory) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                _remove_tree(entry.path)
            else:
                os.unlink(entry.path)
    os.rmdir(directory)
