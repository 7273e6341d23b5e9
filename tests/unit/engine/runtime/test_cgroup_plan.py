import struct

import pytest

from engine.base.errors import InvalidArgument, NotSupported
from engine.runtime.cgroups import devices
from engine.runtime.cgroups.limits_v1 import writes_v1
from engine.runtime.cgroups.limits_v2 import writes_v2
from engine.runtime.cgroups.plan import (
    DEFAULT_DEVICES,
    Write,
    components,
    device_rules,
)
from engine.spec.runtime import Cpu, DeviceRule, Memory, Pids, Resources

LIMITS = Resources(
    memory=Memory(limit=64 << 20, swap=128 << 20),
    cpu=Cpu(quota=50000, period=100000),
    pids=Pids(limit=100),
)


def values(writes: tuple[Write, ...]) -> dict[str, str]:
    return {write.file: write.value for write in writes}


def test_v1_files() -> None:
    assert values(writes_v1(LIMITS)) == {
        "memory.limit_in_bytes": str(64 << 20),
        "memory.memsw.limit_in_bytes": str(128 << 20),
        "cpu.cfs_period_us": "100000",
        "cpu.cfs_quota_us": "50000",
        "pids.max": "100",
    }


def test_v2_files_count_swap_apart() -> None:
    found = values(writes_v2(LIMITS))

    assert found["memory.max"] == str(64 << 20)
    assert found["memory.swap.max"] == str(64 << 20)
    assert found["cpu.max"] == "50000 100000"
    assert found["pids.max"] == "100"


@pytest.mark.parametrize("path", ["", "/", "/a/../b"])
def test_paths_that_climb_or_are_the_root_are_refused(path: str) -> None:
    with pytest.raises(InvalidArgument):
        components(path)


def test_systemds_notation_is_refused_by_name() -> None:
    with pytest.raises(NotSupported, match="systemd"):
        components("system.slice:docker:abc")


def test_later_device_rules_win_and_the_defaults_stay() -> None:
    rules = device_rules(Resources(devices=(DeviceRule(allow=False, access="rwm"),)))

    assert rules == DEFAULT_DEVICES


def decide(program: bytes, kind: int, access: int, major: int, minor: int) -> bool:
    """Run the eBPF `program` of a device group, as far as it is used here."""
    registers = [0] * 11
    data = struct.pack("=III", access << 16 | kind, major, minor)
    code = [struct.unpack_from("<BBhI", program, at) for at in range(0, len(program), 8)]
    at = 0
    while True:
        op, registers_, offset, imm = code[at]
        dst, src = registers_ & 15, registers_ >> 4
        at += 1
        if op == 0x61:
            (registers[dst],) = struct.unpack_from("=I", data, offset)
        elif op == 0xB7:
            registers[dst] = imm
        elif op == 0xBC:
            registers[dst] = registers[src]
        elif op == 0x74:
            registers[dst] >>= imm
        elif op == 0x54:
            registers[dst] &= imm
        elif op == 0x95:
            return bool(registers[0])
        else:
            holds = {
                0x55: registers[dst] != imm,
                0x15: registers[dst] == imm,
                0x5D: registers[dst] != registers[src],
            }[op]
            at += offset if holds else 0


@pytest.mark.parametrize(
    ("rules", "access", "allowed"),
    [
        ((DeviceRule(allow=True, type="c", major=1, minor=3, access="rw"),), 2, True),
        ((DeviceRule(allow=True, type="c", major=1, minor=3, access="rw"),), 6, True),
        ((DeviceRule(allow=True, type="c", major=1, minor=3, access="r"),), 6, False),
        ((DeviceRule(allow=True, type="b", major=1, minor=3),), 2, False),
        ((DeviceRule(allow=True, type="c", major=1, minor=4),), 2, False),
        ((DeviceRule(allow=True, type="a"), DeviceRule(allow=False, type="c", major=1)), 2, False),
        ((DeviceRule(allow=False, type="c", major=1), DeviceRule(allow=True, type="a")), 2, True),
        ((), 2, False),
    ],
)
def test_the_device_program_decides(rules: tuple[DeviceRule, ...], access: int, allowed: bool) -> None:
    assert decide(devices.program(rules), 2, access, 1, 3) is allowed
