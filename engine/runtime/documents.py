"""What `pyengine-oci` prints: states, tables, a first config.json."""

import os
import pwd
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from engine.base.errors import InvalidArgument
from engine.runtime import defaults
from engine.runtime.store import Container, Status
from engine.spec.runtime import (
    OCI_VERSION,
    Capabilities,
    DeviceRule,
    IdMapping,
    Linux,
    Mount,
    Namespace,
    NamespaceType,
    Process,
    Resources,
    Root,
    Spec,
)

_CAPABILITIES = ("CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE")
_NAMESPACES = ("pid", "network", "ipc", "uts", "mount", "cgroup")
_KNOWN_NAMESPACES = (*_NAMESPACES, "user")


def state_document(container: Container) -> dict[str, object]:
    """Return what `state` prints.

    Source: OCI runtime-spec 1.2.0, runtime.md, "State"; `rootfs`, `created` and `owner` as runc has them.
    """
    status = container.status()
    document: dict[str, object] = {"ociVersion": OCI_VERSION, "id": container.id, "status": str(status)}
    if status is Status.CREATING:
        return document
    found = container.state()
    root = container.spec().root
    created = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(found.created_ns // 10**9))
    return document | {
        "ociVersion": found.oci_version,
        "pid": 0 if status is Status.STOPPED else found.pid,
        "bundle": found.bundle,
        "rootfs": os.path.join(found.bundle, root.path) if root else "",
        "created": f"{created}.{found.created_ns % 10**9:09d}Z",
        "annotations": found.annotations,
        "owner": _owner(container.path),
    }


def _owner(path: Path) -> str:
    uid = path.stat().st_uid
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def list_table(documents: Iterable[dict[str, object]]) -> str:
    """Return the table that `list` prints."""
    keys = ("id", "pid", "status", "bundle", "created", "owner")
    rows = [tuple(str(document.get(key, "")) for key in keys) for document in documents]
    return _table((tuple(key.upper() for key in keys), *rows))


def _table(rows: Sequence[tuple[str, ...]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "".join(f"{line.rstrip()}\n" for line in lines)


def processes_table(listing: str, pids: Iterable[int]) -> str:
    """Return the lines for `pids` of what ps(1) printed, with the head.

    Raises:
        InvalidArgument: no column of it is the process id.
    """
    head, *lines = listing.splitlines() or [""]
    if "PID" not in head.split():
        raise InvalidArgument("ps: its output has no column PID", hint="give options that print it, as -ef")
    column = head.split().index("PID")
    wanted = {str(pid) for pid in pids}
    kept = (line for line in lines if line.split(None, column + 1)[column] in wanted)
    return "".join(f"{line}\n" for line in (head, *kept))


def first_spec() -> Spec:
    """Return what `spec` writes: a shell at a terminal, in `rootfs`."""
    return Spec(
        oci_version=OCI_VERSION,
        process=Process(
            terminal=True,
            args=("sh",),
            env=("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"),
            cwd="/",
            capabilities=Capabilities(
                bounding=_CAPABILITIES, effective=_CAPABILITIES, permitted=_CAPABILITIES
            ),
            no_new_privileges=True,
        ),
        root=Root(path="rootfs", readonly=True),
        hostname="pyengine",
        mounts=(
            Mount(destination="/proc", type="proc", source="proc", options=defaults.SAFE),
            defaults.DEV_MOUNT,
            defaults.PTS_MOUNT,
            Mount(
                destination="/dev/shm",  # noqa: S108 (the container's own)
                type="tmpfs",
                source="shm",
                options=(*defaults.SAFE, "mode=1777", "size=65536k"),
            ),
            Mount(destination="/dev/mqueue", type="mqueue", source="mqueue", options=defaults.SAFE),
            Mount(destination="/sys", type="sysfs", source="sysfs", options=(*defaults.SAFE, "ro")),
            Mount(
                destination="/sys/fs/cgroup",
                type="cgroup",
                source="cgroup",
                options=(*defaults.SAFE, "relatime", "ro"),
            ),
        ),
        linux=Linux(
            resources=Resources(devices=(DeviceRule(allow=False),)),
            namespaces=tuple(Namespace(type=NamespaceType(name)) for name in _NAMESPACES),
            masked_paths=defaults.MASKED_PATHS,
            readonly_paths=defaults.READONLY_PATHS,
        ),
    )


def rootless(spec: Spec, uid: int, gid: int) -> Spec:
    """Return `spec` for the unprivileged user `uid`, whose only ids these are.

    As `runc spec --rootless` has it: the network is the host's, so /sys is too; nothing is limited.
    """
    kept = [mount for mount in spec.mounts if not mount.destination.startswith("/sys")]
    sysfs = Mount(destination="/sys", type="none", source="/sys", options=("rbind", *defaults.SAFE, "ro"))
    mounts = [
        msgspec.structs.replace(
            mount, options=tuple(word for word in mount.options if not word.startswith(("uid=", "gid=")))
        )
        for mount in (*kept, sysfs)
    ]
    spaces = [space for space in spec.linux.namespaces if space.type is not NamespaceType.NETWORK]
    linux = msgspec.structs.replace(
        spec.linux,
        namespaces=(*spaces, Namespace(type=NamespaceType.USER)),
        uid_mappings=(IdMapping(container_id=0, host_id=uid, size=1),),
        gid_mappings=(IdMapping(container_id=0, host_id=gid, size=1),),
        resources=None,
    )
    return msgspec.structs.replace(spec, mounts=tuple(mounts), linux=linux)
