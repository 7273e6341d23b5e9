"""Run the commands that standard input names, one a line, and write how long each took.

A program: `python -m benchmarks.stopwatch`. Being small it forks quickly, and
being one of its own it can live where the commands must (a mount namespace).
"""

import sys
from collections.abc import Iterator

import msgspec

from benchmarks.commands import environment, timed
from engine.base import jsonio
from engine.base.errors import EngineError


class Lap(msgspec.Struct, frozen=True):
    """One command: its wall-clock seconds, or why there are none."""

    seconds: float = 0.0
    error: str = ""


def laps(lines: Iterator[bytes]) -> Iterator[Lap]:
    """Yield one for each line, a JSON array of words."""
    env = environment()
    for line in lines:
        try:
            yield Lap(timed(jsonio.decode(line, list[str]), env)[0])
        except (EngineError, TimeoutError) as err:
            yield Lap(error=str(err))


if __name__ == "__main__":
    for lap in laps(iter(sys.stdin.buffer.readline, b"")):
        sys.stdout.buffer.write(jsonio.encode(lap) + b"\n")
        sys.stdout.buffer.flush()
