"""`--trace`: the spans of one command, from this process down to execve, as a picture and as a file.

Times are CLOCK_MONOTONIC nanoseconds. An engine on this kernel shares that
clock; one in a machine does not, so its spans are moved as a block: the engine
saw the first request no earlier than it was sent and answered no later than
the answer came, and the block is laid in the middle of what is left over.
"""

import contextlib
import json
import sys
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from engine.base.errors import EngineError
from hostagent.client.docker import Engine


class Span(NamedTuple):
    """One timed step of one layer; the fields of `engine.base.trace.Span`."""

    layer: str
    name: str
    started_ns: int
    duration_ns: int


class NoTrace:
    """What `App.trace` is without `--trace`: every call costs a method call."""

    def span(self, name: str) -> contextlib.AbstractContextManager[None]:  # noqa: ARG002 (as CommandTrace)
        """Time nothing."""
        return contextlib.nullcontext()

    def follow(self, engine: Engine) -> None:
        """Do nothing."""


NO_TRACE = NoTrace()


class CommandTrace:
    """The spans of one invocation; `started_ns` is when the process started."""

    def __init__(self, trace_id: str, parent_id: str, *, started_ns: int) -> None:
        self.trace_id = trace_id
        self.traceparent = f"00-{trace_id}-{parent_id}-01"
        self.spans: list[Span] = []
        self.started_ns = started_ns
        self._first_sent_ns = 0
        self._engine: Engine | None = None

    @contextlib.contextmanager
    def span(self, name: str) -> Iterator[None]:
        """Time the body as one step of the command line."""
        started_ns = time.monotonic_ns()
        try:
            yield
        finally:
            self.spans.append(Span("cli", name, started_ns, time.monotonic_ns() - started_ns))

    def follow(self, engine: Engine) -> None:
        """Send this trace's id with every request of `engine`."""
        engine.traceparent = self.traceparent
        engine.on_send = self._sent
        self._engine = engine

    def _sent(self) -> None:
        if not self._first_sent_ns:
            self._first_sent_ns = time.monotonic_ns()
            self.spans.append(
                Span(
                    "cli", "start to first byte sent", self.started_ns, self._first_sent_ns - self.started_ns
                )
            )

    def collect(self) -> tuple[list[Span], str]:
        """Return all spans, the engine's aligned with ours, and a note when the engine gave none."""
        ended_ns = time.monotonic_ns()
        ours = sorted(self.spans, key=lambda span: span.started_ns)
        if self._engine is None:
            return ours, "no request was made"
        self._engine.traceparent = ""
        try:
            answer = self._engine.get(f"/_pyengine/trace/{self.trace_id}")
        except EngineError as err:
            return ours, f"the engine gave no spans: {err}"
        theirs = [_decode(item) for item in answer or []]
        return [*ours, *align(theirs, self._first_sent_ns, ended_ns)], ""


def _decode(item: dict[str, Any]) -> Span:
    return Span(
        str(item.get("layer", "?")), str(item.get("name", "?")),
        int(item.get("started_ns", 0)), int(item.get("duration_ns", 0)),
    )  # fmt: skip


def align(spans: list[Span], sent_ns: int, ended_ns: int) -> list[Span]:
    """Return `spans` inside the window between first byte sent and last byte received, moved if need be."""
    if not spans:
        return []
    first = min(span.started_ns for span in spans)
    last = max(span.started_ns + span.duration_ns for span in spans)
    if sent_ns <= first and last <= ended_ns:
        return spans  # the same clock
    slack = (ended_ns - sent_ns) - (last - first)
    shift = sent_ns - first + max(slack, 0) // 2
    return [span._replace(started_ns=span.started_ns + shift) for span in spans]


def waterfall(spans: list[Span], *, width: int = 50) -> list[str]:
    """Return the picture: a line a span, in order of start, with its place on the time axis."""
    if not spans:
        return []
    spans = sorted(spans, key=lambda span: (span.started_ns, -span.duration_ns))
    first = spans[0].started_ns
    total = max(max(span.started_ns + span.duration_ns for span in spans) - first, 1)
    labels = [_shortened(f"{span.layer} {span.name}") for span in spans]
    label_width = max(map(len, labels))
    lines = [f"{'':{label_width}}  {'start':>9} {'took':>9}   0 ms{'':{width - 12}}{total / 1e6:.1f} ms"]
    for span, label in zip(spans, labels, strict=True):
        begin = min((span.started_ns - first) * width // total, width - 1)
        length = max(span.duration_ns * width // total, 1)
        bar = " " * begin + "=" * min(length, width - begin)
        start_ms, took_ms = (span.started_ns - first) / 1e6, span.duration_ns / 1e6
        lines.append(f"{label:{label_width}}  {start_ms:6.2f} ms {took_ms:6.2f} ms  |{bar:{width}}|")
    return lines


def _shortened(label: str) -> str:
    """Return `label` with ids as short as tables have them."""
    import re  # noqa: PLC0415 (only with --trace)

    return re.sub(r"\b([0-9a-f]{12})[0-9a-f]{52}\b", r"\1", label)


def chrome_events(spans: list[Span]) -> str:
    """Return the spans as Chrome trace-event JSON: one row a layer; open it in ui.perfetto.dev.

    Source: "Trace Event Format", complete events (ph X), microseconds.
    """
    layers = list(dict.fromkeys(span.layer for span in spans))
    events: list[dict[str, Any]] = [
        {"ph": "M", "pid": 1, "tid": number, "name": "thread_name", "args": {"name": layer}}
        for number, layer in enumerate(layers)
    ]
    events += [
        {
            "ph": "X", "pid": 1, "tid": layers.index(span.layer), "cat": span.layer, "name": span.name,
            "ts": span.started_ns / 1000, "dur": span.duration_ns / 1000,
        }
        for span in spans
    ]  # fmt: skip
    return json.dumps({"traceEvents": events, "displayTimeUnit": "ms"})


def begin() -> CommandTrace:
    """Return a trace that started with this process, as far as the system tells when that was."""
    import secrets  # noqa: PLC0415 (only with --trace)

    return CommandTrace(secrets.token_hex(16), secrets.token_hex(8), started_ns=_process_start_ns())


def _process_start_ns() -> int:
    if sys.platform == "linux":
        with contextlib.suppress(OSError, ValueError, IndexError):
            with open("/proc/self/stat", "rb") as file:
                ticks = int(file.read().rsplit(b")", 1)[1].split()[19])
            import os  # noqa: PLC0415 (sysconf exists on POSIX only)

            since_boot_ns = ticks * 1_000_000_000 // os.sysconf("SC_CLK_TCK")
            offset_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - time.monotonic_ns()
            return since_boot_ns - offset_ns
    return time.monotonic_ns() - time.process_time_ns()


def finish(trace: CommandTrace, path: str, *, show: bool = True) -> None:
    """Print the waterfall on stderr and write the Chrome trace to `path`.

    A trace that cannot be written is told, and is no failure of what was traced.
    """
    spans, note = trace.collect()
    text = "\n".join(waterfall(spans)) if show else ""
    if note:
        text += f"\n{note}"
    try:
        with open(path, "w", encoding="utf-8") as file:
            file.write(chrome_events(spans))
    except OSError as err:
        text += f"\nWARNING: no trace written to {path}: {(err.strerror or str(err)).lower()}"
    else:
        text += f"\ntrace written to {path}"
    sys.stderr.write(f"{text}\n")
