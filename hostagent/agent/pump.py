"""Carry bytes between a local socket and a stream into the machine, each direction on a thread of its own.

A half-close passes: what one side ends is ended at the other, and the other
direction goes on. Both are closed when both directions are done, or at once
when one breaks.
"""

import contextlib
import logging
import socket
import threading

from hostagent.channel.model import Stream

log = logging.getLogger(__name__)

_CHUNK_BYTES = 128 * 1024


class Pump:
    """One carried connection; `answered` tells whether the machine has said anything."""

    def __init__(self, client: socket.socket, stream: Stream, *, keep_silent: bool = False) -> None:
        """With `keep_silent`, a machine that ends without a word leaves the client open for writing."""
        self._keep_silent = keep_silent
        self._client = client
        self._stream = stream
        self.asked = False
        self.answered = False
        self.broken = False

    def run(self) -> None:
        """Carry until both directions have ended; the client socket stays the caller's to close."""
        up = threading.Thread(target=self._up, name="pump-up", daemon=True)
        up.start()
        self._down()
        up.join()
        self._stream.close()

    def _up(self) -> None:
        try:
            while data := self._client.recv(_CHUNK_BYTES):
                self.asked = True
                self._stream.sendall(data)
            self._stream.shutdown_write()
        except (OSError, EOFError) as err:
            self._break(err)

    def _down(self) -> None:
        try:
            while data := self._stream.recv(_CHUNK_BYTES):
                self.answered = True
                self._client.sendall(data)
            if self._keep_silent and not self.answered:
                self._client.shutdown(socket.SHUT_RD)
            else:
                self._client.shutdown(socket.SHUT_WR)
        except (OSError, EOFError) as err:
            self._break(err)

    def _break(self, err: BaseException) -> None:
        log.debug("a carried connection broke: %s", err)
        self.broken = True
        self._stream.close()
        with contextlib.suppress(OSError):
            silent = self._keep_silent and not self.answered
            self._client.shutdown(socket.SHUT_RD if silent else socket.SHUT_RDWR)
