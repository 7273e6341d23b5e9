"""The host's end of the control channel: JSON lines over the socket of a virtio-serial port.

The guest is not trusted: what it sends is bounded and checked, and a peer
that breaks the protocol is cut off with the reason.
"""

import asyncio
import contextlib
import logging
import secrets
import sys
from collections.abc import Callable
from pathlib import Path

from engine.base.errors import EngineError, NotSupported, Unavailable
from vmguest import protocol
from vmguest.protocol import Message, ProtocolError

log = logging.getLogger(__name__)

_CHUNK_BYTES = 64 * 1024
_NOISE_MAX_BYTES = 4 << 20  # what an older connection may have left behind
_CONNECT_RETRY_S = 0.02
_ATTACH_AGAIN_S = 2.0


class ChannelBroken(EngineError):
    """The guest sent what is no message of the protocol."""


class Control:
    """One connection to one guest; messages go to `on_message`, its end to `on_lost`, once."""

    def __init__(
        self,
        *,
        on_message: Callable[[Message], None],
        on_lost: Callable[[str], None],
        attach_again_s: float = _ATTACH_AGAIN_S,
    ) -> None:
        self._on_message = on_message
        self._on_lost = on_lost
        self._attach_again_s = attach_again_s
        self._nonce = secrets.token_hex(16)
        self._greeted = False
        self._noise_bytes = 0
        self._writer: asyncio.StreamWriter | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def connect(self, path: Path, *, timeout_s: float) -> None:
        """Connect to the socket and say `attach`; the guest's `hello` is the first message that follows.

        `attach` is said again until then: a port that a host has just left, or
        whose guest is between two readers, may lose either.

        Raises:
            TimeoutError: the socket did not take a connection in time.
        """
        try:
            async with asyncio.timeout(timeout_s):
                reader, self._writer = await _connect(path)
        except TimeoutError as err:
            raise TimeoutError(f"{path}: no connection within {timeout_s:.0f} s") from err
        self._tasks = [
            asyncio.create_task(self._attach(self._writer)),
            asyncio.create_task(self._read(reader)),
        ]

    def send(self, kind: str, **fields: object) -> None:
        """Queue a message.

        Raises:
            Unavailable: there is no connection.
        """
        if self._writer is None or self._writer.is_closing():
            raise Unavailable("the control channel to the machine is closed")
        self._writer.write(protocol.encode(kind, **fields))

    async def close(self) -> None:
        """End the connection; `on_lost` is not called for it."""
        for task in self._tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        if self._writer is not None:
            self._writer.close()
            with contextlib.suppress(OSError):
                await self._writer.wait_closed()

    async def _attach(self, writer: asyncio.StreamWriter) -> None:
        words = b"\n" + protocol.encode("attach", nonce=self._nonce, version=protocol.VERSION)
        while not self._greeted and not writer.is_closing():
            writer.write(words)
            await asyncio.sleep(self._attach_again_s)

    async def _read(self, reader: asyncio.StreamReader) -> None:
        decoder = protocol.Decoder()
        reason = "the control channel was closed"
        try:
            while data := await reader.read(_CHUNK_BYTES):
                self._feed(decoder, data)
        except OSError as err:
            reason = f"the control channel broke: {err.strerror or err}"
        except ChannelBroken as err:
            reason = str(err)
        if self._writer is not None:
            self._writer.close()
        self._on_lost(reason)

    def _feed(self, decoder: protocol.Decoder, data: bytes) -> None:
        if not self._greeted:
            self._noise_bytes += len(data)
            if self._noise_bytes > _NOISE_MAX_BYTES:
                raise ChannelBroken("the guest sends, but never greets")
        while True:
            try:
                for message in decoder.feed(data):
                    self._take(message)
                return
            except ProtocolError as err:
                if self._greeted:
                    raise ChannelBroken(f"the guest breaks the control protocol: {err}") from err
                data = b""  # the rest of a line from before this connection

    def _take(self, message: Message) -> None:
        if not self._greeted:
            if message["type"] != "hello" or message.get("nonce") != self._nonce:
                return
            self._greeted = True
        try:
            self._on_message(message)
        except ProtocolError as err:
            raise ChannelBroken(f"the guest breaks the control protocol: {err}") from err


if sys.platform == "win32":

    async def _connect(path: Path) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        raise NotSupported(f"{path}: the control channel needs unix sockets, which Python lacks on Windows")
else:

    async def _connect(path: Path) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        while True:
            try:
                return await asyncio.open_unix_connection(str(path))
            except (FileNotFoundError, ConnectionRefusedError):
                await asyncio.sleep(_CONNECT_RETRY_S)  # the emulator is about to make it
