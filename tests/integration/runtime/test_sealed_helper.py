"""The processes between the engine and a container: what they carry, and what they gave up, by name."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from engine.shim.launch import nursery_argv
from tests.support.shimlab import Lab, parent_of
from tests.support.tracing import traced

pytestmark = pytest.mark.requires("root", "namespaces", "busybox")

# They read what is then the container's, load its libraries, or run its programs.
_UNWANTED = {
    "pwd",
    "grp",
    "locale",
    "subprocess",
    "tempfile",
    "traceback",
    "getpass",
    "asyncio",
    "ssl",
    "readline",
}
_LOOK = """
import gc, json, sys
from engine.runtime import seal
seal.seal()
left = [sys.meta_path, sys.path_hooks, sys.path, list(sys.path_importer_cache)]
try:
    import uuid
    left.append("uuid")
except ImportError:
    pass
print(left, gc.isenabled())
"""


def proc(pid: int, name: str) -> bytes:
    return Path(f"/proc/{pid}/{name}").read_bytes()


def test_nursery_and_shim_are_isolated_interpreters_of_one_thread(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", "/outside")
    monkeypatch.setenv("SECRET", "of the host")

    async def story() -> None:
        shim = await lab.spawn("sleep", "1000")
        nursery = parent_of(shim.shim_pid)
        for pid in (nursery, shim.shim_pid, shim.pid):  # the last is the runtime's until it is started
            words = proc(pid, "cmdline").split(b"\0")
            assert words[1:3] == [b"-I", b"-S"]
            assert b"SECRET" not in proc(pid, "environ")
            assert b"PYTHONPATH" not in proc(pid, "environ")
            assert os.readlink(f"/proc/{pid}/cwd") == "/"
            assert len(os.listdir(f"/proc/{pid}/task")) == 1
        await shim.delete()

    lab.go(story)


def test_a_nursery_has_no_module_that_could_ask_the_container(tmp_path: Path) -> None:
    paths = nursery_argv(0)[6:]
    code = "import sys; sys.path[:0] = sys.argv[1:]; import engine.shim.nursery, engine.kernel.mount;"
    code += "import json; print(json.dumps(list(sys.modules)))"

    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, *paths],
        check=True, capture_output=True, timeout=60, cwd=tmp_path, env={},
    )  # fmt: skip

    assert set(json.loads(done.stdout)) & _UNWANTED == set()


def test_a_sealed_interpreter_imports_and_collects_nothing() -> None:
    environment = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}

    done = subprocess.run(
        [sys.executable, "-c", _LOOK], check=True, capture_output=True, text=True, timeout=60, env=environment
    )

    assert done.stdout == "[[], [], [], []] False\n"


@pytest.mark.requires("strace")
def test_what_enters_is_unreadable_before_it_does_and_stays_so(lab: Lab, tmp_path: Path) -> None:
    async def story() -> None:
        first = await lab.spawn("true")
        nursery = parent_of(first.shim_pid)
        await first.delete()
        with traced(nursery, tmp_path / "trace"):
            shim = await lab.spawn("sleep", "1000")
            await shim.start()
            await shim.exec_start("e", lab.process("true"))
            await shim.exec_wait("e")
            await shim.delete()

    lab.go(story)

    calls: dict[str, list[str]] = {}
    for pid, call in re.findall(r"^(\d+) +(.*)", (tmp_path / "trace").read_text(), re.MULTILINE):
        calls.setdefault(pid, []).append(call)
    entered = 0
    for own in calls.values():
        entries = [
            number for number, call in enumerate(own)
            if call.startswith("pivot_root(") or re.match(r"setns\(.*CLONE_NEWNS", call)
        ]  # fmt: skip
        if not entries:
            continue
        entered += 1
        marks = [number for number, call in enumerate(own) if "PR_SET_DUMPABLE" in call]
        assert {own[number].split(")")[0] for number in marks} == {"prctl(PR_SET_DUMPABLE, SUID_DUMP_DISABLE"}
        assert marks[0] < entries[0]
    assert entered == 2
