"""The agent's own socket: whoever asks is answered, whatever happens."""

import asyncio
import json
import socket
from collections.abc import Callable
from typing import Any

import pytest

from engine.base.errors import Unavailable
from hostagent.agent.server import Server

TIMEOUT_S = 10.0


class Failing:
    """A machine whose start fails in one way."""

    def __init__(self, err: BaseException) -> None:
        self._err = err

    async def start(self, progress: Callable[[str], None]) -> None:
        progress("trying")
        raise self._err


def _ask(lifecycle: object, request: bytes) -> list[dict[str, Any]]:
    async def body() -> bytes:
        server = Server(lifecycle, on_stopped=lambda: None)  # type: ignore[arg-type]
        ours, theirs = socket.socketpair()
        server.take(theirs)
        reader, writer = await asyncio.open_connection(sock=ours)
        writer.write(request)
        async with asyncio.timeout(TIMEOUT_S):
            said = await reader.read()
        writer.close()
        return said

    return [json.loads(line) for line in asyncio.run(body()).splitlines()]


@pytest.mark.parametrize(
    ("err", "kind", "text"),
    [
        (Unavailable("machine m: no"), "Unavailable", "machine m: no"),
        (TimeoutError("machine m: late"), "Unavailable", "machine m: late"),
        (OSError(28, "No space left on device", "/disk"), "EngineError", "/disk: No space left on device"),
        (AssertionError("odd"), "EngineError", "internal error: AssertionError: odd"),
        (asyncio.CancelledError(), "Unavailable", "the host agent ends"),
    ],
)
def test_every_failure_is_an_answer_and_the_end_of_the_connection(
    err: BaseException, kind: str, text: str
) -> None:
    progress, answer = _ask(Failing(err), b'{"op":"start"}\n')

    assert progress == {"progress": "trying"}
    assert (answer["ok"], answer["kind"], answer["error"]) == (False, kind, text)


@pytest.mark.parametrize("request_", [b"", b"\n", b"[]\n", b"nonsense\n", b'{"op":"fly"}\n'])
def test_what_is_no_request_is_refused(request_: bytes) -> None:
    [answer] = _ask(Failing(AssertionError()), request_ or b"\n")

    assert answer["ok"] is False
