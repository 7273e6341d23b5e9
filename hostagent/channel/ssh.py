"""The SSH channel: one persistent connection, any number of streams on it.

The guest's host key was made on the host and is pinned here, so another
program that sits on the forwarded port is noticed before anything is said to
it. The user's own SSH configuration and known hosts play no part.

Source: RFC 4254 sections 5 and 7.2; OpenSSH PROTOCOL, 2.4 "direct-streamlocal@openssh.com".
"""

import logging
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import paramiko

from engine.base.errors import Denied, Unavailable
from hostagent.channel.model import Address, UnixAddress

log = logging.getLogger(__name__)

_STREAMLOCAL = "direct-streamlocal@openssh.com"
_KEEPALIVE_S = 15
_WINDOW_BYTES = 4 << 20
_CIPHERS = ("aes128-gcm@openssh.com", "aes128-ctr", "aes256-gcm@openssh.com", "aes256-ctr")
_KEX = ("curve25519-sha256@libssh.org", "curve25519-sha256")


@dataclass(frozen=True, slots=True)
class SshTarget:
    """Where sshd is reached, and what proves either side to the other."""

    host: str
    port: int
    host_key_line: str  # "ssh-ed25519 AAAA...", the one key that the server may show
    client_key: Path
    user: str = "root"


class _Transport(paramiko.Transport):
    """A transport that can also open channels to unix sockets.

    paramiko's `open_channel` knows no payload for that kind of channel, but
    sends the message it made, whatever the kind, through
    `_send_user_message` on the calling thread: there the payload is added.
    """

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self._pending = threading.local()

    def open_streamlocal(self, path: str, timeout_s: float) -> paramiko.Channel:
        """Return a channel to the unix socket `path` on the server's side."""
        self._pending.path = path
        try:
            return self.open_channel(_STREAMLOCAL, window_size=_WINDOW_BYTES, timeout=timeout_s)
        finally:
            self._pending.path = None

    def _send_user_message(self, data: paramiko.Message) -> None:
        path = getattr(self._pending, "path", None)
        if path is not None:
            self._pending.path = None
            data.add_string(path)
            data.add_string("")  # reserved
            data.add_int(0)  # reserved
        super()._send_user_message(data)  # type: ignore[misc]  # paramiko's own hook; absent from its stubs


class SshStream:
    """A `Stream` on an SSH channel."""

    def __init__(self, channel: paramiko.Channel) -> None:
        self._channel = channel

    def recv(self, size: int) -> bytes:
        """Return up to `size` bytes, b"" at the end."""
        return self._channel.recv(size)

    def sendall(self, data: bytes) -> None:
        """Send all of `data`."""
        self._channel.sendall(data)

    def shutdown_write(self) -> None:
        """Send EOF; the server passes it on as a half-close of its socket."""
        self._channel.shutdown_write()

    def close(self) -> None:
        """End both directions."""
        self._channel.close()


class SshChannel:
    """A `Channel` over SSH; safe to use from several threads."""

    def __init__(self, target: SshTarget, *, on_lost: Callable[[], None] = lambda: None) -> None:
        """Make it unconnected; `on_lost` is called, on a thread of its own, when the link drops."""
        self._target = target
        self._on_lost = on_lost
        self._lock = threading.Lock()
        self._transport: _Transport | None = None
        self._closed = False

    @property
    def alive(self) -> bool:
        """Whether the link stands, as far as this side has noticed."""
        transport = self._transport
        return transport is not None and transport.is_active()

    def open(self, *, timeout_s: float) -> None:
        """Link to the server unless linked.

        Raises:
            Denied: the server showed another key than the pinned one, or refused ours.
            Unavailable: it cannot be reached.
            TimeoutError: it did not answer in `timeout_s`.
        """
        self._linked(timeout_s)

    def connect(self, address: Address, *, timeout_s: float) -> SshStream:
        """Return a stream to `address` in the guest; see `hostagent.channel.model.Channel`."""
        transport = self._linked(timeout_s)
        try:
            if isinstance(address, UnixAddress):
                channel = transport.open_streamlocal(address.path, timeout_s)
            else:
                channel = transport.open_channel(
                    "direct-tcpip",
                    (address.host, address.port),
                    ("127.0.0.1", 0),
                    window_size=_WINDOW_BYTES,
                    timeout=timeout_s,
                )
        except (paramiko.SSHException, EOFError, OSError) as err:
            raise Unavailable(f"cannot connect to {address} in the machine: {_reason(err)}") from err
        return SshStream(channel)

    def session(self, *, timeout_s: float) -> paramiko.Channel:
        """Return a channel on which a command or a shell can be asked for; raises as `connect`."""
        try:
            return self._linked(timeout_s).open_session(timeout=timeout_s)
        except (paramiko.SSHException, EOFError, OSError) as err:
            raise Unavailable(f"cannot open a session in the machine: {_reason(err)}") from err

    def close(self) -> None:
        """End the link; `on_lost` is not called for it."""
        with self._lock:
            self._closed = True
            transport, self._transport = self._transport, None
        if transport is not None:
            transport.close()

    def _linked(self, timeout_s: float) -> _Transport:
        with self._lock:
            if self._closed:
                raise Unavailable("the channel to the machine is closed")
            if self._transport is not None and self._transport.is_active():
                return self._transport
            self._transport = _link(self._target, timeout_s)
            threading.Thread(
                target=self._watch, args=(self._transport,), name="ssh-watch", daemon=True
            ).start()
            return self._transport

    def _watch(self, transport: _Transport) -> None:
        transport.join()
        with self._lock:
            lost = not self._closed and self._transport is transport
        if lost:
            log.info("the ssh link was lost")
            self._on_lost()


def _link(target: SshTarget, timeout_s: float) -> _Transport:
    where = f"{target.host}:{target.port}"
    try:
        sock = socket.create_connection((target.host, target.port), timeout=timeout_s)
    except TimeoutError as err:
        raise TimeoutError(f"ssh at {where}: no connection within {timeout_s:.0f} s") from err
    except OSError as err:
        raise Unavailable(f"ssh at {where}: {err.strerror or err}") from err
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    transport = _Transport(sock)
    try:
        _log_in(transport, target, timeout_s)
    except BaseException:
        transport.close()
        raise
    transport.set_keepalive(_KEEPALIVE_S)
    return transport


def _log_in(transport: _Transport, target: SshTarget, timeout_s: float) -> None:
    where = f"{target.host}:{target.port}"
    options = transport.get_security_options()
    options.ciphers = tuple(c for c in _CIPHERS if c in options.ciphers) or options.ciphers
    options.kex = tuple(k for k in _KEX if k in options.kex) or options.kex
    transport.banner_timeout = timeout_s
    transport.handshake_timeout = timeout_s
    transport.auth_timeout = timeout_s
    pinned = paramiko.Ed25519Key(data=_blob(target.host_key_line))
    client = paramiko.Ed25519Key.from_private_key_file(str(target.client_key))
    try:
        transport.connect(hostkey=pinned, username=target.user, pkey=client)
    except paramiko.AuthenticationException as err:
        raise Denied(f"ssh at {where}: the guest refused the machine's key") from err
    except paramiko.SSHException as err:
        shown = transport.get_remote_server_key() if transport.initial_kex_done else None
        if shown is not None and shown.asbytes() != pinned.asbytes():
            raise Denied(
                f"ssh at {where}: the host key is not the machine's: another program answers"
            ) from err
        raise Unavailable(f"ssh at {where}: {_reason(err)}") from err
    except (EOFError, OSError) as err:
        raise Unavailable(f"ssh at {where}: {_reason(err)}") from err


def _blob(line: str) -> bytes:
    import base64  # noqa: PLC0415 (once a link)

    return base64.b64decode(line.split()[1])


def _reason(err: BaseException) -> str:
    return str(err) or type(err).__name__
