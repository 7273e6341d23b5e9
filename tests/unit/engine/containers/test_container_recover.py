from engine.containers.model import State, Status
from engine.containers.recover import ended_meanwhile
from engine.shim.protocol import Exit

NOW = 5000


def test_an_exit_on_record_is_believed() -> None:
    state = State(status=Status.RUNNING, pid=7, started_ns=1000)
    found = Exit(code=3, finished_at_ns=900)  # the clock was set back meanwhile

    assert ended_meanwhile(state, found, NOW) is found


def test_an_exit_of_the_run_before_is_not_taken_for_that_of_a_start_cut_off() -> None:
    state = State(status=Status.RUNNING, pid=0, started_ns=1000)

    ended = ended_meanwhile(state, Exit(code=0, finished_at_ns=900), NOW)

    assert (ended.code, ended.finished_at_ns) == (255, NOW)
    assert "while the container was being started" in ended.error


def test_a_short_run_that_began_as_the_daemon_died_keeps_its_code() -> None:
    state = State(status=Status.RUNNING, pid=0, started_ns=1000)
    found = Exit(code=0, finished_at_ns=1100)

    assert ended_meanwhile(state, found, NOW) is found


def test_without_a_record_the_code_is_unknown_and_says_so() -> None:
    ended = ended_meanwhile(State(status=Status.RUNNING, pid=7), None, NOW)

    assert ended.code == 255
    assert "unknown" in ended.error
