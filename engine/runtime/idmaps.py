"""Write the id maps of a user namespace, from outside of it.

With CAP_SETUID and CAP_SETGID by hand; without them by newuidmap and
newgidmap, which give what /etc/subuid and /etc/subgid grant; and a user's own
id alone without either.

Source: user_namespaces(7); newuidmap(1).
"""

import os
import signal
from collections.abc import Sequence

from engine.base.errors import NotSupported
from engine.kernel import capabilities, process
from engine.kernel.process import CloneFlag
from engine.runtime import userns
from engine.runtime.userns import IdMap
from engine.spec.runtime import IdMapping

_TIMEOUT_S = 10.0
_SETTERS = (1 << capabilities.NUMBERS["CAP_SETUID"]) | (1 << capabilities.NUMBERS["CAP_SETGID"])
_ADMIN = 1 << capabilities.NUMBERS["CAP_SYS_ADMIN"]


def may_map(held: int) -> bool:
    """Tell whether a process with the capabilities `held` may map any ids."""
    return held & _SETTERS == _SETTERS


def may_mount(held: int) -> bool:
    """Tell whether a process with the capabilities `held` may mount where it is."""
    return bool(held & _ADMIN)


def groups_can_be_set(ids: IdMap, held: int) -> bool:
    """Tell whether processes of the namespace will be allowed setgroups(2)."""
    return may_map(held) or not userns.own_only(ids, os.geteuid(), os.getegid())


def write(pid: int, ids: IdMap, held: int) -> None:
    """Map the ids of the user namespace of `pid`, whose maps are empty.

    Raises:
        NotSupported: newuidmap or newgidmap is needed and missing, or refuses: no such range is granted.
        OSError: the kernel refuses.
    """
    if may_map(held):
        _put(pid, "gid_map", userns.text(ids.gids))
        _put(pid, "uid_map", userns.text(ids.uids))
    elif userns.own_only(ids, os.geteuid(), os.getegid()):
        _put(pid, "setgroups", "deny")
        _put(pid, "gid_map", userns.text(ids.gids))
        _put(pid, "uid_map", userns.text(ids.uids))
    else:
        _ask("newgidmap", "/etc/subgid", pid, ids.gids)
        _ask("newuidmap", "/etc/subuid", pid, ids.uids)


def _put(pid: int, name: str, text: str) -> None:
    fd = os.open(f"/proc/{pid}/{name}", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def _ask(program: str, table: str, pid: int, ranges: Sequence[IdMapping]) -> None:
    # Here, and not in every shim: it brings subprocess along, and only an unprivileged runtime comes here.
    from engine.base.process import ProcessFailed  # noqa: PLC0415
    from engine.base.process import run as run_program  # noqa: PLC0415

    try:
        run_program([program, str(pid), *userns.words(ranges)], timeout_s=_TIMEOUT_S)
    except NotSupported:
        raise NotSupported(f"{program} is not installed: without it only one id can be mapped") from None
    except ProcessFailed as err:
        wanted = ", ".join(f"{each.host_id}+{each.size}" for each in ranges)
        raise NotSupported(f"{program} does not grant {wanted}: see {table} for user {os.geteuid()}") from err


def namespace_fd(ids: IdMap, held: int) -> int:
    """Return a descriptor of a new user namespace with the map `ids` and no process in it."""
    release_fd, hold_fd = os.pipe()
    try:
        pid, pidfd = process.clone3(CloneFlag.NEWUSER)
        if pid == 0:
            try:
                os.close(hold_fd)
                os.read(release_fd, 1)  # until the parent lets go, or ends
            finally:
                os._exit(0)
        try:
            write(pid, ids, held)
            return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        finally:
            process.pidfd_send_signal(pidfd, signal.SIGKILL)
            os.waitpid(pid, 0)
            os.close(pidfd)
    finally:
        os.close(release_fd)
        os.close(hold_fd)
