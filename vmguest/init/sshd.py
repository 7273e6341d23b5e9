"""OpenSSH in the machine: one key in, one key out, and nothing but keys.

The host key and the authorized key come from the host at every boot and live
on tmpfs; the image holds no identity.

Source: sshd_config(5), OpenSSH 10; sd_notify(3) for the readiness message.
"""

import os
import socket
from collections.abc import Callable

from vmguest.init.console import say
from vmguest.init.loop import READ, Loop
from vmguest.init.processes import ENV, spawn

_DIRECTORY = "/run/ssh"
_CONFIG = f"""\
Port 22
ListenAddress 0.0.0.0
HostKey {_DIRECTORY}/host_key
AuthorizedKeysFile {_DIRECTORY}/authorized_keys
AuthenticationMethods publickey
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
AllowStreamLocalForwarding local
AllowTcpForwarding local
AllowAgentForwarding no
X11Forwarding no
PermitTunnel no
PermitUserRC no
PrintMotd no
PrintLastLog no
UseDNS no
MaxSessions 1000
LogLevel ERROR
PidFile none
Subsystem sftp internal-sftp
"""
_RESTART_S = 1.0


class Sshd:
    """Keeps sshd running."""

    def __init__(self, loop: Loop, *, on_listening: Callable[[], None]) -> None:
        self._loop = loop
        self._on_listening = on_listening
        self._notify: socket.socket | None = None

    def start(self, host_key: str, authorized_key: str) -> None:
        """Write the identity and start sshd; `on_listening` follows when it accepts connections."""
        for directory in (_DIRECTORY, "/run/sshd"):
            os.makedirs(directory, mode=0o700, exist_ok=True)
        os.chmod("/run/sshd", 0o755)  # noqa: S103 (sshd's empty directory; it insists on the mode)
        _write(f"{_DIRECTORY}/host_key", host_key)
        _write(f"{_DIRECTORY}/authorized_keys", authorized_key + "\n")
        _write(f"{_DIRECTORY}/sshd_config", _CONFIG)
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._notify.bind(f"{_DIRECTORY}/notify")
        self._loop.add(self._notify.fileno(), READ, self._notified)
        self._spawn()

    def _spawn(self) -> None:
        pid = spawn(
            ["/usr/sbin/sshd", "-D", "-e", "-f", f"{_DIRECTORY}/sshd_config"],
            env={**ENV, "NOTIFY_SOCKET": f"{_DIRECTORY}/notify"},
        )
        self._loop.on_exit(pid, self._ended)

    def _notified(self, _events: int) -> None:
        if self._notify is not None and b"READY=1" in self._notify.recv(4096):
            self._on_listening()

    def _ended(self, status: int) -> None:
        say(f"sshd ended: {os.waitstatus_to_exitcode(status)}; starting it again")
        self._loop.call_later(_RESTART_S, self._spawn)


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "w") as file:
        file.write(text)
