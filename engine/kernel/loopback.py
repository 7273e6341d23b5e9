"""Bring up the loopback interface of this network namespace.

Source: Linux man-pages 6.9, netdevice(7). An ioctl, because it needs no more
than a socket: netlink's module is not loaded where this is used.
"""

import fcntl
import socket
import struct

_SIOCSIFFLAGS = 0x8914
_IFF_UP = 0x1
_IFREQ = struct.Struct("16sh14x")


def up() -> None:
    """Set `lo` up; it then has 127.0.0.1 and ::1."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        fcntl.ioctl(sock, _SIOCSIFFLAGS, _IFREQ.pack(b"lo", _IFF_UP))
