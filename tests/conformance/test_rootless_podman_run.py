"""Podman of an unprivileged user runs containers through `pyengine-oci`; each test is proved on runc too.

Without networks of their own, which would need /dev/net/tun, and without limits: no group is delegated.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.drivers import IMAGE, RootlessPodman, call, ok, terminal
from tests.support.ocibundle import PROGRAM
from tests.support.rootless import FIRST

pytestmark = pytest.mark.requires(
    "root", "namespaces", "busybox", "podman", "runc", "user_namespaces", "uidmap"
)


@pytest.fixture(scope="module", params=["runc", PROGRAM], ids=["runc", "pyengine"])
def podman(request: pytest.FixtureRequest) -> Iterator[RootlessPodman]:
    made = RootlessPodman(Path(shutil.which(request.param) or request.param))
    yield made
    made.close()


@pytest.fixture
def name(podman: RootlessPodman) -> Iterator[str]:
    """A name for one container, which is removed."""
    yield "one"
    call(podman, "rm", *podman.forced, "one")


def run(podman: RootlessPodman, *words: str) -> str:
    return ok(podman, "run", "--rm", "--network", "none", *words)


def started(podman: RootlessPodman, name: str, *words: str) -> None:
    ok(podman, "run", "-d", "--name", name, "--network", "none", *words)


def test_output_and_exit_codes(podman: RootlessPodman) -> None:
    done = call(
        podman, "run", "--rm", "--network", "none", IMAGE, "sh", "-c", "echo out; echo err >&2; exit 7"
    )

    assert (done.code, done.out) == (7, "out\n")
    assert [line for line in done.err.splitlines() if "shared mount" not in line] == ["err"]  # and no warning
    assert call(podman, "run", "--rm", "--network", "none", IMAGE, "/nothing").code == 127
    assert call(podman, "run", "--rm", "--network", "none", IMAGE, "/etc/passwd").code == 126


def test_the_users_ids_are_the_containers(podman: RootlessPodman) -> None:
    assert run(podman, IMAGE, "cat", "/proc/self/uid_map").split()[:6] == [
        "0", "65534", "1", "1", str(FIRST), "65536",
    ]  # fmt: skip
    assert run(podman, "--user", "1000:1000", IMAGE, "sh", "-c", "id -u; id -g").split() == ["1000", "1000"]
    mapped = run(podman, "--uidmap", "0:1:500", "--gidmap", "0:1:500", IMAGE, "cat", "/proc/self/uid_map")
    assert mapped.split()[2] == "500"


def test_a_terminal(podman: RootlessPodman) -> None:
    with terminal(podman, "run", "-it", "--rm", "--network", "none", IMAGE, "sh") as shown:
        shown.expect("# ")
        shown.type("tty\n")
        shown.expect("/dev/pts/0")
        shown.type("exit 3\n")
        assert shown.end() == 3


def test_detached_with_logs_exec_and_stop(podman: RootlessPodman, name: str) -> None:
    started(podman, name, IMAGE, "sh", "-c", "trap 'exit 4' TERM; echo up; while :; do sleep 1 & wait; done")

    assert ok(podman, "exec", name, "sh", "-c", "echo in; id -u").split() == ["in", "0"]
    assert ok(podman, "exec", "-u", "user", name, "id", "-u") == "1000"
    assert call(podman, "exec", name, "sh", "-c", "exit 9").code == 9
    with terminal(podman, "exec", "-it", name, "sh") as shown:
        shown.expect("# ")
        shown.type("exit 5\n")
        assert shown.end() == 5
    assert ok(podman, "logs", name) == "up"
    ok(podman, "stop", "-t", "20", name)
    assert ok(podman, "inspect", "--format", "{{.State.ExitCode}}", name) == "4"
    ok(podman, "start", name)
    ok(podman, "kill", "-s", "KILL", name)
    assert ok(podman, "wait", name) == "137"
    ok(podman, "rm", *podman.forced, name)
    assert call(podman, "inspect", name).code != 0


def test_confinement(podman: RootlessPodman) -> None:
    assert (
        "Read-only"
        in call(podman, "run", "--rm", "--network", "none", "--read-only", IMAGE, "touch", "/x").err
    )
    assert run(podman, "--read-only", "--tmpfs", "/t", IMAGE, "sh", "-c", "echo t >/t/x; cat /t/x") == "t"
    assert "passwd" in run(podman, "--tmpfs", "/etc", IMAGE, "ls", "/etc").split()  # copied up
    show = ("grep", "-E", "CapEff|Seccomp:|NoNewPrivs", "/proc/self/status")
    flags = ("--cap-drop", "ALL", "--security-opt", "no-new-privileges")
    assert run(podman, *flags, IMAGE, *show).split() == [
        "CapEff:", "0000000000000000", "NoNewPrivs:", "1", "Seccomp:", "2",
    ]  # fmt: skip


def test_volumes_and_joined_namespaces(podman: RootlessPodman, name: str) -> None:
    shared = podman.base / "home/shared"
    run(podman, "-v", f"{podman.base}/home:/h", IMAGE, "sh", "-c", "mkdir /h/shared; echo x > /h/shared/made")
    assert (shared / "made").stat().st_uid == 65534
    assert (
        "Read-only"
        in call(
            podman, "run", "--rm", "--network", "none", "-v", f"{shared}:/v:ro", IMAGE, "touch", "/v/x"
        ).err
    )
    started(podman, name, IMAGE, "sleep", "1000")
    look = ("sh", "-c", "readlink /proc/self/ns/pid; readlink /proc/self/ns/net")
    joined = ("--pid", f"container:{name}", "--network", f"container:{name}")
    assert ok(podman, "run", "--rm", *joined, IMAGE, *look) == ok(podman, "exec", name, *look)
