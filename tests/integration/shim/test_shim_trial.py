import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.engine import eventually
from tests.support.shimlab import Lab

pytestmark = pytest.mark.requires("root", "namespaces")
TIMEOUT_S = 60.0


def ask(directory: Path, *orders: dict[str, Any]) -> list[dict[str, Any]]:
    """Give the program orders, and return its answers once it has ended."""
    text = "".join(json.dumps(order) + "\n" for order in orders)
    argv = [sys.executable, "-m", "engine.shim.trial", str(directory)]
    done = subprocess.run(argv, input=text.encode(), capture_output=True, timeout=TIMEOUT_S, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def bundle(lab: Lab, *args: str) -> Path:
    path = lab.base / "bundle"
    path.mkdir()
    spec = {
        "ociVersion": "1.2.0",
        "process": {"cwd": "/", "args": args, "env": ["PATH=/bin"]},
        "root": {"path": str(lab.rootfs)},
        "mounts": [{"destination": "/proc", "type": "proc"}],
        "linux": {
            "namespaces": [{"type": "pid"}, {"type": "mount"}],
            "cgroupsPath": f"{lab.cgroup}/trial",
        },
    }
    (path / "config.json").write_text(json.dumps(spec))
    return path


def directory(lab: Lab) -> Path:
    lab.run.shims.mkdir(parents=True)
    return lab.run.shims


def test_containers_are_timed_and_nothing_of_them_is_left(lab: Lab) -> None:
    made = bundle(lab, "true")

    answers = ask(directory(lab), {"bundle": str(made), "count": 5, "parallel": 3, "log": True})

    assert answers[0]["seconds"] > 0
    assert os.listdir(made) == ["config.json"]


def test_a_failure_is_an_answer_and_the_next_order_is_served(lab: Lab) -> None:
    made = bundle(lab, "no-such-program")

    answers = ask(directory(lab), {"bundle": str(made)}, {"bundle": str(lab.base)}, {"bundle": 7})

    assert "no-such-program" in answers[0]["error"]
    assert "config.json" in answers[1]["error"]
    assert "bundle" in answers[2]["error"]


def test_one_is_held_until_the_next_line(lab: Lab) -> None:
    made = bundle(lab, "sleep", "1000")

    answers = ask(directory(lab), {"bundle": str(made), "hold": True}, {})

    assert answers[0]["shim_pid"] > 0
    assert answers[1] == {}
    eventually(lambda: _has_ended(answers[0]["shim_pid"]), "the shim has ended")


def _has_ended(pid: int) -> bool:
    """Tell whether a process is gone, or is a zombie that nobody has asked for yet: it has no words."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes() == b""
    except (FileNotFoundError, ProcessLookupError):
        return True
