"""containerd of the test's own, driven by ctr; its runc shim is told which runtime to call.

Without CRI. The only places of the machine that it uses are a control group of its namespace's
name, and the sockets of its shims in /run/containerd/s; both are removed.
"""

import contextlib
import json
import os
import secrets
import select
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.support.drivers import TIMEOUT_S, left_of, write_rootfs
from tests.support.home import Deadline, Result, Running, Terminal
from tests.support.netlab import Namespace

_START_TIMEOUT_S = 60.0
_SHIM_SOCKETS = Path("/run/containerd/s")
_UNUSED = ("io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt")  # the second wants /opt/containerd


class Containerd:
    """One daemon; containers are named by the test and removed by `remove`."""

    def __init__(self, runtime: Path) -> None:
        self.runtime = runtime
        self.base = Path(tempfile.mkdtemp(prefix="cd-"))
        self.namespace = f"cd-{secrets.token_hex(4)}"  # a directory's name may have what this must not: "__"
        self.base.chmod(0o711)  # for the root of a user namespace
        self.rootfs = self.base / "rootfs"
        write_rootfs(self.rootfs)
        self.env = {**os.environ, "CONTAINERD_NAMESPACE": self.namespace}
        self._sockets = self._shim_sockets()
        self._host = Namespace.new()
        (self.base / "config.toml").write_text(
            f'version = 2\nroot = "{self.base}/root"\nstate = "{self.base}/state"\n'
            f'disabled_plugins = {json.dumps(_UNUSED)}\n[grpc]\naddress = "{self.base}/sock"\n'
        )
        with (self.base / "log").open("wb") as log:
            inside = ["nsenter", f"--net=/proc/{os.getpid()}/fd/{self._host.fd}"]
            self._daemon = subprocess.Popen(
                [*inside, "containerd", "--config", f"{self.base}/config.toml"], stdout=log, stderr=log
            )
        deadline = Deadline("containerd answers", _START_TIMEOUT_S)
        while self.call("version").code != 0:
            assert self._daemon.poll() is None, (self.base / "log").read_text()[-2000:]
            deadline.check()

    @staticmethod
    def _shim_sockets() -> set[str]:
        return set(os.listdir(_SHIM_SOCKETS)) if _SHIM_SOCKETS.is_dir() else set()

    def argv(self, *words: str) -> list[str]:
        """Return a command line of ctr."""
        return ["ctr", "--address", f"{self.base}/sock", *words]

    def config(self, edit: Callable[[dict[str, Any]], None]) -> tuple[str, ...]:
        """Return the flags for a container of containerd's own first config.json with changes."""
        found = json.loads(self.ok("oci", "spec"))
        found["root"]["path"] = str(self.rootfs)
        found["process"]["env"] = ["PATH=/bin"]
        edit(found)
        path = self.base / "config.json"
        path.write_text(json.dumps(found))
        return ("--config", str(path))

    def run_words(self, name: str, *args: str, flags: Sequence[str] = ()) -> list[str]:
        """Return the words that run `args` in a container."""
        ours = ("--runc-binary", str(self.runtime), "--runc-root", f"{self.base}/runc")
        where = ("--fifo-dir", f"{self.base}/fifo", "--env", "PATH=/bin")
        root = () if "--config" in flags else ("--rootfs", str(self.rootfs))
        return ["run", *ours, *where, *flags, *root, name, *args]

    def call(self, *words: str, stdin: bytes = b"") -> Result:
        """Run ctr to its end."""
        return Result.of(self.argv(*words), self.env, stdin, TIMEOUT_S)

    def ok(self, *words: str, stdin: bytes = b"") -> str:
        """Run ctr, which must succeed, and return what it printed."""
        done = self.call(*words, stdin=stdin)
        assert done.code == 0, f"{' '.join(words)}: {done}"
        return done.out

    def run(self, *args: str, flags: Sequence[str] = (), stdin: bytes = b"") -> Result:
        """Run a container to its end."""
        return self.call(*self.run_words("one", *args, flags=("--rm", *flags)), stdin=stdin)

    def start(self, name: str, *args: str, flags: Sequence[str] = ()) -> int:
        """Run a container that goes on; return its process."""
        pid_file = self.base / "pid"
        flags = ("--detach", "--null-io", "--pid-file", str(pid_file), *flags)
        self.ok(*self.run_words(name, *args, flags=flags))
        return int(pid_file.read_text())

    def exec(self, name: str, exec_id: str, *args: str, flags: Sequence[str] = ()) -> Result:
        """Run another program in a container to its end."""
        where = ("--fifo-dir", f"{self.base}/fifo")
        return self.call("tasks", "exec", "--exec-id", exec_id, *where, *flags, name, *args)

    def terminal(self, *words: str) -> Terminal:
        """Start ctr under a terminal."""
        return Terminal(self.argv(*words), self.env)

    def status(self, name: str) -> str:
        """Return the status that `ctr tasks ls` shows; nothing without a task."""
        rows = (line.split() for line in self.ok("tasks", "ls").splitlines())
        return next((row[2] for row in rows if row[0] == name), "")

    @contextlib.contextmanager
    def events(self) -> Iterator["Events"]:
        """Lend the events from here on."""
        with Running(self.argv("events"), self.env) as running:
            # It does not say when it listens: so something happens until it tells of that.
            deadline, told = Deadline("ctr events listens"), running.process.stdout
            while told is not None and not select.select([told], [], [], 0)[0]:
                self.ok("namespaces", "label", self.namespace, f"now={time.monotonic_ns()}")
                deadline.check()
            yield Events(running)

    def groups(self) -> list[Path]:
        """Return the control groups of its namespace, deepest first."""
        tops = [top / self.namespace for top in (Path("/sys/fs/cgroup"), *Path("/sys/fs/cgroup").iterdir())]
        return [Path(path) for top in tops if top.is_dir() for path, _, _ in os.walk(top, topdown=False)]

    def ended(self, name: str) -> int:
        """Delete the task of a container that has ended; return its exit status."""
        told = self.call("tasks", "delete", name)
        assert told.code == 0, told
        return int(told.err.strip().rpartition(" exit code ")[2].rstrip('"') or 0)

    def remove(self, name: str) -> None:
        """Remove a container and its task, in whatever state they are."""
        self.call("tasks", "delete", "--force", name)
        self.call("containers", "rm", name)

    def close(self) -> None:
        """End the daemon; fail when anything of a container is left."""
        self._daemon.terminate()
        self._daemon.wait(_START_TIMEOUT_S)
        runc = self.base / "runc" / self.namespace
        left = [*left_of(self.base), *(os.listdir(runc) if runc.is_dir() else [])]
        for group in self.groups():
            if group.name != self.namespace:
                left.append(str(group))
            with contextlib.suppress(OSError):
                group.rmdir()
        for name in self._shim_sockets() - self._sockets:
            _remove_dead(_SHIM_SOCKETS / name)  # a shim that was killed leaves it
        shutil.rmtree(self.base)
        self._host.close()
        assert not left, left


def _remove_dead(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
        except FileNotFoundError:
            pass


class Events:
    """What happens to tasks."""

    def __init__(self, running: Running) -> None:
        self._running = running

    def until(self, topic: str) -> list[str]:
        """Return the topics of tasks up to `topic`, which must come."""
        found: list[str] = []
        while not found or found[-1] != topic:
            # 2026-11-25 21:23:35.287 +0000 UTC NAMESPACE /tasks/start {...}
            happened = self._running.line(timeout_s=TIMEOUT_S).split()[5]
            if happened.startswith("/tasks/"):
                found.append(happened.removeprefix("/tasks/"))
        return found
