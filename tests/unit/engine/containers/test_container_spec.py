from pathlib import Path
from typing import Any

import pytest

from engine.containers import spec
from engine.containers.users import Identity
from engine.spec.runtime import Memory, Mount, Spec
from tests.support.definitions import definition

ETC = {f"/etc/{name}": Path("/host") / name for name in ("hostname", "hosts", "resolv.conf")}


def planned(*mounts: Mount, init: Path | None = None, **body: Any) -> Spec:
    launch = spec.Launch(
        rootfs=Path("/rootfs"),
        identity=Identity(0, 0, (), "/root"),
        netns_path=Path("/netns"),
        etc=ETC,
        mounts=mounts,
        init=init,
    )
    return spec.plan(definition(**body), launch)


def bind(destination: str) -> Mount:
    return spec.user_mount(destination, "bind", "/source", ("rbind",))


def test_an_outer_mount_does_not_hide_an_inner_one() -> None:
    order = [mount.destination for mount in planned(bind("/x/y"), bind("/etc"), bind("/x")).mounts]

    assert order.index("/x") < order.index("/x/y")
    assert order.index("/etc") < order.index("/etc/hosts")


@pytest.mark.parametrize("body", [{}, {"HostConfig": {"IpcMode": "host"}}])
def test_a_mount_of_the_users_replaces_the_default_one(body: dict[str, Any]) -> None:
    found = [mount for mount in planned(bind("/dev/shm"), **body).mounts if mount.destination == "/dev/shm"]

    assert [mount.source for mount in found] == ["/source"]


def test_without_ipc_there_is_no_shared_memory() -> None:
    mounts = planned(HostConfig={"IpcMode": "none"}).mounts

    assert "/dev/shm" not in {mount.destination for mount in mounts}


def memory_of(**host: Any) -> Memory | None:
    resources = planned(HostConfig=host).linux.resources
    assert resources is not None
    return resources.memory


def test_swappiness_alone_is_a_limit_too() -> None:
    assert memory_of(MemorySwappiness=10) == Memory(swappiness=10)
    assert memory_of(MemorySwappiness=-1) is None


def test_init_comes_before_the_command() -> None:
    plan = planned(init=Path("/host/tini"))

    assert plan.process is not None
    assert plan.process.args == ("/sbin/docker-init", "--", "sh")
    [mount] = [mount for mount in plan.mounts if mount.destination == "/sbin/docker-init"]
    assert (mount.source, "ro" in mount.options) == ("/host/tini", True)
