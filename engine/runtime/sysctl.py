"""Which sysctls a container may set: those of a namespace that is not the host's; pure.

The rest of /proc/sys is the machine's, and whoever sets that owns the machine
(CVE-2022-0811).

Source: OCI runtime-spec 1.2.0, config-linux.md, "Sysctl"; ipc_namespaces(7),
network_namespaces(7), uts_namespaces(7), user_namespaces(7).
"""

from engine.base.errors import InvalidArgument
from engine.kernel.process import CloneFlag

_IPC_NAMES = "msgmax msgmnb msgmni sem shmall shmmax shmmni shm_rmid_forced"
_IPC = frozenset(f"kernel/{name}" for name in _IPC_NAMES.split())
_TREES = {"net": CloneFlag.NEWNET, "user": CloneFlag.NEWUSER, "fs/mqueue": CloneFlag.NEWIPC}
_NAMES = {
    CloneFlag.NEWNET: "network",
    CloneFlag.NEWIPC: "ipc",
    CloneFlag.NEWUTS: "uts",
    CloneFlag.NEWUSER: "user",
}
_SIGNS = "_-.@:"  # besides letters and digits: interfaces have files, too
_VALUE_MAX = 4095


def file_of(key: str) -> str:
    """Return the file of a sysctl below /proc/sys; dots and slashes are swapped when the key has slashes.

    Raises:
        InvalidArgument: it is no key.
    """
    names = key.split("/") if "/" in key else key.split(".")
    if len(names) < 2 or not all(_is_plain(name) for name in names):  # noqa: PLR2004 (a directory and a file)
        raise InvalidArgument(f"invalid sysctl: {key!r}")
    return "/".join(names)


def _is_plain(name: str) -> bool:
    signs = name.isascii() and all(sign.isalnum() or sign in _SIGNS for sign in name)
    return signs and name not in ("", ".", "..")


def kind_of(file: str) -> CloneFlag:
    """Return the kind of namespace that the sysctl `file` belongs to; none for the machine's."""
    if file in _IPC:
        return CloneFlag.NEWIPC
    if file == "kernel/domainname":
        return CloneFlag.NEWUTS
    return next((kind for tree, kind in _TREES.items() if file.startswith(f"{tree}/")), CloneFlag.NONE)


def check(key: str, value: str, *, own: CloneFlag, domainname: str = "") -> str:
    """Return the file of `key`, which a container with namespaces `own` may set to `value`.

    Raises:
        InvalidArgument: it may not, or one of them is malformed.
    """
    file = file_of(key)
    if len(value) > _VALUE_MAX or not all(letter.isprintable() or letter == "\t" for letter in value):
        raise InvalidArgument(f"sysctl {key}: the value is not one line of text")
    if file == "kernel/hostname":
        raise InvalidArgument(f"sysctl {key}: set hostname instead")
    kind = kind_of(file)
    if kind is CloneFlag.NONE:
        raise InvalidArgument(f"sysctl {key} is not in a namespace: it is the whole machine's")
    if not own & kind:
        raise InvalidArgument(f"sysctl {key}: the container shares the {_NAMES[kind]} namespace of the host")
    if kind is CloneFlag.NEWUTS and domainname not in ("", value):
        raise InvalidArgument(f"sysctl {key}: domainname says otherwise: {domainname!r}")
    return file
