"""Which layout this machine has, asked once a process."""

import functools

from engine.base.errors import NotSupported
from engine.kernel.cgroup import Hierarchies, hierarchies
from engine.runtime.cgroups.model import Cgroup
from engine.runtime.cgroups.none import NoCgroup
from engine.runtime.cgroups.plan import components
from engine.runtime.cgroups.v1 import LegacyCgroup
from engine.runtime.cgroups.v2 import UnifiedCgroup


@functools.cache
def mounted() -> Hierarchies:
    """Return the hierarchies; remembered, as parsing mountinfo costs more than all else here."""
    return hierarchies()


def cgroup_at(path: str, where: Hierarchies | None = None) -> Cgroup:
    """Return the control group `path`, which need not exist; "" is none at all.

    Raises:
        NotSupported: no control groups are mounted, or `path` is in systemd's notation.
        InvalidArgument: `path` climbs.
    """
    where = where or mounted()
    if not path:
        return NoCgroup(where)
    names = components(path)
    if where.legacy:
        return LegacyCgroup(where, names)
    if where.unified is None:
        raise NotSupported("no control groups are mounted", hint="mount cgroup2 at /sys/fs/cgroup")
    return UnifiedCgroup(where.unified, names)
