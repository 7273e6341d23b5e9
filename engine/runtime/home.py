"""Find the home directory of a process whose environment has no HOME, as runc and crun do.

The one file of the container that is read, once it is the root: by this parser
and no C library, through a descriptor of the root, and no more than 1 MiB of it.
What is no such file is told, and HOME is the root then.

Source: OCI runtime-spec 1.2.0 leaves it to runtimes; runc's and crun's manuals.
"""

import errno
import os
import stat

from engine.kernel.openat2 import openat2
from engine.runtime.handshake import InitLine
from engine.spec.accounts import FILE_MAX_BYTES, home_of

_ACCOUNTS = "etc/passwd"
_ROOT = "/"
_HOW = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY
_NONE = frozenset({errno.ENOENT, errno.ENOTDIR})


def find(uid: int, line: InitLine) -> str:
    """Return the home directory of `uid` in the root of this process."""
    try:
        passwd = _read()
    except OSError as err:
        if err.errno not in _NONE:
            line.warning(f"HOME is {_ROOT}: /{_ACCOUNTS}: {(err.strerror or '').lower()}")
        return _ROOT
    return home_of(uid, passwd)


def _read() -> bytes:
    root_fd = os.open(_ROOT, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fd = openat2(root_fd, _ACCOUNTS, _HOW)
    finally:
        os.close(root_fd)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", _ACCOUNTS)
        text = bytearray()
        while len(text) <= FILE_MAX_BYTES and (part := os.read(fd, FILE_MAX_BYTES + 1 - len(text))):
            text += part
    finally:
        os.close(fd)
    if len(text) > FILE_MAX_BYTES:
        raise OSError(errno.EFBIG, f"larger than {FILE_MAX_BYTES} bytes", _ACCOUNTS)
    return bytes(text)
