"""bpf(2), as far as the device rules of a cgroup2 need it.

Source: Linux man-pages 6.9, bpf(2); include/uapi/linux/bpf.h.
"""

import ctypes
import os
import struct

from engine.kernel.libc import INT, POINTER, UINT, fail, syscall

_bpf = syscall("bpf", INT, POINTER, UINT)

_PROG_LOAD = 5
_PROG_ATTACH = 8
_PROG_TYPE_CGROUP_DEVICE = 15
_CGROUP_DEVICE = 6
_F_ALLOW_MULTI = 2
_LICENSE = ctypes.create_string_buffer(b"Apache-2.0")
_INSTRUCTION_BYTES = 8
_LOG_BYTES = 65536


def load_cgroup_device_program(program: bytes) -> int:
    """Return a descriptor of the eBPF `program`, checked by the kernel.

    Raises:
        OSError: it was rejected; a note holds the verifier's last words.
    """
    code = ctypes.create_string_buffer(program, len(program))
    log = ctypes.create_string_buffer(_LOG_BYTES)
    for log_bytes in (0, _LOG_BYTES):  # a second time with a log, only when the first failed
        attr = ctypes.create_string_buffer(
            struct.pack(
                "=IIQQIIQI",
                _PROG_TYPE_CGROUP_DEVICE,
                len(program) // _INSTRUCTION_BYTES,
                ctypes.addressof(code),
                ctypes.addressof(_LICENSE),
                1 if log_bytes else 0,
                log_bytes,
                ctypes.addressof(log) if log_bytes else 0,
                0,
            ),
            128,
        )
        fd: int = _bpf(_PROG_LOAD, ctypes.addressof(attr), 128)
        if fd >= 0:
            os.set_inheritable(fd, False)
            return fd
    try:
        fail("bpf(BPF_PROG_LOAD, BPF_PROG_TYPE_CGROUP_DEVICE)")
    except OSError as err:
        err.add_note(log.value.decode("utf-8", "replace")[-500:])
        raise


def attach_cgroup_device_program(cgroup_fd: int, program_fd: int) -> None:
    """Let `program_fd` decide about device access in the cgroup; it stays while the cgroup does."""
    attr = ctypes.create_string_buffer(
        struct.pack("=IIII", cgroup_fd, program_fd, _CGROUP_DEVICE, _F_ALLOW_MULTI), 128
    )
    if _bpf(_PROG_ATTACH, ctypes.addressof(attr), 128) < 0:
        fail("bpf(BPF_PROG_ATTACH, BPF_CGROUP_DEVICE)")
