"""The heartbeat: it tells the guest the time, and notices a guest that has stopped answering."""

import asyncio
import logging
import time
from collections.abc import Callable

from engine.base.errors import Unavailable

log = logging.getLogger(__name__)

INTERVAL_S = 4.0
_MISSED_MAX = 8


class Heartbeat:
    """Sends the host's time every few seconds, so a guest that slept is soon right again."""

    def __init__(self, send: Callable[[int], None], *, on_silent: Callable[[], None]) -> None:
        """`send` gets the wall clock in ns; `on_silent` is called when many beats were not answered."""
        self._send = send
        self._on_silent = on_silent
        self._unanswered = 0

    def answered(self, *, stepped: bool) -> None:
        """Take note of an answer."""
        self._unanswered = 0
        if stepped:
            log.info("the guest's clock was off and has been set")

    async def run(self) -> None:
        """Beat until cancelled."""
        while True:
            await asyncio.sleep(INTERVAL_S)
            try:
                self._send(time.time_ns())
            except Unavailable:
                return
            self._unanswered += 1
            if self._unanswered == _MISSED_MAX:
                self._on_silent()
