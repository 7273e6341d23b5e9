"""Look into the layers of an image as overlayfs would show them, without a mount.

A directory of the merged tree is a list of directories of the layers, topmost
first. Names are looked up one component at a time from a descriptor, and a
symbolic link is followed by this module, not by the kernel: so no content of
an image can lead out of it.

Rules of overlayfs: a 0/0 character device hides the name in the layers below;
so does anything that is no directory; a directory with the attribute
trusted.overlay.opaque=y hides those below it.

Source: Linux, Documentation/filesystems/overlayfs.rst.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_OPAQUE = "trusted.overlay.opaque"
_LINKS_MAX = 40
_DIR_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | getattr(os, "O_NOATIME", 0)

Parts = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Found:
    """What a name of a merged directory stands for.

    Attributes:
        layers: descriptors of the directories that hold the name, topmost
            first; only the first matters unless it is a directory.
        status: of the topmost.
    """

    layers: tuple[int, ...]
    status: os.stat_result

    @property
    def is_directory(self) -> bool:
        """Tell whether it is a directory (of one or several layers)."""
        return stat.S_ISDIR(self.status.st_mode)


def lookup(layers: Sequence[int], name: str) -> Found | None:
    """Find `name` in the merged directory `layers`; None when it is not there or hidden."""
    holders: list[int] = []
    top: os.stat_result | None = None
    for layer in layers:
        try:
            status = os.stat(name, dir_fd=layer, follow_symlinks=False)
        except FileNotFoundError:
            continue
        if _is_whiteout(status) or (top is not None and not stat.S_ISDIR(status.st_mode)):
            break
        top = top or status
        holders.append(layer)
        if not stat.S_ISDIR(status.st_mode) or _is_opaque(layer, name):
            break
    return Found(tuple(holders), top) if top is not None else None


def entries(layers: Sequence[int]) -> Iterator[tuple[str, Found]]:
    """Yield every name of a merged directory with what it stands for, in order."""
    for name in sorted({name for layer in layers for name in os.listdir(layer)}):
        found = lookup(layers, name)
        if found is not None:
            yield name, found


@contextlib.contextmanager
def opened(roots: Sequence[int], parts: Parts) -> Iterator[list[int]]:
    """Open the merged directory at `parts`, none of which may be a symbolic link.

    Args:
        roots: the layers' roots, topmost first; stay open.
        parts: names from the root on.

    Raises:
        NotADirectoryError: there is no such directory.
    """
    with contextlib.ExitStack() as stack:
        layers = list(roots)
        for name in parts:
            found = lookup(layers, name)
            if found is None or not found.is_directory:
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), "/".join(parts))
            below = contextlib.ExitStack()
            layers = [_open_directory(name, layer, below) for layer in found.layers]
            stack.close()  # the parents are not needed any more: depth costs no descriptors
            stack.push(below)
        yield layers


def resolve(roots: Sequence[int], path: str) -> Parts | None:
    """Return the real path of the directory at `path`, links followed inside the tree; None: no directory."""
    pending = _split(path)
    real: list[str] = []
    links = 0
    while pending:
        name = pending.pop(0)
        if name == "..":
            del real[-1:]
            continue
        with opened(roots, tuple(real)) as layers:
            found = lookup(layers, name)
            if found is None:
                return None
            if stat.S_ISLNK(found.status.st_mode):
                target = os.readlink(name, dir_fd=found.layers[0])
                links += 1
                if links > _LINKS_MAX:
                    return None
                if target.startswith("/"):
                    real.clear()
                pending[:0] = _split(target)
                continue
        if not found.is_directory:
            return None
        real.append(name)
    return tuple(real)


def _split(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in {"", "."}]


def _open_directory(name: str, layer: int, owner: contextlib.ExitStack) -> int:
    fd = os.open(name, _DIR_FLAGS, dir_fd=layer)
    owner.callback(os.close, fd)
    return fd


def _is_whiteout(status: os.stat_result) -> bool:
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def _is_opaque(layer: int, name: str) -> bool:
    fd = os.open(name, _DIR_FLAGS, dir_fd=layer)
    try:
        return os.getxattr(fd, _OPAQUE) == b"y"
    except OSError as err:
        if err.errno in {errno.ENODATA, errno.ENOTSUP, errno.EPERM}:
            return False
        raise
    finally:
        os.close(fd)
