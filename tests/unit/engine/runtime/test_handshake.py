import socket
from collections.abc import Iterator

import pytest

from engine.runtime.errors import StartFailed
from engine.runtime.handshake import InitLine, Kind, Report, wait_ready


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, InitLine]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        yield ours, InitLine(theirs.detach())


def test_what_init_says_before_it_is_ready_is_kept(ends: tuple[socket.socket, InitLine]) -> None:
    ours, init = ends
    report = Report(["first"])
    init.warning("second")
    ours.send(Kind.START.value)

    init.await_start()
    wait_ready(ours, report)

    assert report.warnings == ["first", "second"]
    init._socket.close()


def test_the_reason_is_heard_of_an_init_that_ended_without_reading(
    ends: tuple[socket.socket, InitLine],
) -> None:
    """Its end with MAPPED unread is an error of the connection; what it said before is still there."""
    ours, init = ends
    ours.send(Kind.MAPPED.value)
    init.warning("odd")
    init.error("mount /dev", 40, "")
    init._socket.close()
    report = Report([])

    with pytest.raises(StartFailed, match="mount /dev: too many levels of symbolic links"):
        wait_ready(ours, report)

    assert report.warnings == ["odd"]


def test_an_init_that_ended_without_a_word_is_told_as_such(ends: tuple[socket.socket, InitLine]) -> None:
    ours, init = ends
    ours.send(Kind.MAPPED.value)
    init._socket.close()

    with pytest.raises(StartFailed, match="init ended unexpectedly"):
        wait_ready(ours, Report([]))
