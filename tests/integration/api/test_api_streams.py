"""Where clones of docker hang: wait before start, hijacked connections, framing, streams that end.

Source: Docker Engine API v1.51, ContainerWait, ContainerAttach, ContainerLogs, SystemEvents.
"""

import contextlib
import json
import socket
import struct
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.home import Deadline
from tests.support.pyengined import Engine

pytestmark = pytest.mark.requires("root", "namespaces", "net_admin", "nftables", "busybox")

_UPGRADE = b"Connection: Upgrade\r\nUpgrade: tcp\r\n"


class Wire:
    """One connection whose answer is read in steps."""

    def __init__(self, engine: Engine, data: bytes) -> None:
        self.sock = engine.connect()
        self.sock.sendall(data)
        self._buffer = b""

    def head(self) -> tuple[int, dict[str, str]]:
        """Return status and headers; nothing of the body is awaited."""
        while b"\r\n\r\n" not in self._buffer:
            self._more()
        text, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        first, *lines = text.decode().split("\r\n")
        pairs = (line.split(": ", 1) for line in lines)
        return int(first.split()[1]), {name.lower(): value for name, value in pairs}

    def read(self, size: int) -> bytes:
        """Return exactly `size` bytes."""
        while len(self._buffer) < size:
            self._more()
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        return data

    def line(self) -> bytes:
        """Return one line without its end."""
        while b"\n" not in self._buffer:
            self._more()
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line.removesuffix(b"\r")

    def chunk(self) -> bytes:
        """Return one chunk of a chunked body; empty at its end."""
        size = int(self.line(), 16)
        data = self.read(size)
        assert self.read(2) == b"\r\n"
        return data

    def frame(self) -> tuple[int, bytes]:
        """Return (stream, data) of one frame of a hijacked connection."""
        stream, size = struct.unpack(">BxxxI", self.read(8))
        return stream, self.read(size)

    def rest(self) -> bytes:
        """Return everything up to the end."""
        with contextlib.suppress(EOFError):
            while True:
                self._more()
        data, self._buffer = self._buffer, b""
        return data

    def _more(self) -> None:
        data = self.sock.recv(65536)
        if not data:
            raise EOFError(self._buffer)
        self._buffer += data


@pytest.fixture
def wires(engine: Engine) -> Iterator[Any]:
    """Makes connections and closes them."""
    with contextlib.ExitStack() as stack:

        def connect(method: str, target: str, headers: bytes = b"", body: bytes = b"") -> Wire:
            length = f"Content-Length: {len(body)}\r\n" if body else ""
            head = f"{method} {target} HTTP/1.1\r\nHost: d\r\n{length}".encode() + headers
            wire = Wire(engine, head + b"\r\n" + body)
            stack.callback(wire.sock.close)
            return wire

        yield connect


def _create(engine: Engine, *command: str, **config: Any) -> str:
    status, answer = engine.request(
        "POST", "/containers/create", {"Image": "busybox", "Cmd": list(command), **config}
    )
    assert status == 201, answer
    return str(answer["Id"])


def test_wait_answers_its_head_before_the_container_even_starts(engine: Engine, wires: Any) -> None:
    name = _create(engine, "sh", "-c", "exit 3")

    wait = wires("POST", f"/containers/{name}/wait?condition=next-exit")
    assert wait.head()[0] == 200
    assert engine.request("POST", f"/containers/{name}/start")[0] == 204

    assert json.loads(wait.chunk()) == {"StatusCode": 3}
    assert wait.chunk() == b""


def test_wait_for_removal_answers_after_it(engine: Engine, wires: Any) -> None:
    name = _create(engine, "sh", "-c", "exit 4", HostConfig={"AutoRemove": True})
    wait = wires("POST", f"/containers/{name}/wait?condition=removed")
    assert wait.head()[0] == 200

    engine.request("POST", f"/containers/{name}/start")

    assert json.loads(wait.chunk()) == {"StatusCode": 4}
    assert engine.request("GET", f"/containers/{name}/json")[0] == 404


def test_wait_for_what_does_not_run_answers_at_once(engine: Engine, wires: Any) -> None:
    wait = wires("POST", f"/containers/{_create(engine, 'true')}/wait")

    assert wait.head()[0] == 200
    assert json.loads(wait.chunk()) == {"StatusCode": 0}


def test_an_attached_client_sees_everything_from_the_first_byte(engine: Engine, wires: Any) -> None:
    name = _create(engine, "sh", "-c", "echo out; echo err >&2")
    attach = wires("POST", f"/containers/{name}/attach?stream=1&stdout=1&stderr=1", headers=_UPGRADE)
    status, headers = attach.head()
    assert (status, headers["upgrade"]) == (101, "tcp")
    assert headers["content-type"] == "application/vnd.docker.multiplexed-stream"

    engine.request("POST", f"/containers/{name}/start")

    assert sorted([attach.frame(), attach.frame()]) == [(1, b"out\n"), (2, b"err\n")]
    assert attach.rest() == b""


def test_a_client_without_upgrade_gets_the_same_stream_after_200(engine: Engine, wires: Any) -> None:
    name = _create(engine, "echo", "plain")
    attach = wires("POST", f"/v1.41/containers/{name}/attach?stream=1&stdout=1")
    status, headers = attach.head()
    assert (status, headers["content-type"]) == (200, "application/vnd.docker.raw-stream")  # before 1.42

    engine.request("POST", f"/containers/{name}/start")

    assert attach.frame() == (1, b"plain\n")


def test_closing_the_sending_side_ends_stdin_but_not_the_output(engine: Engine, wires: Any) -> None:
    config = {"OpenStdin": True, "StdinOnce": True, "AttachStdin": True}
    name = _create(engine, "sh", "-c", "cat; echo done", **config)
    attach = wires("POST", f"/containers/{name}/attach?stream=1&stdin=1&stdout=1&stderr=1", headers=_UPGRADE)
    assert attach.head()[0] == 101
    engine.request("POST", f"/containers/{name}/start")

    attach.sock.sendall(b"given\n")
    attach.sock.shutdown(socket.SHUT_WR)

    received = b""
    while not received.endswith(b"done\n"):
        received += attach.frame()[1]
    assert received == b"given\ndone\n"


def test_bytes_sent_along_with_the_request_reach_the_container(engine: Engine) -> None:
    name = _create(engine, "head", "-n", "1", OpenStdin=True, StdinOnce=True)
    head = f"POST /containers/{name}/attach?stream=1&stdin=1&stdout=1 HTTP/1.1\r\nHost: d\r\n".encode()
    attach = Wire(engine, head + _UPGRADE + b"\r\nearly\n")
    try:
        assert attach.head()[0] == 101
        engine.request("POST", f"/containers/{name}/start")

        assert attach.frame() == (1, b"early\n")
    finally:
        attach.sock.close()


def test_a_terminal_is_not_framed(engine: Engine, wires: Any) -> None:
    name = _create(engine, "echo", "plain", Tty=True)
    attach = wires("POST", f"/containers/{name}/attach?stream=1&stdout=1", headers=_UPGRADE)
    assert attach.head()[1]["content-type"] == "application/vnd.docker.raw-stream"

    engine.request("POST", f"/containers/{name}/start")

    assert attach.rest() == b"plain\r\n"


def test_a_followed_log_ends_with_the_container(engine: Engine, wires: Any) -> None:
    name = _create(engine, "sh", "-c", "echo one; read line; echo two", OpenStdin=True)
    engine.request("POST", f"/containers/{name}/start")
    log = wires("GET", f"/containers/{name}/logs?stdout=1&follow=1")
    assert log.head()[0] == 200
    assert log.chunk() == struct.pack(">BxxxI", 1, 4) + b"one\n"

    stdin = wires("POST", f"/containers/{name}/attach?stream=1&stdin=1", headers=_UPGRADE)
    assert stdin.head()[0] == 101
    stdin.sock.sendall(b"\n")

    assert log.chunk() == struct.pack(">BxxxI", 1, 4) + b"two\n"
    assert log.chunk() == b""


def test_exec_streams_and_keeps_its_exit_code(engine: Engine, wires: Any) -> None:
    name = _create(engine, "sleep", "1000")
    engine.request("POST", f"/containers/{name}/start")
    body = {"Cmd": ["sh", "-c", "cat; exit 5"], "AttachStdin": True, "AttachStdout": True}
    status, answer = engine.request("POST", f"/containers/{name}/exec", body)
    assert status == 201

    run = wires("POST", f"/exec/{answer['Id']}/start", headers=_UPGRADE, body=b'{"Detach":false}')
    assert run.head()[0] == 101
    run.sock.sendall(b"hello\n")
    run.sock.shutdown(socket.SHUT_WR)

    assert run.frame() == (1, b"hello\n")
    assert run.rest() == b""
    shown = engine.request("GET", f"/exec/{answer['Id']}/json")[1]
    assert (shown["Running"], shown["ExitCode"]) == (False, 5)
    assert engine.request("POST", f"/exec/{answer['Id']}/start", {})[0] == 409


def test_events_arrive_as_they_happen_and_again_with_since(engine: Engine, wires: Any) -> None:
    filters = "%7B%22type%22%3A%5B%22container%22%5D%2C%22container%22%3A%5B%22noisy%22%5D%7D"
    live = wires("GET", f"/events?filters={filters}")
    assert live.head()[0] == 200
    status, _ = engine.request("POST", "/containers/create?name=noisy", {"Image": "busybox", "Cmd": ["true"]})
    assert status == 201
    engine.request("POST", "/containers/noisy/start")

    events = [json.loads(live.chunk()) for _ in range(3)]

    assert [event["Action"] for event in events] == ["create", "start", "die"]
    assert [event["status"] for event in events] == ["create", "start", "die"]
    assert events[-1]["Actor"]["Attributes"]["exitCode"] == "0"
    until = events[-1]["time"] + 1
    past = wires("GET", f"/events?since={events[0]['time'] - 1}&until={until}&filters={filters}")
    assert past.head()[0] == 200
    again = [json.loads(past.chunk()) for _ in range(3)]
    assert again == events
    assert past.chunk() == b""


def test_one_connection_serves_many_requests_and_closes_when_told(engine: Engine) -> None:
    with engine.connect() as client:
        client.sendall(b"GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n" * 3)
        client.sendall(b"HEAD /_ping HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n")
        data = b""
        while piece := client.recv(65536):
            data += piece

    assert data.count(b"HTTP/1.1 200 OK\r\n") == 4
    assert data.count(b"\r\n\r\nOK") == 3
    assert data.endswith(b"\r\n\r\n")  # the answer to HEAD has no body


def test_a_client_that_leaves_a_stream_leaves_no_listener(engine: Engine, wires: Any) -> None:
    before = engine.request("GET", "/info")[1]["NEventsListener"]
    live = wires("GET", "/events")
    assert live.head()[0] == 200
    assert engine.request("GET", "/info")[1]["NEventsListener"] == before + 1

    live.sock.close()

    deadline = Deadline("the listener is gone", 10.0)
    while engine.request("GET", "/info")[1]["NEventsListener"] != before:
        deadline.check()
