import contextvars

from engine.base import trace


def test_without_a_trace_a_span_records_nothing() -> None:
    with trace.span("cli", "parse"):
        pass
    assert trace.current.get() is None


def test_spans_belong_to_the_trace_that_the_header_names() -> None:
    def traced() -> trace.Trace:
        first = trace.begin("00-0123456789abcdef0123456789abcdef-0123456789abcdef-01")
        with trace.span("api", "route"), trace.span("containers", "create"):
            pass
        return first

    got = contextvars.copy_context().run(traced)

    assert got.trace_id == "0123456789abcdef0123456789abcdef"
    assert [(span.layer, span.name) for span in got.spans] == [("containers", "create"), ("api", "route")]
    assert got.spans[1].duration_ns >= got.spans[0].duration_ns >= 0
    assert got.traceparent.startswith("00-0123456789abcdef0123456789abcdef-")


def test_a_malformed_header_starts_a_trace_of_its_own() -> None:
    got = contextvars.copy_context().run(trace.begin, "00-ZZ")

    assert len(got.trace_id) == 32
