"""`pyengine-oci` as other engines use it: bundles of busybox, a state root and a control group."""

import contextlib
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

PROGRAM = Path(sys.executable).parent / "pyengine-oci"
TIMEOUT_S = 60.0
SLEEP = ("sleep", "1000")
_GROUPS = Path("/sys/fs/cgroup")
Config = dict[str, Any]


class Bundles:
    """Containers of one root; `close` fails when anything of them is left."""

    def __init__(self) -> None:
        self.base = Path(tempfile.mkdtemp(prefix="ocibundle-"))
        self.root = self.base / "state"
        self.cgroup = f"/{self.base.name}"
        self._rootfs = self.base / "rootfs"
        for name in ("bin", "proc", "dev", "sys", "tmp"):
            (self._rootfs / name).mkdir(parents=True)
        shutil.copy("/bin/busybox", self._rootfs / "bin/busybox")
        self.command(["/bin/busybox", "--install", "-s", str(self._rootfs / "bin")])
        for link in (self._rootfs / "bin").iterdir():
            if link.is_symlink():
                link.unlink()
                link.symlink_to("busybox")

    @staticmethod
    def command(argv: Sequence[str], stdin: bytes = b"") -> subprocess.CompletedProcess[str]:
        """Run a program to its end."""
        # A container that goes on holds whatever its maker had for output, so files and no pipes.
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            done = subprocess.run(argv, input=stdin, stdout=out, stderr=err, timeout=TIMEOUT_S, check=False)
            out.seek(0)
            err.seek(0)
            return subprocess.CompletedProcess(
                list(argv), done.returncode, out.read().decode(), err.read().decode()
            )

    def argv(self, *words: str) -> list[str]:
        """Return the command line of the runtime with this root."""
        return [str(PROGRAM), "--root", str(self.root), *words]

    def call(self, *words: str, stdin: bytes = b"") -> subprocess.CompletedProcess[str]:
        """Run the runtime to its end."""
        return self.command(self.argv(*words), stdin)

    def ok(self, *words: str, stdin: bytes = b"") -> str:
        """Run the runtime, which must succeed, and return what it printed."""
        done = self.call(*words, stdin=stdin)
        assert done.returncode == 0, done
        return done.stdout

    def bundle(
        self,
        name: str,
        *args: str,
        resources: Config | None = None,
        edit: Callable[[Config], None] = lambda _: None,
    ) -> Path:
        """Write a bundle that runs `args`."""
        path = self.base / name
        path.mkdir()
        self.ok("spec", "--bundle", str(path))
        config: Config = json.loads((path / "config.json").read_text())
        config["process"] |= {"terminal": False, "args": list(args or SLEEP), "env": ["PATH=/bin"]}
        config["root"] = {"path": str(self._rootfs), "readonly": True}
        config["linux"]["cgroupsPath"] = f"{self.cgroup}/{name}"
        config["linux"]["resources"] |= resources or {}
        edit(config)
        (path / "config.json").write_text(json.dumps(config))
        return path

    def start(self, name: str, *args: str, **how: Any) -> None:
        """Run a container that goes on."""
        self.ok("run", "--detach", "--bundle", str(self.bundle(name, *args, **how)), name)

    def state(self, name: str) -> Config:
        """Return what `state` prints."""
        found: Config = json.loads(self.ok("state", name))
        return found

    def ended(self, name: str) -> None:
        """Return once the container's process has ended."""
        deadline = time.monotonic() + TIMEOUT_S
        pid = int(json.loads((self.root / name / "state.json").read_bytes())["pid"])
        with contextlib.suppress(ProcessLookupError):
            pidfd = os.pidfd_open(pid)
            try:
                select.select([pidfd], [], [], deadline - time.monotonic())
            finally:
                os.close(pidfd)
        assert self.state(name)["status"] == "stopped"

    def file(self, name: str, controller: str, file: str) -> str:
        """Return what a file of the container's control group says."""
        top = _GROUPS / controller if (_GROUPS / controller).is_dir() else _GROUPS
        return (top / self.cgroup.lstrip("/") / name / file).read_text().strip()

    def groups(self) -> list[Path]:
        """Return what there is of this lab in every hierarchy, deepest first, without its own top."""
        found = []
        for top in (_GROUPS, *_GROUPS.iterdir()):
            own = top / self.base.name
            if own.is_dir():
                found += [Path(path) for path, _, _ in os.walk(own, topdown=False) if Path(path) != own]
        return found

    def mounts(self) -> list[str]:
        """Return the mounts that name this lab, in our mount namespace."""
        return [
            line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(self.base) in line
        ]

    def processes(self) -> list[int]:
        """Return the processes whose root is this lab's, or whose command line names it."""
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                words = (entry / "cmdline").read_bytes().decode(errors="replace")
                inside = any(self.base.name in line for line in (entry / "cgroup").read_text().splitlines())
                if inside or str(self.base) in words:
                    found.append(int(entry.name))
        return found

    def close(self) -> None:
        """Delete the containers; fail when that leaves anything."""
        for name in self.ok("list", "--quiet").split():
            self.ok("delete", "--force", name)
        left = [*map(str, self.groups()), *self.mounts(), *map(str, self.processes())]
        for top in (_GROUPS, *_GROUPS.iterdir()):
            with contextlib.suppress(OSError):
                (top / self.base.name).rmdir()
        shutil.rmtree(self.base)
        assert left == []


def bundles() -> Iterator[Bundles]:
    """Lend a lab; the body of a fixture."""
    made = Bundles()
    try:
        yield made
    finally:
        made.close()
