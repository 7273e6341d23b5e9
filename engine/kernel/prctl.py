"""prctl(2): flags of the calling process.

Source: Linux man-pages 6.9, prctl(2) and capabilities(7).
"""

from engine.kernel.libc import INT, ULONG, fail, function

_prctl = function("prctl", INT, ULONG, ULONG, ULONG, ULONG)

_SET_PDEATHSIG = 1
_SET_DUMPABLE = 4
_SET_KEEPCAPS = 8
_SET_NAME = 15
_CAPBSET_DROP = 24
_SET_CHILD_SUBREAPER = 36
_SET_NO_NEW_PRIVS = 38
_CAP_AMBIENT = 47
_CAP_AMBIENT_RAISE = 2
_CAP_AMBIENT_CLEAR_ALL = 4


def _call(name: str, option: int, arg2: int = 0, arg3: int = 0) -> None:
    if _prctl(option, arg2, arg3, 0, 0) < 0:
        fail(f"prctl({name}, {arg2}, {arg3})")


def set_dumpable(value: bool) -> None:
    """Let others of the same user trace this process and read its /proc files, or not."""
    _call("PR_SET_DUMPABLE", _SET_DUMPABLE, int(value))


def set_no_new_privs() -> None:
    """Make set-user-id bits and file capabilities void for this process and all that come of it."""
    _call("PR_SET_NO_NEW_PRIVS", _SET_NO_NEW_PRIVS, 1)


def set_keepcaps(value: bool) -> None:
    """Keep the permitted capabilities over the next change of user, or not."""
    _call("PR_SET_KEEPCAPS", _SET_KEEPCAPS, int(value))


def set_child_subreaper(value: bool) -> None:
    """Become the parent of orphaned descendants, or not."""
    _call("PR_SET_CHILD_SUBREAPER", _SET_CHILD_SUBREAPER, int(value))


def set_pdeathsig(signal_number: int) -> None:
    """Get this signal when the parent thread ends; 0: none."""
    _call("PR_SET_PDEATHSIG", _SET_PDEATHSIG, signal_number)


def capbset_drop(capability: int) -> None:
    """Drop a capability from the bounding set.

    Raises:
        OSError: EINVAL when this kernel does not know the number.
    """
    _call("PR_CAPBSET_DROP", _CAPBSET_DROP, capability)


def cap_ambient_clear_all() -> None:
    """Empty the ambient set."""
    _call("PR_CAP_AMBIENT_CLEAR_ALL", _CAP_AMBIENT, _CAP_AMBIENT_CLEAR_ALL)


def cap_ambient_raise(capability: int) -> None:
    """Add a capability, permitted and inheritable already, to the ambient set."""
    _call("PR_CAP_AMBIENT_RAISE", _CAP_AMBIENT, _CAP_AMBIENT_RAISE, capability)
