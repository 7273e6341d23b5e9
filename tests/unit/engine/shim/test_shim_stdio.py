"""The streams of a process that is played by the test: real pipes, terminals and sockets, no root."""

import contextlib
import os
import socket
import struct
from collections.abc import Callable, Iterator

import pytest

from engine.runtime.model import Stdio
from engine.shim.client import HIGH_BYTES
from engine.shim.loop import READ, Loop
from engine.shim.protocol import Streams
from engine.shim.stdio import ProcessIO

TIMEOUT_S = 10


class Recorder:
    def __init__(self) -> None:
        self.chunks: list[tuple[str, bytes]] = []
        self.is_full = False
        self.has_room: Callable[[], None] = lambda: None

    def when_room(self, call: Callable[[], None]) -> None:
        self.has_room = call

    def write(self, stream: str, data: bytes) -> None:
        self.chunks.append((stream, data))

    def text(self, stream: str = "stdout") -> bytes:
        return b"".join(data for name, data in self.chunks if name == stream)


class Process:
    """The far ends: what the container's process has, and what a client has."""

    def __init__(self, loop: Loop, **options: object) -> None:
        self.loop = loop
        self.log = Recorder()
        chosen: dict[str, object] = {"terminal": False, "stdin": True, "stdin_once": True} | options
        self.io = ProcessIO(loop, log=self.log, **chosen)  # type: ignore[arg-type]
        given = self.io.child_stdio()
        self.fds = Stdio(os.dup(given.stdin_fd), os.dup(given.stdout_fd), os.dup(given.stderr_fd))
        self.io.made(None)

    def attach(self, **streams: object) -> socket.socket:
        ours, theirs = socket.socketpair()
        ours.settimeout(TIMEOUT_S)
        chosen: dict[str, object] = {"stdin": True, "stdout": True, "stderr": True} | streams
        self.io.attach(theirs.detach(), Streams(**chosen))  # type: ignore[arg-type]
        return ours

    def end(self) -> list[str]:
        """End the process and return what the shim is told, in order."""
        told: list[str] = []
        self.close_ends()
        self.io.ended(lambda: told.append("drained"))
        self.io.close_clients(lambda: told.append("closed"))
        return told

    def close_ends(self) -> None:
        for fd in (self.fds.stdin_fd, self.fds.stdout_fd, self.fds.stderr_fd):
            os.close(fd)


@pytest.fixture
def loop() -> Iterator[Loop]:
    made = Loop()
    yield made
    made.close()


def turn(loop: Loop, until: Callable[[], bool]) -> None:
    """Run the loop until a condition holds."""

    def check() -> None:
        if until():
            loop.stop()
        else:
            timers.append(loop.later(0.001, check))

    timers = [loop.later(0, check)]
    deadline = loop.later(TIMEOUT_S, lambda: pytest.fail("the condition never held"))
    loop._running = True
    loop.run()
    deadline.cancel()
    for timer in timers:
        timer.cancel()


def frame(kind: int, data: bytes) -> bytes:
    return struct.pack(">BxxxL", kind, len(data)) + data


def read_all(client: socket.socket) -> bytes:
    data = b""
    while piece := client.recv(1 << 20):
        data += piece
    return data


def test_output_reaches_log_and_clients(loop: Loop) -> None:
    process = Process(loop)
    framed, raw = process.attach(greeting=b"hi"), process.attach(framed=False, stdout=False)
    os.write(process.fds.stdout_fd, b"out")
    os.write(process.fds.stderr_fd, b"err")
    turn(loop, lambda: len(process.log.chunks) == 2)

    assert process.end() == ["drained", "closed"]
    assert read_all(framed) == b"hi" + frame(1, b"out") + frame(2, b"err")
    assert read_all(raw) == b"err"
    framed.close()
    raw.close()


def test_what_was_written_before_the_end_is_not_lost(loop: Loop) -> None:
    process = Process(loop)
    client = process.attach()
    os.write(process.fds.stdout_fd, b"x" * 60_000)

    process.end()

    assert process.log.text() == b"x" * 60_000
    assert len(read_all(client)) >= 60_000
    client.close()


def test_input_and_its_end_reach_the_process(loop: Loop) -> None:
    process = Process(loop)
    client = process.attach(prefix=b"a")
    client.sendall(b"bc")
    client.shutdown(socket.SHUT_WR)
    got = bytearray()
    ends: list[bool] = []
    os.set_blocking(process.fds.stdin_fd, False)

    def read(_events: int) -> None:
        data = os.read(process.fds.stdin_fd, 100)
        got.extend(data)
        if not data:
            ends.append(True)
            loop.unwatch(process.fds.stdin_fd)

    loop.watch(process.fds.stdin_fd, READ, read)
    turn(loop, lambda: bool(ends))

    assert got == b"abc"
    process.end()
    client.close()


def test_a_client_that_leaves_ends_the_input_too(loop: Loop) -> None:
    process = Process(loop)
    process.attach().close()
    turn(loop, lambda: not process.io.has_clients)

    assert os.read(process.fds.stdin_fd, 1) == b""
    process.end()


def test_input_that_nobody_reads_is_bounded(loop: Loop) -> None:
    process = Process(loop)
    client = process.attach()
    client.setblocking(False)
    sent = 0

    def push() -> bool:
        nonlocal sent
        try:
            sent += client.send(b"x" * 65536)
        except BlockingIOError:
            return True
        return False

    turn(loop, push)

    assert sent < 4 << 20
    process.end()
    client.close()


def test_a_full_client_stops_the_reading_until_it_reads_or_leaves(loop: Loop) -> None:
    process = Process(loop)
    client = process.attach()
    os.set_blocking(process.fds.stdout_fd, False)
    written = 0

    def write() -> bool:
        nonlocal written
        try:
            written += os.write(process.fds.stdout_fd, b"y" * 65536)
        except BlockingIOError:
            return process.io.is_held
        return False

    turn(loop, write)
    assert written < HIGH_BYTES + (2 << 20)

    client.recv(1 << 20)
    client.close()
    turn(loop, lambda: len(process.log.text()) == written)
    assert not process.io.is_held
    process.end()


def test_a_full_log_stops_the_reading_until_it_has_room(loop: Loop) -> None:
    process = Process(loop)
    process.log.is_full = True
    os.write(process.fds.stdout_fd, b"one")
    turn(loop, lambda: process.io.is_held)
    os.write(process.fds.stdout_fd, b"two")
    assert process.log.text() == b"one"  # what was read is recorded, full or not

    process.log.is_full = False
    process.log.has_room()
    turn(loop, lambda: process.log.text() == b"onetwo")
    process.end()


def test_a_client_that_has_stopped_is_dropped_where_another_waits(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.shim.stdio.STALL_S", 0.05)
    process = Process(loop)
    stopped, other = process.attach(), process.attach()
    os.set_blocking(process.fds.stdout_fd, False)
    other.setblocking(False)
    wanted, written, got = 4 << 20, 0, 0

    def move() -> bool:
        nonlocal written, got
        with contextlib.suppress(BlockingIOError):
            if written < wanted:
                written += os.write(process.fds.stdout_fd, b"y" * min(65536, wanted - written))
        with contextlib.suppress(BlockingIOError):
            while piece := other.recv(1 << 20):
                got += len(piece)
        return len(process.log.text()) == wanted

    turn(loop, move)

    assert not process.io.is_held
    stopped.settimeout(TIMEOUT_S)
    assert 0 < len(read_all(stopped)) < 2 << 20  # what the kernel had, and the end
    stopped.close()
    other.close()
    process.end()


def test_a_client_that_is_only_slow_loses_nothing_and_the_other_neither(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.shim.stdio.STALL_S", 0.5)  # longer than this process may be kept waiting
    process = Process(loop)
    clients = [process.attach(), process.attach()]
    os.set_blocking(process.fds.stdout_fd, False)
    wanted, written, turns = 2 << 20, 0, 0
    got = [0, 0]

    def move() -> bool:
        nonlocal written, turns
        turns += 1
        with contextlib.suppress(BlockingIOError):
            if written < wanted:
                written += os.write(process.fds.stdout_fd, b"y" * min(65536, wanted - written))
        for number, client in enumerate(clients):
            client.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                got[number] += len(client.recv(1 << 20 if number else 16384))
        return len(process.log.text()) == wanted

    turn(loop, move)
    told = process.end()
    for number, client in enumerate(clients):
        client.setblocking(False)

        def rest(number: int = number, client: socket.socket = client) -> bool:
            with contextlib.suppress(BlockingIOError):
                piece = client.recv(1 << 20)
                got[number] += len(piece)
                return not piece
            return False

        turn(loop, rest)
        client.close()

    assert told[0] == "drained"
    assert got[0] == got[1] > wanted


def test_a_closed_output_does_not_wake_a_held_loop(loop: Loop) -> None:
    process = Process(loop)
    client = process.attach()
    os.set_blocking(process.fds.stdout_fd, False)

    def write() -> bool:
        try:
            os.write(process.fds.stdout_fd, b"y" * 65536)
        except BlockingIOError:
            return process.io.is_held
        return False

    turn(loop, write)
    process.close_ends()  # hang-up, which epoll reports whether asked or not

    turn(loop, lambda: process.io._input is not None and process.io._input._fd < 0)

    assert loop._epoll.poll(0.05) == []
    client.close()
    turn(loop, lambda: not process.io.has_clients)
    process.io.abandon()


def test_output_held_open_by_another_process_is_not_waited_for_long(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.shim.stdio.GRACE_S", 0.05)
    process = Process(loop)
    other = os.dup(process.fds.stdout_fd)
    told: list[str] = []
    process.close_ends()
    os.write(other, b"late")

    process.io.ended(lambda: told.append("drained"))
    assert told == []
    turn(loop, lambda: told == ["drained"])

    assert process.log.text() == b"late"
    os.close(other)


def test_a_client_that_does_not_read_is_not_waited_for_long(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.shim.stdio.GRACE_S", 0.05)
    process = Process(loop)
    client = process.attach()
    os.set_blocking(process.fds.stdout_fd, False)

    def write() -> bool:
        try:
            os.write(process.fds.stdout_fd, b"y" * 65536)
        except BlockingIOError:
            return process.io.is_held
        return False

    turn(loop, write)
    told = process.end()
    assert told == ["drained"]
    turn(loop, lambda: told == ["drained", "closed"])
    assert process.io.has_clients  # and it may still take what is queued
    expected = len(process.log.text())
    got = bytearray()
    client.setblocking(False)

    def take() -> bool:
        try:
            got.extend(client.recv(1 << 20))
        except BlockingIOError:
            return False
        return not process.io.has_clients

    turn(loop, take)
    got += read_all(client)
    assert got.count(b"y") == expected
    client.close()


def test_a_discarded_process_has_nothing_to_wait_for(loop: Loop) -> None:
    process = Process(loop, discard=True)
    os.write(process.fds.stdout_fd, b"nobody hears")

    assert process.end() == ["drained", "closed"]
    assert process.log.chunks == []


def test_detach_keys_work_only_with_a_terminal(loop: Loop) -> None:
    process = Process(loop)
    client = process.attach(detach_keys=b"\x10\x11")
    client.sendall(b"a\x10\x11b")
    turn(loop, lambda: bool(process.io._input and not process.io._input._queue))
    os.set_blocking(process.fds.stdin_fd, True)

    assert os.read(process.fds.stdin_fd, 100) == b"a\x10\x11b"
    process.end()
    client.close()
