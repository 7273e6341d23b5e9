"""-v, --mount and --tmpfs."""

import os
from typing import Any

import pytest

from engine.base.errors import InvalidArgument
from hostagent.cli.mounts import parse_mount, parse_tmpfs, split_volumes


def test_volumes_are_binds_or_anonymous() -> None:
    binds, anonymous = split_volumes(["/data", "name:/data:ro", "./here:/there", r"C:\dir:/data", r"D:\only"])

    assert binds == ["name:/data:ro", f"{os.getcwd()}/here:/there", r"C:\dir:/data"]
    assert anonymous == {"/data": {}, r"D:\only": {}}


@pytest.mark.parametrize("spec", ["", ":/data"])
def test_a_volume_without_a_name_is_refused(spec: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid volume"):
        split_volumes([spec])


@pytest.mark.parametrize(
    ("spec", "mount"),
    [
        ("target=/data", {"Type": "volume", "Target": "/data"}),
        (
            "type=bind,src=/a,dst=/b,ro,bind-propagation=RSLAVE",
            {
                "Type": "bind",
                "Source": "/a",
                "Target": "/b",
                "ReadOnly": True,
                "BindOptions": {"Propagation": "rslave"},
            },
        ),
        (
            'type=volume,source=v,"target=/a,b",volume-label=k=v,volume-nocopy',
            {
                "Type": "volume",
                "Source": "v",
                "Target": "/a,b",
                "VolumeOptions": {"Labels": {"k": "v"}, "NoCopy": True},
            },
        ),
        (
            "type=tmpfs,destination=/t,tmpfs-size=1m,tmpfs-mode=1770",
            {"Type": "tmpfs", "Target": "/t", "TmpfsOptions": {"SizeBytes": 1 << 20, "Mode": 0o1770}},
        ),
    ],
)
def test_a_mount_has_the_keys_of_docker(spec: str, mount: dict[str, Any]) -> None:
    assert parse_mount(spec) == mount


@pytest.mark.parametrize(
    "spec",
    [
        "", "type=bind", "nosuch=1,target=/a", "type,target=/a", "type=bind,target=/a,volume-nocopy",
        "type=tmpfs,src=/a,target=/b", "target=/a,ro=maybe", "type=tmpfs,target=/a,tmpfs-mode=9",
        "type=tmpfs,target=/a,tmpfs-size=big", '"target=/a', "type=bind,target=/a,bind-recursive=x",
    ],
)  # fmt: skip
def test_a_bad_mount_is_refused(spec: str) -> None:
    with pytest.raises(InvalidArgument, match=r"^invalid "):
        parse_mount(spec)


def test_tmpfs_is_a_map() -> None:
    assert parse_tmpfs(["/a", "/b:size=1m,ro"]) == {"/a": "", "/b": "size=1m,ro"}
