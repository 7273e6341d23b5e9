"""The runtimes that the suites are run against."""

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Runtime:
    """One runtime's program; `without_unified` hides the v2 half of a hybrid hierarchy from it."""

    name: str
    path: str
    without_unified: bool = False

    def version(self) -> str:
        """Return the first line that it says of itself."""
        done = subprocess.run([self.path, "--version"], check=True, capture_output=True, timeout=30)
        return done.stdout.decode(errors="replace").partition("\n")[0]


NAMES = ("pyengine-oci", "runc", "crun")


def idle() -> tuple[Runtime, ...]:
    """Return the two that do nothing, one with success: what they pass says nothing of a runtime."""
    return tuple(Runtime(name, f"/bin/{name}") for name in ("true", "false"))


def runtime(name: str) -> Runtime:
    """Return the runtime of that name: ours from this interpreter's environment, others from PATH."""
    own = Path(sys.executable).with_name(name)
    path = str(own) if name == "pyengine-oci" else shutil.which(name)
    if path is None:
        raise SystemExit(f"conformance: {name} is not installed")
    return Runtime(name, path, without_unified=name == "crun")
