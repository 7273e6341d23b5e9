"""From the words of a command line to the body of POST /containers/create."""

import os
from pathlib import Path
from typing import Any

import click
import pytest

from engine.base.errors import InvalidArgument
from hostagent.cli import createflags
from hostagent.cli.command import command
from hostagent.cli.createbody import container_body, environment


def body(*words: str, environ: dict[str, str] | None = None) -> dict[str, Any]:
    found: dict[str, Any] = {}

    @command("run", *createflags.run_only(), *createflags.shared(), interspersed=False)
    def run(**flags: Any) -> None:
        found.update(container_body(flags, environ or {}))

    with run.make_context("run", list(words)) as context:
        run.invoke(context)
    return found


def test_only_what_was_asked_for_is_sent() -> None:
    found = body("busybox")

    assert found.pop("HostConfig") == {
        "LogConfig": {"Type": "", "Config": {}},
        "NetworkMode": "default",
        "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0},
    }
    assert found.pop("NetworkingConfig") == {"EndpointsConfig": {"default": {}}}
    assert found == {"Image": "busybox", "AttachStdout": True, "AttachStderr": True}


def test_words_after_the_image_are_the_containers() -> None:
    found = body("-it", "--rm", "busybox", "sh", "-c", "exit 3", "--rm")

    assert found["Cmd"] == ["sh", "-c", "exit 3", "--rm"]
    assert found["Tty"]
    assert found["OpenStdin"]
    assert found["StdinOnce"]
    assert found["HostConfig"]["AutoRemove"]


@pytest.mark.parametrize(
    ("words", "key", "value"),
    [
        (["-p", "8080:80"], "PortBindings", {"80/tcp": [{"HostIp": "", "HostPort": "8080"}]}),
        (["--cpus", "1.5"], "NanoCpus", 1_500_000_000),
        (["-m", "64m"], "Memory", 64 << 20),
        (["--memory-swap", "-1"], "MemorySwap", -1),
        (["--memory-swappiness", "0"], "MemorySwappiness", 0),
        (["--restart", "on-failure:3"], "RestartPolicy", {"Name": "on-failure", "MaximumRetryCount": 3}),
        (["--add-host", "a=[::1]"], "ExtraHosts", ["a:::1"]),
        (["--ulimit", "nofile=5:9"], "Ulimits", [{"Name": "nofile", "Soft": 5, "Hard": 9}]),
        (["--security-opt", "systempaths=unconfined"], "MaskedPaths", []),
        (["--network", "none"], "NetworkMode", "none"),
        (["--init"], "Init", True),
        (["--init=false"], "Init", None),
        (
            ["--device", "/dev/fuse:/dev/f:r"],
            "Devices",
            [{"PathOnHost": "/dev/fuse", "PathInContainer": "/dev/f", "CgroupPermissions": "r"}],
        ),
    ],
)
def test_a_flag_becomes_its_field(words: list[str], key: str, value: object) -> None:
    assert body(*words, "busybox")["HostConfig"].get(key) == value


def test_an_empty_entrypoint_resets_the_images() -> None:
    assert body("--entrypoint", "", "busybox")["Entrypoint"] == [""]
    assert body("--entrypoint", "sh", "busybox")["Entrypoint"] == ["sh"]


def test_an_endpoint_has_addresses_and_aliases() -> None:
    found = body(
        "--network", "name=web,alias=a,gw-priority=-1,ip=10.0.0.2", "--network-alias", "b", "busybox"
    )

    assert found["NetworkingConfig"]["EndpointsConfig"] == {
        "web": {"IPAMConfig": {"IPv4Address": "10.0.0.2"}, "Aliases": ["a", "b"], "GwPriority": -1}
    }


@pytest.mark.parametrize(
    "words",
    [
        ["--rm", "--restart", "always"], ["--restart", "sometimes"], ["--restart", "always:3"],
        ["--cpus", "many"],
        ["--cpus", "inf"], ["-m", "x"], ["-p", "x"], ["--mount", "x=y"], ["--add-host", "a"],
        ["--ulimit", "nofile=9:5"],
        ["--device", "a:b:c:d"], ["--pull", "often"], ["-a", "nothing"], ["--network", "alias=a"],
        ["--network", "name=a,gw-priority=high"], ["-e", "=x"], ["--health-interval", "soon"],
        ["--security-opt", "strange"], ["--no-healthcheck", "--health-cmd", "true"],
        ["--link-local-ip", "1.2.3.4"],
    ],
)  # fmt: skip
def test_a_bad_value_is_refused_before_anything_is_sent(words: list[str]) -> None:
    with pytest.raises(InvalidArgument):
        body(*words, "busybox")


def test_an_unknown_flag_is_clicks_error() -> None:
    with pytest.raises(click.NoSuchOption):
        body("--nosuch", "busybox")


def test_the_environment_comes_from_files_words_and_the_caller(tmp_path: Path) -> None:
    file = tmp_path / "env"
    file.write_bytes("\ufeff# comment\r\nA=1\r\n\r\n  B=2 x\nFROM_CALLER\nNOT_SET\n".encode())

    found = environment([str(file)], ["C=3", "FROM_CALLER", "D="], {"FROM_CALLER": "yes"})

    assert found == ["A=1", "B=2 x", "FROM_CALLER=yes", "C=3", "FROM_CALLER=yes", "D="]


@pytest.mark.parametrize("content", [b"a b=1\n", b"=1\n", b"A=\xff\n"])
def test_a_bad_environment_file_is_named(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "env"
    file.write_bytes(content)

    with pytest.raises(InvalidArgument, match=str(file)):
        environment([str(file)], [], {})


def test_a_seccomp_profile_is_read_here(tmp_path: Path) -> None:
    file = tmp_path / "profile.json"
    file.write_text('{ "defaultAction": "SCMP_ACT_ALLOW" }')

    found = body("--security-opt", f"seccomp={file}", "busybox")["HostConfig"]["SecurityOpt"]
    assert found == ['seccomp={"defaultAction":"SCMP_ACT_ALLOW"}']

    file.write_text("{")
    with pytest.raises(InvalidArgument, match="not a seccomp profile"):
        body("--security-opt", f"seccomp={file}", "busybox")
    os.unlink(file)
    with pytest.raises(FileNotFoundError):
        body("--security-opt", f"seccomp={file}", "busybox")
