"""capget(2), capset(2), and the names of the capabilities.

Source: include/uapi/linux/capability.h, Linux 6.17.
"""

import ctypes
from pathlib import Path

from engine.kernel.libc import POINTER, fail, function

_NAMES = (
    "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE"
    " NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO"
    " SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME"
    " SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG"
    " WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"
)
NAMES = tuple(f"CAP_{name}" for name in _NAMES.split())
NUMBERS = {name: number for number, name in enumerate(NAMES)}

_VERSION_3 = 0x20080522


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Data(ctypes.Structure):
    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


_capget = function("capget", POINTER, POINTER)
_capset = function("capset", POINTER, POINTER)


def capset(effective: int, permitted: int, inheritable: int) -> None:
    """Set the three sets of this thread, each a bit mask by capability number.

    Raises:
        PermissionError: a capability is asked for that this thread may not have.
    """
    header = _Header(_VERSION_3, 0)
    words = [
        _Data(effective >> s & 0xFFFFFFFF, permitted >> s & 0xFFFFFFFF, inheritable >> s & 0xFFFFFFFF)
        for s in (0, 32)
    ]
    data = (_Data * 2)(*words)
    if _capset(ctypes.addressof(header), ctypes.addressof(data)) < 0:
        fail(f"capset({effective:#x}, {permitted:#x}, {inheritable:#x})")


def capget() -> tuple[int, int, int]:
    """Return the effective, permitted and inheritable sets of this thread."""
    header = _Header(_VERSION_3, 0)
    data = (_Data * 2)()
    if _capget(ctypes.addressof(header), ctypes.addressof(data)) < 0:
        fail("capget()")
    low, high = data[0], data[1]
    return (
        low.effective | high.effective << 32,
        low.permitted | high.permitted << 32,
        low.inheritable | high.inheritable << 32,
    )


def last_capability() -> int:
    """Return the highest number that this kernel knows."""
    try:
        return int(Path("/proc/sys/kernel/cap_last_cap").read_text(encoding="ascii"))
    except FileNotFoundError:
        return len(NAMES) - 1
