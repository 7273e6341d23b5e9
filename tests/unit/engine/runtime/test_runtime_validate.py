from typing import Any

import msgspec
import pytest

from engine.base.errors import InvalidArgument
from engine.runtime import validate
from engine.runtime.documents import first_spec
from engine.spec.runtime import Cpu, Device, Process, Resources, Spec, User

SPEC = first_spec()


def linux(**changes: Any) -> Spec:
    return msgspec.structs.replace(SPEC, linux=msgspec.structs.replace(SPEC.linux, **changes))


def test_what_spec_writes_is_valid() -> None:
    validate.check(SPEC)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (msgspec.structs.replace(SPEC, hostname="a\0b"), r"hostname: contains NUL: 'a\\x00b'"),
        (msgspec.structs.replace(SPEC, hostname="é" * 33), "hostname: longer than 64 bytes"),
        (msgspec.structs.replace(SPEC, annotations={"a\0": ""}), "annotations: contains NUL"),
        (
            linux(devices=(Device(path="/a", type="c"), Device(path="b", type="c"))),
            r"linux.devices\[1\].path: not",
        ),
        (
            linux(resources=Resources(cpu=Cpu(cpus="0-1,x"))),
            "linux.resources.cpu.cpus: not a list of numbers",
        ),
        (linux(resources=Resources(cpu=Cpu(quota=-2))), "linux.resources.cpu.quota: not within 1000 and"),
        (linux(masked_paths=("/proc/../x",)), r"linux.maskedPaths\[0\]: no '..' may be in it"),
        (linux(rootfs_propagation="rr"), "linux.rootfsPropagation: not a propagation"),
    ],
)
def test_the_field_is_named_as_the_document_has_it(spec: Spec, message: str) -> None:
    with pytest.raises(InvalidArgument, match=f"^{message}"):
        validate.check(spec)


@pytest.mark.parametrize(
    "resources",
    [
        Resources(unified={file: "1"})
        for file in ("memory", ".x", "x.", "a/b.c", "../cgroup.procs", "a. b", "a.b\n", "")
    ],
)
def test_a_file_of_the_control_group_is_one_name(resources: Resources) -> None:
    with pytest.raises(InvalidArgument, match=r"^linux\.resources\.unified: not a file's name"):
        validate.check(resources, "linux.resources")


def test_a_process_has_no_more_groups_than_the_kernel_takes() -> None:
    validate.check(User(additional_gids=(1,) * 65536), "process.user")
    with pytest.raises(InvalidArgument, match=r"^process\.user\.additionalGids: 65537 of them"):
        validate.check(User(additional_gids=(1,) * 65537), "process.user")


@pytest.mark.parametrize("quota", [-1, 0, 1000])
def test_no_limit_has_numbers_of_its_own(quota: int) -> None:
    validate.check(Resources(cpu=Cpu(quota=quota)), "linux.resources")


def test_a_part_of_the_document_is_named_by_where_it_is() -> None:
    process = Process(cwd="/", user=User(additional_gids=(1, -1)))

    with pytest.raises(InvalidArgument, match=r"^process.user.additionalGids\[1\]: not within 0 and"):
        validate.check(process, "process")


def test_a_field_that_is_left_is_not_looked_at() -> None:
    spec = msgspec.structs.replace(SPEC, process=Process(cwd="relative"))

    validate.check(spec, leave="process")
    with pytest.raises(InvalidArgument, match=r"process\.cwd: not an absolute path"):
        validate.check(spec)


def test_what_is_refused_is_shown_short() -> None:
    with pytest.raises(InvalidArgument) as caught:
        validate.check(linux(masked_paths=("/" + "x" * 100_000,)))

    assert len(str(caught.value)) < 120
