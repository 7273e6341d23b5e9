"""The life of a real machine under tcg: started twice at once, orphaned, killed, asked for ports, stopped.

The tests share one machine and run in the order of the file; each leaves it running.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from engine.base.lockfile import holder_of
from hostagent.client.agent import AgentClient
from hostagent.paths import MachinePaths, host_paths

pytestmark = pytest.mark.requires("root", "qemu", "image_tools")

NAME = "life"
BOOT_S = 180.0
SOON_S = 20.0
PYENGINE = (sys.executable, "-m", "hostagent.cli.entry")
ASK_FOR_A_PORT = """
import json, socket, sys
s = socket.socket(socket.AF_UNIX); s.connect("/run/machine/ports.sock")
s.sendall(json.dumps({"op": sys.argv[1], "container": "c", "proto": "tcp", "host_ip": "",
    "host_port": int(sys.argv[2]), "guest_port": 8099}).encode() + b"\\n")
print(s.recv(4096).decode())
"""


@dataclass
class Rig:
    home: Path

    @property
    def env(self) -> dict[str, str]:
        return {**os.environ, "PYENGINE_HOME": str(self.home), "PYENGINE_INSTANCE": NAME}

    def spawn(self, *words: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [*PYENGINE, *words], env=self.env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    def run(self, *words: str, code: int = 0) -> str:
        process = self.spawn(*words)
        out, err = process.communicate(timeout=BOOT_S)
        assert process.returncode == code, f"{words}: {process.returncode}\n{out}\n{err}\n{self.console()}"
        return out if code == 0 else err

    def guest(self, *argv: str) -> str:
        return self.run("machine", "ssh", NAME, "--", *argv)

    def status(self) -> dict[str, Any]:
        return AgentClient(self.paths.agent_socket).status()

    @property
    def paths(self) -> MachinePaths:
        return MachinePaths(NAME)

    def console(self) -> str:
        try:
            return self.paths.console_log.read_text(errors="replace")[-2000:]
        except FileNotFoundError:
            return ""


def until(condition: Callable[[], bool], *, timeout_s: float = SOON_S) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "not within the deadline"
        time.sleep(0.05)  # states of other processes: nothing to wait on but the clock


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    home = tmp_path_factory.mktemp("home")
    before = os.environ.get("PYENGINE_HOME")
    os.environ["PYENGINE_HOME"] = str(home)
    made = Rig(home)
    try:
        made.run("machine", "init", NAME, "--accel", "tcg", "--memory", "768", "--disk-size", "8g")
        yield made
        made.run("machine", "rm", "--force", NAME)
    finally:
        shutil.rmtree(host_paths().run, ignore_errors=True)  # elsewhere: `home` is too long for sockets
        if before is None:
            del os.environ["PYENGINE_HOME"]
        else:
            os.environ["PYENGINE_HOME"] = before


def emulators() -> list[int]:
    """Return the processes that run a QEMU for this test's machine."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if f"pyengine-{NAME}".encode() in words and any(
            str(MachinePaths(NAME).run).encode() in w for w in words
        ):
            found.append(int(pid))
    return found


def test_a_damaged_image_is_refused_and_nothing_runs(rig: Rig) -> None:
    [rootfs] = (rig.home / "cache" / "images").glob("*/rootfs.erofs")
    whole = rootfs.read_bytes()
    rootfs.write_bytes(whole[:-4096])
    try:
        said = rig.run("machine", "start", NAME, code=1)
    finally:
        rootfs.write_bytes(whole)

    assert f"rootfs.erofs has {len(whole) - 4096} bytes instead of {len(whole)}" in said
    assert emulators() == []
    assert rig.status()["state"] == "broken"


def test_two_starts_at_once_make_one_machine(rig: Rig) -> None:
    starts = [rig.spawn("machine", "start", NAME) for _ in range(2)]
    ends = [start.communicate(timeout=BOOT_S) for start in starts]

    assert [start.returncode for start in starts] == [0, 0], (ends, rig.console())
    assert len(emulators()) == 1
    assert rig.status()["state"] == "running"


def test_the_boot_is_told_in_phases(rig: Rig) -> None:
    boot = rig.status()["boot"]

    assert list(boot["guest_ms"])[:3] == ["init", "imports", "mounts"]
    assert {"configured", "network", "disk formatted", "sshd", "engine"} <= set(boot["guest_ms"])
    assert list(boot["host_ms"])[-1] == "running"


def test_a_session_with_other_directories_for_sockets_starts_no_second_machine(
    rig: Rig, tmp_path: Path
) -> None:
    elsewhere = {**rig.env, "HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)}
    del elsewhere["PYENGINE_HOME"]
    data = tmp_path / ".local/share/pyengine"
    data.mkdir(parents=True)
    (data / "machines").symlink_to(rig.home / "data/machines")

    asked = subprocess.run(
        [*PYENGINE, "machine", "start", NAME],
        env=elsewhere,
        capture_output=True,
        text=True,
        timeout=BOOT_S,
        check=False,
    )

    assert asked.returncode == 1
    assert (
        f"the agent of machine {NAME}, process {rig.status()['agent_pid']}, does not answer in"
        in asked.stderr
    )
    assert len(emulators()) == 1


def test_a_command_runs_in_the_machine_with_its_exit_code(rig: Rig) -> None:
    assert rig.guest("hostname") == f"{NAME}\n"
    process = rig.spawn("machine", "ssh", NAME, "--", "sh", "-c", "exit 9")
    process.communicate(timeout=BOOT_S)
    assert process.returncode == 9


def test_the_guest_is_set_up_as_a_container_host(rig: Rig) -> None:
    mounts = rig.guest("cat", "/proc/mounts")

    assert "/dev/vda / erofs ro" in mounts
    assert "/var/lib/pyengine ext4 rw" in mounts
    assert "cgroup2 /sys/fs/cgroup cgroup2 rw" in mounts
    assert {"cpu", "memory", "pids", "io"} <= set(
        rig.guest("cat", "/sys/fs/cgroup/cgroup.subtree_control").split()
    )
    assert "nameserver 10.0.2.3" in rig.guest("cat", "/etc/resolv.conf")


def test_orphans_are_reaped(rig: Rig) -> None:
    rig.guest("sh", "-c", "for i in 1 2 3 4 5; do (sleep 0.1 &) ; done; sleep 0.5")

    states = rig.guest("sh", "-c", "cat /proc/[0-9]*/stat 2>/dev/null | grep ' Z ' || true")
    assert states == ""


def test_a_machine_that_runs_is_not_removed_unasked(rig: Rig) -> None:
    said = rig.run("machine", "rm", NAME, code=1)

    assert f"machine {NAME} is running" in said
    assert rig.status()["state"] == "running"


def test_a_port_is_published_on_the_host_while_it_is_wanted(rig: Rig) -> None:
    rig.guest("sh", "-c", "mkdir -p /tmp/www && echo hello > /tmp/www/index.html")
    rig.guest("sh", "-c", "busybox httpd -p 127.0.0.1:8099 -h /tmp/www")
    reply = _ask_port(rig, "publish", 0)
    assert reply["ok"], reply
    port = int(reply["host_port"])

    assert b"hello" in _fetch(port)
    assert rig.status()["ports"] == [{"host_ip": "", "host_port": port, "proto": "tcp", "container": "c"}]

    with socket.create_server(("127.0.0.1", 0)) as taken:
        clash = _ask_port(rig, "publish", taken.getsockname()[1])
    assert "is already in use by process" in str(clash["error"])


def _ask_port(rig: Rig, operation: str, port: int) -> dict[str, Any]:
    reply = json.loads(rig.guest("python3", "-I", "-S", "-c", ASK_FOR_A_PORT, operation, str(port)))
    assert isinstance(reply, dict)
    return reply


def _fetch(port: int) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=SOON_S) as client:
        client.sendall(b"GET /index.html HTTP/1.0\r\n\r\n")
        client.shutdown(socket.SHUT_WR)
        return b"".join(_chunks(client))


def _chunks(sock: socket.socket) -> Iterator[bytes]:
    while data := sock.recv(65536):
        yield data


def test_a_killed_agent_is_replaced_and_the_machine_lives_on(rig: Rig) -> None:
    before = rig.status()
    os.kill(before["agent_pid"], signal.SIGKILL)
    until(lambda: holder_of(rig.paths.agent_lock) is None)
    [listed] = json.loads(rig.run("machine", "ls", "--format", "json"))
    assert listed["State"] == "degraded"

    rig.run("machine", "start", NAME)

    after = rig.status()
    assert after["pid"] == before["pid"]
    assert after["agent_pid"] != before["agent_pid"]
    until(lambda: rig.status()["ports"] == before["ports"])
    assert b"hello" in _fetch(before["ports"][0]["host_port"])


def test_a_clock_that_went_wrong_is_set_by_the_heartbeat(rig: Rig) -> None:
    rig.guest("busybox", "date", "-s", "2001-01-01 00:00:00")

    def right() -> bool:
        return abs(int(rig.guest("date", "+%s")) - time.time()) < 10

    until(right, timeout_s=30)


def test_a_killed_emulator_is_noticed_and_the_next_request_starts_it_with_its_data(rig: Rig) -> None:
    rig.guest("sh", "-c", "echo kept > /var/lib/pyengine/probe; sync")
    before = rig.status()
    os.kill(before["pid"], signal.SIGKILL)

    until(lambda: rig.status()["state"] == "broken", timeout_s=5)
    assert rig.status()[
        "reason"
    ] == "stopped unexpectedly: qemu was killed by signal 9" or "qemu ended" in str(
        rig.status()["reason"]
    )  # an agent that adopted it is not told how it ended

    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(BOOT_S)
        client.connect(str(rig.paths.docker_socket))
        client.sendall(b"GET /_ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert client.recv(4096).startswith(b"HTTP/1.1 200")
    assert rig.status()["state"] == "running"
    assert rig.status()["pid"] != before["pid"]
    assert rig.guest("cat", "/var/lib/pyengine/probe") == "kept\n"


def test_a_request_without_an_answer_is_told_why(rig: Rig) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(BOOT_S)
        client.connect(str(rig.paths.docker_socket))
        client.sendall(b"GET /events HTTP/1.1\r\nHost: x\r\nX-Half: ")  # the engine waits for the rest
        until(lambda: len(_threads(rig.status()["agent_pid"], "docker")) > 0)
        time.sleep(0.3)  # for the half request to have arrived: nothing on our side can tell
        os.kill(rig.status()["pid"], signal.SIGKILL)
        answer = b"".join(_chunks(client))

    assert b"503 Service Unavailable" in answer
    assert b"stopped unexpectedly: qemu was killed by signal 9; the next command starts it again" in answer
    rig.run("machine", "start", NAME)


def _threads(pid: int, _name: str) -> list[str]:
    return os.listdir(f"/proc/{pid}/task")[1:]


def test_stopping_is_clean_and_leaves_no_process(rig: Rig) -> None:
    assert rig.run("machine", "stop", NAME) == f"{NAME}\n"

    until(lambda: holder_of(rig.paths.agent_lock) is None)
    assert emulators() == []
    assert not rig.paths.docker_socket.exists()
    assert "reboot: Power down" in rig.console()
    checked = _check_disk(["e2fsck", "-n", "-f", str(rig.paths.data_disk)])
    assert checked == 0
    assert rig.run("machine", "stop", NAME) == f"machine {NAME} was not running\n"


def _check_disk(argv: Sequence[str]) -> int:
    return subprocess.run(argv, check=False, capture_output=True).returncode
