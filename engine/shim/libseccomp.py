"""A system call filter in the words of libseccomp, which runc and crun pass it to; pure.

For the built-in runtime a rule without conditions holds for what those with conditions leave. In libseccomp
it replaces them, whatever their actions. So for each call that has both,

- allowed with some arguments, otherwise refused: the refusal is left to the default action;
- refused with some arguments, otherwise allowed: the others are spelled out. A condition can only name
  bits of an argument (SCMP_CMP_MASKED_EQ; the other operators see 64 bits where the kernel may see 32),
  and one argument can have one condition a rule. So there is a rule for each first bit, from the top, in
  which an argument differs from one that is refused: 34 of them for all requests of ioctl(2) but TIOCSTI
  and TIOCLINUX.

Source: seccomp_rule_add(3); OCI runtime-spec 1.2.0, config-linux.md, "Seccomp".
"""

import msgspec

from engine.spec.runtime import Seccomp, SeccompArg, SeccompRule

_ALLOW = "SCMP_ACT_ALLOW"
_WORD = (1 << 64) - 1
_BITS = 64
Bits = tuple[int, int]  # mask, and the value under it


def for_libseccomp(profile: Seccomp) -> Seccomp:
    """Return the profile with the meaning that it has for the built-in runtime.

    What cannot be said (a call refused by conditions on several arguments, allowed otherwise) is refused
    more than was asked: the call gets the default action.
    """
    conditional = [rule for rule in profile.syscalls if rule.args]
    sometimes = {name for rule in conditional if rule.action == _ALLOW for name in rule.names}
    refused = {name for rule in conditional if rule.action != _ALLOW for name in rule.names}
    rules = []
    spelled: dict[str, None] = {}  # in order
    for rule in profile.syscalls:
        names = rule.names
        if not rule.args and rule.action != _ALLOW:
            names = tuple(name for name in names if name not in sometimes)
        elif not rule.args:
            spelled |= dict.fromkeys(name for name in names if name in refused)
            names = tuple(name for name in names if name not in refused)
        if names:
            rules.append(msgspec.structs.replace(rule, names=names))
    for name in spelled:
        rules += _allowed_otherwise(name, [rule for rule in conditional if name in rule.names])
    return msgspec.structs.replace(profile, syscalls=tuple(rules))


def _allowed_otherwise(name: str, rules: list[SeccompRule]) -> list[SeccompRule]:
    """Return rules that allow the call where none of `rules` refuses it."""
    refusals = [rule for rule in rules if rule.action != _ALLOW]
    arguments = [argument for rule in refusals for argument in rule.args]
    indexes = {argument.index for argument in arguments}
    found = [bits for argument in arguments if (bits := _bits_of(argument)) is not None]
    if len(indexes) != 1 or len(found) != len(refusals) or len(arguments) != len(refusals):
        return []
    (index,) = indexes
    return [
        SeccompRule(
            names=(name,),
            action=_ALLOW,
            args=(SeccompArg(index=index, value=mask, value_two=value, op="SCMP_CMP_MASKED_EQ"),),
        )
        for mask, value in all_but(found)
    ]


def _bits_of(argument: SeccompArg) -> Bits | None:
    if argument.op == "SCMP_CMP_EQ":
        return _WORD, argument.value
    if argument.op == "SCMP_CMP_MASKED_EQ":
        return argument.value, argument.value_two & argument.value
    return None


def all_but(refused: list[Bits]) -> list[Bits]:
    """Return what covers every word that none of `refused` covers, and no other; nothing twice."""
    left: list[Bits] = [(0, 0)]
    for gone in refused:
        left = [part for whole in left for part in _without(whole, gone)]
    return left


def _without(whole: Bits, gone: Bits) -> list[Bits]:
    """Return the parts of `whole` outside of `gone`, by the first bit in which they differ from it."""
    mask, value = whole
    if (value ^ gone[1]) & mask & gone[0]:
        return [whole]
    parts = []
    for number in reversed(range(_BITS)):
        bit = 1 << number
        if bit & gone[0] and not bit & mask:
            mask |= bit
            parts.append((mask, value | (~gone[1] & bit)))
            value |= gone[1] & bit
    return parts
