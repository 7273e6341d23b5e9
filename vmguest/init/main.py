"""PID 1 of a machine: launches the engine's interpreter, then imports the rest of itself beside it.

Where the processor is emulated imports are what a boot consists of, and two
processors can import side by side. So this module, and what it imports,
imports almost nothing.
"""

import os
from typing import NoReturn

from vmguest.init import engine
from vmguest.init.console import uptime_ms


def main() -> NoReturn:
    """Run the machine; never returns."""
    started_ms = uptime_ms()
    os.umask(0o022)
    launched = engine.launch()
    from vmguest.init import boot  # noqa: PLC0415 (see above)

    boot.run(launched, started_ms)
