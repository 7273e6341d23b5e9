"""The namespaces of a running container that another one is to share, held so that they stay its own.

A path with a process number leads to whatever process has that number by the time it is followed. A
descriptor of the process' directory in /proc leads to that process or, once it has ended, to nothing. So the
directory is opened, the process behind it is seen to be of the container, and paths go through the descriptor
for as long as the new container is being made.

Source: proc(5); namespaces(7).
"""

import contextlib
import os
from collections.abc import Iterator

_CGROUP_BYTES = 65536


@contextlib.contextmanager
def held(pid: int, cgroup: str) -> Iterator[str]:
    """Lend the path of the directory in /proc of the process `pid`, which is in the control group `cgroup`.

    Raises:
        ProcessLookupError: it has ended, and its number may be another's.
    """
    try:
        directory_fd = os.open(f"/proc/{pid}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError as err:
        raise ProcessLookupError(*err.args) from err
    try:
        if not is_within(_read(directory_fd, "cgroup"), cgroup):
            raise ProcessLookupError(f"process {pid} is not of control group {cgroup}")
        yield f"/proc/{os.getpid()}/fd/{directory_fd}"
    finally:
        os.close(directory_fd)


def is_within(text: str, cgroup: str) -> bool:
    """Tell whether /proc/PID/cgroup says that the process is in `cgroup` or below, in any hierarchy; pure."""
    groups = [line.split(":", 2)[-1] for line in text.splitlines()]
    return any(group == cgroup or group.startswith(f"{cgroup}/") for group in groups)


def _read(directory_fd: int, name: str) -> str:
    fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory_fd)
    try:
        return os.read(fd, _CGROUP_BYTES).decode("utf-8", "replace")
    finally:
        os.close(fd)
