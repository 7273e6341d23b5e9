"""What happens in the engine, told to whoever listens, and the recent past told again.

Source: Docker Engine API v1.51, SystemEvents.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from engine.base.errors import InvalidArgument, Unavailable
from engine.containers.model import NANOSECONDS, now_ns

_HISTORY_MAX = 256
_QUEUE_MAX = 4096
_FILTERS = frozenset(
    ("type", "event", "container", "image", "label", "volume", "network", "daemon", "scope", "node", "plugin")
)


@dataclass(frozen=True, slots=True)
class Happening:
    """One event."""

    type: str  # "container", "image", "volume", "network"
    action: str
    id: str
    attributes: Mapping[str, str] = field(default_factory=dict)
    time_ns: int = 0

    def document(self) -> dict[str, Any]:
        """Return it as GET /events shows it; `status`, `id`, `from` are for clients before 1.52."""
        shown: dict[str, Any] = {}
        if self.type in {"container", "image"}:
            shown = {"status": self.action, "id": self.id}
        if self.type == "container":
            shown["from"] = self.attributes.get("image", "")
        return shown | {
            "Type": self.type,
            "Action": self.action,
            "Actor": {"ID": self.id, "Attributes": dict(self.attributes)},
            "scope": "local",
            "time": self.time_ns // NANOSECONDS,
            "timeNano": self.time_ns,
        }


class EventBus:
    """Publishes to any number of listeners; a listener that does not keep up is cut off."""

    def __init__(self) -> None:
        self._history: deque[Happening] = deque(maxlen=_HISTORY_MAX)
        self._listeners: set[asyncio.Queue[Happening | None]] = set()

    @property
    def listeners(self) -> int:
        """How many listen now."""
        return len(self._listeners)

    def publish(self, kind: str, action: str, identifier: str, attributes: Mapping[str, str]) -> None:
        """Tell what happened just now."""
        event = Happening(kind, action, identifier, dict(attributes), now_ns())
        self._history.append(event)
        for queue in list(self._listeners):
            if queue.qsize() >= _QUEUE_MAX:
                self._listeners.discard(queue)
                queue.put_nowait(None)
            else:
                queue.put_nowait(event)

    def listen(
        self,
        *,
        since_ns: int | None = None,
        until_ns: int | None = None,
        filters: Mapping[str, Sequence[str]] | None = None,
    ) -> AsyncGenerator[Happening, None]:
        """Return remembered events since `since_ns`, then those to come until `until_ns`. Close it.

        Iterating raises `Unavailable` when the listener fell too far behind.

        Raises:
            InvalidArgument: an unknown filter; at once, while the client can still be told.
        """
        filters = filters or {}
        for name in filters:
            if name not in _FILTERS:
                raise InvalidArgument(f"invalid filter '{name}'")
        return self._listen(since_ns, until_ns, filters)

    async def _listen(
        self, since_ns: int | None, until_ns: int | None, filters: Mapping[str, Sequence[str]]
    ) -> AsyncGenerator[Happening, None]:
        queue: asyncio.Queue[Happening | None] = asyncio.Queue()
        past = [event for event in self._history if since_ns is not None and event.time_ns >= since_ns]
        self._listeners.add(queue)
        try:
            for event in past:
                if (until_ns is None or event.time_ns <= until_ns) and passes(event, filters):
                    yield event
            while True:
                upcoming = await _next(queue, until_ns)
                if upcoming is None:
                    return
                if passes(upcoming, filters):
                    yield upcoming
        finally:
            self._listeners.discard(queue)


async def _next(queue: "asyncio.Queue[Happening | None]", until_ns: int | None) -> Happening | None:
    """Return the next event; None when `until_ns` has come."""
    left_s = None if until_ns is None else (until_ns - now_ns()) / NANOSECONDS
    if left_s is not None and left_s <= 0:
        return None
    try:
        async with asyncio.timeout(left_s):
            event = await queue.get()
    except TimeoutError:
        return None
    if event is None:
        raise Unavailable("events: the listener is too slow")
    return event


def passes(event: Happening, filters: Mapping[str, Sequence[str]]) -> bool:
    """Tell whether `event` is wanted: each filter given must have one value that fits (labels: all)."""
    return all(_fits(event, name, values) for name, values in filters.items() if values)


def _fits(event: Happening, name: str, values: Sequence[str]) -> bool:
    if name in {"type", "scope"}:
        return (event.type if name == "type" else "local") in values
    if name == "event":
        return any(event.action == value or event.action.startswith(f"{value}:") for value in values)
    if name == "label":
        return all(_has_label(event.attributes, value) for value in values)
    if name == "image" and event.type == "container":
        return _is_image(event.attributes.get("image", ""), values)
    if event.type != name:
        return False
    own = event.attributes.get("name", "")
    return any(event.id == value or event.id.startswith(value) or own == value for value in values)


def _has_label(attributes: Mapping[str, str], wanted: str) -> bool:
    key, equals, value = wanted.partition("=")
    return key in attributes and (not equals or attributes[key] == value)


def _is_image(image: str, values: Sequence[str]) -> bool:
    return any(value in {image, image.rpartition(":")[0]} or image == f"{value}:latest" for value in values)
