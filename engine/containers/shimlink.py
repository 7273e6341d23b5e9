"""One connection to the nursery or to a shim, on the event loop.

Messages of `engine.shim.protocol` with descriptors beside them. Answers find
the request they belong to; everything else goes to the owner's callback, in
order of arrival.
"""

import array
import asyncio
import os
import socket
from collections import deque
from collections.abc import Callable, Sequence

from engine.base.errors import Conflict, EngineError, InvalidArgument, NotSupported, OutOfSpace, Unavailable
from engine.shim.protocol import (
    FDS_MAX,
    AnyAnswer,
    AnyRequest,
    Done,
    Exited,
    Failed,
    Hello,
    Reader,
    answer_decoder,
    encode,
)

_READ_BYTES = 1 << 16
_KINDS: dict[str, type[EngineError]] = {
    kind.__name__: kind for kind in (Conflict, InvalidArgument, NotSupported, OutOfSpace, Unavailable)
}


class StartFailed(EngineError):
    """The container's (or exec's) program could not be made to run; nothing of the attempt is left.

    Attributes:
        exit_code: 127 when the program does not exist, 126 when it cannot be
            executed, 125 for everything before that.
        step: what the runtime was doing.
        errno: of the system call that failed, or 0.
    """

    def __init__(
        self, message: str, *, exit_code: int = 125, step: str = "", errno: int = 0, hint: str = ""
    ) -> None:
        super().__init__(message, hint=hint)
        self.exit_code = exit_code
        self.step = step
        self.errno = errno


def error_of(failed: Failed) -> EngineError:
    """Return the exception that the other side meant."""
    if failed.kind == "StartFailed":
        return StartFailed(
            failed.message,
            exit_code=failed.exit_code,
            step=failed.step,
            errno=failed.errno,
            hint=failed.hint,
        )
    return _KINDS.get(failed.kind, EngineError)(failed.message, hint=failed.hint)


class Link:
    """Owns the socket; `close` it once. Not for use from other threads."""

    def __init__(
        self,
        sock: socket.socket,
        *,
        name: str,
        on_event: Callable[[Hello | Exited | Failed], None],
        on_lost: Callable[[], None],
    ) -> None:
        """Watch `sock`, a connected unix stream socket.

        Args:
            sock: becomes the link's.
            name: of the other side, for messages.
            on_event: gets what answers no request.
            on_lost: called once when the other side has gone; not after `close`.
        """
        sock.setblocking(False)
        self._sock = sock
        self._name = name
        self._on_event = on_event
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._reader: Reader[AnyAnswer] = Reader(answer_decoder)
        self._queue: deque[tuple[memoryview, list[int]]] = deque()
        self._answers: dict[int, asyncio.Future[Done]] = {}
        self._last_id = 0
        self._open = True
        self._loop.add_reader(sock, self._readable)

    @property
    def is_open(self) -> bool:
        """Whether the other side was there when last heard of."""
        return self._open

    def next_id(self) -> int:
        """Return the `id` for the next request."""
        self._last_id += 1
        return self._last_id

    async def request(self, message: AnyRequest, *, fds: Sequence[int] = (), timeout_s: float) -> Done:
        """Send `message` and return the answer to it; `fds` stay the caller's.

        Raises:
            Unavailable: the other side has gone, or goes before it answers.
            TimeoutError: no answer came in time.
            StartFailed, EngineError: what the other side answered.
        """
        answer: asyncio.Future[Done] = self._loop.create_future()
        self._answers[message.id] = answer
        try:
            self.send(message, fds=fds)
            async with asyncio.timeout(timeout_s):
                return await answer
        except TimeoutError as err:
            what = type(message).__name__.lower()
            raise TimeoutError(f"{self._name}: no answer to {what} within {timeout_s} s") from err
        finally:
            self._answers.pop(message.id, None)

    def send(self, message: AnyRequest, *, fds: Sequence[int] = ()) -> None:
        """Send `message` without waiting for anything; `fds` are duplicated at once.

        Raises:
            Unavailable: the other side has gone.
        """
        if not self._open:
            raise Unavailable(f"{self._name}: not connected")
        frame = memoryview(encode(message, len(fds)))
        self._queue.append((frame, [os.dup(fd) for fd in fds]))
        if len(self._queue) == 1:
            self._flush()

    def close(self) -> None:
        """Close the socket; requests that wait for an answer fail. Harmless when closed."""
        if not self._open:
            return
        self._open = False
        self._loop.remove_reader(self._sock)
        self._loop.remove_writer(self._sock)
        self._sock.close()
        for _, fds in self._queue:
            _close_all(fds)
        self._queue.clear()
        _close_all(self._reader.drain_fds())
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(Unavailable(f"{self._name}: connection closed"))

    def _flush(self) -> None:
        try:
            while self._queue:
                frame, fds = self._queue[0]
                ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
                sent = self._sock.sendmsg([frame], ancillary)
                _close_all(fds)  # in flight now, with the first byte
                if sent == len(frame):
                    self._queue.popleft()
                else:
                    self._queue[0] = (frame[sent:], [])
        except BlockingIOError:
            self._loop.add_writer(self._sock, self._flush)
            return
        except OSError:
            self._fail()
            return
        self._loop.remove_writer(self._sock)

    def _readable(self) -> None:
        try:
            data, ancillary, _, _ = self._sock.recvmsg(_READ_BYTES, socket.CMSG_SPACE(4 * FDS_MAX))
        except BlockingIOError:
            return
        except OSError:
            data, ancillary = b"", []
        _close_all(_descriptors(ancillary))  # no answer carries any
        if not data:
            self._fail()
            return
        try:
            for message, _ in self._reader.feed(data):
                self._deliver(message)
        except InvalidArgument:
            self._fail()

    def _deliver(self, message: AnyAnswer) -> None:
        if isinstance(message, Done | Failed) and message.id:
            answer = self._answers.get(message.id)
            if answer is None or answer.done():
                return
            if isinstance(message, Done):
                answer.set_result(message)
            else:
                answer.set_exception(error_of(message))
        elif not isinstance(message, Done):
            self._on_event(message)

    def _fail(self) -> None:
        if self._open:
            self.close()
            self._on_lost()


def _descriptors(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    fds = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    return list(fds)


def _close_all(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)
    fds.clear()
