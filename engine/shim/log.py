"""The log of one container: its output, cut into lines and written in the form that its driver has.

Records hold whole lines; what is not yet a line waits, up to 16 KiB, as it
does in docker.
"""

import time
from collections.abc import Callable
from pathlib import Path

from engine.base.errors import NotSupported
from engine.shim.compress import Compressor
from engine.shim.jsonrecords import JsonRecords
from engine.shim.localrecords import LocalRecords
from engine.shim.logfile import LogFile, Records
from engine.shim.loop import Loop
from engine.shim.protocol import SpawnRequest

PARTIAL_MAX_BYTES = 16 * 1024
_LEADS = ((0xF0, 4), (0xE0, 3), (0xC0, 2))  # first byte of a UTF-8 sequence, from; its length
_RECORDS: dict[str, Callable[[dict[str, str]], Records]] = {"json-file": JsonRecords, "local": LocalRecords}


def open_log(request: SpawnRequest, loop: Loop, *, warn: Callable[[str], None]) -> "ContainerLog | None":
    """Open the log that the request asks for; None for none.

    Raises:
        NotSupported: there is no such driver.
        OSError: the file could not be opened.
    """
    if request.log_driver == "none":
        return None
    if request.log_driver not in _RECORDS:
        raise NotSupported(f"log driver {request.log_driver}: use json-file, local or none")
    records = _RECORDS[request.log_driver](request.log_attrs)
    compressor = Compressor(loop, warn=warn) if request.log_compress else None
    file = LogFile(
        Path(request.log_path),
        records,
        max_bytes=request.log_max_bytes,
        max_files=request.log_max_files,
        compressor=compressor,
        warn=warn,
    )
    return ContainerLog(file, records, compressor)


def split(text: bytes) -> tuple[bytes, bytes]:
    """Return what of `text` can be logged now, and the part that waits for the rest of its line."""
    cut = text.rfind(b"\n") + 1
    if len(text) - cut >= PARTIAL_MAX_BYTES:
        cut = len(text) - _open_sequence_bytes(text)
    return text[:cut], text[cut:]


def _open_sequence_bytes(text: bytes) -> int:
    """Return how many bytes at the end begin a UTF-8 sequence that is not complete."""
    for back, byte in enumerate(reversed(text[-3:]), start=1):
        for lead, length in _LEADS:
            if byte >= lead:
                return back if back < length else 0
    return 0


class ContainerLog:
    """What records a container's output; one writer."""

    def __init__(self, file: LogFile, records: Records, compressor: Compressor | None = None) -> None:
        self._file = file
        self._records = records
        self._compressor = compressor
        self._waiting: dict[str, bytes] = {}

    @property
    def is_full(self) -> bool:
        """Whether more can only be written once a file has been compressed."""
        return self._file.must_wait

    def when_room(self, call: Callable[[], None]) -> None:
        """Call `call()` whenever it may be full no longer."""
        if self._compressor is not None:
            self._compressor.when_free = call

    def write(self, stream: str, data: bytes) -> None:
        """Log a chunk of `stream` ("stdout" or "stderr")."""
        waiting = self._waiting.get(stream)
        text, rest = split(waiting + data if waiting else data)
        self._waiting[stream] = rest
        if text:
            self._append(stream, text)

    def finish(self) -> None:
        """Log what waits for the end of its line; every record is then in the kernel's hands."""
        for stream, text in self._waiting.items():
            if text:
                self._append(stream, text)
        self._waiting.clear()

    def sync(self) -> None:
        """Wait until the records are on disk; a failure is only reported."""
        self._file.sync()

    def settle(self) -> None:
        """Wait until rotated files have their names for good."""
        self._file.settle()

    def close(self) -> None:
        """Close the file; harmless when closed."""
        self._file.close()

    def _append(self, stream: str, text: bytes) -> None:
        now_ns = time.time_ns()
        self._file.append(self._records.encode(stream, text, now_ns), now_ns)
