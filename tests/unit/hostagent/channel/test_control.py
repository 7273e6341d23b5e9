"""The host's end of the control channel against a guest played by the test, over a real unix socket."""

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from hostagent.channel.control import Control
from vmguest.protocol import MAX_LINE_BYTES, Message, ProtocolError

TIMEOUT_S = 10.0


class Host:
    """What a control connection told its owner."""

    def __init__(self) -> None:
        self.heard: list[Message] = []
        self.lost: list[str] = []
        self.changed = asyncio.Event()
        self.refuse = False

    def on_message(self, message: Message) -> None:
        if self.refuse:
            raise ProtocolError("refused")
        self.heard.append(message)
        self.changed.set()

    def on_lost(self, reason: str) -> None:
        self.lost.append(reason)
        self.changed.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(TIMEOUT_S):
            while not condition():
                await self.changed.wait()
                self.changed.clear()


Body = Callable[[Host, Control, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def _talk(tmp_path: Path, body: Body, *, attach_again_s: float = TIMEOUT_S) -> None:
    async def main() -> None:
        guest: asyncio.Future[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = (
            asyncio.get_running_loop().create_future()
        )
        server = await asyncio.start_unix_server(
            lambda reader, writer: guest.set_result((reader, writer)), tmp_path / "control.sock"
        )
        host = Host()
        control = Control(on_message=host.on_message, on_lost=host.on_lost, attach_again_s=attach_again_s)
        await control.connect(tmp_path / "control.sock", timeout_s=TIMEOUT_S)
        reader, writer = await guest
        try:
            await body(host, control, reader, writer)
        finally:
            await control.close()
            writer.close()
            server.close()

    asyncio.run(main())


async def _greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readline()  # the newline that ends what an older host left unfinished
    attach = json.loads(await reader.readline())
    assert attach["type"] == "attach"
    writer.write(json.dumps({"type": "hello", "nonce": attach["nonce"], "version": 1}).encode() + b"\n")


def test_what_came_before_the_greeting_is_noise(tmp_path: Path) -> None:
    async def body(
        host: Host, _control: Control, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(b'alf a line"}\n{"type":"ready"}\n{"type":"hello","nonce":"of another"}\nnonsense\n')
        await _greet(reader, writer)
        writer.write(b'{"type":"ready"}\n')
        await host.until(lambda: len(host.heard) == 2)

        assert [message["type"] for message in host.heard] == ["hello", "ready"]

    _talk(tmp_path, body)


def test_attach_is_said_again_until_the_guest_greets(tmp_path: Path) -> None:
    async def body(
        host: Host, control: Control, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        for _ in range(2):
            await reader.readline()
            assert json.loads(await reader.readline())["type"] == "attach"
        await _greet(reader, writer)
        await host.until(lambda: bool(host.heard))
        control.send("ping")
        while (line := await reader.readline()) == b"\n" or b"attach" in line:
            pass
        assert json.loads(line) == {"type": "ping"}
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await reader.readline()

    _talk(tmp_path, body, attach_again_s=0.01)


@pytest.mark.parametrize("data", [b"nonsense\n", b"[1]\n", b"x" * (MAX_LINE_BYTES + 1)])
def test_a_guest_that_breaks_the_protocol_is_cut_off_with_the_reason(tmp_path: Path, data: bytes) -> None:
    async def body(
        host: Host, _control: Control, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await _greet(reader, writer)
        writer.write(data)
        await host.until(lambda: bool(host.lost))

        assert "the guest breaks the control protocol" in host.lost[0]
        assert await reader.read() == b""

    _talk(tmp_path, body)


def test_a_message_that_its_reader_refuses_cuts_off_too(tmp_path: Path) -> None:
    async def body(
        host: Host, _control: Control, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        host.refuse = True
        await _greet(reader, writer)
        await host.until(lambda: bool(host.lost))

        assert host.lost == ["the guest breaks the control protocol: refused"]

    _talk(tmp_path, body)


def test_a_guest_that_floods_and_never_greets_is_cut_off(tmp_path: Path) -> None:
    async def body(
        host: Host, _control: Control, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        async with asyncio.timeout(TIMEOUT_S):
            with contextlib.suppress(OSError):
                while not host.lost:
                    writer.write(b'{"type":"ready"}\n' * 1000)
                    await writer.drain()
        await host.until(lambda: bool(host.lost))

        assert host.lost == ["the guest sends, but never greets"]
        assert host.heard == []

    _talk(tmp_path, body)


def test_the_end_of_the_connection_is_told_once(tmp_path: Path) -> None:
    async def body(
        host: Host, _control: Control, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await _greet(reader, writer)
        writer.close()
        await host.until(lambda: bool(host.lost))

        assert host.lost == ["the control channel was closed"]

    _talk(tmp_path, body)


def test_closing_on_purpose_is_not_told(tmp_path: Path) -> None:
    async def body(
        host: Host, control: Control, _reader: asyncio.StreamReader, _writer: asyncio.StreamWriter
    ) -> None:
        await control.close()
        await asyncio.sleep(0)

        assert host.lost == []

    _talk(tmp_path, body)
