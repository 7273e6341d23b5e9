from pathlib import Path

import pytest

from engine.base.errors import InvalidArgument, NotSupported
from engine.kernel.cgroup import Hierarchies
from engine.kernel.process import in_user_namespace
from engine.runtime.arguments import default_root
from engine.runtime.cgroups.none import NoCgroup, own_directories
from engine.runtime.cgroups.select import cgroup_at
from engine.runtime.documents import first_spec, rootless
from engine.runtime.plan import plan_container
from engine.spec.runtime import NamespaceType

_LEGACY = Hierarchies(
    None,
    {"cpu": Path("/c/cpu"), "cpuacct": Path("/c/cpu,cpuacct"), "pids": Path("/c/pids")},
)


@pytest.mark.parametrize(
    ("user", "environment", "inside", "root"),
    [
        (0, {}, False, "/run/pyengine-oci"),
        (0, {"XDG_RUNTIME_DIR": "/run/user/0"}, False, "/run/pyengine-oci"),
        (1000, {"XDG_RUNTIME_DIR": "/run/user/1000"}, False, "/run/user/1000/pyengine-oci"),
        # Root of a user namespace: a user with more ids, or a container's own.
        (0, {"XDG_RUNTIME_DIR": "/run/user/1000", "USER": "ann"}, True, "/run/user/1000/pyengine-oci"),
        (0, {"XDG_RUNTIME_DIR": "/run/user/1000"}, True, "/run/user/1000/pyengine-oci"),
        (0, {"XDG_RUNTIME_DIR": "/run/user/0", "USER": "root"}, True, "/run/pyengine-oci"),
        (0, {"USER": "ann"}, True, "/run/pyengine-oci"),
    ],
)
def test_where_the_state_of_a_user_is(
    user: int, environment: dict[str, str], inside: bool, root: str
) -> None:
    assert default_root(user, environment, in_user_namespace=inside) == Path(root)


@pytest.mark.parametrize("environment", [{}, {"XDG_RUNTIME_DIR": ""}, {"XDG_RUNTIME_DIR": "run"}])
def test_a_user_without_a_place_for_state(environment: dict[str, str]) -> None:
    with pytest.raises(InvalidArgument, match="XDG_RUNTIME_DIR is not set"):
        default_root(1000, environment, in_user_namespace=False)


@pytest.mark.parametrize(
    ("uid_map", "inside"),
    [
        ("         0          0 4294967295\n", False),
        ("         0       1000          1\n", True),
        ("         0       1000          1\n         1     100000      65536\n", True),
        ("", True),
    ],
)
def test_the_first_user_namespace_is_known_by_its_map(uid_map: str, inside: bool) -> None:
    assert in_user_namespace(uid_map) is inside


def test_a_config_for_an_unprivileged_user_asks_for_nothing_that_needs_root() -> None:
    spec = rootless(first_spec(), 1000, 1001)

    kinds = {space.type for space in spec.linux.namespaces}
    assert NamespaceType.USER in kinds
    assert NamespaceType.NETWORK not in kinds
    assert [each.host_id for each in (*spec.linux.uid_mappings, *spec.linux.gid_mappings)] == [1000, 1001]
    assert spec.linux.resources is None
    assert not [word for mount in spec.mounts for word in mount.options if word.startswith("gid=")]
    assert not [mount for mount in spec.mounts if mount.type in ("sysfs", "cgroup")]
    made = plan_container(spec, Path("/b"), "id", layers=(), last_capability=40, held_capabilities=0)
    assert made.first.masks.warnings == ()


def test_no_control_group_is_said_where_one_is_needed() -> None:
    group = cgroup_at("", _LEGACY)

    assert isinstance(group, NoCgroup)
    assert group.birth_fd() is None
    assert group.signal(9) == 0
    assert not group.is_frozen()
    with pytest.raises(NotSupported, match="no control group"):
        group.processes()
    with pytest.raises(NotSupported, match="no control group"):
        group.freeze(True, timeout_s=1.0)


def test_where_a_process_is_in_each_hierarchy() -> None:
    text = "5:pids:/user.slice/a\n4:cpu:/\n3:name=systemd:/x\n2:cpuacct:/b\n0::/y\n"

    assert own_directories(text, _LEGACY) == {
        "pids": "/c/pids/user.slice/a",
        "cpu": "/c/cpu",
        "cpu,cpuacct": "/c/cpu,cpuacct/b",
    }
