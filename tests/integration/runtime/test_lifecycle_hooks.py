"""Hooks of all six kinds: when, where, with what, and what their failure does."""

import json
import os
import select
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from engine.runtime.hooks import KINDS
from tests.support.ocilab import TIMEOUT_S, OciLab
from tests.support.tracing import inside, trace_to_end

pytestmark = pytest.mark.requires("root", "namespaces", "busybox")


def _shell(script: str, **more: Any) -> dict[str, Any]:
    return {"path": "/bin/sh", "args": ["sh", "-c", script], **more}


def _failing(kind: str) -> dict[str, Any]:
    return {kind: [_shell("echo no such network >&2; exit 7")]}


def _telling(path: Path) -> dict[str, Any]:
    """Return a hook of each kind that adds its state, its mount namespace and its root to a file."""
    log = path / "log"
    outside = f'read state; echo "$state" >> {log}; readlink /proc/self/ns/mnt >> {log}; pwd >> {log}'
    within = "cat > /state; readlink /proc/self/ns/mnt >> /state; echo $INSIDE >> /state; id -u >> /state"
    hooks: dict[str, Any] = {kind: [_shell(f"echo {kind} >> {log}; {outside}")] for kind in KINDS}
    return hooks | {"startContainer": [_shell(within)]}


def _records(path: Path) -> dict[str, tuple[dict[str, Any], str, str]]:
    lines = (path / "log").read_text().splitlines()
    return {
        lines[at]: (json.loads(lines[at + 1]), lines[at + 2], lines[at + 3]) for at in range(0, len(lines), 4)
    }


def test_each_kind_runs_at_its_moment_in_its_namespaces(oci: OciLab, tmp_path: Path) -> None:
    for name in ("id", "readlink"):
        (oci.rootfs / "bin" / name).symlink_to("busybox")
    (oci.rootfs / "state").touch(0o666)
    os.chmod(oci.rootfs / "state", 0o666)
    user = {"user": {"uid": 1000, "gid": 1000}}

    created = oci.create("sleep", "1000", hooks=_telling(tmp_path), process=user, annotations={"a": "b"})
    assert created.returncode == 0, created.stderr
    assert list(_records(tmp_path)) == ["prestart", "createRuntime", "createContainer"]
    assert (oci.rootfs / "state").read_text() == ""
    pid = oci.state()["pid"]
    space = os.readlink(f"/proc/{pid}/ns/mnt")
    assert oci.oci("start", oci.id).returncode == 0
    assert list(_records(tmp_path))[3:] == ["poststart"]
    assert oci.oci("delete", "--force", oci.id).stderr == ""

    told = _records(tmp_path)
    assert list(told)[4:] == ["poststop"]
    own = os.readlink("/proc/self/ns/mnt")
    for kind, (state, where, cwd) in told.items():
        assert (state["ociVersion"], state["id"], state["bundle"]) == ("1.2.0", oci.id, str(oci.bundle))
        assert state["annotations"] == {"a": "b"}
        assert where == (space if kind == "createContainer" else own)
        assert cwd == str(oci.bundle)
    assert [(state["status"], state.get("pid")) for state, _, _ in told.values()] == [
        ("creating", pid),
        ("creating", pid),
        ("creating", 1),
        ("running", pid),
        ("stopped", None),
    ]
    text = (oci.rootfs / "state").read_text()
    state, rest = json.JSONDecoder().raw_decode(text)
    assert (state["status"], state["pid"]) == ("created", 1)
    assert text[rest:].split() == [space, "yes", "1000"]


@pytest.mark.parametrize("kind", ["prestart", "createRuntime", "createContainer"])
def test_a_failing_hook_of_create_leaves_nothing_and_says_why(oci: OciLab, tmp_path: Path, kind: str) -> None:
    hooks = _failing(kind) | {"poststop": [_shell(f"cat > {tmp_path}/gone")]}

    made = oci.create("true", hooks=hooks)

    assert made.returncode == 1
    assert made.stderr == f"pyengine-oci: {kind} hook /bin/sh: exited with status 7: no such network\n"
    assert not list(oci.root.iterdir())
    assert json.loads((tmp_path / "gone").read_text())["status"] == "stopped"


@pytest.mark.parametrize("kind", ["startContainer", "poststart"])
def test_a_failing_hook_of_start_destroys_the_container(oci: OciLab, tmp_path: Path, kind: str) -> None:
    hooks = _failing(kind) | {"poststop": [_shell(f"cat > {tmp_path}/gone")]}
    assert oci.create("sleep", "1000", hooks=hooks).returncode == 0

    started = oci.oci("start", oci.id)

    assert started.returncode == 1
    assert started.stderr == f"pyengine-oci: {kind} hook /bin/sh: exited with status 7: no such network\n"
    assert not list(oci.root.iterdir())
    assert json.loads((tmp_path / "gone").read_text())["status"] == "stopped"


def test_a_failing_hook_after_the_end_is_a_warning_and_the_next_one_runs(oci: OciLab, tmp_path: Path) -> None:
    hooks = {"poststop": [*_failing("poststop")["poststop"], _shell(f"touch {tmp_path}/ran")]}

    ran = oci.run("true", hooks=hooks)

    assert ran.returncode == 0
    assert "warning: poststop hook /bin/sh: exited with status 7: no such network" in ran.stderr
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize("kind", ["createRuntime", "createContainer"])
def test_a_hook_ends_with_its_time_and_so_do_its_children(oci: OciLab, kind: str) -> None:
    made = oci.create("true", hooks={kind: [_shell("sleep 1000 & sleep 1000", timeout=1)]})

    assert made.stderr == f"pyengine-oci: {kind} hook /bin/sh: timed out after 1 s\n"


@pytest.mark.parametrize("kind", ["createRuntime", "createContainer", "startContainer"])
def test_a_hook_that_is_not_there_is_named(oci: OciLab, kind: str) -> None:
    ran = oci.run("true", hooks={kind: [{"path": "/no/hook"}]})

    assert ran.returncode == 1
    assert ran.stderr == f"pyengine-oci: {kind} hook /no/hook: no such file or directory\n"


def test_an_environment_that_is_given_is_the_whole(oci: OciLab, tmp_path: Path) -> None:
    out = tmp_path / "env"
    script = f"env > {out}"

    oci.run("true", hooks={"createContainer": [_shell(script, env=["PATH=/bin:/usr/bin", "A=b"])]})
    assert {"A=b", "PATH=/bin:/usr/bin"} <= set(out.read_text().split())
    assert "HOME" not in out.read_text()

    oci.run("true", hooks={"createContainer": [_shell(script)]})
    assert "INSIDE" not in out.read_text()  # of the image: not for a program of the host


def test_a_large_state_is_whole_and_may_be_left_unread(oci: OciLab, tmp_path: Path) -> None:
    notes = {f"note{number}": "x" * 1000 for number in range(300)}
    hooks = {"createRuntime": [{"path": "/bin/true"}, _shell(f"cat > {tmp_path}/told")]}

    assert oci.run("true", hooks=hooks, annotations=notes).returncode == 0
    assert json.loads((tmp_path / "told").read_text())["annotations"] == notes


def test_the_engines_own_executable_is_no_hook(oci: OciLab) -> None:
    ran = oci.run("true", hooks={"startContainer": [{"path": "/proc/self/exe", "args": ["x"]}]})

    assert ran.returncode == 1
    refused = "startContainer hook /proc/self/exe: it is the engine's own executable: permission denied"
    assert refused in ran.stderr


@pytest.mark.requires("strace")
def test_hooks_inside_open_nothing_but_themselves(oci: OciLab, tmp_path: Path) -> None:
    oci.write("true", hooks={"startContainer": [{"path": "/bin/true"}, {"path": "/bin/echo"}]})
    argv = [sys.executable, "-m", "engine.runtime.entry", "--root", str(oci.root), "run"]
    assert trace_to_end([*argv, "--bundle", str(oci.bundle), oci.id], tmp_path / "trace") == 0

    calls = [call for process in inside(tmp_path / "trace") for call in process]
    opened = {texts[0] for name, texts in calls if name in {"open", "openat", "openat2"}}
    assert opened <= {"", ".", "/", "/bin/true", "/bin/echo", "etc/passwd"}  # the last for HOME


def test_a_process_of_a_deadline_has_hooks_too(oci: OciLab) -> None:
    deadline = {"policy": "SCHED_DEADLINE", "runtime": 10**6, "deadline": 10**8}

    ran = oci.run(
        "cat",
        "/proc/self/stat",
        hooks={"startContainer": [{"path": "/bin/true"}]},
        process={"scheduler": deadline},
    )

    assert ran.stdout.rpartition(")")[2].split()[38] == "6", ran.stderr


@pytest.mark.parametrize("spaces", ["own", "the host's"])
@pytest.mark.parametrize("kind", ["createRuntime", "createContainer"])
def test_a_hook_ends_with_the_runtime_that_was_killed(
    oci: OciLab, tmp_path: Path, kind: str, spaces: str
) -> None:
    os.mkfifo(tmp_path / "fifo")
    hook = _shell(f"echo $$ > {tmp_path}/fifo; exec sleep 1000", env=["PATH=/bin:/usr/bin"])
    linux = {} if spaces == "own" else {"namespaces": [{"type": "mount"}]}
    oci.write("true", hooks={kind: [hook]}, linux=linux)
    argv = [sys.executable, "-m", "engine.runtime.entry", "--root", str(oci.root), "create"]
    with subprocess.Popen([*argv, "--bundle", str(oci.bundle), oci.id]) as runtime:
        (tmp_path / "fifo").read_text()  # it runs
        descendants = _descendants(runtime.pid)
        assert len(descendants) == 2  # init and the hook
        pidfds = [os.pidfd_open(pid) for pid in descendants]
        runtime.kill()

    for pidfd in pidfds:
        assert select.select([pidfd], [], [], TIMEOUT_S)[0]
        os.close(pidfd)
    deleted = oci.oci("delete", "--force", oci.id)
    assert (deleted.returncode, deleted.stderr) == (0, "")


def _descendants(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [found for child in children for found in (int(child), *_descendants(int(child)))]
