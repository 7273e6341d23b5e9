"""The compiled filter is run by a small interpreter of classic BPF, over real profiles."""

import errno
import struct
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.base.errors import InvalidArgument, NotSupported
from engine.containers.syscalls import default_profile
from engine.kernel import seccomp as kernel
from engine.kernel.abis import abi_numbers
from engine.kernel.syscalls import numbers
from engine.runtime.seccomp import compile_profile, flags_of
from engine.spec.runtime import Seccomp, SeccompArg, SeccompRule

X86 = numbers("x86_64")
ALLOW = kernel.RET_ALLOW
ENOSYS = kernel.RET_ERRNO | errno.ENOSYS
EPERM = kernel.RET_ERRNO | errno.EPERM
MASK = (1 << 64) - 1
X86_64, I386, ARM, X32 = 0xC000003E, 0x40000003, 0x40000028, 0x40000000
GOLDEN = [
    (0x20, 0, 0, 0x4),
    (0x15, 1, 0, 0xC000003E),
    (0x05, 0, 0, 0x11),
    (0x20, 0, 0, 0x0),
    (0x35, 10, 0, 0x53),
    (0x35, 1, 0, 0x20),
    (0x06, 0, 0, 0x7FFF0000),
    (0x35, 6, 0, 0x21),
    (0x20, 0, 0, 0x14),
    (0x15, 0, 3, 0x0),
    (0x20, 0, 0, 0x10),
    (0x15, 0, 1, 0x7),
    (0x06, 0, 0, 0x80000000),
    (0x06, 0, 0, 0x7FFF0000),
    (0x06, 0, 0, 0x7FFF0000),
    (0x35, 1, 0, 0x54),
    (0x06, 0, 0, 0x5000D),
    (0x35, 1, 0, 0x40000000),
    (0x06, 0, 0, 0x7FFF0000),
    (0x06, 0, 0, 0x50026),
    (0x06, 0, 0, 0x50026),
]


def run_filter(program: bytes, number: int, *arguments: int, arch: int = 0xC000003E) -> int:
    """Return what `program` decides about one call."""
    padded = [*arguments, *([0] * (6 - len(arguments)))]
    data = struct.pack("=IIQ6Q", number & 0xFFFFFFFF, arch, 0, *(value & MASK for value in padded))
    code = [struct.unpack_from("=HBBI", program, at) for at in range(0, len(program), 8)]
    accumulator, at = 0, 0
    while True:
        op, yes, no, k = code[at]
        at += 1
        if op == 0x20:
            (accumulator,) = struct.unpack_from("=I", data, k)
        elif op == 0x54:
            accumulator &= k
        elif op == 0x05:
            at += k
        elif op == 0x06:
            return int(k)
        else:
            holds = {0x15: accumulator == k, 0x25: accumulator > k, 0x35: accumulator >= k}[op]
            at += yes if holds else no


@pytest.fixture(scope="module")
def default() -> bytes:
    return compile_profile(default_profile(["CAP_CHOWN"], "x86_64"), "x86_64")


@pytest.mark.parametrize(
    ("name", "arguments", "decision"),
    [
        ("read", (), ALLOW),
        ("execve", (), ALLOW),
        ("mount", (), EPERM),
        ("io_uring_setup", (), EPERM),
        ("keyctl", (), EPERM),
        ("clone3", (), ENOSYS),
        ("clone", (0x11,), ALLOW),
        ("clone", (0x10000000,), EPERM),  # CLONE_NEWUSER
        ("socket", (2,), ALLOW),  # AF_INET
        ("socket", (38,), EPERM),  # AF_ALG
        ("socket", (40,), EPERM),  # AF_VSOCK
        ("ioctl", (0, 0x5401), ALLOW),  # TCGETS
        ("ioctl", (0, 0x5412), EPERM),  # TIOCSTI
        ("ioctl", (0, 0xFFFFFFFF00005412), EPERM),  # the kernel looks at the low word only
        ("personality", (0x20008,), ALLOW),
        ("personality", (0x40000,), EPERM),
    ],
)
def test_the_default_profile_decides(
    default: bytes, name: str, arguments: tuple[int, ...], decision: int
) -> None:
    assert run_filter(default, X86[name], *arguments) == decision


def test_unknown_and_foreign_calls_answer_enosys(default: bytes) -> None:
    assert run_filter(default, 5000) == ENOSYS
    assert run_filter(default, X86["read"] | 0x40000000) == ENOSYS  # x32
    assert run_filter(default, 3, arch=0x40000003) == ENOSYS  # i386


def test_the_default_profile_is_small_and_shallow(default: bytes) -> None:
    assert len(default) // 8 < 400


@given(st.integers(0, MASK), st.integers(0, MASK), st.integers(0, MASK))
def test_comparisons_of_64_bits_are_right(value: int, other: int, given_: int) -> None:
    expected = {
        "SCMP_CMP_EQ": given_ == value,
        "SCMP_CMP_NE": given_ != value,
        "SCMP_CMP_LT": given_ < value,
        "SCMP_CMP_LE": given_ <= value,
        "SCMP_CMP_GT": given_ > value,
        "SCMP_CMP_GE": given_ >= value,
        "SCMP_CMP_MASKED_EQ": given_ & value == other & value,
    }
    for op, holds in expected.items():
        profile = _one(SeccompArg(index=2, value=value, value_two=other, op=op))
        decision = run_filter(compile_profile(profile, "x86_64"), X86["read"], 0, 0, given_)
        assert decision == (ALLOW if holds else EPERM), op


def test_all_conditions_of_a_rule_must_hold() -> None:
    profile = _one(
        SeccompArg(index=0, value=1, op="SCMP_CMP_EQ"), SeccompArg(index=1, value=2, op="SCMP_CMP_EQ")
    )
    program = compile_profile(profile, "x86_64")

    assert run_filter(program, X86["read"], 1, 2) == ALLOW
    assert run_filter(program, X86["read"], 1, 3) == EPERM
    assert run_filter(program, X86["read"], 0, 2) == EPERM


@given(st.sets(st.sampled_from(sorted(X86)), max_size=60))
def test_exactly_the_named_calls_are_allowed(names: set[str]) -> None:
    rule = SeccompRule(names=tuple(sorted(names)), action="SCMP_ACT_ALLOW")
    program = compile_profile(Seccomp(default_action="SCMP_ACT_ERRNO", syscalls=(rule,)), "x86_64")

    for name, number in X86.items():
        assert (run_filter(program, number) == ALLOW) is (name in names)


def test_each_architecture_has_its_numbers() -> None:
    profile = default_profile([], "aarch64")
    program = compile_profile(profile, "aarch64")

    assert run_filter(program, numbers("aarch64")["read"], arch=0xC00000B7) == ALLOW


@pytest.mark.parametrize(
    ("profile", "error"),
    [
        (Seccomp(default_action="SCMP_ACT_NOTIFY"), InvalidArgument),
        (Seccomp(default_action="SCMP_ACT_ERRNO", default_errno_ret=5000), InvalidArgument),
        (Seccomp(default_action="SCMP_ACT_ALLOW", architectures=("SCMP_ARCH_Z80",)), InvalidArgument),
    ],
)
def test_nonsense_is_refused(profile: Seccomp, error: type[Exception]) -> None:
    with pytest.raises(error):
        compile_profile(profile, "x86_64")


def test_an_argument_or_operator_that_does_not_exist_is_refused() -> None:
    for argument in (
        SeccompArg(index=6, value=0, op="SCMP_CMP_EQ"),
        SeccompArg(index=0, value=0, op="SCMP_CMP_LIKE"),
    ):
        with pytest.raises(InvalidArgument):
            compile_profile(_one(argument), "x86_64")


def test_flags() -> None:
    assert flags_of(Seccomp(default_action="SCMP_ACT_ALLOW", flags=("SECCOMP_FILTER_FLAG_LOG",))) == 2
    with pytest.raises(NotSupported):
        flags_of(Seccomp(default_action="SCMP_ACT_ALLOW", flags=("SECCOMP_FILTER_FLAG_X",)))
    notify = SeccompRule(names=("mkdir",), action="SCMP_ACT_NOTIFY")
    killable = ("SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",)
    asked = Seccomp(
        default_action="SCMP_ACT_ALLOW", flags=killable, listener_path="/run/x", syscalls=(notify,)
    )
    assert flags_of(asked) == 8 | 32
    with pytest.raises(InvalidArgument, match="WAIT_KILLABLE"):
        flags_of(Seccomp(default_action="SCMP_ACT_ALLOW", flags=killable))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"default_action": "SCMP_ACT_NOTIFY"}, "cannot be the default"),
        ({"listener_path": ""}, "without listenerPath"),
        ({"listener_path": "", "listener_metadata": "m", "syscalls": ()}, "listenerMetadata without"),
        ({"syscalls": (SeccompRule(names=("sendmsg",), action="SCMP_ACT_NOTIFY"),)}, "NOTIFY of sendmsg"),
    ],
)
def test_an_agent_that_could_never_answer_is_refused(changes: dict[str, Any], reason: str) -> None:
    notify = SeccompRule(names=("mkdir",), action="SCMP_ACT_NOTIFY")
    good = Seccomp(default_action="SCMP_ACT_ALLOW", listener_path="/run/x", syscalls=(notify,))

    assert run_filter(compile_profile(good, "x86_64"), X86["mkdir"]) == kernel.RET_USER_NOTIF
    with pytest.raises(InvalidArgument, match=reason):
        compile_profile(msgspec.structs.replace(good, **changes), "x86_64")


def test_actions_with_a_number() -> None:
    for action, number, decision in (
        ("SCMP_ACT_ERRNO", None, EPERM),
        ("SCMP_ACT_ERRNO", 4095, kernel.RET_ERRNO | 4095),
        ("SCMP_ACT_TRACE", 65535, kernel.RET_TRACE | 65535),
        ("SCMP_ACT_KILL", None, 0),
        ("SCMP_ACT_KILL_THREAD", None, 0),
        ("SCMP_ACT_KILL_PROCESS", None, 1 << 31),
        ("SCMP_ACT_TRAP", None, kernel.RET_TRAP),
        ("SCMP_ACT_LOG", None, kernel.RET_LOG),
    ):
        program = compile_profile(Seccomp(default_action=action, default_errno_ret=number), "x86_64")
        assert run_filter(program, X86["read"]) == decision
    with pytest.raises(InvalidArgument, match="returns no number"):
        compile_profile(Seccomp(default_action="SCMP_ACT_KILL", default_errno_ret=1), "x86_64")


def _everywhere(*names: str, machine: str = "x86_64") -> bytes:
    rule = SeccompRule(names=names, action="SCMP_ACT_ALLOW")
    listed = ("SCMP_ARCH_X86", "SCMP_ARCH_X32", "SCMP_ARCH_ARM", "SCMP_ARCH_MIPS")
    profile = Seccomp(default_action="SCMP_ACT_ERRNO", architectures=listed, syscalls=(rule,))
    return compile_profile(profile, machine)


def test_each_listed_abi_is_filtered_by_its_own_numbers() -> None:
    program = _everywhere("ioctl", "mkdir")

    for arch, number in ((X86_64, 16), (X86_64, 83), (I386, 54), (I386, 39), (X86_64, X32 | 514)):
        assert run_filter(program, number, arch=arch) == ALLOW
    for arch, number in ((X86_64, 54), (I386, 16), (X86_64, X32 | 16), (X86_64, X32 | 54)):
        assert run_filter(program, number, arch=arch) == EPERM
    assert run_filter(program, 54, arch=ARM) == ENOSYS
    assert run_filter(_everywhere("ioctl", machine="aarch64"), 54, arch=ARM) == ALLOW
    assert run_filter(_everywhere("ioctl", machine="aarch64"), 29, arch=0xC00000B7) == ALLOW


def test_an_abi_that_is_not_listed_stays_out() -> None:
    rule = SeccompRule(names=("read",), action="SCMP_ACT_ALLOW")
    program = compile_profile(
        Seccomp(default_action="SCMP_ACT_ALLOW", architectures=("SCMP_ARCH_X86",), syscalls=(rule,)), "x86_64"
    )

    assert run_filter(program, 0) == ALLOW
    assert run_filter(program, 3, arch=I386) == ALLOW
    assert run_filter(program, X32) == ENOSYS


def test_the_detour_of_x86_is_filtered_as_the_call_itself() -> None:
    program = _everywhere("socket", "shmget")

    assert run_filter(program, 102, 1, arch=I386) == ALLOW  # socketcall(SYS_SOCKET)
    assert run_filter(program, 102, 2, arch=I386) == EPERM  # of bind
    assert run_filter(program, 117, 0x10017, arch=I386) == ALLOW  # ipc(SHMGET), version 1
    assert run_filter(program, 117, 0x10015, arch=I386) == EPERM


@given(st.sets(st.sampled_from(sorted(abi_numbers("x86"))), max_size=60))
def test_exactly_the_named_calls_of_x86_are_allowed(names: set[str]) -> None:
    program = _everywhere(*sorted(names))

    for name, number in abi_numbers("x86").items():
        if name not in {"socketcall", "ipc"}:
            assert (run_filter(program, number, arch=I386) == ALLOW) is (name in names)


def test_a_small_program_is_the_known_one() -> None:
    """Golden: a change of the code generator shows."""
    rules = (
        SeccompRule(names=("mkdir",), action="SCMP_ACT_ERRNO", errno_ret=13),
        SeccompRule(
            names=("dup",),
            action="SCMP_ACT_KILL_PROCESS",
            args=(SeccompArg(index=0, value=7, op="SCMP_CMP_EQ"),),
        ),
    )
    program = compile_profile(Seccomp(default_action="SCMP_ACT_ALLOW", syscalls=rules), "x86_64")

    listing = [struct.unpack_from("=HBBI", program, at) for at in range(0, len(program), 8)]
    assert listing == GOLDEN


def _one(*arguments: SeccompArg) -> Seccomp:
    rule = SeccompRule(names=("read",), action="SCMP_ACT_ALLOW", args=arguments)
    return Seccomp(default_action="SCMP_ACT_ERRNO", syscalls=(rule,))
