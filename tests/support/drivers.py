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

from tests.support import rootless
from tests.support.home import Result, Terminal
from tests.support.netlab import Namespace
from tests.support.ocibundle import PROGRAM

TIMEOUT_S = 40.0
IMAGE = "bb"
_START_TIMEOUT_S = 60.0


class Driver(Protocol):
    """What the tests need of either; both speak docker's command line."""

    runtime: Path
    env: dict[str, str]
    host: (
        Namespace  # where its bridge and its published ports are: nothing of the machine's network is touched
    )
    forced: tuple[str, ...]  # flags of `rm` that kill at once
    tells_oom: bool  # whether its own parent of containers notices, with control groups v1 too
    copies_up: bool  # whether --tmpfs begins with what the image has there

    def argv(self, *words: str) -> list[str]:
        """Return a command line of its client."""

    def close(self) -> None:
        """End it; fail when the runtime has left anything."""


class Podman:
    """podman keeps no daemon; conmon is each container's parent."""

    forced: tuple[str, ...] = ("-f", "-t", "0")
    tells_oom: bool = False  # conmon 2.1 does not, with runc neither
    copies_up: bool = True

    def __init__(self, runtime: Path = PROGRAM) -> None:
        self.runtime = runtime
        self.base = Path(tempfile.mkdtemp(prefix="pm-"))
        self.host = Namespace.new()
        (self.base / "containers.conf").write_text(
            '[containers]\ndefault_ulimits = ["nofile=1024:1024", "nproc=1000:1000"]\n'
            f'[engine]\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\nruntime = "{runtime.name}"\n'
            f'[engine.runtimes]\n{runtime.name} = ["{runtime}"]\n'
            f'[network]\nnetwork_config_dir = "{self.base}/networks"\n'
        )
        (self.base / "storage.conf").write_text(
            f'[storage]\ndriver = "vfs"\nrunroot = "{self.base}/run"\ngraphroot = "{self.base}/graph"\n'
        )
        self.env = os.environ | {
            "CONTAINERS_CONF": str(self.base / "containers.conf"),
            "CONTAINERS_STORAGE_CONF": str(self.base / "storage.conf"),
        }
        archive = _write_archive(self.base / "rootfs")
        self._settle()
        _import(self, archive)

    def _settle(self) -> None:
        """Do what its user needs before the first command."""

    def _leave(self) -> None:
        """Do what its user needs after the last command."""

    def argv(self, *words: str) -> list[str]:
        """Return a command line of podman."""
        here = ["env", "--chdir", str(self.base)]  # conmon leaves a file `oom` wherever it was started
        return [*_inside(self.host), *here, *self._command("--tmpdir", str(self.base / "tmp"), *words)]

    def _command(self, *words: str) -> list[str]:
        return ["podman", *words]

    def close(self) -> None:
        """Remove all."""
        call(self, "rm", "--all", "--force", "--time", "0")
        call(self, "rmi", "--all", "--force")
        self._leave()
        left = left_of(self.base)
        shutil.rmtree(self.base, ignore_errors=True)
        self.host.close()
        assert left == []


class RootlessPodman(Podman):
    """podman of an unprivileged user: it, and so the runtime, is root of a user namespace."""

    def _settle(self) -> None:
        places = {"HOME": "home", "XDG_RUNTIME_DIR": "session"}
        for name in places.values():
            (self.base / name).mkdir(mode=0o700)
        self.env |= {variable: f"{self.base}/{name}" for variable, name in places.items()}
        self.env["USER"] = "nobody"
        self.base.chmod(0o755)
        rootless.give(self.base)

    def _command(self, *words: str) -> list[str]:
        return rootless.command(self.base, "podman", *words)

    def _leave(self) -> None:
        call(self, "system", "migrate")  # ends the process that keeps the user namespace


class Dockerd:
    """dockerd with its containerd and shim."""

    forced: tuple[str, ...] = ("-f",)
    tells_oom: bool = True
    copies_up: bool = False

    def __init__(self, runtime: Path = PROGRAM) -> None:
        self.runtime = runtime
        self.base = Path(tempfile.mkdtemp(prefix="dk-"))
        self.host = Namespace.new()
        address = f"unix://{self.base}/docker.sock"
        config = {
            "runtimes": {runtime.name: {"path": str(runtime)}} if runtime.name != "runc" else {},
            "default-runtime": runtime.name,
            "storage-driver": "vfs",
        }
        (self.base / "daemon.json").write_text(json.dumps(config))
        self.env = os.environ | {"DOCKER_HOST": address}
        with (self.base / "log").open("wb") as log:
            self._daemon = subprocess.Popen(
                [
                    *_inside(self.host),
                    "dockerd", "--config-file", f"{self.base}/daemon.json", "--host", address,
                    "--data-root", f"{self.base}/data", "--exec-root", f"{self.base}/exec",
                    "--pidfile", f"{self.base}/pid",
                ],
                stdout=log, stderr=log,
            )  # fmt: skip
        try:
            self._await_answer()
            _import(self, _write_archive(self.base / "rootfs"))
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
        left = left_of(self.base)
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            if str(self.base) in line:
                subprocess.run(["umount", "-l", line.split()[4]], check=False)
        shutil.rmtree(self.base, ignore_errors=True)
        self.host.close()
        assert left == []


def _inside(host: Namespace) -> list[str]:
    """Return the beginning of a command line that enters the network of `host`."""
    return ["nsenter", f"--net=/proc/{os.getpid()}/fd/{host.fd}"]


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


def write_rootfs(rootfs: Path) -> None:
    """Make a root of busybox with two users."""
    for name in ("bin", "etc", "tmp", "proc", "dev", "sys"):
        (rootfs / name).mkdir(parents=True)
    shutil.copy("/bin/busybox", rootfs / "bin/busybox")
    for tool in Result.of(["/bin/busybox", "--list"], {}, b"", TIMEOUT_S).out.split():
        if tool != "busybox":
            (rootfs / "bin" / tool).symlink_to("busybox")
    (rootfs / "etc/passwd").write_text("root:x:0:0::/:/bin/sh\nuser:x:1000:1000::/:/bin/sh\n")


def _write_archive(rootfs: Path) -> Path:
    write_rootfs(rootfs)
    archive = rootfs.with_suffix(".tar")
    subprocess.run(["tar", "-C", str(rootfs), "-cf", str(archive), "."], check=True)
    return archive


def _import(driver: Driver, archive: Path) -> None:
    ok(driver, "import", "-c", "ENV PATH=/bin", str(archive), IMAGE)


def left_of(base: Path) -> list[str]:
    """Return containers' processes that live on: those whose parent names this directory."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            if any(str(base) in word for word in words):
                found.append(" ".join(words))
    return found
