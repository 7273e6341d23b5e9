import random

import pytest

from engine.containers.syscalls import default_profile
from engine.shim.libseccomp import all_but, for_libseccomp
from engine.spec.runtime import Seccomp, SeccompArg, SeccompRule

ALLOW, REFUSE = "SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO"
TIOCSTI, TIOCLINUX, TIOCGWINSZ = 0x5412, 0x541C, 0x5413


def arg(value: int, op: str = "SCMP_CMP_EQ", value_two: int = 0, index: int = 0) -> SeccompArg:
    return SeccompArg(index=index, value=value, value_two=value_two, op=op)


def matches(rule: SeccompRule, arguments: tuple[int, ...]) -> bool:
    for condition in rule.args:
        given = arguments[condition.index]
        if condition.op == "SCMP_CMP_MASKED_EQ":
            if given & condition.value != condition.value_two:
                return False
        elif given != condition.value:
            return False
    return True


def judge(profile: Seccomp, name: str, *arguments: int) -> str:
    """Return the action as libseccomp finds it: a rule without conditions replaces all others."""
    rules = [rule for rule in profile.syscalls if name in rule.names]
    plain = [rule.action for rule in rules if not rule.args]
    found = plain or [rule.action for rule in rules if matches(rule, arguments)]
    assert len(set(found)) <= 1, found
    return found[0] if found else profile.default_action


def test_a_call_that_is_allowed_sometimes_is_not_denied_altogether() -> None:
    some = SeccompRule(
        names=("clone",), action="SCMP_ACT_ALLOW", args=(SeccompArg(index=0, value=0, op="SCMP_CMP_EQ"),)
    )
    plain = SeccompRule(names=("read",), action="SCMP_ACT_ALLOW")
    denied = SeccompRule(names=("clone", "mount"), action="SCMP_ACT_ERRNO", errno_ret=1)
    alone = SeccompRule(names=("clone",), action="SCMP_ACT_ERRNO", errno_ret=1)
    profile = Seccomp(default_action="SCMP_ACT_ERRNO", syscalls=(some, plain, denied, alone))

    made = for_libseccomp(profile)

    assert made.syscalls == (
        some,
        plain,
        SeccompRule(names=("mount",), action="SCMP_ACT_ERRNO", errno_ret=1),
    )


@pytest.mark.parametrize("high", [0, 1 << 32, 0xFFFFFFFF << 32])
def test_the_default_filter_keeps_characters_out_of_terminals(high: int) -> None:
    profile = for_libseccomp(default_profile((), "x86_64"))

    for request in (TIOCSTI, TIOCLINUX):
        assert judge(profile, "ioctl", 0, request | high) == REFUSE
    draw = random.Random(7)
    near = [request ^ 1 << bit for request in (TIOCSTI, TIOCLINUX) for bit in range(32)]
    for request in (TIOCGWINSZ, 0, 0xFFFFFFFF, *near, *(draw.getrandbits(32) for _ in range(200))):
        assert (judge(profile, "ioctl", 0, request | high) == ALLOW) is (request not in {TIOCSTI, TIOCLINUX})
    assert sum("ioctl" in rule.names for rule in profile.syscalls) == 34 + 2


def test_the_other_calls_of_the_default_filter_are_judged_as_before() -> None:
    profile = for_libseccomp(default_profile((), "x86_64"))

    assert judge(profile, "read") == ALLOW
    assert judge(profile, "socket", 2) == ALLOW
    assert judge(profile, "socket", 38) == REFUSE
    assert judge(profile, "clone", 0x11) == ALLOW
    assert judge(profile, "clone", 0x10000000) == REFUSE


@pytest.mark.parametrize("seed", range(20))
def test_what_is_left_is_all_but_what_is_refused(seed: int) -> None:
    draw = random.Random(seed)
    refused = []
    for _ in range(draw.randint(1, 4)):
        mask = draw.getrandbits(8)
        refused.append((mask, draw.getrandbits(8) & mask))

    left = all_but(refused)

    for word in range(256):
        outside = all(word & mask != value for mask, value in refused)
        assert sum(word & mask == value for mask, value in left) == int(outside)


def test_what_cannot_be_said_is_refused() -> None:
    both = SeccompRule(names=("f",), action=REFUSE, args=(arg(1), arg(2, index=1)))
    greater = SeccompRule(names=("g",), action=REFUSE, args=(arg(1, "SCMP_CMP_GT"),))
    plain = SeccompRule(names=("f", "g", "h"), action=ALLOW)

    made = for_libseccomp(Seccomp(default_action=REFUSE, syscalls=(both, greater, plain)))

    assert [judge(made, name, 0, 0) for name in "fh"] == [REFUSE, ALLOW]
    assert not any("g" in rule.names and rule.action == ALLOW for rule in made.syscalls)
