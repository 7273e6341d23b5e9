"""Seccomp profiles at work in a container: actions, other ABIs, and calls that an agent answers."""

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.support.agents import Agent
from tests.support.ocilab import TIMEOUT_S, OciLab

pytestmark = pytest.mark.requires("root", "namespaces", "busybox")


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    made = Agent(tmp_path / "agent.sock")
    yield made
    made.close()


def _asking(path: Path | str, *names: str, **more: Any) -> dict[str, Any]:
    rules = [{"names": list(names), "action": "SCMP_ACT_NOTIFY"}]
    profile = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules, "listenerPath": str(path), **more}
    return {"seccomp": profile}


def _profile(action: str, *names: str, **more: Any) -> dict[str, Any]:
    rule = {"names": list(names), "action": action, **more.pop("rule", {})}
    return {"seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule], **more}}


@pytest.fixture
def mkdir(oci: OciLab) -> OciLab:
    (oci.rootfs / "bin/mkdir").symlink_to("busybox")
    return oci


@pytest.mark.parametrize("killable", [False, True])
def test_an_agent_answers_for_the_container_and_is_told_of_it(
    mkdir: OciLab, agent: Agent, killable: bool
) -> None:
    flags = {"flags": ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]} if killable else {}
    linux = _asking(agent.path, "mkdir", "mkdirat", listenerMetadata="blue", **flags)
    with ThreadPoolExecutor(1) as pool:
        served = pool.submit(agent.serve, 107)
        ran = mkdir.run("mkdir", "/made", linux=linux, annotations={"a": "b"})
        assert served.result(TIMEOUT_S) == 1

    assert ran.returncode == 1
    assert "Transport endpoint is not connected" in ran.stderr
    assert not (mkdir.rootfs / "made").exists()
    pid = agent.told["pid"]
    assert agent.told == {
        "ociVersion": "1.2.0",
        "fds": ["seccompFd"],
        "pid": pid,
        "metadata": "blue",
        "state": {
            "ociVersion": "1.2.0",
            "id": mkdir.id,
            "status": "created",
            "pid": pid,
            "bundle": str(mkdir.bundle),
            "annotations": {"a": "b"},
        },
    }


def test_the_execve_and_the_calls_before_it_may_be_for_the_agent_too(mkdir: OciLab, agent: Agent) -> None:
    with ThreadPoolExecutor(1) as pool:
        served = pool.submit(agent.serve, 1)
        ran = mkdir.run("true", linux=_asking(agent.path, "execve", "recvfrom", "rt_sigaction"))
        assert served.result(TIMEOUT_S) >= 1

    assert ran.returncode != 0


def test_an_exec_has_a_listener_of_its_own(mkdir: OciLab, agent: Agent) -> None:
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(agent.serve, 107)
        assert mkdir.create("sleep", "1000", linux=_asking(agent.path, "mkdir", "mkdirat")).returncode == 0
        assert mkdir.oci("start", mkdir.id).returncode == 0
        pid = mkdir.state()["pid"]
        other = Agent(agent.path.with_name("other.sock"))
        with contextlib.closing(other), ThreadPoolExecutor(1) as another:
            agent.path.rename(agent.path.with_name("first.sock"))
            other.path.rename(agent.path)
            served = another.submit(other.serve, 107)
            ran = mkdir.oci("exec", mkdir.id, "mkdir", "/made")
            assert served.result(TIMEOUT_S) == 1
        mkdir.oci("delete", "--force", mkdir.id)
        assert first.result(TIMEOUT_S) == 0

    assert "Transport endpoint is not connected" in ran.stderr
    assert other.told["state"]["pid"] == pid != other.told["pid"]
    assert other.told["state"]["status"] == "running"


@pytest.mark.parametrize("verb", ["run", "start"])
def test_without_an_agent_nothing_runs(mkdir: OciLab, verb: str) -> None:
    linux = _asking(mkdir.bundle / "nobody", "mkdir")

    if verb == "run":
        ran = mkdir.run("mkdir", "/made", linux=linux)
    else:
        assert mkdir.create("mkdir", "/made", linux=linux).returncode == 0
        ran = mkdir.oci("start", mkdir.id)
        mkdir.wait()
        assert mkdir.state()["status"] == "stopped"

    assert ran.returncode == 1
    reason = f"hand over the seccomp listener to {mkdir.bundle}/nobody: no such file or directory"
    assert ran.stderr == f"pyengine-oci: {reason}\n"
    assert not (mkdir.rootfs / "made").exists()


@pytest.mark.parametrize(
    ("action", "rule", "code"),
    [
        ("SCMP_ACT_ERRNO", {"errnoRet": 28}, 1),
        ("SCMP_ACT_TRACE", {"errnoRet": 3}, 1),
        ("SCMP_ACT_TRAP", {}, 128 + signal.SIGSYS),
        ("SCMP_ACT_KILL", {}, 128 + signal.SIGSYS),
        ("SCMP_ACT_KILL_THREAD", {}, 128 + signal.SIGSYS),
        ("SCMP_ACT_KILL_PROCESS", {}, 128 + signal.SIGSYS),
        ("SCMP_ACT_LOG", {}, 0),
    ],
)
def test_each_action_does_what_it_says(mkdir: OciLab, action: str, rule: dict[str, Any], code: int) -> None:
    linux = _profile(action, "mkdir", "mkdirat", rule=rule, flags=["SECCOMP_FILTER_FLAG_LOG"])

    ran = mkdir.run("sh", "-c", "mkdir /made; exit $?", linux=linux)

    assert ran.returncode == code
    assert (mkdir.rootfs / "made").exists() is (code == 0)
    if action == "SCMP_ACT_ERRNO":
        assert "No space left on device" in ran.stderr
    if action == "SCMP_ACT_TRACE":
        assert "Function not implemented" in ran.stderr  # nobody traces


@pytest.mark.parametrize(
    "flag",
    ["SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"],
)
def test_each_flag_is_taken(oci: OciLab, flag: str) -> None:
    assert oci.run("true", linux=_profile("SCMP_ACT_ERRNO", "mkdir", flags=[flag])).returncode == 0


_I386 = """
.globl _start
_start:
    mov $39, %eax      # mkdir
    mov $name, %ebx
    mov $0755, %ecx
    int $0x80
    neg %eax
    mov %eax, %ebx
    mov $1, %eax       # exit with the errno
    int $0x80
.data
name: .asciz "/made"
"""


@pytest.mark.skipif(
    os.uname().machine != "x86_64" or shutil.which("as") is None, reason="needs x86_64 and as"
)
def test_a_program_of_32_bits_is_filtered_when_its_abi_is_listed(oci: OciLab, tmp_path: Path) -> None:
    source = tmp_path / "i386.s"
    source.write_text(_I386)
    subprocess.run(["as", "--32", "-o", tmp_path / "i386.o", source], check=True)
    subprocess.run(["ld", "-m", "elf_i386", "-o", oci.rootfs / "bin/i386", tmp_path / "i386.o"], check=True)
    if oci.run("i386").returncode:
        pytest.skip("this kernel runs no 32-bit programs")
    (oci.rootfs / "made").rmdir()
    listed = {"architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]}

    denied = oci.run("i386", linux=_profile("SCMP_ACT_ERRNO", "mkdir", rule={"errnoRet": 28}, **listed))
    allowed = oci.run("i386", linux=_profile("SCMP_ACT_ERRNO", "rmdir", **listed))

    assert denied.returncode == 28
    assert allowed.returncode == 0
    assert (oci.rootfs / "made").exists()
    # Not listed: not even exit is there, so it runs into the end of its text.
    assert oci.run("i386", linux=_profile("SCMP_ACT_ERRNO", "rmdir")).returncode == 128 + signal.SIGSEGV


@pytest.mark.parametrize(
    ("operator", "value", "other", "denied"),
    [
        ("EQ", 0o600, 0, {"600"}),
        ("NE", 0o600, 0, {"500", "700"}),
        ("LT", 0o600, 0, {"500"}),
        ("LE", 0o600, 0, {"500", "600"}),
        ("GT", 0o600, 0, {"700"}),
        ("GE", 0o600, 0, {"600", "700"}),
        ("MASKED_EQ", 0o100, 0o100, {"500", "700"}),
    ],
)
def test_each_operator_compares_the_argument(
    oci: OciLab, operator: str, value: int, other: int, denied: set[str]
) -> None:
    (oci.rootfs / "bin/chmod").symlink_to("busybox")
    (oci.rootfs / "file").touch()
    rules = [
        {
            "names": [name],
            "action": "SCMP_ACT_ERRNO",
            "args": [{"index": index, "value": value, "valueTwo": other, "op": f"SCMP_CMP_{operator}"}],
        }
        for name, index in (("chmod", 1), ("fchmodat", 2), ("fchmodat2", 2))
    ]
    script = "for mode in 500 600 700; do chmod $mode /file 2> /dev/null || echo $mode; done"

    ran = oci.run(
        "sh", "-c", script, linux={"seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules}}
    )

    assert set(ran.stdout.split()) == denied, ran.stderr
