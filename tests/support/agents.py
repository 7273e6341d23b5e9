"""An agent that answers the system calls of a container, by seccomp_unotify(2)."""

import array
import fcntl
import json
import os
import select
import socket
import struct
from pathlib import Path
from typing import Any

TIMEOUT_S = 60.0
_NOTIF_BYTES, _ANSWER_BYTES = 80, 24
_RECV, _SEND = 0xC0502100, 0xC0182101  # SECCOMP_IOCTL_NOTIF_*


class Agent:
    """Listens at a path, takes what one container sends, answers its calls with an errno."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.told: dict[str, Any] = {}
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.bind(str(path))
        self._socket.listen(1)
        self._socket.settimeout(TIMEOUT_S)

    def serve(self, number: int) -> int:
        """Answer every call with errno `number` until the process is gone; return how many there were."""
        connection, _ = self._socket.accept()
        with connection:
            data, ancillary, _, _ = connection.recvmsg(65536, 4096)
            while more := connection.recv(65536):
                data += more
        self.told = json.loads(data)
        fds = array.array("i")
        fds.frombytes(ancillary[0][2])
        [listener_fd] = fds
        try:
            return self._answer(listener_fd, number)
        finally:
            os.close(listener_fd)

    def _answer(self, listener_fd: int, number: int) -> int:
        poll = select.poll()
        poll.register(listener_fd, select.POLLIN)
        count = 0
        while True:
            [(_, events)] = poll.poll(TIMEOUT_S * 1000)
            if not events & select.POLLIN:
                return count
            asked = bytearray(_NOTIF_BYTES)
            fcntl.ioctl(listener_fd, _RECV, asked)
            (call_id,) = struct.unpack_from("=Q", asked)
            fcntl.ioctl(listener_fd, _SEND, struct.pack("=QqiI", call_id, 0, -number, 0))
            count += 1

    def close(self) -> None:
        """Listen no more."""
        self._socket.close()
