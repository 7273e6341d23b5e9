"""What goes back to the daemon besides the plain facts: failures and timings."""

import time
from dataclasses import dataclass, field

from engine.base.errors import (
    Conflict,
    EngineError,
    InvalidArgument,
    NotFound,
    NotSupported,
    OutOfSpace,
    Unavailable,
)
from engine.runtime.errors import EXIT_ENGINE, StartFailed
from engine.shim.protocol import Failed, SpanRecord

_KINDS = (Conflict, InvalidArgument, NotFound, NotSupported, OutOfSpace, Unavailable)


@dataclass(slots=True)
class Timeline:
    """Spans of one spawn, recorded only when asked for."""

    wanted: bool
    spans: list[SpanRecord] = field(default_factory=list)

    def add(self, layer: str, name: str, started_ns: int) -> int:
        """Record a step that ends now; return now."""
        now_ns = time.monotonic_ns()
        if self.wanted:
            self.spans.append(SpanRecord(layer, name, started_ns, now_ns - started_ns))
        return now_ns


def failed(request_id: int, err: Exception) -> Failed:
    """Return the answer that carries `err` to the daemon."""
    if isinstance(err, StartFailed):
        return Failed(
            id=request_id,
            kind="StartFailed",
            message=str(err),
            exit_code=err.exit_code,
            step=err.step,
            errno=err.errno,
            hint=err.hint,
        )
    if isinstance(err, EngineError):
        kind = next((kind.__name__ for kind in _KINDS if isinstance(err, kind)), "EngineError")
        return Failed(id=request_id, kind=kind, message=str(err), hint=err.hint)
    if isinstance(err, OSError):
        return Failed(
            id=request_id,
            kind="StartFailed",
            message=str(err).lower(),
            exit_code=EXIT_ENGINE,
            errno=err.errno or 0,
        )
    return Failed(id=request_id, kind="EngineError", message=repr(err))
