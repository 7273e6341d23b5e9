"""The ids of a user namespace: what may be mapped, and what the kernel is told; pure.

Source: OCI runtime-spec 1.2.0, config-linux.md, "User namespace mappings"; user_namespaces(7).
"""

from collections.abc import Sequence
from itertools import pairwise

import msgspec

from engine.base.errors import InvalidArgument
from engine.spec.runtime import IdMapping, Process

_IDS = (1 << 32) - 1  # the last number is no id
_RANGES_MAX = 340


class IdMap(msgspec.Struct, frozen=True):
    """Which ids of the container are which of the host."""

    uids: tuple[IdMapping, ...]
    gids: tuple[IdMapping, ...]


def id_map(uids: Sequence[IdMapping], gids: Sequence[IdMapping], where: str) -> IdMap:
    """Return the map of two lists of ranges that `where`, such as `linux`, has.

    Raises:
        InvalidArgument: one is empty, or has ranges that are none or overlap.
    """
    _check(uids, f"{where}.uidMappings")
    _check(gids, f"{where}.gidMappings")
    return IdMap(tuple(uids), tuple(gids))


def _check(ranges: Sequence[IdMapping], what: str) -> None:
    if not ranges:
        raise InvalidArgument(f"{what} is empty")
    if len(ranges) > _RANGES_MAX:
        raise InvalidArgument(f"{what} has {len(ranges)} ranges, more than the {_RANGES_MAX} of the kernel")
    for each in ranges:
        first = (each.container_id, each.host_id)
        if each.size <= 0 or min(first) < 0 or max(first) + each.size > _IDS:
            text = f"{each.container_id} {each.host_id} {each.size}"
            raise InvalidArgument(f"{what}: no range of ids: {text}")
    for side in ("container_id", "host_id"):
        inside = sorted((getattr(each, side), each.size) for each in ranges)
        for (first, size), (second, _) in pairwise(inside):
            if first + size > second:
                raise InvalidArgument(f"{what}: two ranges have {side.replace('_id', 'ID')} {second}")


def text(ranges: Sequence[IdMapping]) -> str:
    """Return what is written to uid_map or gid_map."""
    return "".join(f"{each.container_id} {each.host_id} {each.size}\n" for each in ranges)


def words(ranges: Sequence[IdMapping]) -> list[str]:
    """Return what newuidmap or newgidmap is told after the process id."""
    return text(ranges).split()


def host_id(number: int, ranges: Sequence[IdMapping]) -> int | None:
    """Return what the id `number` of the container is on the host; None for nothing."""
    for each in ranges:
        if each.container_id <= number < each.container_id + each.size:
            return each.host_id + number - each.container_id
    return None


def is_mapped(number: int, ranges: Sequence[IdMapping]) -> bool:
    """Tell whether the container has the id `number`."""
    return host_id(number, ranges) is not None


def check_groups(process: Process, *, set_groups: bool) -> None:
    """Refuse further groups where nobody may set any.

    Raises:
        InvalidArgument: they are asked for.
    """
    if process.user.additional_gids and not set_groups:
        raise InvalidArgument("process.user.additionalGids: a single mapped group leaves no right to set any")


def check_process(process: Process, ids: IdMap) -> None:
    """Refuse ids that the container does not have; root it must have, for it makes the container.

    Raises:
        InvalidArgument: one is not mapped.
    """
    user = process.user
    for number, ranges, what, by in (
        (0, ids.uids, "the container's root", "uidMappings"),
        (0, ids.gids, "the container's root group", "gidMappings"),
        (user.uid, ids.uids, "process.user.uid", "uidMappings"),
        (user.gid, ids.gids, "process.user.gid", "gidMappings"),
        *((gid, ids.gids, "process.user.additionalGids", "gidMappings") for gid in user.additional_gids),
    ):
        if not is_mapped(number, ranges):
            raise InvalidArgument(f"{what}: {number} is not mapped by linux.{by}")


def own_only(ids: IdMap, uid: int, gid: int) -> bool:
    """Tell whether all that is mapped is this very user and group: that needs no privilege."""
    return all(
        len(ranges) == 1 and ranges[0].size == 1 and ranges[0].host_id == own
        for ranges, own in ((ids.uids, uid), (ids.gids, gid))
    )
