"""The guest's clock follows the host's: set at boot, stepped when a heartbeat shows it to be off.

A laptop that slept wakes with a guest in the past, where certificates are not
yet valid. One step repairs that; small differences are left to the kernel.
"""

import time
from collections.abc import Callable

STEP_NS = 500_000_000


def _step(to_ns: int) -> None:
    time.clock_settime_ns(time.CLOCK_REALTIME, to_ns)


def follow(
    host_ns: int,
    *,
    read: Callable[[], int] = time.time_ns,
    step: Callable[[int], None] = _step,
    tolerance_ns: int = STEP_NS,
) -> bool:
    """Set the clock to `host_ns` when it is further off than `tolerance_ns`, and tell whether it was."""
    if abs(read() - host_ns) <= tolerance_ns:
        return False
    step(host_ns)
    return True
