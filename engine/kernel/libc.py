"""The one handle on libc, and the one way a failed call becomes an exception."""

import ctypes
import os
from typing import Any, NoReturn

from engine.kernel.syscalls import NATIVE

libc = ctypes.CDLL(None, use_errno=True)

INT = ctypes.c_int
UINT = ctypes.c_uint
LONG = ctypes.c_long
ULONG = ctypes.c_ulong
BYTES = ctypes.c_char_p
POINTER = ctypes.c_void_p

AT_FDCWD = -100
AT_SYMLINK_NOFOLLOW = 0x100
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000


def fail(call: str, path: str | bytes | None = None) -> NoReturn:
    """Raise the `OSError` for the errno that `call` just set.

    Python picks the subclass from errno (ENOENT gives `FileNotFoundError`), so
    callers catch by class; the note keeps the call for whoever reads the log.
    """
    number = ctypes.get_errno()
    name = os.fsdecode(path) if path is not None else None
    err = OSError(number, os.strerror(number), name)
    err.add_note(f"system call: {call}")
    raise err


def function(name: str, *types: Any) -> Any:  # noqa: ANN401 (ctypes has no types for prototypes)
    """Return libc's `name` taking `types` and returning an int."""
    found = libc[name]
    found.argtypes = types
    found.restype = ctypes.c_int
    return found


def syscall(name: str, *types: Any) -> Any:  # noqa: ANN401 (ctypes has no types for prototypes)
    """Return a function that makes the system call `name` with arguments of `types`.

    For calls younger than the C libraries we run on. The first argument of the
    result is bound; it returns -1 and sets errno as libc's wrappers do.
    """
    prototype = ctypes.CFUNCTYPE(ctypes.c_long, ctypes.c_long, *types, use_errno=True)
    call = prototype(("syscall", libc))
    number = NATIVE[name]
    return lambda *args: call(number, *args)
