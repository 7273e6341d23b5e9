"""Who runs when, and as what: sched_setattr(2), ioprio_set(2), personality(2).

Source: Linux man-pages 6.9; include/uapi/linux/{sched,sched/types,ioprio,personality}.h.
"""

import struct

from engine.kernel.libc import BYTES, INT, UINT, ULONG, fail, function, syscall

POLICIES = {
    "SCHED_OTHER": 0,
    "SCHED_FIFO": 1,
    "SCHED_RR": 2,
    "SCHED_BATCH": 3,
    "SCHED_IDLE": 5,
    "SCHED_DEADLINE": 6,
}
SCHED_FLAGS = {
    "SCHED_FLAG_RESET_ON_FORK": 0x01,
    "SCHED_FLAG_RECLAIM": 0x02,
    "SCHED_FLAG_DL_OVERRUN": 0x04,
    "SCHED_FLAG_KEEP_POLICY": 0x08,
    "SCHED_FLAG_KEEP_PARAMS": 0x10,
    "SCHED_FLAG_UTIL_CLAMP_MIN": 0x20,
    "SCHED_FLAG_UTIL_CLAMP_MAX": 0x40,
}
IO_CLASSES = {"IOPRIO_CLASS_RT": 1, "IOPRIO_CLASS_BE": 2, "IOPRIO_CLASS_IDLE": 3}
PERSONALITIES = {"LINUX": 0x0000, "LINUX32": 0x0008}

_ATTRIBUTES = struct.Struct("=IIQiIQQQII")  # all 56 bytes of SCHED_ATTR_SIZE_VER1
_IO_CLASS_SHIFT = 13
_WHO_PROCESS = 1

_sched_setattr = syscall("sched_setattr", INT, BYTES, UINT)
_ioprio_set = syscall("ioprio_set", INT, INT, INT)
_personality = function("personality", ULONG)


def attributes(policy: int, flags: int, nice: int, priority: int, deadline_ns: tuple[int, int, int]) -> bytes:
    """Return a `struct sched_attr`; the last are run time, deadline and period of SCHED_DEADLINE."""
    return _ATTRIBUTES.pack(_ATTRIBUTES.size, policy, flags, nice, priority, *deadline_ns, 0, 0)


def sched_setattr(packed: bytes) -> None:
    """Give this thread the scheduling `attributes`.

    Raises:
        PermissionError: it takes CAP_SYS_NICE.
        OSError: EINVAL for what this kernel does not have, EBUSY when a deadline cannot be kept.
    """
    if _sched_setattr(0, packed, 0) < 0:
        fail(f"sched_setattr({packed.hex()})")


def ioprio_set(io_class: int, level: int) -> None:
    """Give this process a class and a level of input and output.

    Raises:
        PermissionError: the class takes CAP_SYS_ADMIN or CAP_SYS_NICE.
    """
    if _ioprio_set(_WHO_PROCESS, 0, io_class << _IO_CLASS_SHIFT | level) < 0:
        fail(f"ioprio_set({io_class}, {level})")


def personality(domain: int) -> None:
    """Be of an execution domain, until told otherwise; what is executed inherits it.

    Raises:
        OSError: EINVAL: this processor has no such mode.
    """
    if _personality(domain) < 0:
        fail(f"personality({domain:#x})")
