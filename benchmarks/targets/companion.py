"""A long-lived child that answers one line with one line, in JSON."""

import os
from collections.abc import Sequence
from typing import TypeVar

from benchmarks.commands import environment
from engine.base import jsonio
from engine.base.errors import Unavailable
from engine.base.process import spawn

_END_TIMEOUT_S = 30.0
T = TypeVar("T")


class Companion:
    """Owns the process until `close`."""

    def __init__(self, argv: Sequence[str]) -> None:
        theirs_in, ours_out = os.pipe()
        ours_in, theirs_out = os.pipe()
        try:
            self._process = spawn(
                argv, env=environment(), stdin_fd=theirs_in, stdout_fd=theirs_out, output_fd=2
            )
        finally:
            os.close(theirs_in)
            os.close(theirs_out)
        self._name = argv[-1]
        self._send = os.fdopen(ours_out, "wb", buffering=0)
        self._receive = os.fdopen(ours_in, "rb")

    def ask(self, message: object, kind: type[T]) -> T:
        """Send `message` and return the answer, a `kind`.

        Raises:
            Unavailable: it has ended.
        """
        try:
            self._send.write(jsonio.encode(message) + b"\n")
        except BrokenPipeError:
            raise Unavailable(f"{self._name} has ended") from None
        line = self._receive.readline()
        if not line:
            raise Unavailable(f"{self._name} has ended")
        return jsonio.decode(line, kind)

    def close(self) -> None:
        """End it, by the end of its input."""
        self._send.close()
        self._process.wait(_END_TIMEOUT_S)
        self._receive.close()
