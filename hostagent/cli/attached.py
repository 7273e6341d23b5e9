"""An attached container, for run, start -a and attach: the connections, the loop, and the exit code."""

import contextlib
import os
import signal
from types import TracebackType
from typing import TYPE_CHECKING

from engine.base import detachkeys
from engine.base.errors import EngineError
from hostagent.cli import tty
from hostagent.cli.exits import FLAG_ERROR, ExitWith
from hostagent.cli.session import Session
from hostagent.client.docker import Engine, segment
from hostagent.client.errors import ConnectionLost

if TYPE_CHECKING:
    from hostagent.client.http import Connection


def check_terminal(*, stdin: bool, terminal: bool) -> None:
    """Refuse a terminal whose input is none of a terminal.

    Raises:
        ExitWith: with docker's words.
    """
    if stdin and terminal and not tty.is_terminal(0):
        raise ExitWith(1, "the input device is not a TTY")


def console_size() -> tuple[int, int] | None:
    """Return (height, width) of the terminal the user looks at."""
    return tty.size(1) or tty.size(0)


class Attachment:
    """A container that is attached to, and waited for when `wait_for` names a condition.

    Attached when made, so that a container started afterwards loses no output.
    Close it, or use it as a context manager.
    """

    def __init__(
        self,
        engine: Engine,
        container_id: str,
        *,
        stdin: bool,
        stdout: bool = True,
        stderr: bool = True,
        terminal: bool,
        detach_keys: str,
        wait_for: str,
        proxy_signals: bool,
    ) -> None:
        self._engine = engine
        self._path = f"/containers/{segment(container_id)}"
        self._terminal = terminal
        self._stdin = stdin
        self._keys = detachkeys.parse(detach_keys)
        # Active before the container starts, so that a signal that comes then is not lost on it.
        self._signals = tty.Signals((tty.resize_signal(), *(tty.proxied() if proxy_signals else ())))
        self._stream, self._early = engine.hijack(
            f"{self._path}/attach",
            {
                "stream": True,
                "stdin": stdin,
                "stdout": stdout,
                "stderr": stderr,
                "detachKeys": detach_keys or None,
            },
        )
        self._waiting: Connection | None = None
        try:
            # Its headers come at once, so the engine waits already when the container starts.
            self._waiting = engine.begin("POST", f"{self._path}/wait", {"condition": wait_for})
            self._waiting.receive()
        except BaseException:
            self.close()
            raise

    def carry(self) -> int:
        """Carry bytes until the container ends or the user detaches; return the exit code."""
        assert self._waiting is not None  # noqa: S101 (set by __init__)
        session = Session(
            self._stream,
            self._early,
            stdin_fd=0 if self._stdin else None,
            framed=not self._terminal,
            detach_keys=self._keys if self._terminal and self._stdin else b"",
            waiting=self._waiting,
            signals=self._signals,
            on_signal=self._kill,
            on_resize=self._resize,
        )
        outcome = session.run()
        if outcome.detached:
            os.write(2, b"read escape sequence\n")
            return 0
        return exit_code(outcome.answer)

    def _kill(self, number: int) -> None:
        with contextlib.suppress(EngineError):  # it may have ended by itself
            self._engine.post(f"{self._path}/kill", signal=signal.Signals(number).name.removeprefix("SIG"))

    def _resize(self) -> None:
        size = console_size() if self._terminal else None
        if size:
            with contextlib.suppress(EngineError):
                self._engine.post(f"{self._path}/resize", h=size[0], w=size[1])

    def close(self) -> None:
        """Close both connections."""
        self._stream.close()
        if self._waiting is not None:
            self._waiting.close()

    def __enter__(self) -> "Attachment":
        self._signals.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._signals.__exit__()
        self.close()


def exit_code(answer: object) -> int:
    """Return the code of wait's answer.

    Raises:
        ConnectionLost: the engine does not know how the container ended.
    """
    if not isinstance(answer, dict) or "StatusCode" not in answer:
        raise ConnectionLost("the engine did not say how the container ended")
    error = answer.get("Error") or {}
    if error.get("Message"):
        raise ExitWith(FLAG_ERROR, f"error waiting for container: {error['Message']}")
    return int(answer["StatusCode"])
