import pytest

from engine.base.errors import InvalidArgument, NotSupported
from engine.runtime import arguments
from engine.runtime.update import asked, updated
from engine.spec.runtime import BlockIO, Cpu, DeviceRule, Memory, Pids, Resources


def ask(*words: str) -> Resources:
    return asked(arguments.parse(["update", *words, "c"], "0"))


def test_every_flag_has_its_place() -> None:
    words = (
        "--blkio-weight 500 --cpu-period 1 --cpu-quota -1 --cpu-burst 0 --cpu-share 4 --cpu-rt-period 5 "
        "--cpu-rt-runtime 6 --cpu-idle 1 --cpuset-cpus 0-1 --cpuset-mems 0 --kernel-memory 1k "
        "--kernel-memory-tcp 2k --memory 3m --memory-reservation 4g --memory-swap -1 --pids-limit -1"
    )
    assert ask(*words.split()) == Resources(
        memory=Memory(limit=3 << 20, reservation=4 << 30, swap=-1, kernel=1024, kernel_tcp=2048),
        cpu=Cpu(
            shares=4, quota=-1, period=1, burst=0, realtime_runtime=6, realtime_period=5,
            cpus="0-1", mems="0", idle=1,
        ),
        pids=Pids(limit=-1),
        block_io=BlockIO(weight=500),
    )  # fmt: skip


def test_nothing_asked_is_nothing() -> None:
    assert ask() == Resources()


@pytest.mark.parametrize("words", [("--memory", "1x"), ("--cpu-share", "1.5"), ("--pids-limit", "")])
def test_malformed_values_are_refused_by_name(words: tuple[str, str]) -> None:
    with pytest.raises(InvalidArgument, match=words[0]):
        ask(*words)


def test_rdt_is_refused_by_name() -> None:
    with pytest.raises(NotSupported, match="--mem-bw-schema"):
        ask("--mem-bw-schema", "MB:0=20")


OLD = Resources(
    memory=Memory(limit=100, swap=200),
    cpu=Cpu(shares=5, cpus="0"),
    pids=Pids(limit=7),
    devices=(DeviceRule(allow=True),),
)


def test_what_is_not_named_stays() -> None:
    new = updated(
        OLD, Resources(memory=Memory(swap=300), cpu=Cpu(shares=0, idle=0), block_io=BlockIO(weight=10))
    )

    assert new == Resources(
        memory=Memory(limit=100, swap=300),
        cpu=Cpu(shares=5, cpus="0", idle=0),
        pids=Pids(limit=7),
        block_io=BlockIO(weight=10),
        devices=OLD.devices,
    )


def test_device_rules_are_not_updated() -> None:
    assert updated(OLD, Resources(devices=(DeviceRule(allow=False),))) == OLD
