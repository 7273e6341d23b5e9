"""A tree of the host beside a container's root, in which nothing may change."""

import os
from pathlib import Path


class Canary:
    """A directory and a file of the host that must stay as they are: names, bytes, all but access times."""

    def __init__(self, base: Path) -> None:
        self.path = base / "canary"
        self.path.mkdir(mode=0o700)
        self.file = self.path / "file"
        self.file.write_text("of the host\n")
        self.file.chmod(0o600)
        self._before = self._look()

    def _look(self) -> list[tuple[object, ...]]:
        return [self._look_at(path) for path in (self.path, *sorted(self.path.rglob("*")))]

    @staticmethod
    def _look_at(path: Path) -> tuple[object, ...]:
        status = path.lstat()
        attributes = {name: os.getxattr(path, name, follow_symlinks=False) for name in _attributes(path)}
        content = path.read_bytes() if path.is_file() else b""
        identity = (
            status.st_dev,
            status.st_ino,
            status.st_mode,
            status.st_uid,
            status.st_gid,
            status.st_nlink,
        )
        return (
            str(path),
            *identity,
            status.st_size,
            status.st_mtime_ns,
            status.st_ctime_ns,
            attributes,
            content,
        )

    def is_untouched(self) -> bool:
        """Tell whether all is as it was."""
        return self._look() == self._before


def _attributes(path: Path) -> list[str]:
    return os.listxattr(path, follow_symlinks=False)
