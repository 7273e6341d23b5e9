"""Killing each process on the way of a command: nothing is lost, and the next command works."""

import contextlib
import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.support.home import Deadline, Home

# The machine has no procps.
ENGINE = "busybox grep -l 'engine[.]daemon' /proc/[0-9]*/cmdline | busybox cut -d/ -f3"


def _engine_pid(home: Home) -> str:
    return home.guest(f"{ENGINE} | busybox head -n 1").strip()


def test_a_container_lives_through_the_death_of_the_engine(machine: Home) -> None:
    script = "n=0; while :; do n=$((n + 1)); echo $n; sleep 1; done"
    machine.output("run", "-d", "--name", "survivor", "busybox", "sh", "-c", script)
    try:
        [before] = json.loads(machine.output("inspect", "survivor"))
        engine = _engine_pid(machine)
        machine.guest(f"kill -9 {engine}")

        deadline = Deadline("another engine answers")
        while (found := machine.run("inspect", "survivor")).code != 0:
            deadline.check()
        [after] = json.loads(found.out)
        assert _engine_pid(machine) != engine
        assert after["State"]["Running"] is True
        assert after["State"]["Pid"] == before["State"]["Pid"]
        lines = len(machine.output("logs", "survivor").splitlines())
        with machine.start("logs", "-f", "--tail", "1", "survivor") as logs:
            logs.line()
            assert int(logs.line()) >= lines
        assert machine.output("exec", "survivor", "echo", "in") == "in"
        machine.output("kill", "survivor")
        assert machine.output("wait", "survivor") == "137"
    finally:
        machine.output("rm", "-f", "survivor")


def test_an_exit_while_the_engine_is_dead_is_not_lost(machine: Home) -> None:
    machine.output("run", "-d", "-i", "--name", "quiet", "busybox", "sh", "-c", "sleep 2; exit 6")
    try:
        machine.guest(f"kill -9 $({ENGINE})")

        deadline = Deadline("the exit code is known")
        while (found := machine.run("wait", "quiet")).code != 0:
            deadline.check()
        assert found.out == "6\n"
    finally:
        machine.output("rm", "-f", "quiet")


def test_a_new_agent_adopts_the_machine_that_a_killed_one_left(machine: Home) -> None:
    machine.output("run", "-d", "--name", "kept", "busybox", "sleep", "1000")
    try:
        qemu = machine.qemu_pids()
        [agent] = machine.agent_pids()
        os.kill(agent, signal.SIGKILL)

        assert machine.output("exec", "kept", "echo", "still here") == "still here"
        assert machine.qemu_pids() == qemu
        assert machine.agent_pids() != [agent]
    finally:
        machine.output("rm", "-f", "kept")


def test_the_plug_is_pulled_while_a_container_runs(own_machine: Home) -> None:
    home = own_machine
    home.output("run", "--rm", "-v", "kept:/data", "busybox", "sh", "-c", "echo 42 > /data/answer; sync")
    with home.start("run", "--name", "cut", "busybox", "sh", "-c", "echo up; sleep 1000") as running:
        assert running.line() == "up"
        [qemu] = home.qemu_pids()
        os.kill(qemu, signal.SIGKILL)
        result = running.end()

    assert result.code != 0
    assert "machine default" in result.err

    assert home.output("run", "--rm", "-v", "kept:/data", "busybox", "cat", "/data/answer") == "42"
    [cut] = json.loads(home.output("inspect", "cut"))
    assert cut["State"]["Status"] == "exited"
    assert cut["State"]["ExitCode"] != 0


def test_two_starts_at_once_make_one_machine(own_machine: Home) -> None:
    home = own_machine
    home.output("machine", "stop")
    assert home.qemu_pids() == []

    with home.start("machine", "start") as first, home.start("machine", "start") as second:
        results = [first.end(), second.end()]

    assert [result.code for result in results] == [0, 0], results
    assert len(home.qemu_pids()) == 1
    assert home.output("run", "--rm", "busybox", "echo", "one") == "one"


def test_containers_and_images_outlive_a_restart(own_machine: Home) -> None:
    home = own_machine
    home.output("run", "--name", "old", "busybox", "sh", "-c", "echo before > /file; echo said")
    home.output("tag", "busybox", "mine:1")
    home.output("machine", "stop")

    # A stopped machine is started by the first command that needs it.
    assert home.output("logs", "old") == "said"
    assert "Power down" in home.output("machine", "logs", "--previous", "--tail", "5")
    assert "Power down" not in home.output("machine", "logs")
    home.output("start", "old")
    assert "mine" in home.output("images")
    home.output("rm", "-f", "old")


def test_a_disk_that_containers_have_filled_can_be_emptied(own_home: Home) -> None:
    home = own_home
    home.output("machine", "init", "--disk-size", "400m")
    home.output("run", "-d", "--name", "greedy", "-v", "data:/data", "busybox", "sleep", "1000")
    home.output("run", "-d", "--name", "other", "busybox", "sleep", "1000")
    for path in ("/big", "/data/big", "/data/tail"):  # the container's own layer, and a volume
        full = home.run("exec", "greedy", "sh", "-c", f"cat /dev/zero > {path}")
        assert full.code == 1
        assert "No space left on device" in full.err

    assert len(home.output("ps", "-q").splitlines()) == 2
    home.output("stop", "-t", "1", "other")
    assert home.run("wait", "other").out == "137\n"
    home.output("machine", "stop")
    assert home.output("start", "other") == "other"  # boots with the disk as full
    assert "exited" in home.output("ps", "-a", "--filter", "name=greedy", "--format", "{{.State}}")

    home.output("rm", "-v", "greedy")
    home.output("volume", "rm", "data")

    assert home.output("run", "--rm", "busybox", "echo", "again") == "again"


@pytest.mark.requires("root")
def test_a_host_without_disk_space_pauses_the_machine_until_there_is_some(own_home: Home) -> None:
    home = own_home
    data = home.directory / "data"
    data.mkdir(mode=0o700)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400m,mode=700", "small", data], check=True)
    try:
        home.output("run", "-d", "--name", "kept", "busybox", "sleep", "1000")
        filler = data / "filler"
        _fill_up(filler)
        with home.start(
            "exec", "kept", "sh", "-c", "head -c 30000000 /dev/urandom > /big; sync; echo done"
        ) as write:
            deadline = Deadline("the machine is paused")
            while (status := home.inspect_machine()["status"])["state"] != "degraded":
                deadline.check()
            assert "no space left on device" in status["reason"]
            filler.unlink()
            assert write.line() == "done"
        assert home.inspect_machine()["status"]["state"] == "running"
        assert home.output("exec", "kept", "sh", "-c", "wc -c < /big") == "30000000"
        home.output("machine", "stop")
    finally:
        for pid in (*home.agent_pids(), *home.qemu_pids()):
            os.kill(pid, signal.SIGKILL)
        deadline = Deadline("the disk can be unmounted")
        while subprocess.run(["umount", data], check=False, stderr=subprocess.DEVNULL).returncode != 0:
            deadline.check()


def _fill_up(path: Path) -> None:
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(1 << 16))
