"""Which control group a container gets, and to whom it is given.

Source: OCI runtime-spec 1.2.0, config-linux.md, "Cgroup ownership"; Linux
admin-guide, cgroup-v2.rst, "Delegation".
"""

import os

from engine.kernel import process
from engine.kernel.cgroup import unified_path
from engine.runtime import userns
from engine.runtime.cgroups.select import mounted
from engine.spec.runtime import NamespaceType, Spec

_MOUNT = "/sys/fs/cgroup"
_TYPES = frozenset({"cgroup", "cgroup2"})


def path_of(asked: str, container_id: str) -> str:
    """Return the control group of a container: what `asked`, of its spec, says; "" is none at all.

    Without a wish it is `/pyengine/ID`. To an unprivileged user, and to the root of a user namespace,
    that is closed: theirs is beside their own, where that place is delegated to them.
    """
    if asked or process.is_host_root():
        return asked or f"/pyengine/{container_id}"
    if not mounted().is_unified:
        return ""
    with open("/proc/self/cgroup", "rb") as file:
        # Above its own, which has a process: such a group cannot have controllers for others below.
        parent = os.path.dirname(unified_path(file.read().decode()))
    directory = f"{mounted().unified}{parent}"
    delegated = all(os.access(f"{directory}/{name}", os.W_OK) for name in ("", "cgroup.procs"))
    return os.path.join(parent, f"pyengine-{container_id}") if delegated else ""


def owner_of(spec: Spec) -> int | None:
    """Return the host's user who may divide the container's control group further; None for nobody; pure.

    It is the container's own user, where the container sees its group and nothing above, and may write there.
    """
    own = any(space.type is NamespaceType.CGROUP and not space.path for space in spec.linux.namespaces)
    writable = any(
        mount.type in _TYPES and os.path.normpath(mount.destination) == _MOUNT and "ro" not in mount.options
        for mount in spec.mounts
    )
    if not own or not writable or spec.process is None:
        return None
    users = [space for space in spec.linux.namespaces if space.type is NamespaceType.USER]
    if not users:
        return spec.process.user.uid
    return userns.host_id(spec.process.user.uid, spec.linux.uid_mappings)
