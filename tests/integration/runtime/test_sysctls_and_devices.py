"""Sysctls and device nodes of a config.json, as the container finds them."""

import os
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from engine.base.errors import EngineError
from engine.spec.runtime import Device, Mount, Namespace, NamespaceType, Spec
from tests.support.shimlab import Lab

pytestmark = pytest.mark.requires("root", "namespaces", "busybox")


def linux(**changes: object) -> Callable[[Spec], Spec]:
    return lambda spec: msgspec.structs.replace(spec, linux=msgspec.structs.replace(spec.linux, **changes))


def run(lab: Lab, script: str, edit: Callable[[Spec], Spec]) -> str:
    return lab.said(script, edit=edit)


def refusal(lab: Lab, edit: Callable[[Spec], Spec]) -> str:
    return lab.refusal(EngineError, edit=edit)


def test_sysctls_of_the_containers_namespaces(lab: Lab) -> None:
    before = Path("/proc/sys/kernel/shmmni").read_text()
    wanted = {"net.ipv4.ip_forward": "1", "kernel.shmmni": "77", "kernel.sem": "250 32000 32 129"}
    script = "cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shmmni /proc/sys/kernel/sem"

    shown = run(lab, script, linux(sysctl=wanted))

    assert shown.split() == ["1", "77", "250", "32000", "32", "129"]
    assert Path("/proc/sys/kernel/shmmni").read_text() == before


@pytest.mark.parametrize("value", ["1+kernel.core_pattern=|/x", "|/x"])
def test_no_value_reaches_another_sysctl(lab: Lab, value: str) -> None:
    before = Path("/proc/sys/kernel/core_pattern").read_text()

    told = refusal(lab, linux(sysctl={"kernel.shm_rmid_forced": value}))

    assert told == "set sysctl kernel/shm_rmid_forced: invalid argument"
    assert Path("/proc/sys/kernel/core_pattern").read_text() == before


def test_the_hosts_namespace_by_its_path_is_still_the_hosts(lab: Lab) -> None:
    def edit(spec: Spec) -> Spec:
        kept = [space for space in spec.linux.namespaces if space.type is not NamespaceType.NETWORK]
        host = Namespace(type=NamespaceType.NETWORK, path=f"/proc/{os.getpid()}/ns/net")
        return linux(namespaces=(*kept, host), sysctl={"net.ipv4.ip_forward": "1"})(spec)

    told = refusal(lab, edit)

    assert told == "sysctl net.ipv4.ip_forward: the network namespace that is joined is the host's"


def test_devices_of_every_type_with_mode_and_owner(lab: Lab) -> None:
    devices = (
        Device(path="/dev/c", type="c", major=10, minor=666, file_mode=0o660, uid=7, gid=8),
        Device(path="/dev/u", type="u", major=10, minor=667, file_mode=0o0157),
        Device(path="/dev/deep/b", type="b", major=8, minor=666, file_mode=0o100640),
        Device(path="/dev/p", type="p", file_mode=0o604, uid=9),
        Device(path="/dev/null", type="c", major=1, minor=3, file_mode=0o600),
    )
    script = "cd /dev; busybox stat -c '%n %a %u:%g %t:%T %F' c u deep/b p null"

    assert run(lab, script, linux(devices=devices)).splitlines() == [
        "c 660 7:8 a:29a character special file",
        "u 157 0:0 a:29b character special file",
        "deep/b 640 0:0 8:29a block special file",
        "p 604 9:0 0:0 fifo",
        "null 600 0:0 1:3 character special file",
    ]


def test_default_devices_and_links(lab: Lab) -> None:
    script = (
        "cd /dev; for d in null zero full random urandom tty; do busybox stat -c '%n %a %t:%T' $d; done;"
        " for l in fd stdin stdout stderr ptmx; do busybox readlink $l; done"
    )

    assert run(lab, script, lambda spec: spec).splitlines() == [
        "null 666 1:3", "zero 666 1:5", "full 666 1:7", "random 666 1:8", "urandom 666 1:9", "tty 666 5:0",
        "/proc/self/fd", "/proc/self/fd/0", "/proc/self/fd/1", "/proc/self/fd/2", "pts/ptmx",
    ]  # fmt: skip


def test_a_dev_that_is_a_bind_is_left_as_it_is(lab: Lab) -> None:
    source = lab.base / "dev"
    (source / "pts").mkdir(parents=True)
    os.mknod(source / "null", 0o20666, os.makedev(1, 3))
    (source / "mine").touch()

    def edit(spec: Spec) -> Spec:
        bound = Mount(destination="/dev", type="bind", source=str(source), options=("rbind",))
        mounts = [bound if mount.destination == "/dev" else mount for mount in spec.mounts]
        return msgspec.structs.replace(spec, mounts=tuple(mounts))

    assert run(lab, "ls /dev", edit).split() == ["mine", "null", "pts"]
    assert sorted(os.listdir(source)) == ["mine", "null", "pts"]


def test_something_else_at_the_place_of_a_device_is_refused(lab: Lab) -> None:
    (lab.rootfs / "data").mkdir()
    (lab.rootfs / "data/node").touch()
    device = Device(path="/data/node", type="c", major=1, minor=3)

    assert refusal(lab, linux(devices=(device,))) == "make device /data/node: something else is there"
