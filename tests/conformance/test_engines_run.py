"""podman and dockerd run containers through `pyengine-oci`, unmodified."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.drivers import IMAGE, Dockerd, Driver, Podman, call, ok, terminal

pytestmark = pytest.mark.requires("root", "namespaces", "busybox")

MIB = 1 << 20


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(Podman, marks=pytest.mark.requires("podman"), id="podman"),
        pytest.param(Dockerd, marks=pytest.mark.requires("dockerd"), id="dockerd"),
    ],
)
def driver(request: pytest.FixtureRequest) -> Iterator[Driver]:
    made: Driver = request.param()
    yield made
    made.close()


@pytest.fixture
def name(driver: Driver) -> Iterator[str]:
    """A name for one container, which is removed."""
    yield "one"
    call(driver, "rm", "-f", "one")


def run(driver: Driver, *words: str) -> str:
    return ok(driver, "run", "--rm", "--network", driver.network, *words)


def started(driver: Driver, name: str, *words: str) -> None:
    ok(driver, "run", "-d", "--name", name, "--network", driver.network, *words)


def test_it_is_our_runtime_that_runs(driver: Driver, name: str) -> None:
    started(driver, name, IMAGE, "sleep", "1000")

    pid = ok(driver, "inspect", "--format", "{{.State.Pid}}", name)

    assert "pyengine-oci" in ok(driver, "info")
    assert int(pid) > 0


def test_output_input_and_exit_codes(driver: Driver) -> None:
    network = ("--network", driver.network)
    assert run(driver, IMAGE, "echo", "hello") == "hello"
    assert ok(driver, "run", "--rm", "-i", *network, IMAGE, "cat", stdin=b"piped") == "piped"
    assert call(driver, "run", "--rm", *network, IMAGE, "sh", "-c", "echo e >&2; exit 7").code == 7
    assert call(driver, "run", "--rm", *network, IMAGE, "/nothing").code == 127
    assert call(driver, "run", "--rm", *network, IMAGE, "/etc/passwd").code == 126


def test_a_terminal(driver: Driver) -> None:
    with terminal(driver, "run", "-it", "--rm", "--network", driver.network, IMAGE, "sh") as shown:
        shown.expect("# ")
        shown.type("tty\n")
        shown.expect("/dev/pts/0")
        shown.type("exit 3\n")
        assert shown.end() == 3


def test_detached_with_logs_exec_and_stop(driver: Driver, name: str) -> None:
    started(driver, name, IMAGE, "sh", "-c", "trap 'exit 4' TERM; echo up; while :; do sleep 1 & wait; done")

    assert ok(driver, "exec", name, "echo", "in") == "in"
    assert ok(driver, "exec", "-i", name, "cat", stdin=b"piped") == "piped"
    assert ok(
        driver, "exec", "-u", "user", "-w", "/tmp", "-e", "A=b", name, "sh", "-c", "id -u; pwd; echo $A"
    ) == ("1000\n/tmp\nb")
    assert call(driver, "exec", name, "sh", "-c", "exit 9").code == 9
    assert call(driver, "exec", name, "/nothing").code in {126, 127}  # docker's answer depends on its age
    with terminal(driver, "exec", "-it", name, "sh") as shown:
        shown.expect("# ")
        shown.type("exit 5\n")
        assert shown.end() == 5
    assert ok(driver, "logs", name) == "up"
    ok(driver, "stop", "-t", "20", name)
    assert ok(driver, "inspect", "--format", "{{.State.ExitCode}}", name) == "4"
    ok(driver, "start", name)
    assert ok(driver, "exec", name, "echo", "again") == "again"


def test_kill_and_forced_removal(driver: Driver, name: str) -> None:
    started(driver, name, IMAGE, "sleep", "1000")
    ok(driver, "kill", "-s", "KILL", name)
    assert ok(driver, "wait", name) == "137"
    ok(driver, "start", name)
    ok(driver, "rm", "-f", name)
    assert call(driver, "inspect", name).code != 0


def test_pause_and_unpause(driver: Driver, name: str) -> None:
    started(driver, name, IMAGE, "sleep", "1000")

    ok(driver, "pause", name)
    assert ok(driver, "inspect", "--format", "{{.State.Status}}", name) == "paused"
    ok(driver, "unpause", name)
    assert ok(driver, "exec", name, "echo", "in") == "in"


def test_a_want_of_memory_is_noticed(driver: Driver, name: str) -> None:
    eat = "until test -e /tmp/go; do :; done; exec dd if=/dev/zero of=/dev/null bs=64M count=1"
    started(driver, name, "--memory", "16m", "--memory-swap", "16m", IMAGE, "sh", "-c", eat)

    ok(driver, "exec", name, "touch", "/tmp/go")

    assert ok(driver, "wait", name) == "137"
    shown = ok(driver, "inspect", "--format", "{{.State.OOMKilled}}", name)
    assert shown == "true" or not driver.tells_oom


def test_confinement(driver: Driver) -> None:
    network = ("--network", driver.network)
    readonly = ("--read-only", *driver.plain_readonly)
    assert "Read-only" in call(driver, "run", "--rm", *readonly, *network, IMAGE, "touch", "/x").err
    assert run(driver, "--user", "1000:1000", IMAGE, "id", "-u") == "1000"
    assert run(driver, "--user", "user", IMAGE, "id", "-g") == "1000"
    assert (
        run(driver, *readonly, "--tmpfs", f"/t:{driver.tmpfs}", IMAGE, "sh", "-c", "echo t > /t/x; cat /t/x")
        == "t"
    )
    capabilities = run(driver, "--cap-drop", "ALL", IMAGE, "grep", "CapEff", "/proc/self/status")
    assert capabilities.split() == ["CapEff:", "0000000000000000"]
    one = run(driver, "--cap-drop", "ALL", "--cap-add", "CHOWN", IMAGE, "grep", "CapEff", "/proc/self/status")
    assert one.split() == ["CapEff:", "0000000000000001"]
    assert run(driver, "--hostname", "box", IMAGE, "hostname") == "box"
    assert (
        run(
            driver, "--security-opt", "no-new-privileges", IMAGE, "grep", "NoNewPrivs", "/proc/self/status"
        ).split()[1]
        == "1"
    )


def test_a_seccomp_profile_of_ones_own(driver: Driver, tmp_path: Path) -> None:
    rule = {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}
    profile = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}
    path = tmp_path / "profile.json"
    path.write_text(json.dumps(profile))
    words = ("--rm", "--network", driver.network, "--security-opt", f"seccomp={path}")

    done = call(driver, "run", *words, IMAGE, "mkdir", "/x")

    assert "Not supported" in done.err or "not supported" in done.err
    assert run(driver, "--security-opt", "seccomp=unconfined", IMAGE, "mkdir", "/x") == ""


def test_limits(driver: Driver, name: str) -> None:
    started(
        driver, name, "--pids-limit", "20", "--memory", "64m", "--cpu-shares", "512", "--cpus", "0.5",
        "--cpuset-cpus", "0", "--ulimit", "nofile=100:200", IMAGE, "sleep", "1000",
    )  # fmt: skip
    inside = Path("/sys/fs/cgroup/memory").is_dir()
    files = (
        ("memory/memory.limit_in_bytes", "pids/pids.max", "cpu/cpu.shares", "cpuset/cpuset.cpus")
        if inside
        else ("memory.max", "pids.max", "cpu.weight", "cpuset.cpus")
    )
    shown = ok(driver, "exec", name, "sh", "-c", f"cd /sys/fs/cgroup; cat {' '.join(files)}; ulimit -n")

    assert shown.split()[:2] == [str(64 * MIB), "20"]
    assert shown.split()[3:] == ["0", "100"]


def test_top_and_stats(driver: Driver, name: str) -> None:
    started(driver, name, IMAGE, "sleep", "1000")

    assert "sleep 1000" in ok(driver, "top", name)
    assert name in ok(driver, "stats", "--no-stream", name)


def test_a_health_check_is_executed(driver: Driver, name: str) -> None:
    health = ("--health-cmd", "test -e /tmp/well", "--health-interval", "1s", "--health-retries", "1")
    started(driver, name, *health, IMAGE, "sh", "-c", "touch /tmp/well; sleep 1000")

    if driver.argv()[0] == "podman":  # which leaves the timer to systemd
        assert call(driver, "healthcheck", "run", name).code == 0
        ok(driver, "exec", name, "rm", "/tmp/well")
        assert call(driver, "healthcheck", "run", name).code == 1
        return
    wait = ("events", "--filter", f"container={name}", "--filter", "event=health_status", "--since", "0")
    with terminal(driver, *wait) as shown:
        shown.expect("healthy")
