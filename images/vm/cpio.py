"""Write a cpio archive in the `newc` form, which the kernel unpacks as its first root file system.

Written here, not by cpio(1), so that it can hold a device node and root's ownership without root.

Source: Linux Documentation/driver-api/early-userspace/buffer-format.rst.
"""

import stat
from pathlib import Path

_ALIGN = 4


class Archive:
    """Members in the order in which they were added; all times are zero."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._inode = 0

    def directory(self, name: str) -> None:
        """Add a directory."""
        self._add(name, stat.S_IFDIR | 0o755, b"")

    def file(self, name: str, content: bytes, *, mode: int = 0o644) -> None:
        """Add a regular file."""
        self._add(name, stat.S_IFREG | mode, content)

    def link(self, name: str, target: str) -> None:
        """Add a symbolic link."""
        self._add(name, stat.S_IFLNK | 0o777, target.encode())

    def device(self, name: str, major: int, minor: int) -> None:
        """Add a character device."""
        self._add(name, stat.S_IFCHR | 0o600, b"", major, minor)

    def write(self, path: Path) -> None:
        """Write the archive, with its trailer."""
        self._add("TRAILER!!!", 0, b"")
        path.write_bytes(b"".join(self._parts))

    def _add(self, name: str, mode: int, content: bytes, major: int = 0, minor: int = 0) -> None:
        self._inode += 1
        encoded = name.encode() + b"\0"
        links = 2 if stat.S_ISDIR(mode) else 1
        fields = (self._inode, mode, 0, 0, links, 0, len(content), 0, 0, major, minor, len(encoded), 0)
        header = b"070701" + b"".join(b"%08x" % field for field in fields)
        self._parts += [_padded(header + encoded), _padded(content)]


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % _ALIGN)
