"""Being told that the kernel kills in a control group for want of memory.

Source: Linux admin-guide, cgroup-v1/memory.rst, "OOM Control" (an eventfd that
is named in cgroup.event_control), and cgroup-v2.rst, "memory.events".
"""

import os
import select

from engine.runtime.cgroups import files


class LegacyOomWatch:
    """An eventfd; the end of the group is told by it as well."""

    poll_events = select.POLLIN

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self.fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        try:
            control_fd = os.open(f"{directory}/memory.oom_control", os.O_RDONLY | os.O_CLOEXEC)
            try:
                files.write(directory, "cgroup.event_control", f"{self.fd} {control_fd}")
            finally:
                os.close(control_fd)
        except BaseException:
            os.close(self.fd)
            raise

    def take(self) -> int:
        """Return how many times."""
        try:
            count = os.eventfd_read(self.fd)
        except BlockingIOError:
            return 0
        return count if os.path.exists(f"{self._directory}/memory.oom_control") else 0

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self.fd)


class UnifiedOomWatch:
    """memory.events, whose change is told by POLLPRI."""

    poll_events = select.POLLPRI

    def __init__(self, directory: str) -> None:
        self.fd = os.open(f"{directory}/memory.events", os.O_RDONLY | os.O_CLOEXEC)
        self._seen = self._count()

    def _count(self) -> int:
        try:
            text = os.pread(self.fd, 4096, 0).decode()
        except OSError:  # ENODEV: the group is gone
            return self._seen
        lines = (line.split() for line in text.splitlines())
        return next((int(words[1]) for words in lines if words[0] == "oom_kill"), 0)

    def take(self) -> int:
        """Return how many processes were killed."""
        before, self._seen = self._seen, self._count()
        return self._seen - before

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self.fd)
