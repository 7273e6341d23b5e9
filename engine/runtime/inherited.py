"""Descriptors that a container is given besides its streams: `--preserve-fds`, socket activation.

They keep their numbers, from 3 up. Sockets of LISTEN_FDS are the first of them, if LISTEN_PID says
that they are for this process; the container is told of those, as they are for its first process then.

To be looked for before this process opens anything of its own.

Source: runc(8), "--preserve-fds"; sd_listen_fds(3).
"""

import fcntl
import os
import resource
from collections.abc import Callable, Mapping

import msgspec

from engine.base.errors import InvalidArgument
from engine.spec.runtime import Spec

_FIRST = 3
_DIGITS_MAX = 6


class Given(msgspec.Struct, frozen=True):
    """What is there: the descriptors, and how many sockets are the first of them."""

    numbers: tuple[int, ...]
    sockets: int


def given(preserve: int, environment: Mapping[str, str], warn: Callable[[str], None]) -> Given:
    """Return the descriptors that are to be passed on; of those that are not open `warn` is told.

    Raises:
        InvalidArgument: `preserve` is negative.
    """
    if preserve < 0:
        raise InvalidArgument(f"--preserve-fds: negative: {preserve}")
    sockets = sockets_of(environment, os.getpid())
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    asked = range(_FIRST, _FIRST + min(preserve + sockets, limit))
    found = tuple(number for number in asked if _is_open(number))
    if len(found) < preserve + sockets:
        missing = next(number for number in (*asked, limit) if number not in found)
        warn(f"of {preserve + sockets} descriptors to preserve {len(found)} are open: not so {missing}")
    return Given(found, sockets)


def sockets_of(environment: Mapping[str, str], pid: int) -> int:
    """Return how many sockets the process `pid` was activated with; pure."""
    count = environment.get("LISTEN_FDS", "")
    if environment.get("LISTEN_PID") != str(pid) or not count.isdecimal() or len(count) > _DIGITS_MAX:
        return 0
    return int(count)


def told(spec: Spec, found: Given) -> Spec:
    """Return `spec` with the first process told of its sockets; pure."""
    if not found.sockets or spec.process is None:
        return spec
    env = (*spec.process.env, f"LISTEN_FDS={found.sockets}", "LISTEN_PID=1")
    return msgspec.structs.replace(spec, process=msgspec.structs.replace(spec.process, env=env))


def _is_open(number: int) -> bool:
    try:
        fcntl.fcntl(number, fcntl.F_GETFD)
    except OSError:
        return False
    return True
