import asyncio
import os
import socket
from collections.abc import Awaitable, Callable

import pytest

from engine.base.errors import Conflict, EngineError, Unavailable
from engine.containers.shimlink import Link, StartFailed, error_of
from engine.shim.peer import close_all, receive
from engine.shim.protocol import (
    AnyAnswer,
    AnyRequest,
    Attach,
    Done,
    Exit,
    Exited,
    Failed,
    Hello,
    Kill,
    Pause,
    Reader,
    Resume,
    Streams,
    encode,
    request_decoder,
)

TIMEOUT_S = 10.0


class FarEnd:
    """A shim played by the test."""

    def __init__(self) -> None:
        ours, self.sock = socket.socketpair()
        self.sock.settimeout(TIMEOUT_S)
        self.events: list[object] = []
        self.lost = asyncio.Event()
        self.link = Link(ours, name="shim x", on_event=self.events.append, on_lost=self.lost.set)
        self._reader: Reader[AnyRequest] = Reader(request_decoder)

    def read(self, count: int) -> list[tuple[AnyRequest, list[int]]]:
        got: list[tuple[AnyRequest, list[int]]] = []
        while len(got) < count:
            got += self._reader.feed(*receive(self.sock))
        return got

    def close(self) -> None:
        self.link.close()
        self.sock.close()


def play(story: Callable[[FarEnd], Awaitable[None]]) -> None:
    async def run() -> None:
        far = FarEnd()
        try:
            async with asyncio.timeout(TIMEOUT_S):
                await story(far)
        finally:
            far.close()

    asyncio.run(run())


def test_answers_find_their_requests_in_any_order() -> None:
    async def story(far: FarEnd) -> None:
        pause, resume = Pause(id=far.link.next_id()), Resume(id=far.link.next_id())
        first = asyncio.ensure_future(far.link.request(pause, timeout_s=TIMEOUT_S))
        second = asyncio.ensure_future(far.link.request(resume, timeout_s=TIMEOUT_S))
        await asyncio.sleep(0)
        assert [message for message, _ in far.read(2)] == [pause, resume]
        far.sock.sendall(
            encode(Done(id=resume.id, pid=2)) + encode(Failed(id=pause.id, kind="Conflict", message="no"))
        )
        assert (await second).pid == 2
        with pytest.raises(Conflict, match="no"):
            await first

    play(story)


def test_what_answers_nothing_is_an_event_in_order() -> None:
    async def story(far: FarEnd) -> None:
        events: list[AnyAnswer] = [
            Hello(container_id="x", shim_pid=1, pid=2, status="running"),
            Exited(exit=Exit(code=1), exec_id="e"),
            Exited(exit=Exit(code=0)),
        ]
        for byte in b"".join(encode(event) for event in events):
            far.sock.sendall(bytes((byte,)))
            await asyncio.sleep(0)
        far.sock.sendall(encode(Done(id=99)))  # of a request that nobody waits for any more
        far.sock.close()
        await far.lost.wait()
        assert far.events == events

    play(story)


def test_descriptors_are_duplicated_at_once() -> None:
    async def story(far: FarEnd) -> None:
        reader, writer = os.pipe()
        far.link.send(Attach(id=1, streams=Streams()), fds=[writer])
        os.close(writer)
        [(_, fds)] = far.read(1)
        os.write(fds[0], b"through")
        assert os.read(reader, 10) == b"through"
        close_all([reader, *fds])

    play(story)


def test_a_large_message_waits_for_room_and_keeps_its_descriptor() -> None:
    async def story(far: FarEnd) -> None:
        large = Attach(id=1, streams=Streams(prefix=os.urandom(2 << 20)))
        with socket.socket() as passed:
            far.link.send(large, fds=[passed.fileno()])
            far.link.send(Kill(id=2, signal=9))
        got = await asyncio.to_thread(far.read, 2)
        assert got[0][0] == large
        assert len(got[0][1]) == 1
        assert got[1] == (Kill(id=2, signal=9), [])
        close_all(got[0][1])

    play(story)


def test_a_lost_connection_fails_what_waits_and_is_told_once() -> None:
    async def story(far: FarEnd) -> None:
        waiting = asyncio.ensure_future(far.link.request(Pause(id=far.link.next_id()), timeout_s=TIMEOUT_S))
        await asyncio.sleep(0)
        far.sock.close()
        with pytest.raises(Unavailable, match="shim x"):
            await waiting
        assert far.lost.is_set()
        assert not far.link.is_open
        with pytest.raises(Unavailable, match="not connected"):
            far.link.send(Pause(id=1))

    play(story)


def test_garbage_is_a_lost_connection() -> None:
    async def story(far: FarEnd) -> None:
        far.sock.sendall(b"\xff" * 100)
        await far.lost.wait()

    play(story)


def test_closing_is_not_losing() -> None:
    async def story(far: FarEnd) -> None:
        waiting = asyncio.ensure_future(far.link.request(Pause(id=1), timeout_s=TIMEOUT_S))
        await asyncio.sleep(0)
        far.link.close()
        with pytest.raises(Unavailable, match="closed"):
            await waiting
        assert not far.lost.is_set()

    play(story)


def test_no_answer_in_time_names_what_was_asked() -> None:
    async def story(far: FarEnd) -> None:
        with pytest.raises(TimeoutError, match=r"shim x: no answer to pause within 0.01 s"):
            await far.link.request(Pause(id=1), timeout_s=0.01)

    play(story)


@pytest.mark.parametrize("kind", ["Conflict", "InvalidArgument", "NotSupported", "OutOfSpace", "Unavailable"])
def test_errors_keep_their_class(kind: str) -> None:
    err = error_of(Failed(id=1, kind=kind, message="why", hint="next"))

    assert type(err).__name__ == kind
    assert (str(err), err.hint) == ("why", "next")


def test_a_failed_start_keeps_its_exit_code_and_the_unknown_is_an_engine_error() -> None:
    err = error_of(Failed(id=1, kind="StartFailed", message="exec", exit_code=127, step="exec", errno=2))

    assert isinstance(err, StartFailed)
    assert (err.exit_code, err.step, err.errno) == (127, "exec", 2)
    assert type(error_of(Failed(id=1, kind="Strange", message="x"))) is EngineError
