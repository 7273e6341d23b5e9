"""Who the process is: user, groups, capabilities. One place for `create` and `enter`.

Source: OCI runtime-spec 1.2.0, config.md, "User"; capabilities(7).
"""

import os

import msgspec

from engine.base.errors import InvalidArgument
from engine.kernel import capabilities, prctl
from engine.runtime import validate
from engine.spec.runtime import Capabilities, Process


class CapabilityMasks(msgspec.Struct, frozen=True):
    """The five sets as bit masks, and what had to be left out of them, in words."""

    bounding: int
    effective: int
    inheritable: int
    permitted: int
    ambient: int
    warnings: tuple[str, ...] = ()


def masks(wanted: Capabilities | None, *, last: int, held: int) -> CapabilityMasks:
    """Return the sets as masks; None asks for no capability at all.

    Names newer than this kernel (`last` is its highest number) are left out, as runc does. So are,
    with a warning, names that are no capability's (config.md: a runtime must warn, and should not
    fail), those that this process (`held`, a mask) does not have to give, as where the
    engine is in a container itself; and ambient capabilities that are not inheritable too: the
    kernel would refuse them, and `runc spec` writes such sets.

    Raises:
        InvalidArgument: the effective set holds what the permitted one lacks.
    """
    wanted = wanted or Capabilities()
    effective, permitted = _mask(wanted.effective, last), _mask(wanted.permitted, last)
    if effective & ~permitted:
        raise InvalidArgument("process.capabilities: effective is not a subset of permitted")
    inheritable, ambient = _mask(wanted.inheritable, last), _mask(wanted.ambient, last)
    void = ambient & ~(permitted & inheritable)
    lacking = (permitted | inheritable) & ~held
    named = (wanted.bounding, wanted.effective, wanted.inheritable, wanted.permitted, wanted.ambient)
    unknown = {name for names in named for name in names if name.upper() not in capabilities.NUMBERS}
    return CapabilityMasks(
        bounding=_mask(wanted.bounding, last),
        effective=effective & held,
        inheritable=inheritable & held,
        permitted=permitted & held,
        ambient=ambient & ~void & held,
        warnings=(
            *(f"unknown capability left out: {validate.shown(name)}" for name in sorted(unknown)),
            *_left_out(void, "ambient capabilities", "not permitted and inheritable"),
            *_left_out(lacking, "capabilities", "the engine has none of them itself"),
        ),
    )


def _left_out(mask: int, what: str, why: str) -> tuple[str, ...]:
    if not mask:
        return ()
    names = " ".join(name for name in capabilities.NAMES if mask >> capabilities.NUMBERS[name] & 1)
    return (f"{what} left out, {why}: {names}",)


def _mask(names: tuple[str, ...], last: int) -> int:
    mask = 0
    for name in names:
        number = capabilities.NUMBERS.get(name.upper())
        if number is not None and number <= last:
            mask |= 1 << number
    return mask


def become(process: Process, wanted: CapabilityMasks, *, last: int, set_groups: bool = True) -> None:
    """Take the user and groups, and bound the capabilities; the permitted set is still whole after.

    What remains is `confine`, right before execve: loading a filter needs CAP_SYS_ADMIN.
    """
    for number in range(last + 1):
        if not wanted.bounding >> number & 1:
            prctl.capbset_drop(number)
    prctl.set_keepcaps(True)
    user = process.user
    if set_groups:
        os.setgroups(user.additional_gids)
    os.setresgid(user.gid, user.gid, user.gid)
    os.setresuid(user.uid, user.uid, user.uid)
    prctl.set_keepcaps(False)
    prctl.set_dumpable(False)  # a change of user may have set it


def raise_effective() -> None:
    """Make all permitted capabilities effective again after the change of user."""
    _, permitted, inheritable = capabilities.capget()
    capabilities.capset(permitted, permitted, inheritable)


def confine(wanted: CapabilityMasks) -> None:
    """Take the final capability sets."""
    prctl.cap_ambient_clear_all()
    capabilities.capset(wanted.effective, wanted.permitted, wanted.inheritable)
    for number in range(wanted.ambient.bit_length()):
        if wanted.ambient >> number & 1:
            prctl.cap_ambient_raise(number)
