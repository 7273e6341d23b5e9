import pytest

from engine.base.errors import InvalidArgument
from engine.runtime.userns import (
    check_groups,
    check_process,
    host_id,
    id_map,
    is_mapped,
    own_only,
    text,
    words,
)
from engine.spec.runtime import IdMapping, Process, User


def ids(container: int, host: int, size: int) -> IdMapping:
    return IdMapping(container_id=container, host_id=host, size=size)


RANGES = (ids(0, 1000, 1), ids(1, 100_000, 65_536))
MAP = id_map(RANGES, RANGES, "linux")


def test_the_kernel_is_told_in_lines_and_newuidmap_in_words() -> None:
    assert text(RANGES) == "0 1000 1\n1 100000 65536\n"
    assert words(RANGES) == ["0", "1000", "1", "1", "100000", "65536"]


def test_the_whole_range_may_be_mapped() -> None:
    everything = (ids(0, 0, (1 << 32) - 1),)

    assert id_map(everything, everything, "linux").uids == everything


@pytest.mark.parametrize(
    ("ranges", "said"),
    [
        ((), "linux.uidMappings is empty"),
        ((ids(0, 0, 0),), "linux.uidMappings: no range of ids: 0 0 0"),
        ((ids(-1, 0, 1),), "linux.uidMappings: no range of ids: -1 0 1"),
        ((ids(0, 1, (1 << 32) - 1),), "linux.uidMappings: no range of ids: 0 1 4294967295"),
        ((ids(0, 0, 10), ids(9, 100, 1)), "linux.uidMappings: two ranges have containerID 9"),
        ((ids(0, 50, 10), ids(20, 55, 1)), "linux.uidMappings: two ranges have hostID 55"),
        (
            tuple(ids(number, number, 1) for number in range(341)),
            "linux.uidMappings has 341 ranges, more than the 340 of the kernel",
        ),
    ],
)
def test_what_is_no_map_is_refused_by_field(ranges: tuple[IdMapping, ...], said: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        id_map(ranges, RANGES, "linux")
    assert str(caught.value) == said
    with pytest.raises(InvalidArgument, match=r"gidMappings"):
        id_map(RANGES, ranges, "linux")


@pytest.mark.parametrize(
    ("user", "said"),
    [
        (User(uid=65_537), "process.user.uid: 65537 is not mapped by linux.uidMappings"),
        (User(gid=65_537), "process.user.gid: 65537 is not mapped by linux.gidMappings"),
        (
            User(additional_gids=(1, 70_000)),
            "process.user.additionalGids: 70000 is not mapped by linux.gidMappings",
        ),
    ],
)
def test_a_process_has_ids_that_are_mapped(user: User, said: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        check_process(Process(cwd="/", user=user), MAP)
    assert str(caught.value) == said


def test_root_must_be_mapped_for_it_makes_the_container() -> None:
    without = (ids(1, 1000, 10),)

    with pytest.raises(InvalidArgument, match="the container's root: 0 is not mapped"):
        check_process(Process(cwd="/", user=User(uid=1)), id_map(without, without, "linux"))


def test_groups_are_refused_where_nobody_may_set_them() -> None:
    user = User(additional_gids=(1,))

    check_groups(Process(cwd="/", user=user), set_groups=True)
    check_groups(Process(cwd="/", user=User()), set_groups=False)
    with pytest.raises(InvalidArgument, match="additionalGids: a single mapped group"):
        check_groups(Process(cwd="/", user=user), set_groups=False)


@pytest.mark.parametrize(("number", "mapped"), [(0, True), (65_536, True), (65_537, False), (-1, False)])
def test_ends_of_ranges(number: int, mapped: bool) -> None:
    assert is_mapped(number, RANGES) == mapped


@pytest.mark.parametrize(("number", "host"), [(0, 1000), (1, 100_000), (65_536, 165_535), (65_537, None)])
def test_what_an_id_is_on_the_host(number: int, host: int | None) -> None:
    assert host_id(number, RANGES) == host


def test_a_users_own_id_alone_needs_no_privilege() -> None:
    own = (ids(0, 1000, 1),)

    assert own_only(id_map(own, own, "linux"), 1000, 1000)
    assert not own_only(id_map(own, own, "linux"), 1000, 1001)
    assert not own_only(MAP, 1000, 1000)
