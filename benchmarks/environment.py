"""On what a measurement was made: without it a figure means nothing."""

import os
import platform
from pathlib import Path

import msgspec


class Environment(msgspec.Struct, frozen=True):
    """The host, as far as it explains a figure."""

    system: str
    kernel: str
    processor: str
    cpus: int
    memory_bytes: int
    python: str
    load: float  # 1 minute average when the measurement began
    emulator: str = ""
    accelerator: str = ""
    accelerator_reason: str = ""


def collect() -> Environment:
    """Describe this host."""
    return Environment(
        system=platform.system(),
        kernel=platform.release(),
        processor=processor(),
        cpus=os.cpu_count() or 1,
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        python=platform.python_version(),
        load=round(os.getloadavg()[0], 2),
    )


def processor(cpuinfo: str | None = None) -> str:
    """Return the processor's name, from /proc/cpuinfo where there is one."""
    if cpuinfo is None:
        try:
            cpuinfo = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        except OSError:
            cpuinfo = ""
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        if key.strip() in {"model name", "Model"} and value.strip():
            return value.strip()
    return platform.machine()
