"""How a process is scheduled and what kind of Linux it sees, from words to numbers; pure but for `apply`.

Source: OCI runtime-spec 1.2.0, config.md, "scheduler", "ioPriority"; config-linux.md, "Personality".
"""

import msgspec

from engine.base.errors import InvalidArgument, NotSupported
from engine.kernel import scheduling as kernel
from engine.runtime.progress import Progress
from engine.spec.runtime import IoPriority, Personality, Scheduler

_NICE_POLICIES = frozenset({"SCHED_OTHER", "SCHED_BATCH"})
_PRIORITY_POLICIES = frozenset({"SCHED_FIFO", "SCHED_RR"})
_NICE_MIN, _NICE_MAX = -20, 19
_PRIORITY_MAX = 99
_IO_LEVELS = 8
_NS_MIN, _NS_MAX = 1 << 10, (1 << 63) - 1  # sched(7)


class Scheduling(msgspec.Struct, frozen=True):
    """What is to be set; None: left as it is."""

    policy: str  # for the message of a failure
    attributes: bytes | None
    io: tuple[int, int] | None
    personality: int | None


def plan(
    scheduler: Scheduler | None, io_priority: IoPriority | None, personality: Personality | None
) -> Scheduling:
    """Return what is to be set.

    Raises:
        InvalidArgument: a word or number is none, or belongs to another policy.
        NotSupported: no Linux has it.
    """
    return Scheduling(
        policy=scheduler.policy if scheduler else "",
        attributes=_attributes(scheduler) if scheduler else None,
        io=_io(io_priority) if io_priority else None,
        personality=_domain(personality) if personality else None,
    )


def _attributes(wanted: Scheduler) -> bytes:
    policy = wanted.policy
    if policy == "SCHED_ISO":
        raise NotSupported("process.scheduler.policy: SCHED_ISO was never implemented in Linux")
    if policy not in kernel.POLICIES:
        raise InvalidArgument(f"process.scheduler.policy: unknown policy {policy!r}")
    flags = 0
    for name in wanted.flags:
        if name not in kernel.SCHED_FLAGS:
            raise InvalidArgument(f"process.scheduler.flags: unknown flag {name!r}")
        flags |= kernel.SCHED_FLAGS[name]
    if wanted.nice and policy not in _NICE_POLICIES:
        raise InvalidArgument(f"process.scheduler.nice does not go with {policy}")
    if not _NICE_MIN <= wanted.nice <= _NICE_MAX:
        raise InvalidArgument(f"process.scheduler.nice is out of range: {wanted.nice}")
    if policy in _PRIORITY_POLICIES and not 1 <= wanted.priority <= _PRIORITY_MAX:
        raise InvalidArgument(f"process.scheduler.priority is out of range: {wanted.priority}")
    if wanted.priority and policy not in _PRIORITY_POLICIES:
        raise InvalidArgument(f"process.scheduler.priority does not go with {policy}")
    return kernel.attributes(kernel.POLICIES[policy], flags, wanted.nice, wanted.priority, _deadline(wanted))


def _deadline(wanted: Scheduler) -> tuple[int, int, int]:
    times = (wanted.runtime, wanted.deadline, wanted.period)
    if any(times) and wanted.policy != "SCHED_DEADLINE":
        raise InvalidArgument(
            f"process.scheduler: runtime, deadline and period do not go with {wanted.policy}"
        )
    if not any(times):
        if wanted.policy == "SCHED_DEADLINE":
            raise InvalidArgument("process.scheduler: SCHED_DEADLINE needs runtime and deadline")
        return times
    period = wanted.period or wanted.deadline  # sched(7)
    if not _NS_MIN <= wanted.runtime <= wanted.deadline <= period <= _NS_MAX:
        raise InvalidArgument(
            f"process.scheduler: runtime {wanted.runtime}, deadline {wanted.deadline}, period {period}:"
            f" each is at least {_NS_MIN} and at most the next"
        )
    return times


def _io(wanted: IoPriority) -> tuple[int, int]:
    found = kernel.IO_CLASSES.get(wanted.io_class)
    if found is None:
        raise InvalidArgument(f"process.ioPriority.class: unknown class {wanted.io_class!r}")
    if not 0 <= wanted.priority < _IO_LEVELS:
        raise InvalidArgument(f"process.ioPriority.priority is out of range: {wanted.priority}")
    return found, wanted.priority


def _domain(wanted: Personality) -> int:
    if wanted.flags:
        raise NotSupported("linux.personality.flags: the specification has none")
    found = kernel.PERSONALITIES.get(wanted.domain)
    if found is None:
        raise InvalidArgument(f"linux.personality.domain: unknown domain {wanted.domain!r}")
    return found


def apply(wanted: Scheduling, progress: Progress) -> None:
    """Set it for this process; while it still has its capabilities."""
    if wanted.io is not None:
        progress.at("set the priority of input and output")
        kernel.ioprio_set(*wanted.io)
    if wanted.personality is not None:
        progress.at("set the personality")
        kernel.personality(wanted.personality)
    if wanted.attributes is not None:
        progress.at("set the scheduler", wanted.policy)
        kernel.sched_setattr(wanted.attributes)
