"""The relay between the engine's port requests and the host, over a real socket and a real loop."""

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from vmguest.agent.ports import PortRelay, Request

PUBLISH = {"op": "publish", "container": "c", "proto": "tcp", "host_ip": "", "host_port": 0, "guest_port": 80}


class TestLoop:
    """What the relay needs of a loop, stepped by hand."""

    __test__ = False

    def __init__(self) -> None:
        self.callbacks: dict[int, Any] = {}

    def add(self, fd: int, _events: int, callback: Any) -> None:
        self.callbacks[fd] = callback

    def remove(self, fd: int) -> None:
        del self.callbacks[fd]

    def step(self) -> None:
        for callback in list(self.callbacks.values()):
            callback(1)


class Rig:
    def __init__(self, path: Path) -> None:
        self.loop = TestLoop()
        self.asked: list[tuple[int, Request]] = []
        self.host_is_there = True
        self.relay = PortRelay(self.loop, str(path), ask=self.ask)  # type: ignore[arg-type]
        self.engine = socket.socket(socket.AF_UNIX)
        self.engine.settimeout(5)
        self.engine.connect(str(path))

    def ask(self, number: int, request: Request) -> bool:
        if self.host_is_there:
            self.asked.append((number, request))
        return self.host_is_there

    def send(self, request: object) -> None:
        self.engine.sendall(json.dumps(request).encode() + b"\n")
        self.loop.step()
        self.loop.step()

    def reply(self) -> dict[str, Any]:
        return dict(json.loads(self.engine.recv(65536)))


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path / "ports.sock")
    yield made
    made.engine.close()
    made.loop.step()
    made.relay._listener.close()


def test_a_request_goes_to_the_host_and_its_answer_back(rig: Rig) -> None:
    rig.send(PUBLISH)
    number, request = rig.asked[0]
    rig.relay.answer({"type": "ports", "id": number, "reply": {"ok": True, "host_port": 8080}})

    assert request == PUBLISH
    assert rig.reply() == {"ok": True, "host_port": 8080}


def test_without_a_host_the_engine_is_told_at_once(rig: Rig) -> None:
    rig.host_is_there = False
    rig.send(PUBLISH)

    assert rig.reply() == {"ok": False, "error": "the host agent is not connected to this machine"}


def test_what_is_published_is_asked_again_of_a_new_host_with_the_port_it_got(rig: Rig) -> None:
    rig.send(PUBLISH)
    rig.relay.answer({"type": "ports", "id": rig.asked[0][0], "reply": {"ok": True, "host_port": 8080}})
    rig.relay.renew()

    assert rig.asked[1] == (0, {**PUBLISH, "host_port": 8080})


def test_what_was_withdrawn_or_refused_is_not_asked_again(rig: Rig) -> None:
    rig.send(PUBLISH)
    rig.relay.answer({"type": "ports", "id": rig.asked[0][0], "reply": {"ok": True, "host_port": 8080}})
    rig.send({**PUBLISH, "op": "unpublish", "host_port": 8080})
    rig.relay.answer({"type": "ports", "id": rig.asked[1][0], "reply": {"ok": True}})
    rig.send(PUBLISH)
    rig.relay.answer({"type": "ports", "id": rig.asked[2][0], "reply": {"ok": False, "error": "taken"}})
    rig.relay.renew()

    assert len(rig.asked) == 3


def test_a_host_that_goes_leaves_no_engine_waiting(rig: Rig) -> None:
    rig.send(PUBLISH)
    rig.relay.host_lost()

    assert rig.reply()["ok"] is False


def test_nonsense_is_refused_and_the_connection_goes_on(rig: Rig) -> None:
    rig.engine.sendall(b"nonsense\n")
    rig.loop.step()
    rig.loop.step()

    assert rig.reply() == {"ok": False, "error": "not a port request"}
    rig.send(PUBLISH)
    assert len(rig.asked) == 1
