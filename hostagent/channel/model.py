"""What a channel into a machine is; `hostagent.channel.ssh` is the first of them.

Life of a channel: it is made unconnected; `open` connects it; `connect` gives
any number of streams at once; when the link drops, every stream ends and
`connect` tries to link again; `close` is final. All calls block, none is bound
to an event loop: streams are pumped by threads.
"""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class UnixAddress:
    """A unix socket in the guest."""

    path: str

    def __str__(self) -> str:
        return self.path


@dataclass(frozen=True, slots=True)
class TcpAddress:
    """A TCP port as the guest sees it."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


Address = UnixAddress | TcpAddress


class Stream(Protocol):
    """One connection to something in the guest. Each direction may be used by one thread."""

    def recv(self, size: int) -> bytes:
        """Return up to `size` bytes, or b"" when the other side will send no more.

        Raises:
            OSError: the link is gone.
        """

    def sendall(self, data: bytes) -> None:
        """Send all of `data`; raises as `recv` does."""

    def shutdown_write(self) -> None:
        """Say that no more will be sent; `recv` goes on."""

    def close(self) -> None:
        """End both directions. Harmless when done twice."""


class Channel(Protocol):
    """A way into one machine."""

    def connect(self, address: Address, *, timeout_s: float) -> Stream:
        """Return a stream to `address` in the guest.

        Raises:
            Unavailable: the link is down and could not be had again, or nobody listens there.
            TimeoutError: no answer within `timeout_s`.
        """

    def close(self) -> None:
        """End the link and every stream on it."""
