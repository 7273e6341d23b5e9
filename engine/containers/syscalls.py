"""The system calls that a container may make by default.

Drawn from `calltable`, where every call has one class. Calls that it does not know
answer ENOSYS, so that programs fall back to older ones; refused calls answer
EPERM. What is unlike docker's profile is stricter: sockets by a list of
families (no AF_ALG, no AF_VSOCK), no io_uring, no 32-bit calls, no TIOCSTI.

Source: seccomp(2), capabilities(7); docker's documentation of its default profile.
"""

import errno
from collections.abc import Collection

from engine.containers.calltable import CALLS, CallClass, names_of
from engine.spec.runtime import Seccomp, SeccompArg, SeccompRule

_NEW_NAMESPACES = 0x7E020000  # every CLONE_NEW* flag
_PERSONALITIES = (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)
_SOCKET_FAMILIES = (1, 2, 10, 16, 17)  # UNIX, INET, INET6, NETLINK, PACKET (the kernel asks for NET_RAW)
_TERMINAL_INPUT = (0x5412, 0x541C)  # TIOCSTI and TIOCLINUX push characters into a terminal
_LOW_WORD = 0xFFFFFFFF
_ARCHITECTURES = {"x86_64": "SCMP_ARCH_X86_64", "aarch64": "SCMP_ARCH_AARCH64"}

_ALLOW = "SCMP_ACT_ALLOW"
_ERRNO = "SCMP_ACT_ERRNO"


def default_profile(capabilities: Collection[str], machine: str) -> Seccomp:
    """Return the filter for a container with `capabilities` on a `machine` (as uname calls it)."""
    held = set(capabilities)
    gated = {name for name in names_of(CallClass.GATED) if CALLS[name].capabilities & held}
    allowed = {*names_of(CallClass.ALLOWED), *gated, "ioctl"}
    denied = {*names_of(CallClass.REFUSED), *(names_of(CallClass.GATED) - gated), "personality", "socket"}
    rules = [_terminal_rule(request) for request in _TERMINAL_INPUT]
    rules += [_equal("personality", value) for value in _PERSONALITIES]
    rules += [_equal("socket", family) for family in _SOCKET_FAMILIES]
    if "CAP_SYS_ADMIN" in held:
        allowed |= {"clone", "clone3"}
    else:
        rules.append(SeccompRule(names=("clone3",), action=_ERRNO, errno_ret=errno.ENOSYS))
        rules.append(
            SeccompRule(
                names=("clone",),
                action=_ALLOW,
                args=(SeccompArg(index=0, value=_NEW_NAMESPACES, value_two=0, op="SCMP_CMP_MASKED_EQ"),),
            )
        )
        denied.add("clone")
    rules.append(SeccompRule(names=tuple(sorted(allowed)), action=_ALLOW))
    rules.append(SeccompRule(names=tuple(sorted(denied)), action=_ERRNO, errno_ret=errno.EPERM))
    return Seccomp(
        default_action=_ERRNO,
        default_errno_ret=errno.ENOSYS,
        architectures=(_ARCHITECTURES[machine],) if machine in _ARCHITECTURES else (),
        syscalls=tuple(rules),
    )


def _equal(name: str, value: int) -> SeccompRule:
    return SeccompRule(
        names=(name,), action=_ALLOW, args=(SeccompArg(index=0, value=value, op="SCMP_CMP_EQ"),)
    )


def _terminal_rule(request: int) -> SeccompRule:
    """Refuse one ioctl; the kernel looks at the low word of the request only, so the rule does too."""
    return SeccompRule(
        names=("ioctl",),
        action=_ERRNO,
        errno_ret=errno.EPERM,
        args=(SeccompArg(index=1, value=_LOW_WORD, value_two=request, op="SCMP_CMP_MASKED_EQ"),),
    )
