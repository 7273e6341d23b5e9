"""The engine's streams of progress objects, on a terminal as lines that move, elsewhere as plain lines.

Source: docker's pkg/jsonmessage; the objects are those of POST /images/create and /images/load.
"""

from collections.abc import Iterable
from typing import Any, TextIO

from engine.base.units import human_size
from hostagent.client.errors import ApiError

_BAR_WIDTH = 30
_ERROR_STATUS = 500


def show_progress(messages: Iterable[dict[str, Any]], *, out: TextIO | None) -> None:
    """Print `messages` on `out` as they come; None prints nothing.

    Raises:
        ApiError: one of them is an error.
    """
    screen = _Screen(out) if out is not None and out.isatty() else None
    for message in messages:
        _raise_error(message)
        if out is None:
            continue
        if "stream" in message:
            out.write(message["stream"])
        elif screen is not None:
            screen.show(message)
        elif not _is_movement(message):
            out.write(_line(message) + "\n")
        out.flush()


def _raise_error(message: dict[str, Any]) -> None:
    detail = message.get("errorDetail") or {}
    text = detail.get("message") or message.get("error")
    if text:
        raise ApiError(detail.get("code") or _ERROR_STATUS, str(text).strip())


def _is_movement(message: dict[str, Any]) -> bool:
    return bool((message.get("progressDetail") or {}).get("current"))


def _line(message: dict[str, Any]) -> str:
    prefix = f"{message['id']}: " if message.get("id") else ""
    return f"{prefix}{message.get('status', '')}"


class _Screen:
    """One line a layer, each rewritten in place."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._rows: dict[str, int] = {}

    def show(self, message: dict[str, Any]) -> None:
        identifier = message.get("id", "")
        if not identifier or message.get("progressDetail") is None:
            self._out.write(f"{_line(message)}\n")
            self._rows.clear()  # what is above has scrolled
            return
        if identifier not in self._rows:
            self._rows[identifier] = len(self._rows)
            self._out.write("\n")
        up = len(self._rows) - self._rows[identifier]
        self._out.write(f"\x1b[{up}A\r\x1b[2K{_line(message)}{_bar(message)}\r\x1b[{up}B")


def _bar(message: dict[str, Any]) -> str:
    detail = message.get("progressDetail") or {}
    done, total = detail.get("current", 0), detail.get("total", 0)
    if not done:
        return ""
    if not total:
        return f" {human_size(done)}"
    filled = min(done * _BAR_WIDTH // total, _BAR_WIDTH)
    return f" [{'=' * filled}{' ' * (_BAR_WIDTH - filled)}] {human_size(done)}/{human_size(total)}"
