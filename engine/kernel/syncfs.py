"""syncfs(2): make everything written to one file system durable."""

from engine.kernel.libc import INT, fail, function

_syncfs = function("syncfs", INT)


def syncfs(fd: int) -> None:
    """Write out the file system that holds `fd`, data and names, and wait for it.

    Raises:
        OSError: EIO, ENOSPC, EDQUOT: something written since `fd` was opened was lost.
    """
    if _syncfs(fd) < 0:
        fail(f"syncfs({fd})")
