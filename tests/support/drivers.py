"""podman and dockerd, unmodified, with `pyengine-oci` as their runtime; each in directories of its own."""

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Protocol

from tests.support.home import Result, Terminal
from tests.support.ocibundle import PROGRAM

TIMEOUT_S = 40.0
IMAGE = "bb"
_START_TIMEOUT_S = 60.0


class Driver(Protocol):
    """What the tests need of either; both speak docker's command line."""

    env: dict[str, str]
    network: str
    plain_readonly: tuple[str, ...]  # what makes --read-only as docker has it
    tells_oom: bool  # whether its own parent of containers notices, with control groups v1 too
    tmpfs: str  # options that make --tmpfs as docker has it

    def argv(self, *words: str) -> list[str]:
        """Return a command line of its client."""

    def close(self) -> None:
        """End it; fail when the runtime has left anything."""


class Podman:
    """podman keeps no daemon; conmon is each container's parent."""

    network: str = "none"
    plain_readonly: tuple[str, ...] = ("--read-only-tmpfs=false",)
    tmpfs: str = "size=1m,notmpcopyup"
    tells_oom: bool = False  # conmon 2.1 does not, with runc neither

    def __init__(self) -> None:
        self.base = Path(tempfile.mkdtemp(prefix="pm-"))
        (self.base / "containers.conf").write_text(
            '[containers]\ndefault_ulimits = ["nofile=1024:1024", "nproc=1000:1000"]\n'
            '[engine]\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\nruntime = "pyengine-oci"\n'
            f'[engine.runtimes]\npyengine-oci = ["{PROGRAM}"]\n'
        )
        (self.base / "storage.conf").write_text(
            f'[storage]\ndriver = "vfs"\nrunroot = "{self.base}/run"\ngraphroot = "{self.base}/graph"\n'
        )
        self.env = os.environ | {
            "CONTAINERS_CONF": str(self.base / "containers.conf"),
            "CONTAINERS_STORAGE_CONF": str(self.base / "storage.conf"),
        }
        _import_image(self, self.base / "rootfs")

    def argv(self, *words: str) -> list[str]:
        """Return a command line of podman."""
        return ["podman", "--tmpdir", str(self.base / "tmp"), *words]

    def close(self) -> None:
        """Remove all."""
        call(self, "rm", "--all", "--force", "--time", "0")
        call(self, "rmi", "--all", "--force")
        left = _left(self.base)
        shutil.rmtree(self.base, ignore_errors=True)
        assert left == []


class Dockerd:
    """dockerd with its containerd and shim. Without a bridge: these tests are not about its networks."""

    network: str = "host"
    plain_readonly: tuple[str, ...] = ()
    tmpfs: str = "size=1m"
    tells_oom: bool = True

    def __init__(self) -> None:
        self.base = Path(tempfile.mkdtemp(prefix="dk-"))
        address = f"unix://{self.base}/docker.sock"
        config: dict[str, object] = {
            "runtimes": {"pyengine-oci": {"path": str(PROGRAM)}},
            "default-runtime": "pyengine-oci",
        }
        config |= {"bridge": "none", "iptables": False, "ip-forward": False, "storage-driver": "vfs"}
        (self.base / "daemon.json").write_text(json.dumps(config))
        self.env = os.environ | {"DOCKER_HOST": address}
        with (self.base / "log").open("wb") as log:
            self._daemon = subprocess.Popen(
                [
                    "dockerd", "--config-file", f"{self.base}/daemon.json", "--host", address,
                    "--data-root", f"{self.base}/data", "--exec-root", f"{self.base}/exec",
                    "--pidfile", f"{self.base}/pid",
                ],
                stdout=log, stderr=log,
            )  # fmt: skip
        try:
            self._await_answer()
            _import_image(self, self.base / "rootfs")
        except BaseException:
            self.close()
            raise

    def _await_answer(self) -> None:
        deadline = time.monotonic() + _START_TIMEOUT_S
        while call(self, "version").code != 0:
            assert self._daemon.poll() is None, (self.base / "log").read_text()[-2000:]
            assert time.monotonic() < deadline, (self.base / "log").read_text()[-2000:]

    def argv(self, *words: str) -> list[str]:
        """Return a command line of docker."""
        return ["docker", *words]

    def close(self) -> None:
        """Remove all and end the daemon, which ends its containerd."""
        for name in call(self, "ps", "-aq").out.split():
            call(self, "rm", "--force", name)
        self._daemon.terminate()
        self._daemon.wait(_START_TIMEOUT_S)
        left = _left(self.base)
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            if str(self.base) in line:
                subprocess.run(["umount", "-l", line.split()[4]], check=False)
        shutil.rmtree(self.base, ignore_errors=True)
        assert left == []


def call(driver: Driver, *words: str, stdin: bytes = b"") -> Result:
    """Run a command of `driver` to its end."""
    return Result.of(driver.argv(*words), driver.env, stdin, TIMEOUT_S)


def ok(driver: Driver, *words: str, stdin: bytes = b"") -> str:
    """Run a command, which must succeed, and return what it printed, without the last newline."""
    result = call(driver, *words, stdin=stdin)
    assert result.code == 0, f"{' '.join(words)}: {result}"
    return result.out.removesuffix("\n")


def terminal(driver: Driver, *words: str) -> Terminal:
    """Start a command under a terminal."""
    program, *rest = driver.argv(*words)
    return Terminal([program, *rest], driver.env)


def _import_image(driver: Driver, rootfs: Path) -> None:
    for name in ("bin", "etc", "tmp"):
        (rootfs / name).mkdir(parents=True)
    shutil.copy("/bin/busybox", rootfs / "bin/busybox")
    for tool in Result.of(["/bin/busybox", "--list"], {}, b"", TIMEOUT_S).out.split():
        if tool != "busybox":
            (rootfs / "bin" / tool).symlink_to("busybox")
    (rootfs / "etc/passwd").write_text("root:x:0:0::/:/bin/sh\nuser:x:1000:1000::/:/bin/sh\n")
    archive = rootfs.with_suffix(".tar")
    subprocess.run(["tar", "-C", str(rootfs), "-cf", str(archive), "."], check=True)
    ok(driver, "import", "-c", "ENV PATH=/bin", str(archive), IMAGE)


def _left(base: Path) -> list[str]:
    """Return containers' processes that live on: those whose parent names this directory."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            if any(str(base) in word for word in words):
                found.append(" ".join(words))
    return found
