from tests.conformance import tap
from tests.conformance.verdicts import Score, Tally, Verdict, regressions, score, tally

OUTPUT = """TAP version 13
1..7
ok 1 - has expected hostname
  ---
  {
    "stdout": "ok 9 - quoted, and no verdict"
  }
  ...
not ok 2 - has expected hostname
ok 3 # SKIP hostname not set
ok 4 - mounts #SKIP
ok 5 - container 7bcb4ddb-08bf-4223-9d70-ded62c35d487 is gone
okay is no verdict
ok
"""


def test_test_lines_are_read_and_diagnostics_are_not() -> None:
    assert list(tap.read(OUTPUT)) == [
        ("has expected hostname", Verdict.PASSED),
        ("has expected hostname", Verdict.FAILED),
        ("test 3", Verdict.SKIPPED),
        ("mounts", Verdict.SKIPPED),
        ("container ID is gone", Verdict.PASSED),
        ("test", Verdict.PASSED),
    ]


def test_a_todo_counts_neither_way() -> None:
    assert list(tap.read("not ok 1 - mounts # TODO later\n")) == [("mounts", Verdict.SKIPPED)]


def test_verdicts_are_counted_by_name() -> None:
    run = tally([("a", Verdict.PASSED), ("a", Verdict.PASSED), ("a", Verdict.FAILED), ("b", Verdict.SKIPPED)])

    assert run == Tally(passed={"a": 2}, failed={"a": 1}, skipped={"b": 1})


def test_what_an_idle_runtime_passes_is_left_out_of_the_score() -> None:
    run = Tally(passed={"a": 2, "b": 1}, failed={"b": 1, "c": 3}, skipped={"d": 1})

    assert score(run, ["b"]) == Score(passed=2, failed=3, skipped=1)


def test_a_test_that_fails_and_did_not_is_a_regression() -> None:
    run = Tally(passed={"a: x": 2}, failed={"a: known": 1, "a: new": 1, "b: more": 2})

    assert regressions(run, {"a": 2}, {"a: known": 1, "b: more": 1}) == ["a: new: fails", "b: more: fails"]


def test_a_test_that_has_become_silent_is_a_regression() -> None:
    run = Tally(passed={"a: x": 1, "a: y": 1}, skipped={"a: z": 1})

    assert regressions(run, {"a": 3, "gone": 1}, {}) == ["a: 2 passed, 3 did", "gone: 0 passed, 1 did"]
