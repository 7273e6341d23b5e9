"""One load or pull: work in threads, progress to whoever listens, an orderly end in every case.

The work is a task of its own, which is never cancelled: when the listener goes
away it is asked to stop, and it stops at the next byte that it reads, cleans
up, and only then is the listener's generator closed. So nothing is published
behind the back of a clean-up.
"""

import asyncio
import concurrent.futures
import threading
from collections.abc import AsyncIterator, Awaitable, Callable

from engine.base.errors import EngineError, OutOfSpace, Unavailable
from engine.images import progress
from engine.images.progress import Progress


class Stopped(EngineError):
    """The client of an operation went away."""

    def __init__(self) -> None:
        super().__init__("operation was cancelled")


class Operation:
    """What the work is given: a way to report, and to learn that it must stop."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._objects: asyncio.Queue[Progress | None] = asyncio.Queue()
        self._stopped = threading.Event()
        self._waits: set[concurrent.futures.Future[bytes]] = set()

    def report(self, item: Progress) -> None:
        """Send one progress object; from any thread.

        Raises:
            Stopped: nobody listens any more.
        """
        self.check()
        self.loop.call_soon_threadsafe(self._objects.put_nowait, item)

    def check(self) -> None:
        """Raise `Stopped` if nobody listens any more; from any thread."""
        if self._stopped.is_set():
            raise Stopped

    async def stream(self, work: Callable[["Operation"], Awaitable[None]]) -> AsyncIterator[Progress]:
        """Run `work(self)`, yielding what it reports.

        A failure before the first object is raised; a later one is the last object.
        """
        task = asyncio.ensure_future(work(self))
        task.add_done_callback(lambda _: self._objects.put_nowait(None))
        began = False
        try:
            while (item := await self._objects.get()) is not None:
                began = True
                yield item
        finally:
            self._stop()
            await asyncio.wait({task})
            failure = None if task.cancelled() else task.exception()
        if failure is None:
            return
        known = as_engine_error(failure)
        if not began or known is None:
            raise known or failure
        yield progress.error(str(known))

    def _stop(self) -> None:
        self._stopped.set()
        for wait in list(self._waits):
            wait.cancel()

    def source(self, stream: AsyncIterator[bytes]) -> "StreamSource":
        """Return `stream` for a worker thread to read from."""
        return StreamSource(self, stream)

    def wait_for(self, pull: Callable[[], Awaitable[bytes]]) -> bytes:
        """Run `pull` on the loop and wait for it, in a worker thread."""

        async def run() -> bytes:
            return await pull()

        future = asyncio.run_coroutine_threadsafe(run(), self.loop)
        self._waits.add(future)
        try:
            self.check()
            return future.result()
        except concurrent.futures.CancelledError as err:
            raise Stopped from err
        finally:
            future.cancel()
            self._waits.discard(future)


class StreamSource:
    """An async stream of bytes, as a `Source` for one worker thread."""

    def __init__(self, operation: Operation, stream: AsyncIterator[bytes]) -> None:
        self._operation = operation
        self._stream = stream
        self._chunk = b""
        self._ended = False

    def read(self, size: int, /) -> bytes:
        """Return at most `size` bytes; waits for the client."""
        while not self._chunk and not self._ended:
            self._chunk = self._operation.wait_for(self._next)
        data, self._chunk = self._chunk[:size], self._chunk[size:]
        return data

    async def _next(self) -> bytes:
        try:
            return await anext(self._stream)
        except StopAsyncIteration:
            self._ended = True
            return b""


def as_engine_error(err: BaseException) -> EngineError | None:
    """Return `err` as one line for the user; None for what is a bug of ours."""
    if isinstance(err, EngineError):
        return err
    full = OutOfSpace.of(err)
    if full is not None:
        return full
    if isinstance(err, TimeoutError):
        return Unavailable(str(err) or "timed out")
    if isinstance(err, OSError):
        where = f"{err.filename}: " if err.filename else ""
        return EngineError(f"{where}{(err.strerror or str(err)).lower()}")
    return None
