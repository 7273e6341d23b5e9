"""Spans across every layer of one command, from the command line to execve.

A trace is a W3C `traceparent` that travels with a request. While one is set,
`span` appends a record to this process's list; without one it costs a context
variable look-up and nothing else. Times are CLOCK_MONOTONIC nanoseconds, which
all processes of one machine share; across the host/guest border spans are
aligned by the reply of the engine (see `hostagent.cli.trace`).

Source: W3C Trace Context, Level 1, section 3.2.
"""

import contextlib
import contextvars
import re
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass

_TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}\Z", re.ASCII)

HEADER = "traceparent"


@dataclass(frozen=True, slots=True)
class Span:
    """One timed step of one layer."""

    layer: str  # "cli", "api", "containers", "network", "nursery", "shim", "runtime"
    name: str
    started_ns: int
    duration_ns: int


@dataclass(frozen=True, slots=True)
class Trace:
    """The spans that this process has recorded for one request."""

    trace_id: str
    spans: list[Span]

    @property
    def traceparent(self) -> str:
        """The header value that carries this trace onward."""
        return f"00-{self.trace_id}-{secrets.token_hex(8)}-01"

    def add(self, layer: str, name: str, started_ns: int, ended_ns: int) -> None:
        """Record a step that was timed elsewhere."""
        self.spans.append(Span(layer, name, started_ns, ended_ns - started_ns))


current: contextvars.ContextVar[Trace | None] = contextvars.ContextVar("trace", default=None)


def begin(traceparent: str | None = None) -> Trace:
    """Set and return a trace for this context; a malformed header starts a new one."""
    match = _TRACEPARENT.match(traceparent) if traceparent else None
    trace = Trace(match.group(1) if match else secrets.token_hex(16), [])
    current.set(trace)
    return trace


@contextlib.contextmanager
def span(layer: str, name: str) -> Iterator[None]:
    """Time the body as one step, if this context is traced."""
    trace = current.get()
    if trace is None:
        yield
        return
    started_ns = time.monotonic_ns()
    try:
        yield
    finally:
        trace.add(layer, name, started_ns, time.monotonic_ns())
