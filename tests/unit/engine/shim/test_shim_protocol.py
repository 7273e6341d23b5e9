import contextlib
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.base.errors import InvalidArgument
from engine.shim.protocol import (
    FDS_MAX,
    MESSAGE_MAX_BYTES,
    AnyAnswer,
    AnyRequest,
    Attach,
    Delete,
    Done,
    Exec,
    Exit,
    Exited,
    Failed,
    Hello,
    Kill,
    Pause,
    Reader,
    Resize,
    Resume,
    SpanRecord,
    Spawn,
    SpawnRequest,
    Start,
    Streams,
    answer_decoder,
    encode,
    request_decoder,
)
from engine.spec.runtime import Mount, Process

REQUESTS: list[AnyRequest] = [
    Spawn(
        request=SpawnRequest(
            container_id="c",
            bundle="/b",
            exit_path="/e",
            rootfs_mounts=(Mount(destination="/", type="overlay", options=("ro",)),),
            tty_size=(80, 24),
        ),
        sent_ns=7,
    ),
    Start(id=1),
    Kill(id=2, signal=15, everyone=True),
    Attach(id=3, streams=Streams(stdin=True, prefix=b"\x00\xff", greeting=b"101", detach_keys=b"\x10\x11")),
    Exec(id=4, exec_id="x", process=Process(cwd="/", args=("sh", "é")), streams=Streams(stdout=True)),
    Resize(id=5, width=80, height=24),
    Pause(id=6),
    Resume(id=7),
    Delete(id=8),
]
ANSWERS: list[AnyAnswer] = [
    Hello(
        container_id="c",
        shim_pid=2,
        pid=3,
        status="exited",
        exit=Exit(code=137, signal=9, oom_killed=True, finished_at_ns=1 << 60),
        execs={"a": None, "b": Exit(code=0)},
        spans=(SpanRecord("shim", "x", 1, 2),),
    ),
    Done(id=1, pid=9),
    Failed(id=2, kind="StartFailed", message="no", exit_code=127, step="exec", errno=2),
    Exited(exit=Exit(code=1), exec_id="a"),
]


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 6, 100, 1 << 20])
def test_messages_survive_any_cut(size: int) -> None:
    wire = b"".join(encode(request) for request in REQUESTS)
    reader = Reader(request_decoder)

    got = [m for at in range(0, len(wire), size) for m, _ in reader.feed(wire[at : at + size])]

    assert got == REQUESTS


def test_answers_survive_a_cut_at_every_position() -> None:
    wire = b"".join(encode(answer) for answer in ANSWERS)
    for cut in range(len(wire) + 1):
        reader = Reader(answer_decoder)

        got = [m for part in (wire[:cut], wire[cut:]) for m, _ in reader.feed(part)]

        assert got == ANSWERS


def test_descriptors_go_to_the_messages_that_announced_them() -> None:
    attach, pause = REQUESTS[3], REQUESTS[6]
    wire = encode(attach, 1) + encode(pause) + encode(attach, 2)
    for cut in range(1, len(wire)):
        reader = Reader(request_decoder)

        got = [
            (m, fds) for part in ((wire[:cut], [10, 11]), (wire[cut:], [12])) for m, fds in reader.feed(*part)
        ]

        assert [fds for _, fds in got] == [[10], [], [11, 12]]
        assert reader.drain_fds() == []


def test_unclaimed_descriptors_can_be_closed() -> None:
    reader = Reader(request_decoder)

    assert list(reader.feed(encode(Pause(id=1)), [8, 9])) == [(Pause(id=1), [])]
    assert reader.drain_fds() == [8, 9]
    assert reader.drain_fds() == []


@pytest.mark.parametrize(
    "wire",
    [
        (MESSAGE_MAX_BYTES + 1).to_bytes(4, "big") + b"\0",
        (2).to_bytes(4, "big") + bytes((FDS_MAX + 1,)) + b"{}",
        (2).to_bytes(4, "big") + b"\0{}",
        (2).to_bytes(4, "big") + b"\0\xff\xff",
        encode(Done(id=1)),
        encode(Pause(id=1), 1),  # announced, but none came
    ],
)
def test_what_is_not_the_protocol_is_refused(wire: bytes) -> None:
    with pytest.raises(InvalidArgument, match="invalid shim message"):
        list(Reader(request_decoder).feed(wire))


def test_a_message_too_long_is_not_sent() -> None:
    with pytest.raises(InvalidArgument, match="too long"):
        encode(Attach(id=1, streams=Streams(prefix=os.urandom(MESSAGE_MAX_BYTES))))


@given(st.binary(max_size=200))
@settings(max_examples=200, deadline=None)
def test_no_bytes_crash_the_reader(data: bytes) -> None:
    with contextlib.suppress(InvalidArgument):
        list(Reader(request_decoder).feed(data))
