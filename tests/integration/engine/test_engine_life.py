"""The daemon itself: its locks, its ends, and what it takes over from the one before."""

import json
import os
import select
import signal
from pathlib import Path

import pytest

from tests.support.pyengined import Engine

pytestmark = pytest.mark.requires("root", "namespaces", "net_admin", "nftables", "busybox", "docker_cli")

_COUNT = "n=0; while :; do n=$((n + 1)); echo $n; sleep 0.05; done"


def test_a_container_lives_through_the_death_of_the_daemon(own_engine: Engine) -> None:
    engine = own_engine
    engine.output("run", "-d", "--name", "survivor", "busybox", "sh", "-c", _COUNT)
    before = engine.inspect("survivor")["State"]

    engine.kill()
    os.kill(before["Pid"], 0)  # it runs on
    engine.start()

    after = engine.inspect("survivor")["State"]
    assert (after["Status"], after["Pid"], after["StartedAt"]) == (
        "running",
        before["Pid"],
        before["StartedAt"],
    )
    assert engine.output("exec", "survivor", "echo", "in") == "in"
    engine.output("stop", "-t", "0", "survivor")
    assert engine.inspect("survivor")["State"]["ExitCode"] == 137
    numbers = [int(line) for line in engine.output("logs", "survivor").split()]
    assert numbers == list(range(1, len(numbers) + 1))  # no line was lost or doubled


def test_an_exit_while_no_daemon_runs_is_not_lost(own_engine: Engine) -> None:
    engine = own_engine
    script = "mkfifo /door/f; echo ready; read line < /door/f; echo read $line; exit 6"
    engine.output("run", "-d", "--name", "quiet", "-v", "door:/door", "busybox", "sh", "-c", script)
    with engine.running("logs", "-f", "quiet") as log:
        assert log.line() == "ready"
    pidfd = os.pidfd_open(engine.inspect("quiet")["State"]["Pid"])

    engine.kill()
    (engine.root / "volumes/door/_data/f").write_text("this\n")
    _wait_for_end(pidfd)
    engine.start()

    state = engine.inspect("quiet")["State"]
    assert (state["Status"], state["ExitCode"]) == ("exited", 6)
    assert engine.output("wait", "quiet") == "6"
    assert engine.output("logs", "quiet") == "ready\nread this"


def test_a_container_of_rm_that_ends_without_a_daemon_is_removed_by_the_next(own_engine: Engine) -> None:
    engine = own_engine
    engine.output("run", "-d", "--rm", "--name", "brief", "busybox", "sleep", "1000")
    pid = engine.inspect("brief")["State"]["Pid"]
    pidfd = os.pidfd_open(pid)

    engine.kill()
    os.kill(pid, signal.SIGKILL)
    _wait_for_end(pidfd)
    engine.start()

    assert engine.output("ps", "-aq") == ""
    assert engine.leftovers() == []


def test_containers_run_on_after_an_orderly_stop(own_engine: Engine) -> None:
    engine = own_engine
    engine.output("run", "-d", "--name", "on", "busybox", "sleep", "1000")
    pid = engine.inspect("on")["State"]["Pid"]

    assert engine.stop() == 0
    assert not engine.socket.exists()
    os.kill(pid, 0)
    engine.start()

    assert engine.inspect("on")["State"]["Pid"] == pid


def test_a_second_daemon_on_the_same_root_is_refused(own_engine: Engine) -> None:
    engine = own_engine
    refused = engine.refused(run=engine.directory / "run2", socket=engine.directory / "sock2")

    assert refused.code == 1
    assert refused.err == f"pyengined: {engine.root}/lock: in use by process {engine.pid}\n"


def test_a_second_daemon_on_the_same_run_directory_is_refused_and_harms_nothing(own_engine: Engine) -> None:
    engine = own_engine
    engine.output("run", "-d", "--name", "bystander", "busybox", "sleep", "1000")

    refused = engine.refused(root=engine.directory / "root2", socket=engine.directory / "sock2")

    assert refused.code == 1
    assert refused.err == f"pyengined: {engine.run}/lock: in use by process {engine.pid}\n"
    assert engine.inspect("bystander")["State"]["Status"] == "running"


def test_a_second_daemon_on_the_same_socket_is_refused(own_engine: Engine) -> None:
    engine = own_engine
    refused = engine.refused(
        "--bridge", "pesecond0", root=engine.directory / "root2", run=engine.directory / "run2"
    )

    assert refused.code == 1
    assert refused.err == (
        f"pyengined: {engine.socket}: another engine answers there (choose another --host)\n"
    )
    assert engine.output("ps", "-q") == ""


def test_a_socket_that_a_dead_daemon_left_is_taken_over(own_engine: Engine) -> None:
    engine = own_engine
    engine.kill()
    assert engine.socket.is_socket()

    engine.start()

    assert engine.socket.stat().st_mode & 0o777 == 0o600


def test_a_bad_descriptor_for_readiness_is_refused(own_engine: Engine) -> None:
    engine = own_engine
    refused = engine.refused("--ready-fd", "999", root=engine.directory / "root2")

    assert (refused.code, refused.err) == (
        1,
        "pyengined: --ready-fd 999: not a descriptor open for writing\n",
    )


def test_who_changed_what_is_on_record(own_engine: Engine) -> None:
    engine = own_engine
    engine.output("create", "--name", "mine", "busybox", "true")
    engine.docker("rm", "nobody")

    lines = [json.loads(line) for line in (engine.root / "audit.log").read_text().splitlines()]

    created, removed = lines[0], lines[-1]
    assert (created["method"], created["path"], created["status"]) == ("POST", "/containers/create", 201)
    assert created["object"] == engine.inspect("mine")["Id"]
    assert (created["uid"], Path(created["executable"]).name) == (os.getuid(), "docker")
    assert (removed["path"], removed["status"]) == ("/containers/nobody", 404)


def _wait_for_end(pidfd: int) -> None:
    try:
        readable, _, _ = select.select([pidfd], [], [], 10.0)
        assert readable, "the process did not end within 10 s"
    finally:
        os.close(pidfd)
