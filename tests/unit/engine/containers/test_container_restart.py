import pytest

from engine.base.errors import InvalidArgument
from engine.containers import restart
from engine.containers.model import State, Status
from engine.spec.docker import HostConfig, RestartPolicy

NO, ALWAYS = RestartPolicy(name="no"), RestartPolicy(name="always")
UNLESS = RestartPolicy(name="unless-stopped")
FAILURE, TWICE = RestartPolicy(name="on-failure"), RestartPolicy(name="on-failure", maximum_retry_count=2)


@pytest.mark.parametrize(
    ("policy", "code", "count", "wanted"),
    [
        (RestartPolicy(), 1, 0, False),
        (NO, 1, 0, False),
        (ALWAYS, 0, 50, True),
        (UNLESS, 0, 50, True),
        (FAILURE, 0, 0, False),
        (FAILURE, 1, 50, True),
        (TWICE, 1, 1, True),
        (TWICE, 1, 2, False),
    ],
)
def test_who_ends_is_restarted_by_policy(policy: RestartPolicy, code: int, count: int, wanted: bool) -> None:
    state = State(status=Status.EXITED, exit_code=code, restart_count=count)

    assert restart.wanted(policy, state) is wanted


@pytest.mark.parametrize("policy", [NO, ALWAYS, UNLESS, FAILURE])
def test_who_was_stopped_by_hand_stays_stopped(policy: RestartPolicy) -> None:
    assert not restart.wanted(policy, State(status=Status.EXITED, exit_code=137, stopped_by_user=True))


@pytest.mark.parametrize(
    ("policy", "stopped", "was_live", "wanted"),
    [
        (ALWAYS, True, False, True),  # as docker: "always" forgets at the daemon's start
        (UNLESS, True, False, False),
        (UNLESS, False, False, True),
        (FAILURE, False, True, True),
        (FAILURE, False, False, False),
        (NO, False, True, False),
    ],
)
def test_the_daemons_start_applies_the_policy(
    policy: RestartPolicy, stopped: bool, was_live: bool, wanted: bool
) -> None:
    state = State(status=Status.EXITED, exit_code=1, started_ns=1, stopped_by_user=stopped)

    assert restart.wanted_at_boot(policy, state, was_live=was_live) is wanted


def test_what_never_ran_is_not_started_by_the_daemon() -> None:
    assert not restart.wanted_at_boot(ALWAYS, State(), was_live=False)


def test_the_back_off_doubles_up_to_a_minute_and_is_reset_by_a_long_run() -> None:
    delays = [0.0]
    for _ in range(12):
        delays.append(restart.delay_s(delays[-1], ran_s=1))

    assert delays[1:5] == [0.1, 0.2, 0.4, 0.8]
    assert delays[-1] == 60
    assert restart.delay_s(60, ran_s=10) == 0.1


@pytest.mark.parametrize(
    "host",
    [
        HostConfig(restart_policy=RestartPolicy(name="sometimes")),
        HostConfig(restart_policy=RestartPolicy(name="always", maximum_retry_count=1)),
        HostConfig(restart_policy=RestartPolicy(name="on-failure", maximum_retry_count=-1)),
        HostConfig(restart_policy=ALWAYS, auto_remove=True),
    ],
)
def test_a_policy_without_sense_is_refused(host: HostConfig) -> None:
    with pytest.raises(InvalidArgument):
        restart.check(host)
