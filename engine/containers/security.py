"""What a container may do by default, and how a request changes it; pure.

`strict` is podman's eleven capabilities, `compat` docker's fourteen. One
function computes the sets of a run and of an exec, so that they never differ.

Source: capabilities(7); SECURITY notes in the package README.
"""

import enum
from collections.abc import Iterable, Sequence

from engine.base.errors import InvalidArgument, NotSupported
from engine.kernel.capabilities import NAMES, last_capability
from engine.spec.docker import HostConfig
from engine.spec.runtime import Capabilities, DeviceRule


class Mode(enum.StrEnum):
    """How strict the defaults are."""

    STRICT = "strict"
    COMPAT = "compat"


_STRICT = "CHOWN DAC_OVERRIDE FOWNER FSETID KILL NET_BIND_SERVICE SETFCAP SETGID SETPCAP SETUID SYS_CHROOT"
_COMPAT = f"{_STRICT} AUDIT_WRITE MKNOD NET_RAW"
STRICT_PIDS_LIMIT = 4096

_DEVICES = ((1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 2))  # null zero full random urandom tty ptmx
_PTS_MAJOR = 136


def capabilities(mode: Mode, host: HostConfig) -> tuple[str, ...]:
    """Return the names of what a container with `host` holds.

    Raises:
        InvalidArgument: an unknown capability; docker's words.
    """
    known = NAMES[: last_capability() + 1]
    if host.privileged:
        return known
    added = _normalized(host.cap_add or (), "CapAdd")
    dropped = _normalized(host.cap_drop or (), "CapDrop")
    defaults = [f"CAP_{name}" for name in (_STRICT if mode is Mode.STRICT else _COMPAT).split()]
    held = set(known if "ALL" in added else defaults)
    if "ALL" in dropped:
        held = held if "ALL" in added else set()
    held = (held - set(dropped)) | (set(added) - {"ALL"})
    return tuple(name for name in known if name in held)


def _normalized(names: Iterable[str], noun: str) -> list[str]:
    result = []
    for name in names:
        upper = name.upper()
        if upper != "ALL" and not upper.startswith("CAP_"):
            upper = f"CAP_{upper}"
        if upper != "ALL" and upper not in NAMES:
            raise InvalidArgument(f"invalid {noun}: unknown capability: {name!r}")
        result.append(upper)
    return result


def sets(held: Sequence[str], uid: int) -> Capabilities:
    """Return the five sets: inheritable and ambient stay empty; only root has effective ones."""
    names = tuple(held)
    own = names if uid == 0 else ()
    return Capabilities(bounding=names, effective=own, permitted=own)


class SecurityOptions:
    """The parsed `SecurityOpt` of a request."""

    def __init__(self, options: Sequence[str]) -> None:
        """Read docker's strings.

        Raises:
            NotSupported: an option that this engine does not act on, by name.
        """
        self.no_new_privileges = False
        self.seccomp = True
        for option in options:
            self._read(option)

    def _read(self, option: str) -> None:
        key, _, value = (
            option.replace(":", "=", 1).partition("=") if "=" not in option else option.partition("=")
        )
        if key == "no-new-privileges" and value in {"", "true", "false"}:
            self.no_new_privileges = value != "false"
        elif key == "seccomp" and value == "unconfined":
            self.seccomp = False
        elif key == "seccomp" and value not in {"builtin", ""}:
            raise NotSupported("seccomp: profiles of one's own are not supported; use unconfined or builtin")
        elif (key, value) not in {("seccomp", "builtin"), ("apparmor", "unconfined"), ("label", "disable")}:
            raise NotSupported(f"security option {option!r} is not supported")


def device_rules(mode: Mode) -> tuple[DeviceRule, ...]:
    """Return what the device cgroup allows everybody: the nodes that each container gets."""
    rules = [DeviceRule(allow=False, access="rwm")]
    if mode is Mode.COMPAT:  # docker lets MKNOD make any node, and open none
        rules += [DeviceRule(allow=True, type=kind, access="m") for kind in ("c", "b")]
    rules += [
        DeviceRule(allow=True, type="c", major=major, minor=minor, access="rwm") for major, minor in _DEVICES
    ]
    rules.append(DeviceRule(allow=True, type="c", major=_PTS_MAJOR, access="rwm"))
    return tuple(rules)
