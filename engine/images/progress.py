"""The objects of docker's progress streams, as dockerd writes them."""

from typing import Any

from engine.base.units import human_size

Progress = dict[str, Any]

_BAR_CHARS = 50


def message(status: str, *, object_id: str = "") -> Progress:
    """Return a line of text, about `object_id` if given."""
    return {"status": status, "id": object_id} if object_id else {"status": status}


def step(status: str, object_id: str) -> Progress:
    """Return a state that a layer reached."""
    return {"status": status, "progressDetail": {}, "id": object_id}


def advance(status: str, object_id: str, current: int, total: int) -> Progress:
    """Return how far a layer is, in bytes; `total` 0: unknown."""
    detail = {"current": current, "total": total} if total else {"current": current}
    bar = _bar(current, total)
    return {"status": status, "progressDetail": detail, "progress": bar, "id": object_id}


def stream(text: str) -> Progress:
    """Return a piece of plain output."""
    return {"stream": text}


def error(text: str) -> Progress:
    """Return the object that ends a stream which failed."""
    return {"errorDetail": {"message": text}, "error": text}


def _bar(current: int, total: int) -> str:
    if total <= 0:
        return f"{human_size(current, digits=4):>8}"
    filled = min(_BAR_CHARS, current * _BAR_CHARS // total)
    numbers = f"{human_size(current, digits=4):>8}"
    if current <= total:
        numbers += f"/{human_size(total, digits=4)}"
    return f"[{'=' * filled}>{' ' * (_BAR_CHARS - filled)}] {numbers}"
