"""Options of `docker run` that change what the container sees, against an engine on this kernel."""

import time
from pathlib import Path

import pytest

from engine.kernel.mount import MountFlag, UmountFlag, mount, umount2
from tests.support.pyengined import Engine

pytestmark = pytest.mark.requires("root", "namespaces", "net_admin", "nftables", "busybox", "docker_cli")


def test_a_volume_on_etc_leaves_name_resolution_alone(engine: Engine) -> None:
    shown = engine.output("run", "--rm", "-v", "etc:/etc:ro", "busybox", "cat", "/etc/hosts")

    assert "localhost" in shown


def test_volumes_may_be_named_in_any_order(engine: Engine) -> None:
    listed = engine.output(
        "run", "--rm", "-v", "inner:/x/y", "-v", "outer:/x", "busybox", "grep", "-c", " /x", "/proc/mounts"
    )

    assert listed == "2"


def test_a_hardware_address_can_be_chosen(engine: Engine) -> None:
    mac = "02:42:ac:11:00:99"
    command = ("busybox", "cat", "/sys/class/net/eth0/address")

    assert engine.output("run", "--rm", "--mac-address", mac, *command) == mac


def test_an_image_for_another_platform_is_looked_for_elsewhere(engine: Engine) -> None:
    refused = engine.docker("create", "--pull", "never", "--platform", "linux/s390x", "busybox")

    assert refused.code == 1
    assert "no such image for linux/s390x: busybox" in refused.err


def test_a_volume_is_made_with_its_labels(engine: Engine) -> None:
    mount = "type=volume,src=labelled,dst=/v,volume-label=a=b"
    engine.output("create", "--mount", mount, "busybox")

    assert engine.output("volume", "inspect", "-f", "{{.Labels.a}}", "labelled") == "b"


def test_logs_take_dockers_odd_options(engine: Engine) -> None:
    engine.output("run", "--name", "two", "busybox", "sh", "-c", "echo 1; echo 2")

    assert engine.output("logs", "--tail", "many", "two") == "1\n2"
    assert engine.output("logs", "--tail", "-1", "two") == "1\n2"
    assert engine.output("logs", "--tail", "1", "--details", "two") == " 2"


@pytest.mark.parametrize("bind", ["/etc/hostname:/tmp", "/etc:/etc/passwd"])
def test_a_file_mounted_onto_a_directory_or_the_reverse_is_explained(engine: Engine, bind: str) -> None:
    refused = engine.docker("run", "--rm", "-v", bind, "busybox", "true")

    assert refused.code == 125
    assert "not a directory: Are you trying to mount a directory onto a file (or vice-versa)?" in refused.err


@pytest.mark.requires("tini")
def test_init_is_process_1_and_passes_signals_and_exit_codes_on(engine: Engine) -> None:
    script = "head -c 17 /proc/1/cmdline; exit 7"
    ended = engine.docker("run", "--rm", "--init", "busybox", "sh", "-c", script)

    assert (ended.code, ended.out) == (7, "/sbin/docker-init")
    engine.output("run", "-d", "--init", "--name", "asleep", "busybox", "sleep", "1000")
    engine.output("stop", "-t", "30", "asleep")  # sleep alone, as process 1, would ignore the signal
    assert engine.inspect("asleep")["State"]["ExitCode"] == 143


def test_events_tell_of_networks_and_volumes_too(engine: Engine) -> None:
    since = f"{time.time():.9f}"
    engine.output("volume", "create", "told")
    engine.output("run", "--rm", "busybox", "true")
    engine.output("volume", "rm", "told")

    shown = "{{.Type}} {{.Action}} {{.Actor.Attributes.name}} {{.Actor.Attributes.driver}}"
    until = f"{time.time():.9f}"
    chosen = ("--filter", "type=network", "--filter", "type=volume")
    told = engine.output("events", "--since", since, "--until", until, *chosen, "--format", shown)
    assert told.replace(" <no value>", "").splitlines() == [
        "volume create local",
        "network connect bridge",
        "network disconnect bridge",
        "volume destroy local",
    ]


def test_mounts_made_later_arrive_where_the_host_shares_them(engine: Engine, tmp_path: Path) -> None:
    bind = f"{tmp_path}:/x:rslave"
    mount("none", tmp_path, "tmpfs")
    try:
        mount("", tmp_path, "", MountFlag.PRIVATE)
        refused = engine.docker("run", "--rm", "-v", bind, "busybox", "true")
        assert (refused.code, "is not a shared or slave mount" in refused.err) == (125, True)

        mount("", tmp_path, "", MountFlag.SHARED)
        engine.output("run", "-d", "--name", "slave", "-v", bind, "busybox", "sleep", "1000")
        (tmp_path / "later").mkdir()
        mount("none", tmp_path / "later", "tmpfs")
        assert engine.output("exec", "slave", "grep", "-c", " /x/later ", "/proc/mounts") == "1"
    finally:
        engine.remove_containers()
        umount2(tmp_path, UmountFlag.DETACH)
