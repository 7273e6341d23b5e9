import pytest

from engine.base.errors import InvalidArgument
from engine.containers import mounts

MOUNTINFO = r"""
21 1 8:1 / / rw,relatime - ext4 /dev/root rw
30 21 0:30 / /shared rw shared:7 - tmpfs none rw
31 30 0:31 / /shared/with\040blank rw,nosuid master:7 - tmpfs none rw
32 21 0:32 / /other rw - tmpfs none rw
""".strip()


@pytest.mark.parametrize(
    ("bind", "where"),
    [("/shared-not:/x:shared", "/"), ("/other/a:/x:rslave", "/other"), ("/shared/with blank:/x:shared", "")],
)
def test_a_mount_that_the_host_keeps_to_itself_cannot_be_shared(bind: str, where: str) -> None:
    point = mounts.parse_bind(bind)

    with pytest.raises(InvalidArgument, match=f"is mounted on {where}.* but it is not a shared"):
        mounts.check_propagation(point, point.source, MOUNTINFO)


@pytest.mark.parametrize(
    "bind",
    ["/a:/x", "/a:/x:rprivate", "/shared/a:/x:rshared", "/shared:/x:slave", "/shared/with blank:/x:slave"],
)
def test_other_mounts_propagate_as_asked(bind: str) -> None:
    point = mounts.parse_bind(bind)

    mounts.check_propagation(point, point.source, MOUNTINFO)
