"""One attached session over a socket pair: bytes both ways, half-close, detaching, the answer of wait."""

import os
import socket
import threading
from collections.abc import Iterator

import pytest

from hostagent.cli.session import Outcome, Session
from hostagent.client.errors import ConnectionLost


class Line:
    """Our end, the container's end, and a pipe for what is typed."""

    def __init__(self) -> None:
        self.ours, self.theirs = socket.socketpair()
        self.typed_fd, self.keyboard_fd = os.pipe()

    def close(self) -> None:
        self.ours.close()
        self.theirs.close()
        os.close(self.typed_fd)
        if self.keyboard_fd >= 0:
            os.close(self.keyboard_fd)

    def hang_up(self) -> None:
        os.close(self.keyboard_fd)
        self.keyboard_fd = -1


@pytest.fixture
def line() -> Iterator[Line]:
    made = Line()
    yield made
    made.close()


def frame(kind: int, payload: bytes) -> bytes:
    return bytes([kind, 0, 0, 0]) + len(payload).to_bytes(4, "big") + payload


def test_frames_go_to_the_two_outputs(line: Line, capfd: pytest.CaptureFixture[str]) -> None:
    line.theirs.sendall(frame(2, b"err\n") + frame(1, b"out2\n"))
    line.theirs.close()

    outcome = Session(line.ours, frame(1, b"early\n"), stdin_fd=None, framed=True).run()

    assert outcome == Outcome(detached=False, answer=None)
    assert capfd.readouterr() == ("early\nout2\n", "err\n")


def test_an_output_cut_in_a_frame_is_told(line: Line) -> None:
    line.theirs.sendall(frame(1, b"whole")[:-2])
    line.theirs.close()

    with pytest.raises(ConnectionLost):
        Session(line.ours, b"", stdin_fd=None, framed=True).run()


def test_input_is_carried_and_its_end_too(line: Line, capfd: pytest.CaptureFixture[str]) -> None:
    data = bytes(range(256)) * 8000  # more than the socket's buffers hold
    heard = bytearray()

    def contain() -> None:
        while piece := line.theirs.recv(1 << 16):
            heard.extend(piece)
        line.theirs.sendall(b"got it all")
        line.theirs.shutdown(socket.SHUT_WR)

    def type_it() -> None:
        with open(line.keyboard_fd, "wb", closefd=False) as keyboard:
            keyboard.write(data)
        line.hang_up()

    threads = [threading.Thread(target=contain), threading.Thread(target=type_it)]
    for thread in threads:
        thread.start()
    Session(line.ours, b"", stdin_fd=line.typed_fd, framed=False).run()
    for thread in threads:
        thread.join(10)

    assert bytes(heard) == data
    assert capfd.readouterr().out == "got it all"


def test_the_sequence_detaches_and_is_not_sent(line: Line) -> None:
    os.write(line.keyboard_fd, b"ls\x10\x11never")

    outcome = Session(line.ours, b"", stdin_fd=line.typed_fd, framed=False, detach_keys=b"\x10\x11").run()

    assert outcome.detached
