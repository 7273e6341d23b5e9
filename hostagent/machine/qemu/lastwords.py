"""What an emulator and its guest said last: why they ended."""

import re
from pathlib import Path

_TAIL_BYTES = 64 * 1024  # a panic of Linux takes a few KiB: registers, calls, modules
_PANIC = re.compile(r"Kernel panic - not syncing: ([^\r\n]+?)(?: \]---)?\r?$", re.MULTILINE)


def last_line(log: Path, *, otherwise: str = "it said nothing") -> str:
    """Return the last line of an emulator's log; without its name, which whoever quotes it has said."""
    lines = _tail(log).strip().splitlines()
    return re.sub(r"^qemu-system-\w+: ", "", lines[-1].strip()) if lines else otherwise


def panic(console: Path) -> str:
    """Return why the guest's kernel gave up, in its words; empty when it did not.

    To the emulator a panic is a guest that powers off: it boots with panic=-1, and may not start again.
    """
    found = _PANIC.search(_tail(console))
    return found[1] if found else ""


def _tail(path: Path) -> str:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
            return file.read().decode(errors="replace")
    except OSError:
        return ""
