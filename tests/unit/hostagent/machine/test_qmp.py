"""The monitor's client against an emulator played by the test, which ends at the worst moments."""

import asyncio
import contextlib
import json
import socket
import struct
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from engine.base.errors import Unavailable
from hostagent.machine.qemu.qmp import Qmp

TIMEOUT_S = 20.0
GREETING = {
    "QMP": {"version": {"qemu": {"major": 7, "minor": 2, "micro": 0}, "package": ""}, "capabilities": []}
}


class Emulator:
    """Serves one monitor; after `words` answers it aborts, with None never."""

    def __init__(self, words: int | None) -> None:
        self.words = words
        self.alive = True
        self.told = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            self._say(writer, GREETING)
            while self.alive and (command := await reader.read(65536)):  # no newline ends it
                said = json.loads(command)
                number = {"id": said["id"]} if "id" in said else {}
                self._say(writer, {"return": {"status": "running"}, **number})
        self._abort(writer)

    def _say(self, writer: asyncio.StreamWriter, words: object) -> None:
        if self.told == self.words:
            self.alive = False
            return
        self.told += 1
        writer.write(json.dumps(words).encode() + b"\r\n")

    def _abort(self, writer: asyncio.StreamWriter) -> None:
        """Close so that the other side gets a reset, as from a process that was killed with unread input."""
        self.alive = False
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()


@contextlib.asynccontextmanager
async def _listening(path: Path, emulator: Emulator) -> AsyncIterator[None]:
    server = await asyncio.start_unix_server(emulator.serve, path)
    try:
        yield
    finally:
        server.close()


def test_a_monitor_answers(tmp_path: Path) -> None:
    async def body() -> str:
        emulator = Emulator(None)
        async with _listening(tmp_path / "qmp.sock", emulator):
            qmp = Qmp(tmp_path / "qmp.sock")
            await qmp.connect(timeout_s=TIMEOUT_S, alive=lambda: emulator.alive)
            status = await qmp.status()
            await qmp.close()
            return status

    assert asyncio.run(body()) == "running"


@pytest.mark.parametrize("words", [0, 1])
def test_an_emulator_that_aborts_while_it_negotiates_is_told(tmp_path: Path, words: int) -> None:
    async def body() -> None:
        emulator = Emulator(words)
        async with _listening(tmp_path / "qmp.sock", emulator):
            qmp = Qmp(tmp_path / "qmp.sock")
            with pytest.raises(Unavailable, match="qemu ended before its monitor answered"):
                await qmp.connect(timeout_s=TIMEOUT_S, alive=lambda: emulator.alive)
            await qmp.close()

    asyncio.run(body())


def test_a_client_library_that_fails_in_its_clean_up_is_replaced(tmp_path: Path) -> None:
    class Broken:
        async def connect(self, _address: str) -> None:
            raise AssertionError

    async def body() -> str:
        emulator = Emulator(None)
        async with _listening(tmp_path / "qmp.sock", emulator):
            qmp = Qmp(tmp_path / "qmp.sock")
            qmp._client = Broken()  # type: ignore[assignment]
            await qmp.connect(timeout_s=TIMEOUT_S, alive=lambda: emulator.alive)
            status = await qmp.status()
            await qmp.close()
            return status

    assert asyncio.run(body()) == "running"
