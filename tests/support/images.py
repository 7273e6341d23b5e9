"""Images for tests: the machine's own busybox image, made from the busybox of this machine."""

import importlib.util
import os
from pathlib import Path

_RECIPE = Path(__file__).parents[2] / "images/vm/busybox.py"
_GO_ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}
BUSYBOX = Path("/bin/busybox")


def write_busybox(path: Path) -> Path:
    """Write `busybox:latest` as a docker-archive and return its path; needs a static busybox."""
    spec = importlib.util.spec_from_file_location("busybox_recipe", _RECIPE)
    assert spec is not None
    assert spec.loader is not None
    recipe = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(recipe)
    machine = os.uname().machine
    recipe.write_image(
        path, busybox=BUSYBOX.read_bytes(), architecture=_GO_ARCHITECTURE.get(machine, machine)
    )
    return path
