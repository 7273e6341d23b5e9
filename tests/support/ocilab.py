"""`pyengine-oci` as a program, on bundles with a root file system of busybox."""

import contextlib
import json
import os
import select
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

from tests.support.shimlab import make_rootfs

TIMEOUT_S = 60.0
_SPACES = ("pid", "network", "mount", "ipc", "uts")
_CAPABILITIES = ["CAP_CHOWN", "CAP_KILL", "CAP_SETUID", "CAP_SETGID"]


class OciLab:
    """One bundle, and the directory of its container's state."""

    def __init__(self, path: Path) -> None:
        self.root = path / "state"
        self.bundle = path / "bundle"
        self.rootfs = self.bundle / "rootfs"
        self.rootfs.mkdir(parents=True)
        make_rootfs(self.rootfs)
        self.id = f"oci-{uuid.uuid4().hex[:12]}"

    def write(self, *args: str, **changes: Any) -> None:
        """Write config.json for `args`; `process` and `linux` among `changes` are merged, others set."""
        spec: dict[str, Any] = {
            "ociVersion": "1.2.0",
            "process": {
                "cwd": "/",
                "args": list(args),
                "env": ["PATH=/bin", "INSIDE=yes"],
                "noNewPrivileges": True,
                "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), _CAPABILITIES),
            },
            "root": {"path": "rootfs"},
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"]},
            ],
            "linux": {"namespaces": [{"type": kind} for kind in _SPACES]},
        }
        for part in ("process", "linux"):
            spec[part] |= changes.pop(part, {})
        (self.bundle / "config.json").write_text(json.dumps(spec | changes))

    def oci(self, verb: str, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run one verb to its end."""
        argv = [sys.executable, "-m", "engine.runtime.entry", "--root", str(self.root), verb, *words]
        return subprocess.run(
            argv,
            check=False,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=options.pop("stdout", subprocess.PIPE),
            stderr=options.pop("stderr", subprocess.PIPE),
            timeout=TIMEOUT_S,
            **options,
        )

    def run(self, *args: str, **changes: Any) -> subprocess.CompletedProcess[str]:
        """Write config.json and run the container to its end."""
        self.write(*args, **changes)
        return self.oci("run", "--bundle", str(self.bundle), self.id)

    def create(self, *args: str, **changes: Any) -> subprocess.CompletedProcess[str]:
        """Write config.json and create the container; its output goes to `output`."""
        self.write(*args, **changes)
        errors = self.bundle / "errors"  # a file: the container holds it open
        with (self.bundle / "output").open("w") as out, errors.open("w") as err:
            done = self.oci("create", "--bundle", str(self.bundle), self.id, stdout=out, stderr=err)
        done.stderr = errors.read_text()
        return done

    def output(self) -> str:
        """Return what a created container has written."""
        return (self.bundle / "output").read_text()

    def state(self) -> dict[str, Any]:
        """Return what `state` prints."""
        found: dict[str, Any] = json.loads(self.oci("state", self.id).stdout)
        return found

    def wait(self) -> None:
        """Return when the container's process has ended."""
        pid = self.state()["pid"]
        if not pid:
            return
        with contextlib.suppress(ProcessLookupError):
            pidfd = os.pidfd_open(pid)
            try:
                assert select.select([pidfd], [], [], TIMEOUT_S)[0]
            finally:
                os.close(pidfd)

    def close(self) -> None:
        """Remove what is left; nothing may be in the way."""
        self.oci("delete", "--force", self.id)
        left = list(self.root.iterdir()) if self.root.is_dir() else []
        tops = [Path("/sys/fs/cgroup"), *Path("/sys/fs/cgroup").iterdir()]
        left += [path for top in tops if (path := top / "pyengine" / self.id).is_dir()]
        assert not left, left
