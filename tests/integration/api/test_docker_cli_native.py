"""The unmodified docker command line against an engine on this kernel."""

import json
import urllib.request
from pathlib import Path

import pytest

from tests.support.pyengined import COMMAND_TIMEOUT_S, Engine

pytestmark = pytest.mark.requires("root", "namespaces", "net_admin", "nftables", "busybox", "docker_cli")

_SLEEP = ("sleep", "1000")


def test_version_info_and_what_is_not_there(engine: Engine) -> None:
    assert json.loads(engine.output("version", "--format", "{{json .Server}}"))["ApiVersion"] == "1.51"
    assert (
        engine.output("info", "--format", "{{.ServerVersion}} {{.OSType}} {{.Driver}}")
        == "0.1.0 linux overlay2"
    )
    for words in (["stats", "--no-stream", "x"], ["search", "x"], ["commit", "x"], ["push", "busybox"]):
        refused = engine.docker(*words)
        assert refused.code == 1
        assert "is not supported by this engine" in refused.err
    assert engine.output("plugin", "ls", "-q") == ""
    assert engine.request("GET", "/nodes")[0] == 503


@pytest.mark.parametrize(
    ("command", "code", "error"),
    [
        (["true"], 0, ""),
        (["sh", "-c", "exit 7"], 7, ""),
        (["nothing"], 127, 'exec: "nothing": executable file not found in $PATH'),
        (["/etc"], 126, 'exec: "/etc": permission denied'),
    ],
)
def test_run_has_the_exit_code_of_its_command(
    engine: Engine, command: list[str], code: int, error: str
) -> None:
    result = engine.docker("run", "--rm", "busybox", *command)

    assert result.code == code
    assert error in result.err
    assert engine.output("ps", "-aq") == ""


@pytest.mark.parametrize(
    ("flags", "error"),
    [
        (["--name", "bad/name", "busybox"], "Invalid container name (bad/name)"),
        (["--network", "mine", "busybox"], "user-defined networks are not supported"),
        (
            ["--mount", "type=bind,src=/nowhere,dst=/x", "busybox"],
            "bind source path does not exist: /nowhere",
        ),
        (["--cpus", "9999", "busybox"], "range of CPUs is from 0.01 to"),
        (["--cpuset-cpus", "8000", "busybox"], "Requested CPUs are not available"),
        (["-w", "relative", "busybox"], "needs to be an absolute path"),
    ],
)
def test_run_says_125_for_what_the_engine_refuses(engine: Engine, flags: list[str], error: str) -> None:
    result = engine.docker("run", "--rm", *flags, "true")

    assert result.code == 125
    assert error in result.err
    assert engine.output("ps", "-aq") == ""


def test_stdin_and_both_outputs_pass_through_run(engine: Engine) -> None:
    sent = b"0123456789abcdef" * 100_000
    assert len(engine.output("run", "--rm", "-i", "busybox", "cat", stdin=sent)) == len(sent)
    result = engine.docker("run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2")
    assert (result.out, result.err) == ("out\n", "err\n")


def test_a_terminal_resizes_detaches_and_comes_back(engine: Engine) -> None:
    with engine.terminal("run", "-it", "--name", "term", "busybox", "sh") as terminal:
        terminal.expect("/ #")
        terminal.type("tty; echo size $((1 + 1))\n")
        terminal.expect("/dev/pts/0")
        terminal.expect("size 2")
        terminal.type("\x10\x11")  # ctrl-p ctrl-q
        assert terminal.end() == 0
    assert engine.inspect("term")["State"]["Status"] == "running"
    with engine.terminal("attach", "term") as terminal:
        terminal.type("\n")
        terminal.expect("/ #")
        terminal.type("exit 9\n")
        assert terminal.end() == 9


def test_ctrl_c_reaches_the_container(engine: Engine) -> None:
    script = "trap 'exit 9' INT; echo ready; while :; do sleep 0.05; done"
    with engine.terminal("run", "--rm", "busybox", "sh", "-c", script) as terminal:
        terminal.expect("ready")
        terminal.type("\x03")
        assert terminal.end() == 9


def test_exec_in_its_forms(engine: Engine) -> None:
    engine.output("run", "-d", "--name", "host", "busybox", *_SLEEP)
    script = "echo $A; pwd; id -u"
    assert (
        engine.output("exec", "-e", "A=b", "-w", "/tmp", "-u", "33", "host", "sh", "-c", script)
        == "b\n/tmp\n33"
    )
    assert engine.output("exec", "-i", "host", "cat", stdin=b"in") == "in"
    assert engine.docker("exec", "host", "sh", "-c", "exit 4").code == 4
    assert engine.docker("exec", "host", "nothing").code == 127
    assert engine.docker("exec", "host", "/etc").code == 126
    assert engine.docker("exec", "-w", "/nowhere", "host", "true").code == 126
    nobody = engine.docker("exec", "-u", "nobody-here", "host", "true")
    assert (nobody.code, "unable to find user nobody-here" in nobody.err) == (126, True)
    with engine.terminal("exec", "-it", "host", "sh") as terminal:
        terminal.expect("/ #")
        terminal.type("exit 6\n")
        assert terminal.end() == 6
    engine.output("stop", "-t", "0", "host")
    assert "is not running" in engine.docker("exec", "host", "true").err


def test_the_life_of_a_container(engine: Engine) -> None:
    script = "trap 'exit 3' TERM; echo up; while :; do sleep 0.05; done"
    name = engine.output("create", "--name", "life", "--label", "a=b", "busybox", "sh", "-c", script)
    engine.output("start", "life")
    with engine.running("logs", "-f", "life") as log:
        assert log.line() == "up"
    assert (
        engine.output("ps", "--no-trunc", "--filter", "label=a=b", "--format", "{{.ID}} {{.State}}")
        == f"{name} running"
    )
    assert "sh -c trap" in engine.output("top", "life")
    engine.output("pause", "life")
    assert engine.inspect("life")["State"]["Paused"]
    engine.output("unpause", "life")
    engine.output("rename", "life", "renamed")
    assert "is running" in engine.docker("rm", "renamed").err
    engine.output("stop", "renamed")
    assert engine.inspect("renamed")["State"]["ExitCode"] == 3
    engine.output("restart", "renamed")
    engine.output("kill", "renamed")
    assert engine.output("wait", "renamed") == "137"
    engine.output("rm", "renamed")
    assert engine.docker("inspect", "renamed").code == 1


def test_names_are_given_once(engine: Engine) -> None:
    engine.output("create", "--name", "taken", "busybox", "true")

    second = engine.docker("create", "--name", "taken", "busybox", "true")

    assert second.code == 1
    assert 'The container name "/taken" is already in use' in second.err


def test_a_failing_container_is_restarted_as_often_as_asked(engine: Engine) -> None:
    with engine.running(
        "events", "--filter", "event=die", "--format", "{{.Actor.Attributes.exitCode}}"
    ) as events:
        engine.output(
            "run", "-d", "--restart", "on-failure:2", "--name", "again", "busybox", "sh", "-c", "exit 5"
        )
        assert [events.line() for _ in range(3)] == ["5", "5", "5"]
    assert engine.output("wait", "again") == "5"
    assert engine.inspect("again")["RestartCount"] == 2


def test_volumes_outlive_containers(engine: Engine, tmp_path: Path) -> None:
    engine.output("volume", "create", "kept")
    try:
        engine.output("run", "--rm", "-v", "kept:/data", "busybox", "sh", "-c", "echo 42 > /data/answer")
        assert engine.output("run", "--rm", "-v", "kept:/data:ro", "busybox", "cat", "/data/answer") == "42"
        engine.output("create", "--name", "user", "-v", "kept:/data", "busybox", "true")
        assert "volume is in use" in engine.docker("volume", "rm", "kept").err
        engine.output("rm", "user")
        assert engine.output("volume", "ls", "-q") == "kept"
    finally:
        engine.output("volume", "rm", "-f", "kept")
    (tmp_path / "file").write_text("of the host")
    assert (
        engine.output("run", "--rm", "-v", f"{tmp_path}:/h:ro", "busybox", "cat", "/h/file") == "of the host"
    )
    assert engine.docker("run", "--rm", "-v", f"{tmp_path}:/h:ro", "busybox", "touch", "/h/x").code == 1


def test_a_published_port_is_reachable(engine: Engine) -> None:
    script = "echo page > /tmp/index.html; httpd -p 80 -h /tmp; echo up; exec sleep 1000"
    engine.output("run", "-d", "--name", "web", "-p", "127.0.0.1::80", "busybox", "sh", "-c", script)
    with engine.running("logs", "-f", "web") as log:
        assert log.line() == "up"
    address, _, port = engine.output("port", "web", "80").rpartition(":")
    assert address == "127.0.0.1"

    page = engine.network.call(_fetch, f"http://127.0.0.1:{port}/")

    assert page == "page\n"
    taken = engine.docker("run", "--rm", "-p", f"127.0.0.1:{port}:80", "busybox", "true")
    assert taken.code == 125
    assert f"Bind for 127.0.0.1:{port} failed: port is already allocated" in taken.err


def _fetch(url: str) -> str:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=COMMAND_TIMEOUT_S) as answer:
        return str(answer.read().decode())


def test_images_are_tagged_loaded_and_removed(engine: Engine) -> None:
    engine.output("tag", "busybox", "mine:1")
    assert engine.output("images", "-q", "mine") == engine.output("images", "-q", "busybox")
    assert engine.output("rmi", "mine:1") == "Untagged: mine:1"
    assert engine.output("load", "-i", str(engine.archive)) == "Loaded image: busybox:latest"
    assert "Debian's busybox-static" in engine.output("history", "busybox")
    assert engine.output("inspect", "--format", "{{.Config.Cmd}}", "busybox") == "[sh]"
    assert "No such image: nothing" in engine.docker("rmi", "nothing").err
    assert "invalid image archive" in engine.docker("load", "-i", "/etc/passwd").err
    engine.output("create", "--name", "holder", "busybox", "true")
    assert engine.docker("rmi", "busybox").code == 1  # in use


def test_a_registry_that_is_not_there_is_named(engine: Engine) -> None:
    refused = engine.docker("pull", "127.0.0.1:1/some/image")

    assert refused.code == 1
    assert "cannot reach registry 127.0.0.1:1" in refused.err


def test_networks_are_the_three_that_docker_has(engine: Engine) -> None:
    assert sorted(engine.output("network", "ls", "--format", "{{.Name}}").split()) == [
        "bridge",
        "host",
        "none",
    ]
    engine.output("run", "-d", "--name", "member", "busybox", *_SLEEP)
    [bridge] = json.loads(engine.output("network", "inspect", "bridge"))
    [member] = bridge["Containers"].values()
    assert member["Name"] == "member"
    assert member["IPv4Address"].partition("/")[0] == engine.inspect("member")["NetworkSettings"]["IPAddress"]
    assert "user-defined networks are not supported" in engine.docker("network", "create", "mine").err
    assert engine.output("run", "--rm", "--network", "none", "busybox", "ls", "/sys/class/net") == "lo"


def test_everything_unused_is_pruned(engine: Engine) -> None:
    engine.output("run", "--name", "done", "busybox", "true")

    pruned = engine.output("system", "prune", "--force", "--volumes")

    assert "Deleted Containers:" in pruned
    assert engine.output("ps", "-aq") == ""
    assert engine.output("images", "-q") != ""  # it has a tag
    assert "TYPE" in engine.output("system", "df")
