"""Lines on the serial console, which the host keeps as the machine's log, and the boot's time stamps."""

import os
import time

_STDERR = 2


def say(text: str) -> None:
    """Write one line; a console that is gone is no reason to stop."""
    line = f"pyengine-init: [{uptime_ms() / 1000:8.3f}] {text}\n"
    try:
        os.write(_STDERR, line.encode(errors="replace"))
    except OSError:
        return


def uptime_ms() -> int:
    """Return the milliseconds since the kernel started its clock."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000
