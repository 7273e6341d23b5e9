"""Compile a seccomp profile to classic BPF; pure.

The program is a binary search over ranges of system call numbers, so the
deepest call costs eight comparisons, where a list of rules would cost
hundreds. A call with conditions on its arguments ends in a chain of them.
The machine's own architecture is always filtered. Of the others that its
kernel may offer (x86 and x32, arm) those that the profile lists get a part of
the program each, with their own numbers; a call of one that it does not list
gets ENOSYS. On x86 a rule without conditions is also for the way through
socketcall(2) and ipc(2); the arguments of a call that goes there cannot be
seen, so a rule with conditions is for the direct call only.

Source: OCI runtime-spec 1.2.0, config-linux.md, "Seccomp"; seccomp(2).
"""

import errno
import functools
import struct
from itertools import pairwise

from engine.base.errors import InvalidArgument, NotSupported
from engine.kernel import abis
from engine.kernel import seccomp as kernel
from engine.kernel.syscalls import MACHINE, numbers
from engine.spec.runtime import Seccomp, SeccompArg, SeccompRule

_LD = 0x20  # BPF_LD | BPF_W | BPF_ABS
_AND = 0x54
_JA = 0x05
_JEQ = 0x15
_JGT = 0x25
_JGE = 0x35
_RET = 0x06
_NUMBER_AT, _ARCH_AT, _ARGS_AT = 0, 4, 16
_LOW = 0xFFFFFFFF
_JUMP_MAX = 255
_ARGS = 6
_ERRNO_MAX = 4095
_TRACE_MAX = 65535

NOTIFY = "SCMP_ACT_NOTIFY"
_ACTIONS = {
    "SCMP_ACT_ALLOW": kernel.RET_ALLOW,
    "SCMP_ACT_LOG": kernel.RET_LOG,
    "SCMP_ACT_TRAP": kernel.RET_TRAP,
    "SCMP_ACT_KILL": kernel.RET_KILL_THREAD,
    "SCMP_ACT_KILL_THREAD": kernel.RET_KILL_THREAD,
    "SCMP_ACT_KILL_PROCESS": kernel.RET_KILL_PROCESS,
    NOTIFY: kernel.RET_USER_NOTIF,
}
_WITH_NUMBER = {"SCMP_ACT_ERRNO": kernel.RET_ERRNO, "SCMP_ACT_TRACE": kernel.RET_TRACE}
FLAGS = {
    "SECCOMP_FILTER_FLAG_TSYNC": 0,  # one thread, nothing to synchronise
    "SECCOMP_FILTER_FLAG_LOG": kernel.FLAG_LOG,
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW": kernel.FLAG_SPEC_ALLOW,
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV": kernel.FLAG_WAIT_KILLABLE_RECV,
}
ARCHITECTURES = {"x86_64": "SCMP_ARCH_X86_64", "aarch64": "SCMP_ARCH_AARCH64"}
_OTHERS = {  # machine -> the other ABIs that its kernel may offer
    "x86_64": {"SCMP_ARCH_X86": "x86", "SCMP_ARCH_X32": "x32"},
    "aarch64": {"SCMP_ARCH_ARM": "arm"},
}
_KNOWN_NAMES = (
    "X86 X86_64 X32 ARM AARCH64 MIPS MIPS64 MIPS64N32 MIPSEL MIPSEL64 MIPSEL64N32 PPC PPC64 PPC64LE"
    " S390 S390X PARISC PARISC64 RISCV64 LOONGARCH64 M68K SH SHEB"
)
_KNOWN = frozenset(f"SCMP_ARCH_{name}" for name in _KNOWN_NAMES.split())
_BEFORE_HANDED_OVER = "sendmsg"  # what the process itself calls before anybody can answer
OPERATORS = tuple(f"SCMP_CMP_{name}" for name in ("EQ", "NE", "LT", "LE", "GT", "GE", "MASKED_EQ"))

Instruction = tuple[int, int, int, int]  # code, jump if true, jump if false, constant
_Draft = tuple[int, int | str, int | str, int]  # jumps may be "pass" and "fail", of one condition


def actions() -> list[str]:
    """Return the names of the actions that a profile may use."""
    return sorted({**_ACTIONS, **_WITH_NUMBER})


def architectures() -> list[str]:
    """Return the names of architectures that a profile may list; those of other machines change nothing."""
    return sorted(_KNOWN)


def flags_for_kernel(name: str) -> int:
    """Return what asks seccomp(2) for the flag `name` as it is used here."""
    if name == "SECCOMP_FILTER_FLAG_TSYNC":
        return kernel.FLAG_TSYNC
    return FLAGS[name] | (kernel.FLAG_NEW_LISTENER if FLAGS[name] & kernel.FLAG_WAIT_KILLABLE_RECV else 0)


def notifies(profile: Seccomp) -> bool:
    """Tell whether some calls are for an agent to answer."""
    return any(action == NOTIFY for action in (profile.default_action, *(r.action for r in profile.syscalls)))


@functools.lru_cache(maxsize=8)
def compile_profile(profile: Seccomp, machine: str = MACHINE) -> bytes:
    """Return the program for `profile`; the same profile is compiled once a process.

    Names that no table knows are left out, as libseccomp's users do: they are
    of newer kernels, and get the default action.

    Raises:
        InvalidArgument: an action, operator, errno or argument index does not exist.
        NotSupported: this machine has no table.
    """
    own = ARCHITECTURES.get(machine)
    if own is None:
        raise NotSupported(f"seccomp: no system call table for {machine}")
    unknown = [name for name in profile.architectures if name not in _KNOWN]
    if unknown:
        raise InvalidArgument(f"seccomp: unknown architecture {unknown[0]!r}")
    _check_notify(profile)
    tables = {machine: numbers(machine)}
    for name, abi in _OTHERS[machine].items():
        if name in profile.architectures:
            tables[abi] = abis.abi_numbers(abi)
    program = [(_LD, 0, 0, _ARCH_AT)]
    for architecture in dict.fromkeys(kernel.AUDIT_ARCH[abi] for abi in tables):
        section = _section(
            profile, {abi: table for abi, table in tables.items() if kernel.AUDIT_ARCH[abi] == architecture}
        )
        program += [(_JEQ, 1, 0, architecture), (_JA, 0, 0, len(section)), *section]
    program.append((_RET, 0, 0, kernel.RET_ERRNO | errno.ENOSYS))
    if len(program) > kernel.MAX_INSTRUCTIONS:
        raise InvalidArgument(f"seccomp: profile of {len(program)} instructions, the kernel takes 4096")
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)


def _check_notify(profile: Seccomp) -> None:
    if profile.listener_metadata and not profile.listener_path:
        raise InvalidArgument("seccomp: listenerMetadata without listenerPath")
    if not notifies(profile):
        return
    if not profile.listener_path:
        raise InvalidArgument(f"seccomp: {NOTIFY} without listenerPath")
    if profile.default_action == NOTIFY:
        raise InvalidArgument(f"seccomp: {NOTIFY} cannot be the default: the process itself could not start")
    if any(_BEFORE_HANDED_OVER in rule.names for rule in profile.syscalls if rule.action == NOTIFY):
        raise InvalidArgument(
            f"seccomp: {NOTIFY} of {_BEFORE_HANDED_OVER}: that is how the listener gets out"
        )


def flags_of(profile: Seccomp) -> int:
    """Return the flags for seccomp(2).

    Raises:
        NotSupported: one that this runtime does not know.
    """
    flags = kernel.FLAG_NEW_LISTENER if notifies(profile) else 0
    for name in profile.flags:
        if name not in FLAGS:
            raise NotSupported(f"seccomp flag {name} is not supported")
        flags |= FLAGS[name]
    if flags & kernel.FLAG_WAIT_KILLABLE_RECV and not flags & kernel.FLAG_NEW_LISTENER:
        raise InvalidArgument(f"seccomp: SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV without {NOTIFY}")
    return flags


def _action(name: str, errno_ret: int | None, field: str = "errnoRet") -> int:
    if name in _ACTIONS:
        if errno_ret is not None:
            raise InvalidArgument(f"seccomp: {name} returns no number: {field} {errno_ret}")
        return _ACTIONS[name]
    if name not in _WITH_NUMBER:
        raise InvalidArgument(f"seccomp: unknown action {name!r}")
    number = errno.EPERM if errno_ret is None else errno_ret
    if not 0 <= number <= (_TRACE_MAX if name == "SCMP_ACT_TRACE" else _ERRNO_MAX):
        raise InvalidArgument(f"seccomp: {field} {number} is out of range")
    return _WITH_NUMBER[name] | number


def _section(profile: Seccomp, tables: dict[str, dict[str, int]]) -> list[Instruction]:
    """Return the part of the program for one architecture of the kernel's, which x86_64 and x32 share."""
    default = _action(profile.default_action, profile.default_errno_ret, "defaultErrnoRet")
    chains: dict[int, int | tuple[Instruction, ...]] = {}
    for abi, table in tables.items():
        chains |= _chains(profile, table, default, multiplexed=abi == "x86")
    x32 = default if "x32" in tables else kernel.RET_ERRNO | errno.ENOSYS
    leaves = {abis.X32_BIT: x32} if "x86_64" in tables else {}
    return [(_LD, 0, 0, _NUMBER_AT), *_search(_segments(chains, default, leaves))]


def _places(name: str, table: dict[str, int], *, multiplexed: bool) -> list[tuple[int, SeccompArg | None]]:
    """Return the numbers by which `name` is called, with what must hold for the call to be that one."""
    places: list[tuple[int, SeccompArg | None]] = [(table[name], None)] if name in table else []
    if multiplexed and name in abis.SOCKETCALL:
        places.append(
            (table["socketcall"], SeccompArg(index=0, value=abis.SOCKETCALL[name], op="SCMP_CMP_EQ"))
        )
    if multiplexed and name in abis.IPC:
        version = SeccompArg(index=0, value=0xFFFF, value_two=abis.IPC[name], op="SCMP_CMP_MASKED_EQ")
        places.append((table["ipc"], version))
    return places


def _chains(
    profile: Seccomp, table: dict[str, int], default: int, *, multiplexed: bool
) -> dict[int, int | tuple[Instruction, ...]]:
    """Return for each system call number its action, or the code that decides by arguments."""
    plain: dict[int, int] = {}
    conditional: dict[int, list[SeccompRule]] = {}
    for rule in profile.syscalls:
        action = _action(rule.action, rule.errno_ret)
        for name in rule.names:
            for number, meant in _places(name, table, multiplexed=multiplexed):
                if meant is None and not rule.args:
                    plain.setdefault(number, action)
                elif meant is None:
                    conditional.setdefault(number, []).append(rule)
                elif not rule.args:
                    found = SeccompRule(names=(), action=rule.action, errno_ret=rule.errno_ret, args=(meant,))
                    conditional.setdefault(number, []).append(found)
    result: dict[int, int | tuple[Instruction, ...]] = dict(plain)
    for number, rules in conditional.items():
        code = [instruction for rule in rules for instruction in _rule(rule)]
        result[number] = (*code, (_RET, 0, 0, plain.get(number, default)))
    return result


def _rule(rule: SeccompRule) -> list[Instruction]:
    """Return code that returns the rule's action when all conditions hold, and runs on when not."""
    drafts = [_condition(argument) for argument in rule.args]
    size = sum(map(len, drafts)) + 1
    code: list[Instruction] = []
    for draft in drafts:
        end = len(code) + len(draft)
        for op, if_true, if_false, constant in draft:
            after = len(code) + 1
            targets = {"pass": end - after, "fail": size - after}
            jumps = [targets[jump] if isinstance(jump, str) else jump for jump in (if_true, if_false)]
            code.append((op, jumps[0], jumps[1], constant))
    return [*code, (_RET, 0, 0, _action(rule.action, rule.errno_ret))]


def _condition(argument: SeccompArg) -> list[_Draft]:
    """Return the code of one comparison of a 64-bit argument, low word first in memory."""
    if not 0 <= argument.index < _ARGS:
        raise InvalidArgument(f"seccomp: there is no argument {argument.index}")
    value, other = argument.value & (1 << 64) - 1, argument.value_two & (1 << 64) - 1
    low_at = _ARGS_AT + 8 * argument.index
    load_low: _Draft = (_LD, 0, 0, low_at)
    load_high: _Draft = (_LD, 0, 0, low_at + 4)
    high, low = value >> 32, value & _LOW
    if argument.op == "SCMP_CMP_MASKED_EQ":
        return [
            load_high,
            (_AND, 0, 0, high),
            (_JEQ, 0, "fail", other >> 32 & high),
            load_low,
            (_AND, 0, 0, low),
            (_JEQ, "pass", "fail", other & low),
        ]
    equal: list[_Draft] = [load_high, (_JEQ, 0, "fail", high), load_low, (_JEQ, "pass", "fail", low)]
    if argument.op == "SCMP_CMP_EQ":
        return equal
    if argument.op == "SCMP_CMP_NE":
        return _negated(equal)
    if argument.op not in ("SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_LT", "SCMP_CMP_LE"):
        raise InvalidArgument(f"seccomp: unknown comparison {argument.op!r}")
    last = _JGE if argument.op in ("SCMP_CMP_GE", "SCMP_CMP_LT") else _JGT
    above: list[_Draft] = [
        load_high,
        (_JGT, "pass", 0, high),
        (_JEQ, 0, "fail", high),
        load_low,
        (last, "pass", "fail", low),
    ]
    return above if argument.op in ("SCMP_CMP_GE", "SCMP_CMP_GT") else _negated(above)


def _negated(code: list[_Draft]) -> list[_Draft]:
    swapped: dict[int | str, int | str] = {"pass": "fail", "fail": "pass"}
    return [(op, swapped.get(yes, yes), swapped.get(no, no), k) for op, yes, no, k in code]


def _segments(
    chains: dict[int, int | tuple[Instruction, ...]],
    default: int,
    fixed: dict[int, int],
) -> list[tuple[int, tuple[Instruction, ...]]]:
    """Return (first number, code) of each range of numbers that are treated alike, in order."""
    leaves: dict[int, int | tuple[Instruction, ...]] = {0: default, **fixed}
    for number in sorted(chains):
        leaves[number] = chains[number]
        if number + 1 not in chains:
            leaves.setdefault(number + 1, default)
    ordered = sorted(leaves.items())
    merged = [ordered[0], *(this for last, this in pairwise(ordered) if this[1] != last[1])]
    return [(first, ((_RET, 0, 0, leaf),) if isinstance(leaf, int) else leaf) for first, leaf in merged]


def _search(segments: list[tuple[int, tuple[Instruction, ...]]]) -> list[Instruction]:
    if len(segments) == 1:
        return list(segments[0][1])
    middle = len(segments) // 2
    below, from_here = _search(segments[:middle]), _search(segments[middle:])
    first = segments[middle][0]
    if len(below) <= _JUMP_MAX:
        return [(_JGE, len(below), 0, first), *below, *from_here]
    return [(_JGE, 0, 1, first), (_JA, 0, 0, len(below)), *below, *from_here]
