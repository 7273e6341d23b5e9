"""Device rules as an eBPF program for cgroup2; pure.

The program gets, in r1, a pointer to

    u32 access_type   low half: 1 block, 2 character; high half: 1 mknod, 2 read, 4 write
    u32 major
    u32 minor

and returns 1 to allow. Rules are asked from the last to the first.

Source: include/uapi/linux/bpf.h, struct bpf_cgroup_dev_ctx.
"""

import struct

from engine.spec.runtime import DeviceRule

_LDX_W = 0x61
_MOV_IMM = 0xB7
_MOV32_REG = 0xBC
_RSH32_IMM = 0x74
_AND32_IMM = 0x54
_JNE_IMM = 0x55
_JEQ_IMM = 0x15
_JNE_REG = 0x5D
_EXIT = 0x95

_BLOCK, _CHARACTER = 1, 2
_ACCESS = {"m": 1, "r": 2, "w": 4}
_ANY_ACCESS = 7


def _insn(code: int, dst: int = 0, src: int = 0, offset: int = 0, imm: int = 0) -> bytes:
    return struct.pack("<BBhI", code, src << 4 | dst, offset, imm & 0xFFFFFFFF)


def program(rules: tuple[DeviceRule, ...]) -> bytes:
    """Return the program for `rules`, of which a later one wins; without a match, access is refused."""
    code = [
        _insn(_LDX_W, 2, 1, 0),  # r2 = access_type
        _insn(_MOV32_REG, 3, 2),
        _insn(_RSH32_IMM, 3, imm=16),  # r3 = access
        _insn(_AND32_IMM, 2, imm=0xFFFF),  # r2 = type
        _insn(_LDX_W, 4, 1, 4),  # r4 = major
        _insn(_LDX_W, 5, 1, 8),  # r5 = minor
    ]
    for rule in reversed(rules):
        code += _rule(rule)
    code += [_insn(_MOV_IMM, 0, imm=0), _insn(_EXIT)]
    return b"".join(code)


def _rule(rule: DeviceRule) -> list[bytes]:
    """Return the instructions of one rule; a test that fails jumps behind the rule."""
    tests: list[tuple[int, int, int, int]] = []  # code, dst, src, imm
    if rule.type != "a":
        tests.append((_JNE_IMM, 2, 0, _BLOCK if rule.type == "b" else _CHARACTER))
    access = sum(_ACCESS[letter] for letter in set(rule.access))
    if access != _ANY_ACCESS:
        tests += [(_MOV32_REG, 1, 3, 0), (_AND32_IMM, 1, 0, access)]
        # An allowing rule must cover all that is asked for; a denying one needs to touch it.
        tests.append((_JNE_REG, 1, 3, 0) if rule.allow else (_JEQ_IMM, 1, 0, 0))
    for register, number in ((4, rule.major), (5, rule.minor)):
        if number is not None and number >= 0:
            tests.append((_JNE_IMM, register, 0, number))
    size = len(tests) + 2
    code = [
        _insn(op, dst, src, size - index - 1 if op in (_JNE_IMM, _JEQ_IMM, _JNE_REG) else 0, imm)
        for index, (op, dst, src, imm) in enumerate(tests)
    ]
    return [*code, _insn(_MOV_IMM, 0, imm=int(rule.allow)), _insn(_EXIT)]
