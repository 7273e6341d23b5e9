"""What crun's tests ask of Python's libmount, which Debian 12 does not package: mountinfo by target.

Source: proc_pid_mountinfo(5).
"""

from pathlib import Path


class Mount:
    """One line of mountinfo: the mount's own options and those of its file system."""

    def __init__(self, line: str) -> None:
        own, _, filesystem = line.partition(" - ")
        fields = own.split(" ")
        self.target = fields[4]
        self.vfs_options = fields[5]
        self.fs_options = filesystem.split(" ")[2]  # the source before it may be empty: runc's of /proc is


class Table:
    """The mounts that a file lists."""

    def __init__(self, path: str) -> None:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
        self._mounts = [Mount(line) for line in lines if " - " in line]

    def find_target(self, target: str) -> Mount:
        """Return the topmost mount at `target`; raises LookupError where there is none."""
        found = [mount for mount in self._mounts if mount.target == target]
        if not found:
            raise LookupError(target)
        return found[-1]
