"""The file that this process executes, in forms that nobody can write: to execute it once more.

Loaded at the very start of programs that are waited for, hence without the rest of this package, whose
imports take longer than all that is done here. Both system calls are younger than the one numbering for
all architectures.

Source: open_tree(2), mount_setattr(2), memfd_create(2), fcntl(2) "File Sealing"; asm-generic/unistd.h.
"""

import ctypes
import fcntl
import os

SELF = "/proc/self/exe"

_OPEN_TREE = 428
_MOUNT_SETATTR = 442
_AT_FDCWD = -100
_AT_EMPTY_PATH = 0x1000
_OPEN_TREE_CLONE = 1
_MOUNT_ATTR_RDONLY = 1
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE

_libc = ctypes.CDLL(None, use_errno=True)


def on_readonly_mount() -> int:
    """Return a descriptor of it on a detached, read-only mount of its own.

    Raises:
        PermissionError: CAP_SYS_ADMIN is missing.
    """
    flags = ctypes.c_uint(_OPEN_TREE_CLONE | os.O_CLOEXEC)
    fd: int = _libc.syscall(ctypes.c_long(_OPEN_TREE), _AT_FDCWD, SELF.encode(), flags)
    if fd < 0:
        _fail("open_tree")
    attributes = (ctypes.c_uint64 * 4)(_MOUNT_ATTR_RDONLY, 0, 0, 0)
    size = ctypes.c_size_t(ctypes.sizeof(attributes))
    if _libc.syscall(ctypes.c_long(_MOUNT_SETATTR), fd, b"", _AT_EMPTY_PATH, attributes, size) < 0:
        os.close(fd)
        _fail("mount_setattr")
    return fd


def sealed_copy(name: str) -> int:
    """Return a descriptor of a copy in memory, called `name`, that can never be changed."""
    copy_fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        own_fd = os.open(SELF, os.O_RDONLY | os.O_CLOEXEC)
        try:
            left = os.fstat(own_fd).st_size
            while left > 0:
                left -= os.sendfile(copy_fd, own_fd, None, left)
        finally:
            os.close(own_fd)
        fcntl.fcntl(copy_fd, fcntl.F_ADD_SEALS, _SEALS)
        return os.open(f"/proc/self/fd/{copy_fd}", os.O_RDONLY | os.O_CLOEXEC)  # what can be written is busy
    finally:
        os.close(copy_fd)


def _fail(call: str) -> None:
    number = ctypes.get_errno()
    err = OSError(number, os.strerror(number), SELF)
    err.add_note(f"system call: {call}")
    raise err
