"""CVE-2019-5736: whatever becomes of a path between look and execve, the engine's interpreter stays as it is.

A copy of the interpreter runs the engine's code: once that is done it is idle, and could be overwritten.
"""

import asyncio
import hashlib
import os
import select
import subprocess
import sys
from pathlib import Path

import pytest

from engine.base import jsonio
from engine.containers.shims import StartFailed
from engine.spec.runtime import Process
from tests.support.attacker import copy_interpreter, install_attacker, install_loader, swapping
from tests.support.ocibundle import Bundles
from tests.support.shimlab import Lab, parent_of

pytestmark = pytest.mark.requires("root", "namespaces", "busybox", "compiler")

_TIMEOUT_S = 60.0
_ROUNDS = 250
# Adds processes to a container as `pyengine-oci exec` does, but all in one process: its start takes longer.
_ENTER = """
import os, sys
mode, rounds, pid, config, process, cgroup, *places = sys.argv[1:]
sys.path[:0] = places
from engine.runtime import ownimage
if mode == "protected":
    ownimage.protect(sys.orig_argv)
from engine.base import jsonio
from engine.runtime import birth
from engine.runtime.errors import StartFailed
from engine.runtime.exec import enter
from engine.runtime.model import Stdio
from engine.spec.runtime import Process, Spec
spec, process = jsonio.decode(open(config, "rb").read(), Spec), jsonio.decode(process.encode(), Process)
for _ in range(int(rounds)):
    try:
        created = enter(int(pid), spec, process, stdio=Stdio(0, 1, 2), cgroup=cgroup)
    except StartFailed:
        continue
    try:
        birth.start(created)
    except StartFailed:
        pass
    os.waitpid(created.pid, 0)
    os.close(created.pidfd)
"""


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def run(argv: list[str]) -> bytes:
    """Run a program of this package's code; return what it prints."""
    places = [place for place in sys.path if place]
    return subprocess.run([*argv, *places], check=True, stdout=subprocess.PIPE, timeout=_TIMEOUT_S).stdout


def plant(lab: Lab, kind: str) -> tuple[Path, Process]:
    """Make a program that keeps turning into the runtime's own; return where, and how it is run."""
    place = lab.rootfs / "flip"
    place.mkdir()
    if kind == "link":
        (place / "busybox").hardlink_to(lab.rootfs / "bin/busybox")
        (place / "busybox.link").symlink_to("/proc/self/exe")
        return place, lab.process("/flip/busybox", "true")
    for name, interpreter in (("busybox", "/bin/true"), ("busybox.link", "/proc/self/exe")):
        (place / name).write_text(f"#!{interpreter}\n")
        (place / name).chmod(0o755)
    return place, lab.process("/flip/busybox")


@pytest.mark.parametrize("kind", ["link", "script"])
@pytest.mark.parametrize("mode", ["protected", "naive"])
def test_a_program_that_turns_into_our_own_does_not_overwrite_it(
    lab: Lab, tmp_path: Path, kind: str, mode: str
) -> None:
    """Two hundred and fifty execs; the naive way, which only looks before, is the control."""
    python = copy_interpreter(sys.executable, tmp_path / "python")
    before = digest(python)
    install_attacker(lab.rootfs / "bin/attacker")
    install_loader(lab.rootfs)
    place, process = plant(lab, kind)
    fate = lab.rootfs / "fate"
    os.mkfifo(fate)
    fate_fd = os.open(fate, os.O_RDWR | os.O_CLOEXEC)

    async def story() -> None:
        shim = await lab.spawn("sleep", "1000")
        await shim.start()
        config = lab.run.shim(shim.container_id).config
        arguments = [str(_ROUNDS), str(shim.pid), str(config), jsonio.encode(process).decode()]
        argv = [str(python), "-I", "-S", "-c", _ENTER, mode, *arguments, f"{lab.cgroup}/{shim.container_id}"]
        with swapping(place, "busybox"):
            await asyncio.to_thread(run, argv)
        assert (lab.rootfs / "landed").exists(), "the race was never won: it proves nothing"
        assert select.select([fate_fd], [], [], _TIMEOUT_S)[0]
        await shim.delete()

    try:
        lab.go(story)
        said = os.read(fate_fd, 100)
    finally:
        os.close(fate_fd)

    assert said == (b"EROFS\n" if mode == "protected" else b"overwritten\n")
    assert (digest(python) == before) is (mode == "protected")


def test_who_asks_for_our_own_executable_is_refused_by_name(lab: Lab) -> None:
    """As a program and as the interpreter of a script, of a container and of an exec."""
    for name, text in (("script", "#!/proc/self/exe\n"), ("second", "#! /bin/script -x\n")):
        (lab.rootfs / "bin" / name).write_text(text)
        (lab.rootfs / "bin" / name).chmod(0o755)
    (lab.rootfs / "bin/link").symlink_to("/proc/self/exe")
    programs = ("/proc/self/exe", "/proc/thread-self/exe", "link", "script", "/bin/second")

    async def story() -> None:
        shim = await lab.spawn("sleep", "1000")
        await shim.start()
        for number, program in enumerate(programs):
            refused = f"look up {program}: it is the engine's own executable: permission denied"
            with pytest.raises(StartFailed, match=refused):
                await lab.spawn(program)
            with pytest.raises(StartFailed, match=refused):
                await shim.exec_start(f"e{number}", lab.process(program))
        await shim.delete()

    lab.go(story)


def test_who_enters_containers_executes_what_cannot_be_written(lab: Lab, bundles: Bundles) -> None:
    async def story() -> None:
        shim = await lab.spawn("true")
        for pid in (parent_of(shim.shim_pid), shim.shim_pid, shim.pid):
            assert os.statvfs(f"/proc/{pid}/exe").f_flag & os.ST_RDONLY
        await shim.delete()

    lab.go(story)

    words = ("sh", "-c", "echo in; exec sleep 1000")
    made = bundles.bundle("made")
    bundles.ok("create", "--bundle", str(made), "made")
    assert os.statvfs(f"/proc/{bundles.state('made')['pid']}/exe").f_flag & os.ST_RDONLY
    bundles.ok("start", "made")
    for verb in (("run", "--bundle", str(bundles.bundle("run", *words)), "run"), ("exec", "made", *words)):
        with subprocess.Popen(bundles.argv(*verb), stdout=subprocess.PIPE) as running:
            assert running.stdout is not None
            assert running.stdout.readline() == b"in\n"
            assert os.statvfs(f"/proc/{running.pid}/exe").f_flag & os.ST_RDONLY
            bundles.ok("kill", verb[-1] if verb[0] == "run" else "made", "KILL")
            running.wait(_TIMEOUT_S)


def test_without_the_right_to_mount_it_is_a_sealed_copy(tmp_path: Path) -> None:
    python = copy_interpreter(sys.executable, tmp_path / "python")
    code = (
        "import sys; sys.path[:0] = sys.argv[1:]; from engine.runtime import ownimage;"
        "ownimage.protect(sys.orig_argv); import os, fcntl; own = os.open('/proc/self/exe', os.O_RDONLY);"
        "print(ownimage.is_protected(), hex(fcntl.fcntl(own, fcntl.F_GET_SEALS)))"
    )
    argv = ["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-all", str(python), "-I", "-S", "-c", code]

    assert run(argv) == b"True 0xf\n"


def test_a_runtime_that_cannot_be_protected_enters_nothing(bundles: Bundles) -> None:
    bundle = str(bundles.bundle("c", "true"))
    argv = ["strace", "-f", "-o", "/dev/null", "-e", "inject=open_tree:error=ENOSYS", *bundles.argv("run")]

    done = bundles.command([*argv, "--bundle", bundle, "c"])

    assert done.returncode == 1
    assert done.stderr.endswith("from the container: function not implemented\n")
    assert done.stderr.startswith("pyengine-oci: cannot protect /")
    assert bundles.ok("list", "--quiet") == ""
