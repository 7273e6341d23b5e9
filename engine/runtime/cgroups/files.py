"""Small files of a control group: written whole, removed with patience."""

import contextlib
import errno
import os
import signal as signals
import time
from collections.abc import Callable, Iterator

from engine.runtime.cgroups.model import StillPopulated

_FIRST_PAUSE_S = 0.0005
_LONGEST_PAUSE_S = 0.02


def write(directory: str, file: str, value: str) -> None:
    """Put `value` into a file with one system call, as these files demand."""
    fd = os.open(f"{directory}/{file}", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, value.encode())
    finally:
        os.close(fd)


def read(directory: str, file: str) -> str:
    """Return the text of a file."""
    with open(f"{directory}/{file}", "rb") as stream:
        return stream.read().decode()


def read_or_empty(directory: str, file: str) -> str:
    """Return the text of a file, and nothing for one that is not there or cannot tell."""
    try:
        return read(directory, file)
    except OSError as err:
        if err.errno not in (errno.ENOENT, errno.ENODEV, errno.EOPNOTSUPP):
            raise
        return ""


def make(directory: str) -> None:
    """Make one level, if it is not there."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(directory, 0o755)


def tree(directory: str) -> Iterator[str]:
    """Yield the groups at and below `directory`, children first."""
    try:
        children = [entry.path for entry in os.scandir(directory) if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return
    for child in children:
        yield from tree(child)
    yield directory


def processes(directory: str) -> list[int]:
    """Return the pids at and below `directory`; 0, a process of another PID namespace, is left out."""
    found: list[int] = []
    for group in tree(directory):
        try:
            found += [int(line) for line in read(group, "cgroup.procs").split()]
        except (FileNotFoundError, OSError) as err:
            if err.errno not in (errno.ENOENT, errno.ENODEV):
                raise
    return [pid for pid in found if pid]


def signal_each(pids: list[int], signal_number: int) -> int:
    """Signal each process; return how many were still there."""
    count = 0
    for pid in pids:
        try:
            os.kill(pid, signals.Signals(signal_number) if signal_number < 32 else signal_number)  # noqa: PLR2004
        except ProcessLookupError:
            continue
        count += 1
    return count


def until(done: Callable[[], bool], *, timeout_s: float, what: str) -> None:
    """Ask `done` again with growing pauses, for kernel files that cannot be waited on.

    Raises:
        TimeoutError: it was not done in time.
    """
    deadline = time.monotonic() + timeout_s
    pause_s = _FIRST_PAUSE_S
    while not done():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not done after {timeout_s} s")
        time.sleep(pause_s)
        pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)


def remove_tree(directory: str, *, timeout_s: float) -> None:
    """Remove the groups at and below `directory`, waiting for their last processes to end.

    Raises:
        StillPopulated: they did not.
    """

    def done() -> bool:
        try:
            for group in tree(directory):
                os.rmdir(group)
        except FileNotFoundError:
            return True
        except OSError as err:
            if err.errno != errno.EBUSY:
                raise
            return False
        return True

    try:
        until(done, timeout_s=timeout_s, what=directory)
    except TimeoutError as err:
        raise StillPopulated(f"control group {directory}: processes {processes(directory)} live on") from err
