"""Volumes on disk: ROOT/volumes/<name>/{_data,meta.json}, and beside them a copy-up on its way.

A volume appears under its name whole, by a rename; it disappears by a rename
to ROOT/tmp before anything in it is removed. A copy-up passes through two
names, so that after a crash it is either undone or finished::

    copyup.tmp   being copied: removed at the next start
    copyup       complete and on disk: its entries are moved into _data, then it is removed
"""

import contextlib
import logging
import os
import secrets
import stat
import time
from collections.abc import Sequence
from pathlib import Path

from engine.base import jsonio
from engine.base.atomicfile import fsync_dir, write_atomic
from engine.base.errors import EngineError, InvalidArgument
from engine.base.ids import new_id
from engine.base.paths import Root
from engine.kernel import treecopy
from engine.kernel.system import syncfs
from engine.volumes import copyup, merged
from engine.volumes.model import Volume, check_name

log = logging.getLogger(__name__)

_TMP_PREFIX = "volume-"
_META = "meta.json"
_DATA = "_data"
_COPYING = "copyup.tmp"
_COPIED = "copyup"
_DIR_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class VolumeStore:
    """The directories of all volumes. Synchronous; one caller at a time for each volume."""

    def __init__(self, root: Root) -> None:
        self._volumes = root.volumes
        self._tmp = root.tmp

    def load(self) -> dict[str, Volume]:
        """Return every volume; finish or undo what a crash interrupted."""
        for directory in (self._volumes, self._tmp):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._sweep()
        found: dict[str, Volume] = {}
        for directory in sorted(self._volumes.iterdir()):
            try:
                check_name(directory.name)
            except InvalidArgument:
                log.warning("not a volume, left alone: %s", directory)
                continue
            self._repair(directory)
            found[directory.name] = self._read(directory)
        return found

    def _sweep(self) -> None:
        """Remove the volumes that a crash left half made or half removed."""
        for path in sorted(self._tmp.glob(f"{_TMP_PREFIX}*")):
            try:
                remove_tree(path)
            except EngineError as err:
                log.warning("%s", err)

    def data(self, name: str) -> Path:
        """Return the directory that is mounted."""
        return self._volumes / name / _DATA

    def create(self, volume: Volume) -> None:
        """Make an empty volume, durably."""
        made = self._tmp / f"{_TMP_PREFIX}{new_id()}"
        made.mkdir(mode=0o700)
        data = made / _DATA
        data.mkdir()
        data.chmod(0o755)
        self._write_meta(made, volume)
        os.rename(made, self._volumes / volume.name)
        fsync_dir(self._volumes)

    def take_away(self, name: str) -> Path:
        """Make a volume disappear, durably; return where its content waits for `remove_tree`."""
        gone = self._tmp / f"{_TMP_PREFIX}{new_id()}"
        os.rename(self._volumes / name, gone)
        fsync_dir(self._volumes)
        return gone

    def is_empty(self, name: str) -> bool:
        """Tell whether the volume has no entry."""
        with os.scandir(self.data(name)) as names:
            return next(names, None) is None

    def populate(self, name: str, layers: Sequence[Path], path: str) -> bool:
        """Copy what the image has at `path` into the volume; False when it has no directory there.

        Raises:
            OSError: nothing was copied.
        """
        with contextlib.ExitStack() as stack:
            roots = [_open(layer, stack) for layer in reversed(layers)]
            source = merged.resolve(roots, path)
            if source is None:
                return False
            volume = self._volumes / name
            copying = volume / _COPYING
            copying.mkdir(mode=0o700)
            try:
                with contextlib.ExitStack() as inner:
                    target_fd = _open(copying, inner)
                    copyup.copy(roots, source, target_fd)
                    syncfs(target_fd)
                os.rename(copying, volume / _COPIED)
            except BaseException:
                remove_tree(copying)
                raise
        fsync_dir(volume)
        self._move_in(volume)
        return True

    def _move_in(self, volume: Path) -> None:
        """Move what was copied into `_data`; what a container has made there meanwhile stays."""
        with contextlib.ExitStack() as stack:
            copied, data = _open(volume / _COPIED, stack), _open(volume / _DATA, stack)
            status = os.fstat(copied)  # its times change with each entry that leaves
            present = set(os.listdir(data))
            for entry in os.listdir(copied):
                if entry not in present:
                    os.rename(entry, entry, src_dir_fd=copied, dst_dir_fd=data)
            treecopy.copy_status(copied, data)
            os.utime(data, ns=(status.st_atime_ns, status.st_mtime_ns))
            os.fsync(data)
        remove_tree(volume / _COPIED)

    def _repair(self, directory: Path) -> None:
        if (directory / _COPYING).exists():
            remove_tree(directory / _COPYING)
        (directory / _DATA).mkdir(exist_ok=True)
        if (directory / _COPIED).exists():
            log.info("finishing the copy into volume %s", directory.name)
            self._move_in(directory)

    def _read(self, directory: Path) -> Volume:
        try:
            volume = jsonio.read(directory / _META, Volume)
            if volume.name == directory.name:
                return volume
            reason = f"it names {volume.name!r}"
        except (OSError, InvalidArgument) as err:
            reason = str(err)
        log.warning("volume %s: unreadable %s, its labels are lost: %s", directory.name, _META, reason)
        volume = Volume(directory.name, timestamp(directory.stat().st_mtime), {})
        self._write_meta(directory, volume)
        return volume

    def _write_meta(self, directory: Path, volume: Volume) -> None:
        write_atomic(directory / _META, jsonio.encode_pretty(volume))


def timestamp(seconds: float) -> str:
    """Return a time as docker writes it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def remove_tree(path: Path) -> int:
    """Remove a directory with all in it; return how many bytes that freed.

    Directories inside are first moved up to the top, so that neither depth
    nor a path's length has a limit; no link is followed.

    Raises:
        EngineError: something in it cannot be removed (a mount point, an immutable file).
    """
    freed = 0
    try:
        with contextlib.ExitStack() as stack:
            top = _open(path, stack)
            while names := os.listdir(top):
                for name in names:
                    freed += _remove_or_flatten(top, name)
        os.rmdir(path)
    except OSError as err:
        raise EngineError(f"cannot remove {path}: {err}", hint="unmount what is mounted inside") from err
    return freed


def _remove_or_flatten(top: int, name: str) -> int:
    """Remove the entry `name`; if it is a directory, move the directories in it up beside it first."""
    status = os.stat(name, dir_fd=top, follow_symlinks=False)
    if not stat.S_ISDIR(status.st_mode):
        os.unlink(name, dir_fd=top)
        return _freed(status)
    freed = 0
    fd = os.open(name, _DIR_FLAGS, dir_fd=top)
    try:
        for inner in os.listdir(fd):
            status = os.stat(inner, dir_fd=fd, follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode):
                os.rename(inner, f"{secrets.token_hex(16)}", src_dir_fd=fd, dst_dir_fd=top)
            else:
                os.unlink(inner, dir_fd=fd)
                freed += _freed(status)
    finally:
        os.close(fd)
    os.rmdir(name, dir_fd=top)
    return freed


def _freed(status: os.stat_result) -> int:
    return status.st_blocks * 512 if status.st_nlink == 1 else 0


def _open(path: Path, owner: contextlib.ExitStack) -> int:
    fd = os.open(path, _DIR_FLAGS)
    owner.callback(os.close, fd)
    return fd
