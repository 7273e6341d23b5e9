"""Whether, and when, a container that ended is started again; pure.

Source: Docker Engine API v1.51, RestartPolicy; docker's documented back-off:
100 ms, doubled each time up to one minute, reset after a run of ten seconds.
"""

from engine.base.errors import InvalidArgument
from engine.containers.model import State
from engine.spec.docker import HostConfig, RestartPolicy

_FIRST_S = 0.1
_MAX_S = 60.0
RESET_AFTER_S = 10.0
_NAMES = frozenset(("", "no", "always", "unless-stopped", "on-failure"))


def check(host: HostConfig) -> None:
    """Refuse a policy that makes no sense.

    Raises:
        InvalidArgument: docker's words.
    """
    policy = host.restart_policy
    if policy.name not in _NAMES:
        raise InvalidArgument(f"invalid restart policy: unknown policy '{policy.name}'")
    if policy.maximum_retry_count and policy.name != "on-failure":
        raise InvalidArgument(
            "invalid restart policy: maximum retry count can only be used with 'on-failure'"
        )
    if policy.maximum_retry_count < 0:
        raise InvalidArgument("invalid restart policy: maximum retry count cannot be negative")
    if host.auto_remove and policy.name not in {"", "no"}:
        raise InvalidArgument("can't create 'AutoRemove' container with restart policy")


def wanted(policy: RestartPolicy, state: State) -> bool:
    """Tell whether a container that just ended in `state` is to be started again."""
    if state.stopped_by_user or policy.name in {"", "no"}:
        return False
    if policy.name == "on-failure":
        limit = policy.maximum_retry_count
        return state.exit_code != 0 and (not limit or state.restart_count < limit)
    return True


def wanted_at_boot(policy: RestartPolicy, state: State, *, was_live: bool) -> bool:
    """Tell whether a container is started when the engine starts and finds it without processes."""
    if policy.name == "always":
        return was_live or state.started_ns > 0
    if policy.name == "unless-stopped":
        return not state.stopped_by_user and state.started_ns > 0
    return was_live and wanted(policy, state)


def delay_s(previous_s: float, ran_s: float) -> float:
    """Return how long to wait before the next start; `previous_s` is 0 at first."""
    if previous_s == 0 or ran_s >= RESET_AFTER_S:
        return _FIRST_S
    return min(previous_s * 2, _MAX_S)
