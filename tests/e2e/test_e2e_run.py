"""The main job: containers in the machine, seen from the host."""

import hashlib
import json
import os
import socket
import urllib.request

import pytest

from tests.support.home import Deadline, Home

HTTP_TIMEOUT_S = 30


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def test_a_container_prints_and_runs_on_the_machines_kernel(machine: Home) -> None:
    kernel = machine.output("run", "--rm", "busybox", "uname", "-r")

    assert kernel != os.uname().release
    assert kernel == machine.guest("uname -r").strip()
    assert machine.output("run", "--rm", "busybox", "echo", "hello") == "hello"


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["busybox", "sh", "-c", "exit 7"], 7),
        (["busybox", "sh", "-c", "sleep 60 & kill -9 $!; wait $!"], 137),
        (["busybox", "/no/such/program"], 127),
        (["busybox", "no-such-program"], 127),
        (["busybox", "/etc/passwd"], 126),
        (["no-such-image.invalid/x"], 125),
    ],
)
def test_exit_codes_are_dockers(machine: Home, command: list[str], code: int) -> None:
    result = machine.run("run", "--rm", *command)

    assert result.code == code, result
    if code in {125, 126, 127}:
        assert command[-1] in result.error or "permission denied" in result.error
    assert command[-1] not in machine.output("ps", "-a", "--no-trunc")


def test_standard_streams_stay_apart(machine: Home) -> None:
    result = machine.run(
        "run", "--rm", "-i", "busybox", "sh", "-c", "cat; echo problem >&2", stdin=b"in\0put"
    )

    assert (result.code, result.out, result.err) == (0, "in\0put", "problem\n")


def test_a_megabyte_goes_in_and_comes_out(machine: Home) -> None:
    data = bytes(range(256)) * 4096

    result = machine.run("run", "--rm", "-i", "busybox", "md5sum", stdin=data)

    assert result.out.split()[0] == hashlib.md5(data).hexdigest()


def test_an_interactive_shell_has_a_terminal(machine: Home) -> None:
    with machine.terminal("run", "-it", "--rm", "busybox", "sh") as terminal:
        terminal.expect("/ #")
        terminal.type("tty && echo on-$(id -u)\n")
        terminal.expect("/dev/pts/")
        terminal.expect("on-0")
        terminal.type("exit 3\n")
        assert terminal.end() == 3


def test_a_published_port_answers_on_the_hosts_loopback_until_the_container_goes(machine: Home) -> None:
    port = _free_port()
    name = "web"
    machine.output(
        "run",
        "-d",
        "--name",
        name,
        "-p",
        f"127.0.0.1:{port}:80",
        "busybox",
        "httpd",
        "-f",
        "-p",
        "80",
        "-h",
        "/etc",
    )
    try:
        deadline = Deadline("httpd answers")
        while True:
            deadline.check()
            try:
                with urllib.request.urlopen(
                    f"http://127.0.0.1:{port}/passwd", timeout=HTTP_TIMEOUT_S
                ) as answer:
                    assert b"root:" in answer.read()
                break
            except OSError:
                continue
        assert str(port) in machine.output("ps", "--filter", f"name={name}")
    finally:
        machine.output("rm", "-f", name)

    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=HTTP_TIMEOUT_S)


def test_a_port_that_is_taken_on_the_host_is_refused_and_leaves_nothing(machine: Home) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        result = machine.run("run", "--rm", "--name", "late", "-p", f"127.0.0.1:{port}:80", "busybox", "true")

    assert result.code == 125, result
    assert str(port) in result.error
    assert "late" not in machine.output("ps", "-a")


def test_a_volume_outlives_its_containers(machine: Home) -> None:
    machine.output("run", "--rm", "-v", "kept:/data", "busybox", "sh", "-c", "echo 42 > /data/answer")

    assert machine.output("run", "--rm", "-v", "kept:/data:ro", "busybox", "cat", "/data/answer") == "42"
    result = machine.run("run", "--rm", "-v", "kept:/data:ro", "busybox", "touch", "/data/x")
    assert result.code == 1
    assert "Read-only file system" in result.err


def test_logs_are_followed_until_the_end(machine: Home) -> None:
    script = "echo one; read line; echo two; exit 5"
    machine.output("run", "-d", "-i", "--name", "talker", "busybox", "sh", "-c", script)
    try:
        with machine.start("logs", "-f", "talker") as logs:
            assert logs.line() == "one"
            machine.run("attach", "talker", stdin=b"go\n")
            assert logs.line() == "two"
            assert logs.end().code == 0
        assert machine.output("logs", "--tail", "1", "talker") == "two"
        assert machine.output("wait", "talker") == "5"
        [state] = json.loads(machine.output("inspect", "talker"))
        assert state["State"]["ExitCode"] == 5
    finally:
        machine.output("rm", "-f", "talker")


def test_exec_runs_beside_the_first_process(machine: Home) -> None:
    machine.output("run", "-d", "--name", "host", "busybox", "sleep", "1000")
    try:
        assert machine.output("exec", "host", "sh", "-c", "cat /proc/1/cmdline").startswith("sleep")
        assert machine.run("exec", "host", "sh", "-c", "exit 9").code == 9
        assert machine.run("exec", "host", "/nothing").code == 127
        assert machine.run("exec", "-i", "host", "cat", stdin=b"abc").out == "abc"
        assert "sleep 1000" in machine.output("top", "host")
        with machine.terminal("exec", "-it", "host", "sh") as terminal:
            terminal.type("tty; exit 4\n")
            terminal.expect("/dev/pts/")
            assert terminal.end() == 4
    finally:
        machine.output("rm", "-f", "host")


def test_init_reaps_and_passes_signals_on(machine: Home) -> None:
    machine.output("run", "-d", "--init", "--name", "tended", "busybox", "sleep", "1000")
    try:
        assert machine.output("exec", "tended", "sh", "-c", "tr '\\0' ' ' < /proc/1/cmdline").startswith(
            "/sbin/docker-init -- sleep 1000"
        )
        machine.output("stop", "-t", "20", "tended")
        [state] = json.loads(machine.output("inspect", "tended"))
        assert state["State"]["ExitCode"] == 143
    finally:
        machine.output("rm", "-f", "tended")


def test_stop_ends_a_container_and_it_starts_again(machine: Home) -> None:
    machine.output("run", "-d", "--name", "again", "busybox", "sh", "-c", "echo up; exec sleep 1000")
    try:
        machine.output("stop", "-t", "1", "again")
        [stopped] = json.loads(machine.output("inspect", "again"))
        machine.output("start", "again")
        assert machine.output("logs", "again") == "up\nup"
    finally:
        machine.output("rm", "-f", "again")
    assert stopped["State"]["Status"] == "exited"
    assert stopped["State"]["ExitCode"] == 137


@pytest.mark.requires("route")
def test_a_container_reaches_out_through_the_machine(machine: Home) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))
        address = probe.getsockname()[0]
    with socket.create_server((address, 0)) as server:
        server.settimeout(HTTP_TIMEOUT_S)
        port = server.getsockname()[1]
        with machine.start("run", "--rm", "busybox", "nc", address, str(port)) as client:
            connection, _ = server.accept()
            with connection:
                connection.sendall(b"from outside\n")
            assert client.line() == "from outside"


def test_two_engines_agree_on_the_images_they_have(machine: Home) -> None:
    [image] = json.loads(machine.output("inspect", "--type", "image", "busybox"))

    assert "busybox:latest" in image["RepoTags"]
    assert image["Id"].removeprefix("sha256:")[:12] in machine.output("images")
    machine.output("tag", "busybox", "mine:1")
    assert "mine" in machine.output("images")
    machine.output("rmi", "mine:1")
    assert "mine" not in machine.output("images")


def test_events_tell_what_happened(machine: Home) -> None:
    since = machine.guest("date +%s").strip()
    machine.output("run", "--rm", "--name", "seen", "busybox", "true")
    until = str(int(machine.guest("date +%s").strip()) + 1)

    lines = machine.output("events", "--since", since, "--until", until)

    verbs = [verb for verb in ("create", "start", "die", "destroy") if f"container {verb}" in lines]
    assert verbs == ["create", "start", "die", "destroy"]


def test_malformed_archives_are_refused_in_one_line(machine: Home) -> None:
    before = machine.output("images", "-a")

    for data in (b"", b"no archive at all" * 100, b"\x1f\x8b\x08\0broken", b"\0" * 10240):
        result = machine.run("load", stdin=data)
        assert result.code == 1, result
        assert result.error

    assert machine.output("images", "-a") == before
    assert machine.output("run", "--rm", "busybox", "echo", "fine") == "fine"
