"""The SSH channel against a real OpenSSH server on loopback."""

import os
import signal
import socket
import socketserver
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import pytest

from engine.base.errors import Denied, Unavailable
from hostagent.agent.pump import Pump
from hostagent.channel import keys
from hostagent.channel.model import TcpAddress, UnixAddress
from hostagent.channel.ssh import SshChannel, SshTarget

pytestmark = pytest.mark.requires("root", "sshd")

Serve = Callable[[Callable[[socket.socket], None]], UnixAddress]

TIMEOUT_S = 20.0
MEBIBYTE = bytes(range(256)) * 4096

CONFIG = """\
Port {port}
ListenAddress 127.0.0.1
HostKey {directory}/host_key
AuthorizedKeysFile {directory}/authorized_keys
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
StrictModes no
AllowStreamLocalForwarding local
AllowTcpForwarding local
PidFile none
"""


@dataclass
class Sshd:
    process: "subprocess.Popen[bytes]"
    target: SshTarget


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    directory = tmp_path_factory.mktemp("sshd")
    os.makedirs("/run/sshd", exist_ok=True)
    host_line = keys.ensure_key(directory / "host_key")
    client_line = keys.ensure_key(directory / "client_key")
    (directory / "authorized_keys").write_text(client_line + "\n")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (directory / "config").write_text(CONFIG.format(port=port, directory=directory))
    notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    notify.settimeout(TIMEOUT_S)
    notify.bind(str(directory / "notify"))
    process = subprocess.Popen(
        ["/usr/sbin/sshd", "-D", "-e", "-f", str(directory / "config")],
        env={"NOTIFY_SOCKET": str(directory / "notify"), "PATH": os.environ["PATH"]},
        stderr=subprocess.DEVNULL,
    )
    assert b"READY=1" in notify.recv(4096)
    notify.close()
    yield Sshd(process, SshTarget("127.0.0.1", port, host_line, directory / "client_key"))
    process.terminate()
    process.wait()


@pytest.fixture
def channel(sshd: Sshd) -> Iterator[SshChannel]:
    made = SshChannel(sshd.target)
    yield made
    made.close()


class _Unix(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    request_queue_size = 64  # sshd connects without waiting: a full queue is a refusal


class _Tcp(socketserver.ThreadingTCPServer):
    daemon_threads = True
    request_queue_size = 64  # sshd connects without waiting: a full queue is a refusal


def _serve(server: socketserver.BaseServer) -> None:
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()


def _answer_after_the_end(sock: socket.socket) -> None:
    """Read to the end, then say how much it was: needs a half-close that passes through."""
    size = 0
    while data := sock.recv(65536):
        size += len(data)
    sock.sendall(b"got %d bytes" % size)


def _end_then_read(sock: socket.socket) -> None:
    """Say something and end that direction, then read on and keep it: the other half-close."""
    sock.sendall(b"bye")
    sock.shutdown(socket.SHUT_WR)
    while data := sock.recv(65536):
        HEARD.append(data)
    DONE.set()


def _send_much(sock: socket.socket) -> None:
    for _ in range(8):
        sock.sendall(MEBIBYTE)


HEARD: list[bytes] = []
DONE = threading.Event()


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    servers: list[_Unix] = []

    def make(talk: Callable[[socket.socket], None]) -> UnixAddress:
        path = str(tmp_path / f"s{len(servers)}")

        class Talk(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                talk(self.request)

        server = _Unix(path, Talk)
        servers.append(server)
        _serve(server)
        return UnixAddress(path)

    yield make
    for server in servers:
        server.shutdown()
        server.server_close()


class _Readable(Protocol):
    def recv(self, size: int, /) -> bytes: ...


def _read_all(stream: _Readable) -> bytes:
    got = b""
    while data := stream.recv(65536):
        got += data
    return got


def test_a_half_close_of_ours_reaches_the_unix_socket(channel: SshChannel, serve: Serve) -> None:
    stream = channel.connect(serve(_answer_after_the_end), timeout_s=TIMEOUT_S)
    stream.sendall(MEBIBYTE)
    stream.shutdown_write()

    assert _read_all(stream) == b"got 1048576 bytes"
    stream.close()


def test_a_half_close_of_theirs_leaves_our_direction_open(channel: SshChannel, serve: Serve) -> None:
    HEARD.clear()
    DONE.clear()
    stream = channel.connect(serve(_end_then_read), timeout_s=TIMEOUT_S)

    assert _read_all(stream) == b"bye"
    stream.sendall(b"still here")
    stream.shutdown_write()
    assert DONE.wait(TIMEOUT_S)
    assert b"".join(HEARD) == b"still here"
    stream.close()


def test_much_comes_through_whole(channel: SshChannel, serve: Serve) -> None:
    stream = channel.connect(serve(_send_much), timeout_s=TIMEOUT_S)
    stream.shutdown_write()

    assert _read_all(stream) == MEBIBYTE * 8
    stream.close()


def test_many_streams_at_once_do_not_mix(channel: SshChannel, serve: Serve) -> None:
    address = serve(_answer_after_the_end)
    answers: dict[int, bytes] = {}

    def talk(size: int) -> None:
        stream = channel.connect(address, timeout_s=TIMEOUT_S)
        stream.sendall(b"x" * size)
        stream.shutdown_write()
        answers[size] = _read_all(stream)
        stream.close()

    threads = [threading.Thread(target=talk, args=(size,)) for size in range(1, 25)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT_S)

    assert answers == {size: b"got %d bytes" % size for size in range(1, 25)}


def test_a_tcp_port_is_reached_too(channel: SshChannel) -> None:
    class Talk(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            _answer_after_the_end(self.request)

    with _Tcp(("127.0.0.1", 0), Talk) as server:
        _serve(server)
        stream = channel.connect(TcpAddress("127.0.0.1", server.server_address[1]), timeout_s=TIMEOUT_S)
        stream.sendall(b"abc")
        stream.shutdown_write()
        assert _read_all(stream) == b"got 3 bytes"
        stream.close()
        server.shutdown()


def test_the_pump_passes_both_half_closes(channel: SshChannel, serve: Serve) -> None:
    stream = channel.connect(serve(_answer_after_the_end), timeout_s=TIMEOUT_S)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(TIMEOUT_S)
        carrier = threading.Thread(target=Pump(theirs, stream).run)
        carrier.start()
        ours.sendall(b"hello")
        ours.shutdown(socket.SHUT_WR)
        assert _read_all(ours) == b"got 5 bytes"
        carrier.join(TIMEOUT_S)
        assert not carrier.is_alive()


def test_nobody_there_is_told_by_address(channel: SshChannel, tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=f"cannot connect to {tmp_path}/none in the machine"):
        channel.connect(UnixAddress(f"{tmp_path}/none"), timeout_s=TIMEOUT_S)

    assert channel.alive


def test_another_host_key_than_the_pinned_one_is_refused(sshd: Sshd, tmp_path: Path) -> None:
    other = keys.ensure_key(tmp_path / "other")
    channel = SshChannel(replace(sshd.target, host_key_line=other))

    with pytest.raises(Denied, match="another program answers"):
        channel.open(timeout_s=TIMEOUT_S)
    channel.close()


def test_a_key_that_is_not_authorized_is_refused(sshd: Sshd, tmp_path: Path) -> None:
    keys.ensure_key(tmp_path / "stranger")
    channel = SshChannel(replace(sshd.target, client_key=tmp_path / "stranger"))

    with pytest.raises(Denied, match="refused the machine's key"):
        channel.open(timeout_s=TIMEOUT_S)
    channel.close()


def test_something_that_is_no_ssh_server_is_told(sshd: Sshd) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def talk() -> None:
            client, _ = server.accept()
            client.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            client.close()

        threading.Thread(target=talk, daemon=True).start()
        channel = SshChannel(replace(sshd.target, port=server.getsockname()[1]))
        with pytest.raises((Unavailable, Denied)):
            channel.open(timeout_s=TIMEOUT_S)
        channel.close()


def test_a_lost_link_is_told_and_had_again(sshd: Sshd, serve: Serve) -> None:
    lost = threading.Event()
    channel = SshChannel(sshd.target, on_lost=lost.set)
    address = serve(_answer_after_the_end)
    first = channel.connect(address, timeout_s=TIMEOUT_S)
    for child in _children(sshd.process.pid):
        os.kill(child, signal.SIGKILL)

    assert lost.wait(TIMEOUT_S)
    assert _read_all(first) == b""
    assert not channel.alive
    again = channel.connect(address, timeout_s=TIMEOUT_S)
    again.shutdown_write()
    assert _read_all(again) == b"got 0 bytes"
    channel.close()


def test_closing_on_purpose_is_not_a_loss(sshd: Sshd) -> None:
    lost = threading.Event()
    channel = SshChannel(sshd.target, on_lost=lost.set)
    channel.open(timeout_s=TIMEOUT_S)
    transport = channel._transport
    assert transport is not None
    channel.close()
    transport.join(TIMEOUT_S)

    assert not lost.wait(0.2)
    with pytest.raises(Unavailable, match="closed"):
        channel.open(timeout_s=1)


def test_a_command_runs_and_its_exit_code_comes_back(channel: SshChannel) -> None:
    session = channel.session(timeout_s=TIMEOUT_S)
    session.exec_command("cat; exit 7")
    session.sendall(b"through")
    session.shutdown_write()

    assert _read_all(session) == b"through"
    assert session.recv_exit_status() == 7


def _children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(word) for word in text.split()]
