"""podman and dockerd run containers through `pyengine-oci`, unmodified; each test is proved on runc too."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest

from tests.support.drivers import IMAGE, Dockerd, Driver, Podman, call, ok, terminal
from tests.support.ocibundle import PROGRAM

pytestmark = pytest.mark.requires("root", "namespaces", "busybox", "runc")

MIB = 1 << 20
_PODMAN = pytest.mark.requires("podman", "netavark")
_DOCKERD = pytest.mark.requires("dockerd")


@pytest.fixture(
    scope="module",
    params=[
        pytest.param((Podman, "runc"), marks=_PODMAN, id="podman-runc"),
        pytest.param((Podman, PROGRAM), marks=_PODMAN, id="podman-pyengine"),
        pytest.param((Dockerd, "runc"), marks=_DOCKERD, id="dockerd-runc"),
        pytest.param((Dockerd, PROGRAM), marks=_DOCKERD, id="dockerd-pyengine"),
    ],
)
def driver(request: pytest.FixtureRequest) -> Iterator[Driver]:
    kind, runtime = request.param
    made: Driver = kind(Path(shutil.which(runtime) or runtime))
    yield made
    made.close()


@pytest.fixture
def name(driver: Driver) -> Iterator[str]:
    """A name for one container, which is removed."""
    yield "one"
    call(driver, "rm", *driver.forced, "one")


def run(driver: Driver, *words: str) -> str:
    return ok(driver, "run", "--rm", *words)


def started(driver: Driver, name: str, *words: str) -> None:
    ok(driver, "run", "-d", "--name", name, *words)


def test_it_is_the_runtime_that_was_asked_for(driver: Driver, name: str) -> None:
    started(driver, name, IMAGE, "sleep", "1000")

    pid = ok(driver, "inspect", "--format", "{{.State.Pid}}", name)

    key = "{{.Host.OCIRuntime.Path}}" if isinstance(driver, Podman) else "{{.DefaultRuntime}}"
    assert Path(ok(driver, "info", "--format", key)).name == driver.runtime.name
    assert int(pid) > 0


def test_output_input_and_exit_codes(driver: Driver) -> None:
    assert run(driver, IMAGE, "echo", "hello") == "hello"
    assert ok(driver, "run", "--rm", "-i", IMAGE, "cat", stdin=b"piped") == "piped"
    assert call(driver, "run", "--rm", IMAGE, "sh", "-c", "echo e >&2; exit 7").code == 7
    assert call(driver, "run", "--rm", IMAGE, "/nothing").code == 127
    assert call(driver, "run", "--rm", IMAGE, "/etc/passwd").code == 126


def test_a_terminal(driver: Driver) -> None:
    with terminal(driver, "run", "-it", "--rm", IMAGE, "sh") as shown:
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
    ok(driver, "rm", *driver.forced, name)
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
    assert "Read-only" in call(driver, "run", "--rm", "--read-only", IMAGE, "touch", "/x").err
    assert run(driver, "--user", "1000:1000", IMAGE, "id", "-u") == "1000"
    assert run(driver, "--user", "user", IMAGE, "id", "-g") == "1000"
    assert (
        run(driver, "--read-only", "--tmpfs", "/t:size=1m", IMAGE, "sh", "-c", "echo t >/t/x; cat /t/x")
        == "t"
    )
    assert run(driver, "--tmpfs", "/etc", IMAGE, "sh", "-c", "ls /etc | grep passwd; true") == (
        "passwd" if driver.copies_up else ""
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

    done = call(driver, "run", "--rm", "--security-opt", f"seccomp={path}", IMAGE, "mkdir", "/x")

    assert "Not supported" in done.err or "not supported" in done.err
    assert run(driver, "--security-opt", "seccomp=unconfined", IMAGE, "mkdir", "/x") == ""


def test_limits(driver: Driver, name: str) -> None:
    started(
        driver, name, "--pids-limit", "20", "--memory", "64m", "--cpu-shares", "512", "--cpus", "0.5",
        "--cpuset-cpus", "0", "--ulimit", "nofile=100:200", "--ulimit", "nproc=500:1000",
        IMAGE, "sleep", "1000",
    )  # fmt: skip
    inside = Path("/sys/fs/cgroup/memory").is_dir()
    files = (
        ("memory/memory.limit_in_bytes", "pids/pids.max", "cpu/cpu.shares", "cpuset/cpuset.cpus")
        if inside
        else ("memory.max", "pids.max", "cpu.weight", "cpuset.cpus")
    )
    shown = ok(
        driver,
        "exec",
        name,
        "sh",
        "-c",
        f"cd /sys/fs/cgroup; cat {' '.join(files)}; grep open /proc/1/limits",
    )

    assert shown.split()[:2] == [str(64 * MIB), "20"]
    assert shown.split()[3:] == ["0", "Max", "open", "files", "100", "200", "files"]


def test_limits_are_updated(driver: Driver, name: str) -> None:
    started(driver, name, "--memory", "64m", "--memory-swap", "64m", IMAGE, "sleep", "1000")

    ok(driver, "update", "--memory", "32m", "--memory-swap", "48m", "--cpu-shares", "256", name)

    files = "memory/memory.limit_in_bytes memory/memory.memsw.limit_in_bytes cpu/cpu.shares"
    wanted = [str(32 * MIB), str(48 * MIB), "256"]
    if not Path("/sys/fs/cgroup/memory").is_dir():
        files, wanted = "memory.max memory.swap.max", [str(32 * MIB), str(16 * MIB)]
    shown = ok(driver, "exec", name, "sh", "-c", f"cd /sys/fs/cgroup; cat {files}")
    assert shown.split() == wanted


def test_a_published_port_is_answered(driver: Driver, name: str) -> None:
    started(driver, name, "-p", "8080:80", IMAGE, "httpd", "-f", "-p", "80", "-h", "/etc")
    ok(driver, "exec", name, "sh", "-c", "until wget -q -O /dev/null http://127.0.0.1/passwd; do :; done")

    def fetch() -> bytes:
        with urlopen("http://127.0.0.1:8080/passwd", timeout=20) as answer:
            return bytes(answer.read())

    assert driver.host.call(fetch).startswith(b"root:x:0:0")


def test_namespaces_of_another_container_are_joined(driver: Driver, name: str) -> None:
    started(driver, name, "--ipc", "shareable", IMAGE, "sleep", "1000")
    show = "for kind in net ipc pid mnt; do readlink /proc/self/ns/$kind; done"
    theirs = ok(driver, "exec", name, "sh", "-c", show).split()

    joined = [word for flag in ("network", "ipc", "pid") for word in (f"--{flag}", f"container:{name}")]
    ours = run(driver, *joined, IMAGE, "sh", "-c", show).split()

    assert ours[:3] == theirs[:3]
    assert ours[3] != theirs[3]


def test_volumes_devices_and_sysctls(driver: Driver, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("of the host")
    volume = ("-v", f"{tmp_path}:/v:ro")
    assert run(driver, *volume, IMAGE, "cat", "/v/file") == "of the host"
    assert "Read-only" in call(driver, "run", "--rm", *volume, IMAGE, "touch", "/v/x").err
    assert run(driver, "-v", f"{tmp_path}:/v", IMAGE, "sh", "-c", "echo x > /v/made; cat /v/made") == "x"
    device = ("--device", "/dev/fuse:/dev/x:r")
    look = "for way in '<' '>'; do sh -c \": $way /dev/x\" && echo \"$way\"; done; true"
    assert run(driver, *device, IMAGE, "sh", "-c", look) == "<"
    sysctl = ("--sysctl", "net.ipv4.ip_default_ttl=33")
    assert run(driver, *sysctl, IMAGE, "cat", "/proc/sys/net/ipv4/ip_default_ttl") == "33"
    assert (
        run(driver, "--shm-size", "1m", IMAGE, "sh", "-c", "df -k /dev/shm | tail -n 1").split()[1] == "1024"
    )
    admin = ("--cap-add", "SYS_ADMIN", "--security-opt", "seccomp=unconfined")
    assert run(driver, *admin, IMAGE, "sh", "-c", "mount -t tmpfs t /tmp && echo made") == "made"


def test_top_and_stats(driver: Driver, name: str) -> None:
    started(driver, name, IMAGE, "sleep", "1000")

    assert "sleep 1000" in ok(driver, "top", name)
    assert name in ok(driver, "stats", "--no-stream", name)


def test_a_health_check_is_executed(driver: Driver, name: str) -> None:
    health = ("--health-cmd", "test -e /tmp/well", "--health-interval", "1s", "--health-retries", "1")
    started(driver, name, *health, IMAGE, "sh", "-c", "touch /tmp/well; sleep 1000")

    if isinstance(driver, Podman):  # which leaves the timer to systemd
        assert call(driver, "healthcheck", "run", name).code == 0
        ok(driver, "exec", name, "rm", "/tmp/well")
        assert call(driver, "healthcheck", "run", name).code == 1
        return
    wait = ("events", "--filter", f"container={name}", "--filter", "event=health_status", "--since", "0")
    with terminal(driver, *wait) as shown:
        shown.expect("healthy")
