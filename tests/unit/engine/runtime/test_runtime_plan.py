from pathlib import Path
from typing import Any

import msgspec
import pytest

from engine.base.errors import InvalidArgument, NotSupported
from engine.kernel import capabilities
from engine.kernel.mount import MountAttr
from engine.kernel.process import CloneFlag
from engine.runtime.changeroot import RootChange
from engine.runtime.options import parse_options
from engine.runtime.plan import ContainerPlan, plan_container
from engine.runtime.rootfs import clean, plan, split_lowerdir
from engine.runtime.userns import id_map
from engine.spec.runtime import (
    Capabilities,
    ConsoleSize,
    Device,
    Hook,
    Hooks,
    IdMapping,
    Linux,
    Mount,
    Namespace,
    NamespaceType,
    Process,
    Rlimit,
    Root,
    Spec,
    TimeOffset,
)

SPEC = Spec(
    oci_version="1.2.0",
    process=Process(cwd="/", args=("true",)),
    root=Root(path="rootfs"),
    linux=Linux(namespaces=(Namespace(type=NamespaceType.MOUNT), Namespace(type=NamespaceType.PID))),
)


_HELD = (1 << 41) - 1 & ~(1 << capabilities.NUMBERS["CAP_SYS_RESOURCE"])


def _plan(spec: Spec) -> ContainerPlan:
    return plan_container(spec, Path("/bundle"), "id", layers=(), last_capability=40, held_capabilities=_HELD)


def _linux(**changes: Any) -> Spec:
    return msgspec.structs.replace(SPEC, linux=msgspec.structs.replace(SPEC.linux, **changes))


def _timed(offsets: dict[str, TimeOffset]) -> Spec:
    spaces = (*SPEC.linux.namespaces, Namespace(type=NamespaceType.TIME))
    return _linux(namespaces=spaces, time_offsets=offsets)


def _process(**changes: Any) -> Spec:
    assert SPEC.process is not None
    return msgspec.structs.replace(SPEC, process=msgspec.structs.replace(SPEC.process, **changes))


def test_a_plain_container() -> None:
    made = _plan(SPEC)

    assert made.new_namespaces == CloneFlag.NEWNS | CloneFlag.NEWPID
    assert made.root_path == "/bundle/rootfs"
    assert made.first.filter is None


def test_a_control_group_namespace_is_left_to_init() -> None:
    spaces = (*SPEC.linux.namespaces, Namespace(type=NamespaceType.CGROUP))

    made = _plan(_linux(namespaces=spaces))

    assert made.own_cgroup_namespace
    assert not made.new_namespaces & CloneFlag.NEWCGROUP


def test_namespaces_to_join() -> None:
    spaces = (
        Namespace(type=NamespaceType.MOUNT),
        Namespace(type=NamespaceType.NETWORK, path="/n"),
        Namespace(type=NamespaceType.PID, path="/p"),
    )

    made = _plan(_linux(namespaces=spaces))

    assert made.joined == ((CloneFlag.NEWNET, "/n"),)
    assert made.pid_namespace == "/p"
    assert not made.own_network


@pytest.mark.parametrize(
    "spec",
    [
        msgspec.structs.replace(SPEC, process=None),
        msgspec.structs.replace(SPEC, root=None),
        _process(args=()),
        _process(cwd="relative"),
        _process(args=("a\0b",)),
        _process(rlimits=(Rlimit(type="RLIMIT_NO", hard=1, soft=1),)),
        _process(rlimits=(Rlimit(type="RLIMIT_NOFILE", hard=1, soft=2),)),
        _process(
            rlimits=(Rlimit(type="RLIMIT_CPU", hard=1, soft=1), Rlimit(type="RLIMIT_CPU", hard=1, soft=1))
        ),
        _process(oom_score_adj=5000),
        msgspec.structs.replace(SPEC, domainname="d"),
        msgspec.structs.replace(
            _linux(
                sysctl={"kernel.domainname": "other"},
                namespaces=(*SPEC.linux.namespaces, Namespace(type=NamespaceType.UTS)),
            ),
            domainname="d",
        ),
        _linux(time_offsets={"boottime": TimeOffset(secs=1)}),
        _timed({"realtime": TimeOffset(secs=1)}),
        _timed({"boottime": TimeOffset(nanosecs=10**9)}),
        _timed({"monotonic": TimeOffset(secs=1 << 62)}),
        _process(console_size=ConsoleSize(height=1, width=65536)),
        _linux(namespaces=(Namespace(type=NamespaceType.MOUNT), Namespace(type=NamespaceType.MOUNT))),
        _linux(devices=(Device(path="/dev/x", type="q"),)),
        _linux(masked_paths=("/proc/../..",)),
        _linux(sysctl={"net..x": "1"}),
        _linux(sysctl={"net.ipv4.ip_forward": "1"}),
        _linux(devices=(Device(path="dev/x", type="c"),)),
        _linux(devices=(Device(path="/dev/x", type="p"), Device(path="/dev//x", type="p"))),
        _linux(devices=(Device(path="/dev/x", type="c", major=4096),)),
        _linux(devices=(Device(path="/dev/x", type="c", minor=-1),)),
        _linux(devices=(Device(path="/dev/x", type="c", file_mode=1 << 16),)),
        _linux(devices=(Device(path="/dev/x", type="c", uid=-1),)),
        _linux(devices=(Device(path="/dev/x", type="c", gid=1 << 32),)),
        msgspec.structs.replace(SPEC, hostname="h"),
        msgspec.structs.replace(SPEC, hooks=Hooks(poststop=(Hook(path="relative"),))),
        msgspec.structs.replace(SPEC, hooks=Hooks(prestart=(Hook(path="/x", timeout=0),))),
        msgspec.structs.replace(SPEC, hooks=Hooks(prestart=(Hook(path="/x", args=("a\0",)),))),
        _linux(uid_mappings=(IdMapping(container_id=0, host_id=0, size=1),)),
        _linux(namespaces=(*SPEC.linux.namespaces, Namespace(type=NamespaceType.USER))),
        _linux(namespaces=(), rootfs_propagation="shared"),
        _linux(
            namespaces=(Namespace(type=NamespaceType.USER),),
            uid_mappings=(IdMapping(container_id=0, host_id=0, size=1),),
            gid_mappings=(IdMapping(container_id=0, host_id=0, size=1),),
        ),
    ],
)
def test_contradictions_are_refused(spec: Spec) -> None:
    with pytest.raises(InvalidArgument):
        _plan(spec)


@pytest.mark.parametrize(
    "spec",
    [
        msgspec.structs.replace(SPEC, oci_version="2.0.0"),
        _process(apparmor_profile="p"),
    ],
)
def test_what_is_not_done_is_refused_by_name(spec: Spec) -> None:
    with pytest.raises(NotSupported):
        _plan(spec)


def test_capabilities_that_the_engine_lacks_are_left_out_with_a_warning() -> None:
    wanted = Capabilities(
        bounding=capabilities.NAMES, effective=capabilities.NAMES, permitted=capabilities.NAMES
    )

    masks = _plan(_process(capabilities=wanted)).first.masks

    assert masks.effective == masks.permitted == _HELD
    assert masks.inheritable == masks.ambient == 0
    assert masks.warnings == ("capabilities left out, the engine has none of them itself: CAP_SYS_RESOURCE",)


def test_a_limit_that_no_count_reaches_is_none() -> None:
    limits = [
        _plan(_process(rlimits=(Rlimit(type="RLIMIT_NOFILE", hard=hard, soft=3),))).first.rlimits
        for hard in ((1 << 63) - 1, 1 << 63, (1 << 64) - 1)
    ]

    assert limits == [((7, 3, (1 << 63) - 1),), ((7, 3, -1),), ((7, 3, -1),)]


def test_offsets_of_a_new_time_namespace_become_lines() -> None:
    made = _plan(_timed({"monotonic": TimeOffset(secs=-5, nanosecs=7)}))

    assert made.time_offsets == b"monotonic -5 7\n"
    assert not made.new_namespaces & CloneFlag.NEWTIME
    assert _plan(_timed({})).time_offsets == b""
    assert _plan(SPEC).time_offsets is None


def test_an_unknown_capability_is_left_out_with_a_warning() -> None:
    made = _plan(_process(capabilities=Capabilities(bounding=("CAP_UNKNOWN", "CAP_CHOWN"))))

    assert made.first.masks.bounding == 1
    assert made.first.masks.warnings == ("unknown capability left out: 'CAP_UNKNOWN'",)


def test_a_host_name_may_be_set_in_a_uts_namespace_that_is_joined() -> None:
    spaces = (*SPEC.linux.namespaces, Namespace(type=NamespaceType.UTS, path="/uts"))

    made = _plan(msgspec.structs.replace(_linux(namespaces=spaces), hostname="h"))

    assert made.hostname == "h"


def test_a_sysctl_becomes_a_file() -> None:
    spaces = (*SPEC.linux.namespaces, Namespace(type=NamespaceType.NETWORK))
    wanted = {"net.ipv4.ip_forward": "1", "net/ipv4/conf/eth0.1/rp_filter": "0"}

    made = _plan(_linux(namespaces=spaces, sysctl=wanted))

    assert made.sysctl == {"net/ipv4/ip_forward": "1", "net/ipv4/conf/eth0.1/rp_filter": "0"}


@pytest.mark.parametrize(
    "mount",
    [
        Mount(destination="/", type="tmpfs"),
        Mount(destination="/a/../..", type="tmpfs"),
        Mount(destination="/proc", type="tmpfs"),
        Mount(destination="/proc/self/attr", type="bind", source="/x"),
        Mount(destination="/data"),
        Mount(destination="/data", type="bind", source="/x", options=("tmpcopyup",)),
        Mount(destination="/data", type="tmpfs", options=("tmpcopyup", "remount")),
    ],
)
def test_mounts_that_would_break_the_container_are_refused(mount: Mount) -> None:
    with pytest.raises(InvalidArgument):
        plan([mount])


def test_options_of_a_file_system_are_left_out_of_a_bind_mount_with_a_warning() -> None:
    bind = Mount(destination="/data", type="bind", source="/x", options=("ro", "mode=755", "sync"))
    made = _plan(msgspec.structs.replace(SPEC, mounts=(bind, Mount(destination="/t", type="tmpfs"))))

    assert made.warnings == ("mount /data: a bind mount has no file system options: mode=755,sync",)


@pytest.mark.parametrize("word", ["idmap=uids=0-1-10", "ridmap=gids=0-1-10"])
def test_ids_that_are_mapped_in_cruns_way_are_not_lost(word: str) -> None:
    with pytest.raises(NotSupported, match=r"mount /data: option r?idmap= is crun's own"):
        plan([Mount(destination="/data", type="bind", source="/x", options=(word,))])


def test_how_the_root_is_made_one() -> None:
    shared = _plan(_linux(namespaces=(Namespace(type=NamespaceType.PID),)))
    moved = plan_container(
        SPEC, Path("/bundle"), "id", layers=(), last_capability=40, held_capabilities=_HELD, pivot=False
    )

    assert _plan(SPEC).root_change is RootChange.PIVOT
    assert moved.root_change is RootChange.MOVE
    assert shared.root_change is RootChange.CHROOT
    assert not shared.new_namespaces & CloneFlag.NEWNS


def test_a_mount_namespace_is_joined_last() -> None:
    spaces = (
        Namespace(type=NamespaceType.MOUNT, path="/m"),
        Namespace(type=NamespaceType.NETWORK, path="/n"),
        Namespace(type=NamespaceType.UTS, path="/u"),
    )

    made = _plan(_linux(namespaces=spaces))

    assert made.joined == ((CloneFlag.NEWNET, "/n"), (CloneFlag.NEWUTS, "/u"), (CloneFlag.NEWNS, "/m"))
    assert made.root_change is RootChange.CHROOT


def test_of_contradicting_mount_options_the_last_wins() -> None:
    options = parse_options(("ro", "rw", "nosuid", "noatime", "relatime", "rbind", "rslave", "size=1m"))

    assert options.attr_set == MountAttr.NOSUID
    assert options.bind
    assert options.recursive
    assert options.data == (("size", "1m"),)


def test_unsupported_mount_options_are_named() -> None:
    with pytest.raises(NotSupported, match="move"):
        parse_options(("move",))


def test_a_user_namespace_has_its_ids_and_every_capability() -> None:
    ids = (IdMapping(container_id=0, host_id=1000, size=1),)
    names = ("CAP_SYS_RESOURCE",)
    spec = _linux(
        namespaces=(*SPEC.linux.namespaces, Namespace(type=NamespaceType.USER)),
        uid_mappings=ids,
        gid_mappings=ids,
    )
    assert spec.process is not None
    held = Capabilities(bounding=names, effective=names, permitted=names)
    spec = msgspec.structs.replace(spec, process=msgspec.structs.replace(spec.process, capabilities=held))

    made = _plan(spec)

    assert made.new_namespaces & CloneFlag.NEWUSER
    assert made.users is not None
    assert made.users.uids == ids
    assert made.first.masks.effective == 1 << capabilities.NUMBERS["CAP_SYS_RESOURCE"]
    assert made.first.masks.warnings == ()


def test_an_existing_user_namespace_may_tell_its_ids() -> None:
    ids = (IdMapping(container_id=0, host_id=1000, size=1),)
    spaces = (*SPEC.linux.namespaces, Namespace(type=NamespaceType.USER, path="/u"))

    silent = _plan(_linux(namespaces=spaces))
    told = _plan(_linux(namespaces=spaces, uid_mappings=ids, gid_mappings=ids))

    assert (silent.users_path, silent.users, silent.first.own_users) == ("/u", None, True)
    assert told.users == id_map(ids, ids, "linux")
    assert not told.new_namespaces & CloneFlag.NEWUSER
    assert told.joined == ()


def test_a_mounts_ids_are_its_own_or_the_containers() -> None:
    own = (IdMapping(container_id=0, host_id=1, size=1),)
    users = id_map((IdMapping(container_id=0, host_id=2, size=2),) * 1, own, "linux")
    bare = Mount(destination="/data", type="bind", source="/x")
    mapped = msgspec.structs.replace(bare, uid_mappings=own, gid_mappings=own)

    assert plan([bare], users)[0].ids is None
    assert plan([msgspec.structs.replace(bare, options=("idmap",))], users)[0].ids == users
    assert plan([mapped], users)[0].ids == id_map(own, own, "linux")
    for wrong in (
        msgspec.structs.replace(bare, options=("idmap",)),
        msgspec.structs.replace(bare, uid_mappings=own),
        msgspec.structs.replace(mapped, type="tmpfs"),
    ):
        with pytest.raises(InvalidArgument, match="mount /data"):
            plan([wrong])


def test_paths_are_cleaned() -> None:
    assert clean("//a/./b/") == "/a/b"
    with pytest.raises(InvalidArgument):
        clean("/a/../b")


def test_escaped_colons_stay_in_a_layers_name() -> None:
    assert split_lowerdir(r"/a:/b\:c:/d") == ["/a", "/b:c", "/d"]
