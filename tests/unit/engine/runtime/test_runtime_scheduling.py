import resource
import struct
from typing import Any

import pytest

from engine.base.errors import EngineError, InvalidArgument, NotSupported
from engine.kernel import scheduling as kernel
from engine.runtime.scheduling import plan
from engine.runtime.validate import RLIMITS
from engine.spec.runtime import IoPriority, Personality, Scheduler


def test_what_is_not_asked_for_is_left_alone() -> None:
    made = plan(None, None, None)

    assert (made.attributes, made.io, made.personality) == (None, None, None)


def test_a_deadline_in_the_kernels_layout() -> None:
    wanted = Scheduler(
        policy="SCHED_DEADLINE", flags=("SCHED_FLAG_RESET_ON_FORK",), runtime=1024, deadline=2048, period=3000
    )

    packed = plan(wanted, None, None).attributes

    assert packed is not None
    assert struct.unpack("=IIQiIQQQII", packed) == (56, 6, 1, 0, 0, 1024, 2048, 3000, 0, 0)


@pytest.mark.parametrize("policy", [name for name in kernel.POLICIES if name != "SCHED_DEADLINE"])
@pytest.mark.parametrize("flag", kernel.SCHED_FLAGS)
def test_every_policy_and_flag_is_known(policy: str, flag: str) -> None:
    real_time = policy in {"SCHED_FIFO", "SCHED_RR"}
    wanted = Scheduler(policy=policy, flags=(flag,), priority=99 if real_time else 0)

    assert plan(wanted, None, None).attributes


@pytest.mark.parametrize(
    ("field", "wanted", "error"),
    [
        ("policy", {"policy": "SCHED_FAST"}, InvalidArgument),
        ("policy", {"policy": "SCHED_ISO"}, NotSupported),
        ("flags", {"policy": "SCHED_OTHER", "flags": ("SCHED_FLAG_X",)}, InvalidArgument),
        ("nice", {"policy": "SCHED_OTHER", "nice": 20}, InvalidArgument),
        ("nice", {"policy": "SCHED_FIFO", "priority": 1, "nice": 1}, InvalidArgument),
        ("priority", {"policy": "SCHED_FIFO"}, InvalidArgument),
        ("priority", {"policy": "SCHED_RR", "priority": 100}, InvalidArgument),
        ("priority", {"policy": "SCHED_IDLE", "priority": 1}, InvalidArgument),
        ("runtime", {"policy": "SCHED_OTHER", "runtime": 1}, InvalidArgument),
        ("runtime", {"policy": "SCHED_DEADLINE"}, InvalidArgument),
        ("runtime 0", {"policy": "SCHED_DEADLINE", "deadline": 9999}, InvalidArgument),
        ("deadline 0", {"policy": "SCHED_DEADLINE", "runtime": 9999}, InvalidArgument),
        ("runtime 1023", {"policy": "SCHED_DEADLINE", "runtime": 1023, "deadline": 9999}, InvalidArgument),
        (
            "period 5000",
            {"policy": "SCHED_DEADLINE", "runtime": 2000, "deadline": 9999, "period": 5000},
            InvalidArgument,
        ),
        ("runtime", {"policy": "SCHED_DEADLINE", "runtime": 1 << 63, "deadline": 1 << 63}, InvalidArgument),
    ],
)
def test_what_no_scheduler_takes_is_refused_by_its_field(
    field: str, wanted: dict[str, Any], error: type[EngineError]
) -> None:
    with pytest.raises(error, match=field):
        plan(Scheduler(**wanted), None, None)


def test_classes_and_levels_of_input_and_output() -> None:
    assert plan(None, IoPriority(io_class="IOPRIO_CLASS_BE", priority=7), None).io == (2, 7)
    for wrong in (
        IoPriority(io_class="IOPRIO_CLASS_NONE"),
        IoPriority(io_class="IOPRIO_CLASS_RT", priority=8),
    ):
        with pytest.raises(InvalidArgument, match=r"process\.ioPriority"):
            plan(None, wrong, None)


def test_personalities() -> None:
    assert plan(None, None, Personality(domain="LINUX")).personality == 0
    assert plan(None, None, Personality(domain="LINUX32")).personality == 8
    with pytest.raises(InvalidArgument, match=r"linux\.personality\.domain"):
        plan(None, None, Personality(domain="BSD"))
    with pytest.raises(NotSupported, match=r"linux\.personality\.flags"):
        plan(None, None, Personality(domain="LINUX", flags=("ADDR_NO_RANDOMIZE",)))


def test_resource_limits_have_the_kernels_numbers() -> None:
    assert len(RLIMITS) == 16
    for name, number in RLIMITS.items():
        assert getattr(resource, name, number) == number
