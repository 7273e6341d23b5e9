"""Add a process to a running container."""

from engine.runtime.create import Created, Stdio
from engine.spec.runtime import Process, Spec


def enter(
    target_pid: int,
    spec: Spec,
    process: Process,
    *,
    stdio: Stdio,
    cgroup: str,
    target_pidfd: int | None = None,
) -> Created:
    """Make `process` inside the container whose init is `target_pid`; it waits for `start`.

    It joins all namespaces of the target and its control group (`Created.cgroup`),
    and is confined as the container's own process is: seccomp of `spec`, rlimits,
    capabilities and user of `process`. With `target_pidfd` the target cannot be
    confused with a later process of the same number. Undo is the caller's
    business only in so far as it reaps the child.

    Raises:
        StartFailed: as `create`; also when the container has ended.
    """
    raise NotImplementedError
