"""Write the entries of a layer's tar below one directory, and nowhere else.

The tree is private to us until it is complete. Still no path is trusted: a
name is cut into components, ``..`` may not climb, parents are opened with
openat2 *inside* the root (a link in the layer leads where it would lead in a
container), and everything else happens relative to that descriptor, on one
component, without following it. Metadata goes through descriptors, or calls
that do not follow links.

Deletions are in overlayfs's form afterwards: ``.wh.name`` becomes the
character device 0:0 ``name``, ``.wh..wh..opq`` the attribute
``trusted.overlay.opaque`` of its directory. An archive cannot bring either by
itself.

Source: OCI image-spec 1.1, layer.md; Linux, Documentation/filesystems/overlayfs.rst.
"""

import errno
import os
import stat
from collections.abc import Callable

from engine.base.errors import InvalidArgument
from engine.images.limits import DEFAULT, Limits
from engine.images.tarstream import Entry, Kind, TarReader, show
from engine.kernel.openat2 import openat2
from engine.snapshots import trees

WHITEOUT_PREFIX = b".wh."
OPAQUE_NAME = b".wh..wh..opq"
OPAQUE_XATTR = "trusted.overlay.opaque"
_AUFS_PREFIX = b".wh..wh."
_NAME_MAX = 255
_DIR_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_PATH_DIR_FLAGS = os.O_PATH | os.O_DIRECTORY
_CREATE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

Components = tuple[bytes, ...]
_Maker = Callable[[Entry, Components, TarReader], None]

# What the kernel says to names and attributes that no file can have.
_REFUSALS = frozenset(
    {
        errno.EEXIST, errno.EFBIG, errno.EINVAL, errno.EISDIR, errno.ELOOP, errno.EMLINK,
        errno.ENAMETOOLONG, errno.ENOENT, errno.ENOTDIR, errno.ENXIO, errno.EOVERFLOW,
    }
)  # fmt: skip


def components(name: bytes, limits: Limits = DEFAULT) -> Components:
    """Return the path of an entry, cut at its slashes, without ``.`` and ``..``.

    Raises:
        InvalidArgument: it climbs out of the root, or is too deep or too long.
    """
    parts: list[bytes] = []
    for part in name.split(b"/"):
        if part == b"..":
            if not parts:
                raise InvalidArgument(f"{show(name)}: leads out of the archive")
            parts.pop()
        elif part not in (b"", b"."):
            if len(part) > _NAME_MAX:
                raise InvalidArgument(f"{show(name)}: file name of {len(part)} bytes")
            parts.append(part)
    if len(parts) > limits.depth:
        raise InvalidArgument(f"{show(name)}: deeper than {limits.depth} directories")
    return tuple(parts)


class LayerWriter:
    """Writes one layer below `root_fd`, which stays the caller's. Use in `with`, then `finish`."""

    def __init__(self, root_fd: int, limits: Limits = DEFAULT) -> None:
        self._root_fd = root_fd
        self._limits = limits
        self._parent: Components | None = None  # the directory that is open now
        self._parent_fd = -1
        self._times: dict[Components, int] = {}  # of directories: set last, writing inside changes them
        self.size_bytes = 0  # of all regular files written
        self._makers: dict[Kind, _Maker] = {
            Kind.FILE: self._file,
            Kind.DIRECTORY: self._directory,
            Kind.SYMLINK: self._symlink,
            Kind.HARDLINK: self._hardlink,
            Kind.CHAR: self._node,
            Kind.BLOCK: self._node,
            Kind.FIFO: self._node,
        }

    def __enter__(self) -> "LayerWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self._forget_parent()

    def write(self, entry: Entry, reader: TarReader) -> None:
        """Make what `entry` says; its data is read from `reader`.

        Raises:
            InvalidArgument: the entry is refused; the tree is incomplete and must be removed.
            OSError: the disk is full, or the file system cannot hold it.
        """
        path = components(entry.name, self._limits)
        try:
            if _is_whiteout(path, entry.name):
                self._whiteout(path)
            elif not any(part.startswith(_AUFS_PREFIX) for part in path):  # aufs's own: docker skips them
                self._makers[entry.kind](entry, path, reader)
        except OSError as err:
            if err.errno not in _REFUSALS:
                raise
            raise InvalidArgument(f"{show(entry.name)}: {os.strerror(err.errno or 0).lower()}") from err

    def finish(self) -> None:
        """Give each directory the time that its entry says."""
        self._forget_parent()
        for path, mtime_ns in reversed(self._times.items()):
            try:
                fd = openat2(self._root_fd, _joined(path), _DIR_FLAGS)
            except OSError:
                continue  # replaced by something else, later in the archive
            try:
                os.utime(fd, ns=(mtime_ns, mtime_ns))
            finally:
                os.close(fd)

    def _file(self, entry: Entry, path: Components, reader: TarReader) -> None:
        parent_fd, name = self._place(entry, path)
        fd = self._create(name, parent_fd)
        try:
            while data := reader.read():
                _write_all(fd, data)
            os.fchown(fd, entry.uid, entry.gid)
            os.fchmod(fd, entry.mode)  # after chown, which clears setuid
            _set_xattrs(fd, entry)
            os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))
        finally:
            os.close(fd)
        self.size_bytes += entry.size

    def _create(self, name: bytes, parent_fd: int) -> int:
        try:
            return os.open(name, _CREATE_FLAGS, 0o600, dir_fd=parent_fd)
        except FileExistsError:
            self._clear(name, parent_fd)
            return os.open(name, _CREATE_FLAGS, 0o600, dir_fd=parent_fd)

    def _directory(self, entry: Entry, path: Components, _reader: TarReader) -> None:
        if path:
            parent_fd, name = self._place(entry, path)
            self._make_directory(name, parent_fd)
            fd = os.open(name, _DIR_FLAGS | os.O_CLOEXEC, dir_fd=parent_fd)
        else:
            fd = os.open(".", _DIR_FLAGS | os.O_CLOEXEC, dir_fd=self._root_fd)
        try:
            os.fchown(fd, entry.uid, entry.gid)
            os.fchmod(fd, entry.mode)
            _set_xattrs(fd, entry)
        finally:
            os.close(fd)
        self._times.pop(path, None)  # so that the last one counts, in its own order
        self._times[path] = entry.mtime_ns

    def _symlink(self, entry: Entry, path: Components, _reader: TarReader) -> None:
        if not entry.link:
            raise InvalidArgument(f"{show(entry.name)}: symbolic link without a target")
        parent_fd, name = self._place(entry, path)
        self._clear(name, parent_fd)
        os.symlink(entry.link, name, dir_fd=parent_fd)
        _set_owner_and_time(entry, name, parent_fd)

    def _hardlink(self, entry: Entry, path: Components, _reader: TarReader) -> None:
        target = components(entry.link, self._limits)
        if not target or target == path:
            raise InvalidArgument(f"{show(entry.name)}: hard link to itself or to the root")
        parent_fd, name = self._place(entry, path)
        try:
            target_fd = self._open_directory(target[:-1])
            try:
                self._link(target[-1], target_fd, name, parent_fd)
            finally:
                os.close(target_fd)
        except (FileNotFoundError, NotADirectoryError) as err:
            raise InvalidArgument(
                f"{show(entry.name)}: hard link to {show(entry.link)}, which is not in the layer"
            ) from err

    def _link(self, target: bytes, target_fd: int, name: bytes, parent_fd: int) -> None:
        status = os.stat(target, dir_fd=target_fd, follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode) or _is_whiteout_device(status):
            raise InvalidArgument(f"{show(name)}: hard link to a directory or to a deleted file")
        if _same_entry(status, name, parent_fd):
            return
        self._clear(name, parent_fd)
        os.link(target, name, src_dir_fd=target_fd, dst_dir_fd=parent_fd, follow_symlinks=False)

    def _node(self, entry: Entry, path: Components, _reader: TarReader) -> None:
        if entry.kind is Kind.CHAR and entry.device == (0, 0):
            raise InvalidArgument(f"{show(entry.name)}: device 0:0 is reserved")
        kinds = {Kind.CHAR: stat.S_IFCHR, Kind.BLOCK: stat.S_IFBLK, Kind.FIFO: stat.S_IFIFO}
        parent_fd, name = self._place(entry, path)
        self._clear(name, parent_fd)
        try:
            device = os.makedev(*entry.device)
        except OverflowError as err:
            raise InvalidArgument(f"{show(entry.name)}: bad device number {entry.device}") from err
        os.mknod(name, kinds[entry.kind] | 0o600, device, dir_fd=parent_fd)
        _set_owner_and_time(entry, name, parent_fd)
        # A path below /proc/self/fd names the very node, where chmod(2) by name would follow a link.
        node_fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent_fd)
        try:
            os.chmod(f"/proc/self/fd/{node_fd}", entry.mode)
        finally:
            os.close(node_fd)
        _set_owner_and_time(entry, name, parent_fd)

    def _whiteout(self, path: Components) -> None:
        *parent, marker = path
        parent_fd = self._open_parent(tuple(parent))
        if marker == OPAQUE_NAME:
            _make_opaque(b".", parent_fd)
            return
        name = marker[len(WHITEOUT_PREFIX) :]
        try:
            status = os.stat(name, dir_fd=parent_fd, follow_symlinks=False)
        except FileNotFoundError:
            os.mknod(name, stat.S_IFCHR | 0o600, os.makedev(0, 0), dir_fd=parent_fd)
            return
        # A whiteout concerns the layers below only: what this layer brings stays, and hides them.
        if stat.S_ISDIR(status.st_mode):
            _make_opaque(name, parent_fd)

    def _place(self, entry: Entry, path: Components) -> tuple[int, bytes]:
        """Return the open parent of `path`, and its last component."""
        if not path:
            raise InvalidArgument(f"{show(entry.name)}: the root must be a directory")
        for part in path:
            if part.startswith(WHITEOUT_PREFIX):
                raise InvalidArgument(f"{show(entry.name)}: {show(WHITEOUT_PREFIX)} in a directory's name")
        return self._open_parent(path[:-1]), path[-1]

    def _open_parent(self, path: Components) -> int:
        """Return a descriptor of the directory `path`, made if need be; it is valid until the next call."""
        if self._parent != path:
            self._forget_parent()
            self._parent_fd = self._open_or_make(path)
            self._parent = path
        return self._parent_fd

    def _forget_parent(self) -> None:
        if self._parent is not None:
            os.close(self._parent_fd)
            self._parent = None

    def _open_directory(self, path: Components) -> int:
        return openat2(self._root_fd, _joined(path), _PATH_DIR_FLAGS)

    def _open_or_make(self, path: Components) -> int:
        try:
            return self._open_directory(path)
        except (FileNotFoundError, NotADirectoryError):
            pass
        above_fd = self._open_or_make(path[:-1])
        try:
            self._make_directory(path[-1], above_fd)
        finally:
            os.close(above_fd)
        try:
            return self._open_directory(path)
        except FileNotFoundError as err:
            raise InvalidArgument(f"{show(b'/'.join(path))}: a link to nowhere, used as a directory") from err

    def _make_directory(self, name: bytes, parent_fd: int) -> None:
        """Make the directory `name`, or keep the one that is there.

        In the place of a whiteout it hides what the layers below have.
        """
        try:
            os.mkdir(name, 0o755, dir_fd=parent_fd)
        except FileExistsError:
            status = os.stat(name, dir_fd=parent_fd, follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode):
                return
            os.unlink(name, dir_fd=parent_fd)
            os.mkdir(name, 0o755, dir_fd=parent_fd)
            if _is_whiteout_device(status):
                _make_opaque(name, parent_fd)

    def _clear(self, name: bytes, parent_fd: int) -> None:
        """Remove `name`, which a later entry replaces; harmless when it is not there."""
        try:
            os.unlink(name, dir_fd=parent_fd)
        except FileNotFoundError:
            pass
        except IsADirectoryError:
            fd = os.open(name, _DIR_FLAGS | os.O_CLOEXEC, dir_fd=parent_fd)
            try:
                trees.empty(fd)
            finally:
                os.close(fd)
            os.rmdir(name, dir_fd=parent_fd)


def _joined(path: Components) -> str:
    return os.fsdecode(b"/".join(path)) or "."


def _is_whiteout(path: Components, name: bytes) -> bool:
    if not path or not path[-1].startswith(WHITEOUT_PREFIX):
        return False
    if path[-1] == OPAQUE_NAME:
        return True
    if path[-1].startswith(_AUFS_PREFIX):
        return False
    if path[-1][len(WHITEOUT_PREFIX) :] in (b"", b".", b".."):
        raise InvalidArgument(f"{show(name)}: deletes no file")
    return True


def _is_whiteout_device(status: os.stat_result) -> bool:
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def _same_entry(status: os.stat_result, name: bytes, parent_fd: int) -> bool:
    try:
        other = os.stat(name, dir_fd=parent_fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return (status.st_dev, status.st_ino) == (other.st_dev, other.st_ino)


def _make_opaque(name: bytes, parent_fd: int) -> None:
    fd = os.open(name, _DIR_FLAGS | os.O_CLOEXEC, dir_fd=parent_fd)
    try:
        os.setxattr(fd, OPAQUE_XATTR, b"y")
    finally:
        os.close(fd)


def _set_owner_and_time(entry: Entry, name: bytes, parent_fd: int) -> None:
    os.chown(name, entry.uid, entry.gid, dir_fd=parent_fd, follow_symlinks=False)
    os.utime(name, ns=(entry.mtime_ns, entry.mtime_ns), dir_fd=parent_fd, follow_symlinks=False)


def _set_xattrs(fd: int, entry: Entry) -> None:
    """Set the attributes that an image may bring; drop others, refuse overlayfs's own."""
    for name, value in entry.xattrs.items():
        if b"overlay." in name:
            raise InvalidArgument(f"{show(entry.name)}: attribute {show(name)} is reserved")
        if name == b"security.capability" or name.startswith(b"user."):
            _set_xattr(fd, name, value, entry)


def _set_xattr(fd: int, name: bytes, value: bytes, entry: Entry) -> None:
    try:
        os.setxattr(fd, name, value)
    except OSError as err:
        if err.errno == errno.ENOTSUP:  # a file system without such attributes: go on, as docker does
            return
        # ENOSPC is what ext4 says to an attribute that is larger than a block.
        raise InvalidArgument(f"{show(entry.name)}: attribute {show(name)}: {err.strerror}") from err


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
