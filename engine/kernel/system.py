"""Calls about the whole system or the whole file system.

Source: Linux man-pages 6.9: reboot(2), finit_module(2), statfs(2), getcwd(2).
"""

import ctypes
import os

from engine.kernel.libc import BYTES, INT, POINTER, ULONG, fail, function, syscall

PROC_SUPER_MAGIC = 0x9FA0
SYSFS_MAGIC = 0x62656572
TMPFS_MAGIC = 0x01021994
DEVPTS_SUPER_MAGIC = 0x1CD1
CGROUP2_SUPER_MAGIC = 0x63677270
CGROUP_SUPER_MAGIC = 0x27E0EB
OVERLAYFS_SUPER_MAGIC = 0x794C7630

RB_AUTOBOOT = 0x01234567
RB_HALT_SYSTEM = 0xCDEF0123
RB_POWER_OFF = 0x4321FEDC

_fstatfs = function("fstatfs", INT, POINTER)
_reboot = function("reboot", INT)
_syncfs = function("syncfs", INT)
_finit_module = syscall("finit_module", INT, BYTES, INT)
_getcwd = syscall("getcwd", POINTER, ULONG)
_setdomainname = function("setdomainname", BYTES, ULONG)

_keyctl = syscall("keyctl", INT, BYTES)

_KEYCTL_JOIN_SESSION_KEYRING = 1
_STATFS_BYTES = 256  # larger than any architecture's struct
_PATH_MAX = 4096


def statfs_type(fd: int) -> int:
    """Return the magic number of the file system that `fd` (O_PATH will do) is on."""
    buffer = ctypes.create_string_buffer(_STATFS_BYTES)
    if _fstatfs(fd, ctypes.addressof(buffer)) < 0:
        fail(f"fstatfs({fd})")
    return int.from_bytes(buffer.raw[:8], "little") & 0xFFFFFFFF


def syncfs(fd: int) -> None:
    """Write out the file system that holds `fd`, data and names, and wait for it.

    Raises:
        OSError: EIO, ENOSPC, EDQUOT: something written since `fd` was opened was lost.
    """
    if _syncfs(fd) < 0:
        fail(f"syncfs({fd})")


def raw_getcwd() -> bytes:
    """Return the kernel's idea of the current directory: not absolute when outside the root."""
    buffer = ctypes.create_string_buffer(_PATH_MAX)
    if _getcwd(ctypes.addressof(buffer), _PATH_MAX) < 0:
        fail("getcwd()")
    return buffer.value


def setdomainname(name: str) -> None:
    """Set the NIS domain name of this UTS namespace."""
    text = os.fsencode(name)
    if _setdomainname(text, len(text)) < 0:
        fail(f"setdomainname({name!r})")


def reboot(command: int) -> None:
    """Restart, halt or power off at once: file systems must have been synced by the caller."""
    ctypes.set_errno(0)
    command = command - (1 << 32) if command >= 1 << 31 else command
    if _reboot(command) < 0:
        fail(f"reboot({command:#x})")


def finit_module(fd: int, parameters: str = "", flags: int = 0) -> None:
    """Load the kernel module in the open file `fd`.

    Raises:
        FileExistsError: it is loaded already.
    """
    if _finit_module(fd, os.fsencode(parameters), flags) < 0:
        fail(f"finit_module({fd}, {parameters!r}, {flags})")


def join_session_keyring(name: str) -> None:
    """Start a session keyring of its own, so that keys of the caller's session stay out of reach."""
    if _keyctl(_KEYCTL_JOIN_SESSION_KEYRING, os.fsencode(name)) < 0:
        fail(f"keyctl(KEYCTL_JOIN_SESSION_KEYRING, {name!r})")
