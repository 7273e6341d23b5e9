"""seccomp(2): load a filter; the constants of filters.

Source: Linux man-pages 6.9, seccomp(2); include/uapi/linux/{seccomp,filter,audit}.h.
"""

import ctypes
import errno

from engine.kernel.libc import POINTER, UINT, fail, syscall

RET_KILL_PROCESS = 0x80000000
RET_KILL_THREAD = 0x00000000
RET_TRAP = 0x00030000
RET_ERRNO = 0x00050000
RET_TRACE = 0x7FF00000
RET_USER_NOTIF = 0x7FC00000
RET_LOG = 0x7FFC0000
RET_ALLOW = 0x7FFF0000

FLAG_TSYNC = 1
FLAG_LOG = 2
FLAG_SPEC_ALLOW = 4
FLAG_NEW_LISTENER = 8
FLAG_WAIT_KILLABLE_RECV = 32

AUDIT_ARCH = {
    "x86_64": 0xC000003E,
    "x32": 0xC000003E,
    "x86": 0x40000003,
    "aarch64": 0xC00000B7,
    "arm": 0x40000028,
}
INSTRUCTION_BYTES = 8
MAX_INSTRUCTIONS = 4096

_SET_MODE_FILTER = 1

_seccomp = syscall("seccomp", UINT, UINT, POINTER)


def takes_flags(flags: int) -> bool:
    """Tell whether this kernel knows `flags`: it then looks for a program, and there is none (seccomp(2))."""
    return _seccomp(_SET_MODE_FILTER, flags, None) < 0 and ctypes.get_errno() == errno.EFAULT


class _Program(ctypes.Structure):
    """`struct sock_fprog`."""

    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def set_mode_filter(program: bytes, flags: int = 0) -> int:
    """Filter this thread's system calls by `program`, instructions of eight bytes.

    Returns:
        With FLAG_NEW_LISTENER the descriptor (close-on-exec) that tells of calls to answer, else 0.

    Raises:
        PermissionError: neither no_new_privs nor CAP_SYS_ADMIN.
        OSError: EINVAL for a program the kernel rejects.
    """
    buffer = ctypes.create_string_buffer(program, len(program))
    prog = _Program(len(program) // INSTRUCTION_BYTES, ctypes.addressof(buffer))
    result: int = _seccomp(_SET_MODE_FILTER, flags, ctypes.addressof(prog))
    if result < 0:
        fail(f"seccomp(SECCOMP_SET_MODE_FILTER, {flags}, {prog.length} instructions)")
    return result
