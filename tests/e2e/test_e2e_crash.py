"""Killing each process on the way of a command: nothing is lost, and the next command works."""

import json
import os
import signal

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


def test_a_full_disk_is_said_and_survived(machine: Home) -> None:
    machine.output("run", "--name", "greedy", "-d", "busybox", "sleep", "1000")
    try:
        result = machine.run("exec", "greedy", "sh", "-c", "dd if=/dev/zero of=/dev/shm/x bs=1M count=200")
        assert result.code != 0
        assert "No space left" in result.err
    finally:
        machine.output("rm", "-f", "greedy")
    assert machine.output("run", "--rm", "busybox", "echo", "fine") == "fine"
