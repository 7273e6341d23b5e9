"""What `features` claims is what the plan accepts: all of it, and nothing beside it."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from engine.base.errors import EngineError, NotSupported
from engine.runtime import arguments, commands
from engine.runtime.features import features
from engine.runtime.plan import plan_container, plan_process
from engine.spec.runtime import (
    Capabilities,
    Hook,
    Hooks,
    IdMapping,
    Linux,
    Mount,
    Namespace,
    NamespaceType,
    Process,
    Root,
    Seccomp,
    SeccompArg,
    SeccompRule,
    Spec,
)

DOCUMENT: dict[str, Any] = features(lambda _: True)
LINUX: dict[str, Any] = DOCUMENT["linux"]
IDS = (IdMapping(container_id=0, host_id=1000, size=1),)
PROCESS = Process(cwd="/", args=("true",))
SPEC = Spec(
    oci_version="1.2.0",
    process=PROCESS,
    root=Root(path="rootfs"),
    linux=Linux(namespaces=(Namespace(type=NamespaceType.MOUNT),)),
)


def _accepts(**changes: Any) -> bool:
    """Tell whether a container with these parts of its config.json is accepted; `linux` is merged."""
    linux = msgspec.structs.replace(SPEC.linux, **changes.pop("linux", {}))
    spec = msgspec.structs.replace(SPEC, linux=linux, **changes)
    try:
        plan_container(spec, Path("/b"), "id", layers=(), last_capability=40, held_capabilities=(1 << 41) - 1)
    except EngineError:
        return False
    return True


def _filters(**changes: Any) -> bool:
    return _accepts(
        linux={"seccomp": msgspec.structs.replace(Seccomp(default_action="SCMP_ACT_ALLOW"), **changes)}
    )


def _rule(action: str = "SCMP_ACT_ALLOW", **more: Any) -> tuple[SeccompRule, ...]:
    return (SeccompRule(names=("mkdir",), action=action, **more),)


@pytest.mark.parametrize("version", ["ociVersionMin", "ociVersionMax"])
def test_the_oldest_and_newest_version_are_accepted(version: str) -> None:
    assert _accepts(oci_version=DOCUMENT[version])
    assert not _accepts(oci_version="0.9.0")


def test_namespaces() -> None:
    for kind in NamespaceType:
        spaces = {space.type: space for space in (*SPEC.linux.namespaces, Namespace(type=kind))}
        linux: dict[str, Any] = {"namespaces": tuple(spaces.values())}
        if kind is NamespaceType.USER:
            linux |= {"uid_mappings": IDS, "gid_mappings": IDS}
        assert _accepts(linux=linux) is (kind in LINUX["namespaces"]), kind


def test_hooks() -> None:
    claimed = {field.encode_name: field.name for field in msgspec.structs.fields(Hooks)}
    for kind in DOCUMENT["hooks"]:
        assert _accepts(hooks=Hooks(**{claimed.pop(kind): (Hook(path="/x"),)}))
    assert not claimed


def test_mount_options() -> None:
    def takes(word: str) -> bool:
        mount = Mount(destination="/m", type="tmpfs", options=(word,))
        if word in ("idmap", "ridmap"):
            mount = Mount(
                destination="/m",
                type="bind",
                source="/x",
                options=("bind", word),
                uid_mappings=IDS,
                gid_mappings=IDS,
            )
        return _accepts(mounts=(mount,))

    assert all(takes(word) for word in DOCUMENT["mountOptions"])
    for word in ("idmap", "ridmap", "tmpcopyup", "remount"):
        assert takes(word) is (word in DOCUMENT["mountOptions"]), word


def test_capabilities() -> None:
    def known(name: str) -> bool:
        """Tell whether it is acted on; an unknown one is left out with a warning, config.md."""
        process = msgspec.structs.replace(PROCESS, capabilities=Capabilities(bounding=(name,)))
        made = plan_process(SPEC, process, last_capability=40, held_capabilities=(1 << 41) - 1)
        return bool(made.masks.bounding)

    assert all(known(name) for name in LINUX["capabilities"])
    assert not known("CAP_EVERYTHING")


def test_seccomp() -> None:
    claimed = LINUX["seccomp"]
    assert claimed["enabled"]
    for action in claimed["actions"]:
        assert _filters(syscalls=_rule(action), listener_path="/run/agent"), action
    assert not _filters(syscalls=_rule("SCMP_ACT_MAYBE"))
    for operator in claimed["operators"]:
        assert _filters(syscalls=_rule(args=(SeccompArg(index=0, value=1, op=operator),))), operator
    assert not _filters(syscalls=_rule(args=(SeccompArg(index=0, value=1, op="SCMP_CMP_LIKE"),)))
    assert all(_filters(architectures=(name,)) for name in claimed["archs"])
    assert not _filters(architectures=("SCMP_ARCH_Z80",))
    notify = {"syscalls": _rule("SCMP_ACT_NOTIFY"), "listener_path": "/run/agent"}
    assert all(_filters(flags=(name,), **notify) for name in claimed["knownFlags"])
    assert not _filters(flags=("SECCOMP_FILTER_FLAG_MAGIC",), **notify)
    assert claimed["supportedFlags"] == claimed["knownFlags"]


def test_a_flag_that_the_kernel_lacks_is_known_and_not_supported() -> None:
    found: Any = features(lambda flags: not flags & 32)["linux"]

    missing = set(found["seccomp"]["knownFlags"]) - set(found["seccomp"]["supportedFlags"])
    assert missing == {"SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"}


@pytest.mark.parametrize(
    ("claimed", "changes"),
    [
        (LINUX["intelRdt"]["enabled"], {"linux": {"intel_rdt": {"closID": "x"}}}),
        (LINUX["apparmor"]["enabled"], {"process": msgspec.structs.replace(PROCESS, apparmor_profile="p")}),
        (LINUX["selinux"]["enabled"], {"process": msgspec.structs.replace(PROCESS, selinux_label="l")}),
        (LINUX["selinux"]["enabled"], {"linux": {"mount_label": "l"}}),
        (
            LINUX["mountExtensions"]["idmap"]["enabled"],
            {
                "mounts": (
                    Mount(
                        destination="/m",
                        type="bind",
                        source="/x",
                        options=("bind",),
                        uid_mappings=IDS,
                        gid_mappings=IDS,
                    ),
                )
            },
        ),
    ],
)
def test_what_is_declared_absent_is_refused(claimed: bool, changes: dict[str, Any]) -> None:
    assert _accepts(**changes) is claimed


def test_control_groups_of_systemd_are_declared_absent_and_refused() -> None:
    flags = arguments.parse(["--systemd-cgroup", "features"], "")

    assert not LINUX["cgroup"]["systemd"]
    with pytest.raises(NotSupported):
        commands.refuse_unsupported(flags)
