from pathlib import Path

import pytest

from engine.base.errors import NotSupported
from engine.kernel.cgroup import Hierarchies, unified_path
from engine.runtime.cgroups import place
from engine.runtime.cgroups.none import NoCgroup
from engine.runtime.cgroups.plan import components
from engine.runtime.documents import first_spec, rootless
from engine.spec.runtime import (
    DeviceRule,
    IdMapping,
    Linux,
    Memory,
    Mount,
    Namespace,
    NamespaceType,
    Pids,
    Process,
    Resources,
    Spec,
    User,
)

UNIFIED = Hierarchies(Path("/sys/fs/cgroup"), {})
GROUP, USERS = Namespace(type=NamespaceType.CGROUP), Namespace(type=NamespaceType.USER)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("0::/user.slice/session-1.scope\n", "/user.slice/session-1.scope"),
        ("1:name=systemd:/elsewhere\n0::/init.scope\n", "/init.scope"),
        ("0::/\n", "/"),
        ("4:pids:/user\n", "/"),
    ],
)
def test_where_a_process_is_in_cgroup2(text: str, path: str) -> None:
    assert unified_path(text) == path


def spec(*spaces: Namespace, uid: int = 0, options: tuple[str, ...] = (), kind: str = "cgroup") -> Spec:
    ids = (IdMapping(container_id=0, host_id=100000, size=1000),) if USERS in spaces else ()
    return Spec(
        oci_version="1.2.0",
        process=Process(cwd="/", args=("true",), user=User(uid=uid)),
        mounts=(Mount(destination="/sys/fs/cgroup/", type=kind, options=options),),
        linux=Linux(namespaces=spaces, uid_mappings=ids, gid_mappings=ids),
    )


@pytest.mark.parametrize(
    ("found", "owner"),
    [
        (spec(GROUP, USERS), 100000),
        (spec(GROUP, USERS, uid=5), 100005),
        (spec(GROUP, uid=5, kind="cgroup2"), 5),
        (spec(GROUP, USERS, options=("nosuid", "ro")), None),
        (spec(USERS), None),
        (spec(Namespace(type=NamespaceType.CGROUP, path="/n"), USERS), None),
        (spec(GROUP, USERS, kind="tmpfs"), None),
        (spec(GROUP, Namespace(type=NamespaceType.USER, path="/n"), kind="tmpfs"), None),
    ],
)
def test_a_group_is_given_to_who_sees_it_alone_and_may_write(found: Spec, owner: int | None) -> None:
    assert place.owner_of(found) == owner


def test_no_group_takes_devices_and_empty_limits_only() -> None:
    group = NoCgroup(UNIFIED)

    assert group.create(Resources(devices=(DeviceRule(allow=False),), memory=Memory())) == []
    for limited in (Resources(pids=Pids(limit=3)), Resources(unified={"memory.high": "1"})):
        with pytest.raises(NotSupported, match="cannot be limited"):
            group.create(limited)


def test_systemds_notation_is_refused_with_the_next_step() -> None:
    with pytest.raises(
        NotSupported, match=r"'system\.slice:docker:web': control groups are not asked"
    ) as told:
        components("system.slice:docker:web")

    assert "cgroupfs" in told.value.hint


def test_a_config_of_an_unprivileged_user_leaves_the_group_alone() -> None:
    assert place.owner_of(rootless(first_spec(), 1000, 1000)) is None
