"""The picture of --trace, and clocks that differ."""

import json
from pathlib import Path

import pytest

from hostagent.cli.main import run
from hostagent.cli.trace import Span, align, chrome_events, waterfall

MS = 1_000_000


def test_spans_of_the_same_clock_stay() -> None:
    spans = [Span("api", "start", 12 * MS, 3 * MS)]

    assert align(spans, 10 * MS, 20 * MS) == spans
    assert align([], 10 * MS, 20 * MS) == []


def test_spans_of_another_clock_go_to_the_middle_of_the_window() -> None:
    spans = [Span("api", "a", 1000 * MS, 2 * MS), Span("api", "b", 1002 * MS, 2 * MS)]

    moved = align(spans, 10 * MS, 20 * MS)

    assert [span.started_ns // MS for span in moved] == [13, 15]
    assert [span.duration_ns for span in moved] == [2 * MS, 2 * MS]


def test_the_waterfall_has_a_line_a_span_in_order() -> None:
    lines = waterfall([Span("api", "late", 5 * MS, 5 * MS), Span("cli", "early", 0, 10 * MS)], width=20)

    assert lines[0].endswith("10.0 ms")
    assert lines[1] == "cli early    0.00 ms  10.00 ms  |====================|"
    assert lines[2] == "api late     5.00 ms   5.00 ms  |          ==========|"
    assert waterfall([]) == []


def test_ids_are_short_in_the_picture() -> None:
    lines = waterfall([Span("api", f"POST /containers/{'0123456789ab' + 'c' * 52}/start", 0, MS)])

    assert lines[1].startswith("api POST /containers/0123456789ab/start  ")


def test_the_file_is_what_chrome_reads() -> None:
    document = json.loads(chrome_events([Span("cli", "create", 2 * MS, MS)]))

    event = next(each for each in document["traceEvents"] if each["ph"] == "X")
    assert (event["name"], event["ts"], event["dur"]) == ("create", 2000, 1000)


def test_a_trace_that_cannot_be_written_hides_no_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--host", f"unix://{tmp_path}/none", "--trace", "--trace-file", f"{tmp_path}/no/trace", "ps"]

    assert run(words) == 1

    err = capsys.readouterr().err
    assert f"WARNING: no trace written to {tmp_path}/no/trace: no such file or directory" in err
    assert "pyengine: cannot connect to the engine" in err
