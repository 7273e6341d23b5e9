"""containerd runs containers through `pyengine-oci`, unmodified; each test is proved on runc too."""

import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.containerdlab import Containerd
from tests.support.drivers import left_of
from tests.support.home import Deadline
from tests.support.ocibundle import PROGRAM

pytestmark = pytest.mark.requires("root", "namespaces", "busybox", "containerd", "runc")

MIB = 1 << 20
_SLEEP = ("sleep", "1000")
_TINY = ("--memory-limit", str(16 * MIB))


@pytest.fixture(scope="module", params=["runc", PROGRAM], ids=["runc", "pyengine"])
def containerd(request: pytest.FixtureRequest) -> Iterator[Containerd]:
    made = Containerd(Path(shutil.which(request.param) or request.param))
    yield made
    made.close()


@pytest.fixture
def name(containerd: Containerd) -> Iterator[str]:
    """A name for one container, which is removed."""
    yield "web"
    containerd.remove("web")


def test_output_and_exit_codes(containerd: Containerd) -> None:
    assert containerd.run("echo", "hello").out == "hello\n"
    ended = containerd.run("sh", "-c", "echo e >&2; exit 7")
    assert (ended.code, ended.err) == (7, "e\n")


@pytest.mark.parametrize(
    ("program", "said"), [("/nothing", "no such file or directory"), ("/etc/passwd", "permission denied")]
)
def test_what_cannot_run_is_told_with_the_runtimes_reason(
    containerd: Containerd, program: str, said: str
) -> None:
    done = containerd.run(program)

    assert done.code == 1
    assert "OCI runtime create failed: " in done.err
    assert f"{said}: unknown" in done.err  # it was read from the last line of --log, as JSON
    assert containerd.ok("containers", "ls", "--quiet") == ""


def test_a_terminal(containerd: Containerd, name: str) -> None:
    with containerd.terminal(*containerd.run_words("one", "sh", flags=("--rm", "--tty"))) as shown:
        shown.expect("# ")
        shown.type("tty\n")
        shown.expect("/dev/pts/0")
        shown.type("exit 3\n")
        assert shown.end() == 3

    containerd.start(name, *_SLEEP)
    with containerd.terminal("tasks", "exec", "--tty", "--exec-id", "x", name, "sh") as shown:
        shown.expect("# ")
        shown.type("exit 5\n")
        assert shown.end() == 5


def test_a_life_with_its_events(containerd: Containerd, name: str) -> None:
    with containerd.events() as events:
        pid = containerd.start(name, *_SLEEP)
        assert containerd.status(name) == "RUNNING"
        assert str(pid) in containerd.ok("tasks", "ps", name)
        assert containerd.exec(name, "first", "echo", "in").out == "in\n"

        containerd.ok("tasks", "pause", name)
        assert containerd.status(name) == "PAUSED"
        refused = containerd.exec(name, "second", "true")
        assert (refused.code, "cannot exec in a paused state" in refused.err) == (1, True)
        containerd.ok("tasks", "resume", name)
        assert containerd.status(name) == "RUNNING"

        containerd.ok("tasks", "kill", "--signal", "KILL", name)
        told = events.until("exit") + events.until("paused") + events.until("exit")
        assert [topic for topic in told if not topic.startswith("exec-")] == [
            "create", "start", "exit", "paused", "resumed", "exit",
        ]  # fmt: skip
        assert containerd.status(name) == "STOPPED"

        again = containerd.call("tasks", "kill", name)
        assert (again.code, again.err) == (1, "ctr: process already finished: not found\n")
        containerd.ok("tasks", "kill", "--all", name)
        assert containerd.ended(name) == 137
        assert events.until("delete") == ["delete"]
    assert containerd.call("tasks", "kill", name).code == 1


def test_executions(containerd: Containerd, name: str) -> None:
    containerd.start(name, *_SLEEP)

    assert containerd.exec(name, "one", "sh", "-c", "exit 9").code == 9
    missing = containerd.exec(name, "two", "/nothing")
    assert missing.code == 1
    assert "OCI runtime exec failed: " in missing.err
    assert "no such file or directory: unknown" in missing.err
    where = containerd.exec(
        name, "three", "sh", "-c", "pwd; id -u", flags=("--cwd", "/tmp", "--user", "1000")
    )
    assert where.out == "/tmp\n1000\n"
    with containerd.events() as events:
        sleep = ("tasks", "exec", "--detach", "--exec-id", "four", "--fifo-dir", f"{containerd.base}/fifo")
        containerd.ok(*sleep, name, *_SLEEP)
        assert events.until("exec-started")[-1] == "exec-started"
        containerd.ok("tasks", "kill", "--exec-id", "four", "--signal", "KILL", name)
        assert events.until("exit") == ["exit"]
    assert containerd.status(name) == "RUNNING"


def test_signals_reach_init_or_all(containerd: Containerd, name: str) -> None:
    with containerd.events() as events:
        containerd.start(name, "sh", "-c", "trap 'exit 4' TERM; sleep 1000 & wait")
        containerd.ok("tasks", "kill", name)  # SIGTERM
        events.until("exit")
    assert containerd.ended(name) == 4

    containerd.remove(name)
    with containerd.events() as events:
        containerd.start(name, "sh", "-c", "sleep 1000; exit 6")
        containerd.ok("tasks", "kill", "--all", "--signal", "KILL", name)
        events.until("exit")
    assert containerd.ended(name) == 137


def test_metrics_and_limits(containerd: Containerd, name: str) -> None:
    flags = ("--memory-limit", str(32 * MIB), "--cpu-shares", "512", "--cpu-quota", "50000")
    pid = containerd.start(name, *_SLEEP, flags=(*flags, "--cpu-period", "100000"))

    found = json.loads(containerd.ok("tasks", "metrics", "--format", "json", name))

    assert found["pids"]["current"] > 0
    usage = found["memory"].get("usage", found["memory"])
    assert usage.get("limit", usage.get("usage_limit")) == 32 * MIB
    lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    assert any(line.endswith(f":/{containerd.namespace}/{name}") for line in lines)


def test_a_want_of_memory_is_told(containerd: Containerd, name: str) -> None:
    eat = "until test -e /tmp/go; do :; done; exec dd if=/dev/zero of=/dev/null bs=64M count=1"
    containerd.start(name, "sh", "-c", eat, flags=_TINY)

    with containerd.events() as events:
        assert containerd.exec(name, "go", "touch", "/tmp/go").code == 0
        told = events.until("oom")
    assert told[-1] == "oom"


def test_who_outlives_init_in_the_hosts_pid_namespace_is_ended(containerd: Containerd, name: str) -> None:
    def share(config: dict[str, Any]) -> None:
        config["process"]["args"] = ["sh", "-c", "setsid sleep 1000 & sleep 1000"]
        spaces = config["linux"]["namespaces"]
        config["linux"]["namespaces"] = [space for space in spaces if space["type"] != "pid"]
        config["linux"]["cgroupsPath"] = f"/{containerd.namespace}/{name}"

    with containerd.events() as events:
        containerd.start(name, flags=containerd.config(share))
        containerd.ok("tasks", "kill", "--signal", "KILL", name)
        events.until("exit")

    assert containerd.ended(name) == 137
    assert [str(group) for group in containerd.groups() if group.name == name] == []


def test_a_shim_that_is_killed_leaves_nothing(containerd: Containerd, name: str) -> None:
    containerd.start(name, *_SLEEP)
    shim = next(word for word in left_of(containerd.base) if word.startswith("/usr/bin/containerd-shim"))
    pid = next(
        int(entry.name)
        for entry in Path("/proc").glob("[0-9]*")
        if (entry / "cmdline").exists()
        and (entry / "cmdline").read_bytes().decode().split("\0") == shim.split(" ")
    )

    with containerd.events() as events:
        os.kill(pid, signal.SIGKILL)
        events.until("delete")  # containerd has had the runtime delete it by force

    deadline = Deadline("containerd has forgotten the task")
    while containerd.status(name):
        deadline.check()
    assert [str(group) for group in containerd.groups() if group.name == name] == []
    containerd.remove(name)
    assert containerd.run("echo", "again").out == "again\n"


def test_confinement(containerd: Containerd) -> None:
    assert "Read-only" in containerd.run("touch", "/x", flags=("--read-only",)).err
    show = ("grep", "-E", "CapEff|Seccomp:|NoNewPrivs", "/proc/self/status")
    assert containerd.run(*show, flags=("--seccomp", "--cap-drop", "CAP_CHOWN")).out.split() == [
        "CapEff:", "00000000a80425fa", "NoNewPrivs:", "1", "Seccomp:", "2",
    ]  # fmt: skip
    mount = f"type=bind,src={containerd.base}/config.toml,dst=/etc/passwd,options=rbind:ro"
    assert containerd.run("head", "-n", "1", "/etc/passwd", flags=("--mount", mount)).out == "version = 2\n"


def test_a_user_namespace(containerd: Containerd) -> None:
    def separate(config: dict[str, Any]) -> None:
        config["process"]["args"] = ["sh", "-c", "id -u; cat /proc/self/uid_map"]
        config["linux"]["namespaces"].append({"type": "user"})
        ranges = [{"containerID": 0, "hostID": 100000, "size": 65536}]
        config["linux"] |= {"uidMappings": ranges, "gidMappings": ranges}
        config["linux"]["cgroupsPath"] = f"/{containerd.namespace}/one"

    shown = containerd.run(flags=containerd.config(separate))
    assert shown.out.split() == ["0", "0", "100000", "65536"], shown
