"""Ask the machine's host for ports, over the socket that the guest agent serves.

One connection at a time, one JSON line each way a request (see
`engine.base.portlease`). A connection that breaks is made again once; the
host keeps its ports by (container, proto, host port), so asking twice is safe.
"""

import asyncio
import contextlib
from pathlib import Path

from engine.base import jsonio
from engine.base.errors import Conflict, InvalidArgument, Unavailable
from engine.base.portlease import PortReply, PortRequest

_REPLY_TIMEOUT_S = 10.0
_LINE_MAX_BYTES = 4096


class HostPorts:
    """Publishes ports on the host of the machine in which this engine runs."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._lock = asyncio.Lock()
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def publish(
        self, container_id: str, proto: str, host_ip: str, host_port: int, guest_port: int
    ) -> int:
        """Have the host listen and forward to `guest_port`; return the host's port (for 0, its choice).

        Raises:
            Conflict: the host refused; the message is the host's one line.
            Unavailable: the host cannot be asked now.
        """
        request = PortRequest("publish", container_id, proto, host_ip, host_port, guest_port)
        reply = await self._ask(request)
        if not reply.ok:
            raise Conflict(reply.error or f"the host refused port {host_port}/{proto}")
        return reply.host_port or host_port

    async def unpublish(
        self, container_id: str, proto: str, host_ip: str, host_port: int, guest_port: int
    ) -> None:
        """Have the host stop listening; harmless when it does not.

        Raises:
            Unavailable: the host cannot be asked now.
        """
        await self._ask(PortRequest("unpublish", container_id, proto, host_ip, host_port, guest_port))

    async def close(self) -> None:
        """Close the connection; published ports stay."""
        async with self._lock:
            await self._disconnect()

    async def _ask(self, request: PortRequest) -> PortReply:
        async with self._lock:
            fresh = self._streams is None
            try:
                return await self._exchange(request)
            except (OSError, EOFError, ValueError, InvalidArgument) as err:
                await self._disconnect()
                if fresh:
                    raise self._unavailable(err) from err
            try:  # the connection was an old one: the guest agent may have been restarted
                return await self._exchange(request)
            except (OSError, EOFError, ValueError, InvalidArgument) as err:
                await self._disconnect()
                raise self._unavailable(err) from err

    async def _exchange(self, request: PortRequest) -> PortReply:
        try:
            async with asyncio.timeout(_REPLY_TIMEOUT_S):
                if self._streams is None:
                    self._streams = await asyncio.open_unix_connection(
                        str(self._socket), limit=_LINE_MAX_BYTES
                    )
                reader, writer = self._streams
                writer.write(jsonio.encode(request) + b"\n")
                await writer.drain()
                line = await reader.readuntil(b"\n")
        except BaseException:  # also a cancelled request: its reply must not answer the next one
            self._abandon()
            raise
        return jsonio.decode(line, PortReply, noun="reply of the host")

    def _abandon(self) -> None:
        if self._streams is not None:
            self._streams[1].transport.abort()
            self._streams = None

    async def _disconnect(self) -> None:
        if self._streams is not None:
            writer, self._streams = self._streams[1], None
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    def _unavailable(self, err: Exception) -> Unavailable:
        return Unavailable(
            f"cannot ask the host for a port: {self._socket}: {err}", hint="restart the machine"
        )
