"""Answers whose objects follow one another as they come."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from engine.api.http import JSON, Stream
from engine.base import jsonio


async def json_stream(objects: AsyncIterator[Any], *, content_type: str = JSON) -> Stream:
    """Return an answer of JSON lines; a failure before the first object is raised here, with its status."""
    first = await anext(objects, None)
    return Stream(_lines(first, objects), content_type)


async def _lines(first: Any, rest: AsyncIterator[Any]) -> AsyncIterator[bytes]:  # noqa: ANN401 (any document)
    async with contextlib.AsyncExitStack() as stack:
        close = getattr(rest, "aclose", None)
        if close is not None:
            stack.push_async_callback(close)
        if first is None:
            return
        yield jsonio.encode(first) + b"\r\n"
        async for item in rest:
            yield jsonio.encode(item) + b"\r\n"
