"""Read a small file of a container that does not run, straight from its layers.

Nothing is mounted: the layers are looked through from the top as overlayfs
would, with every open anchored in its layer (`RESOLVE_IN_ROOT`), so a
symbolic link in an image leads nowhere but into that layer.

Source: Documentation/filesystems/overlayfs.rst, "whiteouts and opaque directories".
"""

import errno
import os
import stat
from collections.abc import Sequence
from pathlib import Path

from engine.base.errors import InvalidArgument
from engine.kernel.openat2 import openat2
from engine.spec.accounts import FILE_MAX_BYTES

_OPAQUE = ("trusted.overlay.opaque", "user.overlay.opaque")
_NOT_HERE = frozenset((errno.ENOENT, errno.ENOTDIR, errno.ELOOP))


def read(layers: Sequence[Path], path: str) -> bytes:
    """Return the content of `path` (absolute, in the image); nothing when there is none.

    Args:
        layers: directories, topmost first; one that does not exist counts as empty.
        path: of a regular file.

    Raises:
        InvalidArgument: it is not a regular file, or larger than 1 MiB.
    """
    for layer in layers:
        try:
            layer_fd = os.open(layer, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            data = _read_in(layer_fd, path)
            if data is not None:
                return data
            if _hides_below(layer_fd, path):
                return b""
        finally:
            os.close(layer_fd)
    return b""


def _read_in(layer_fd: int, path: str) -> bytes | None:
    """Return the file's content in one layer; None when the layer has nothing there."""
    try:
        path_fd = openat2(layer_fd, path.lstrip("/"), os.O_PATH)
    except OSError as err:
        if err.errno in _NOT_HERE:
            return None
        raise
    try:
        found = os.fstat(path_fd)
        if _is_whiteout(found):
            return b""
        if not stat.S_ISREG(found.st_mode):
            raise InvalidArgument(f"{path} of the image is not a regular file")
        if found.st_size > FILE_MAX_BYTES:
            raise InvalidArgument(f"{path} of the image is larger than {FILE_MAX_BYTES} bytes")
        fd = os.open(f"/proc/self/fd/{path_fd}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    finally:
        os.close(path_fd)
    with os.fdopen(fd, "rb") as file:
        return file.read(FILE_MAX_BYTES)


def _hides_below(layer_fd: int, path: str) -> bool:
    """Tell whether a directory on the way is a whiteout or opaque in this layer."""
    parts = path.strip("/").split("/")[:-1]
    for count in range(1, len(parts) + 1):
        try:
            fd = openat2(layer_fd, "/".join(parts[:count]), os.O_PATH)
        except OSError as err:
            if err.errno in _NOT_HERE:
                return False
            raise
        try:
            if _is_whiteout(os.fstat(fd)) or _is_opaque(fd):
                return True
        finally:
            os.close(fd)
    return False


def _is_whiteout(found: os.stat_result) -> bool:
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == 0


def _is_opaque(path_fd: int) -> bool:
    for name in _OPAQUE:
        try:
            if os.getxattr(f"/proc/self/fd/{path_fd}", name) == b"y":
                return True
        except OSError:
            continue
    return False
