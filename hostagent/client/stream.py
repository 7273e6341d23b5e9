"""The framing of attach, exec and logs for a container without a terminal.

A frame is 8 bytes of header, then the payload::

    0      1..3   4..7
    kind   zero   payload length in bytes, unsigned, big-endian

No I/O here: bytes in, pieces out. A piece is yielded as soon as any of its
bytes is there, so a large frame is never held back.

Source: Docker Engine API v1.43, ContainerAttach, "Stream format".
"""

from collections.abc import Iterator

from hostagent.client.errors import ConnectionLost

STDIN, STDOUT, STDERR = 0, 1, 2
_HEADER_BYTES = 8


class Decoder:
    """Turn bytes, cut anywhere, back into (kind, payload) pieces."""

    def __init__(self) -> None:
        self._header = b""
        self._kind = STDOUT
        self._left = 0

    @property
    def between_frames(self) -> bool:
        """Tell whether the last frame was whole."""
        return not self._header and not self._left

    def feed(self, data: bytes) -> Iterator[tuple[int, memoryview]]:
        """Yield each piece of payload in `data`.

        Raises:
            ConnectionLost: a header names no known stream.
        """
        view = memoryview(data)
        while view:
            if self._left:
                piece = view[: self._left]
                view = view[len(piece) :]
                self._left -= len(piece)
                yield self._kind, piece
                continue
            need = _HEADER_BYTES - len(self._header)
            self._header += bytes(view[:need])
            view = view[need:]
            if len(self._header) == _HEADER_BYTES:
                self._start_frame()

    def _start_frame(self) -> None:
        header, self._header = self._header, b""
        self._kind = header[0]
        if self._kind > STDERR or header[1:4] != b"\0\0\0":
            raise ConnectionLost(f"the engine sent no stream frame: {header!r}")
        self._left = int.from_bytes(header[4:], "big")
