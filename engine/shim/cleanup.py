"""How a container ended, and what is left when its shim has gone."""

import os
from collections.abc import Callable
from pathlib import Path

import msgspec

from engine.base import jsonio
from engine.base.errors import InvalidArgument
from engine.runtime.delete import delete
from engine.shim.protocol import Exit
from engine.spec.runtime import Spec


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
    return spec.linux.cgroups_path or f"/pyengine/{container_id}"


def remove_leftovers(bundle: Path, *, remove: Callable[[str, Path | None], None] = delete) -> None:
    """Kill what still runs of a container whose shim has gone, and remove its cgroup and bundle.

    Idempotent; does nothing where there is no bundle. Nothing of a container
    is mounted in the host's namespace, so the bundle holds plain files and
    empty directories.

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
    with os.scandir(bundle) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                os.rmdir(entry.path)
            else:
                os.unlink(entry.path)
    os.rmdir(bundle)
