"""From the moment a process is inside the container's root, nothing of the image is opened but by the plan.

The image has a trap at every place where an interpreter, a C library or a
codec would look; strace says what was looked at.
"""

import os
import re
import sys
from pathlib import Path

import msgspec
import pytest

from engine.containers.shims import StartFailed
from engine.spec.runtime import Spec
from tests.support.shimlab import Lab, parent_of
from tests.support.tracing import inside, trace_to_end, traced

pytestmark = pytest.mark.requires("root", "namespaces", "busybox", "strace")

_TRAP = "open('/imported', 'a').write(__name__ + '\\n')\n"
_MODULES = ("uuid", "traceback", "stringprep", "pwd", "subprocess", "encodings/idna", "encodings/cp437")
_LIBRARIES = ("lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu", "lib/aarch64-linux-gnu", "lib64")
_OPENS = {"open", "openat", "openat2", "creat"}
# What the plan has: the root, "here", descriptors; a new terminal of an exec.
_PLANNED = {"", ".", "/", "dev/pts", "ptmx"}


def _set_traps(rootfs: Path) -> None:
    for place in {*sys.path, sys.prefix, sys.base_prefix, os.path.dirname(os.__file__)}:
        for name in _MODULES if place.startswith("/") else ():
            trap = rootfs / place.lstrip("/") / f"{name}.py"
            trap.parent.mkdir(parents=True, exist_ok=True)
            trap.write_text(_TRAP)
    for place in _LIBRARIES:
        gconv = rootfs / place / "gconv"
        gconv.mkdir(parents=True)
        (gconv / "gconv-modules").write_text("module UTF-8// INTERNAL evil 1\n")
        (rootfs / place / "libnss_evil.so.2").write_text("not a library\n")
    etc = rootfs / "etc"
    etc.mkdir(exist_ok=True)
    (etc / "nsswitch.conf").write_text("passwd: evil\ngroup: evil\nhosts: evil\n")
    (etc / "ld.so.preload").write_text("/evil.so\n")
    os.mkfifo(etc / "passwd")
    os.mkfifo(etc / "localtime")


async def _nursery_of(lab: Lab) -> int:
    """Return the pid of the nursery: the parent of any shim."""
    shim = await lab.spawn("true")
    nursery = parent_of(shim.shim_pid)
    await shim.delete()
    return nursery


@pytest.mark.parametrize("terminal", [False, True])
def test_a_start_and_an_exec_open_nothing_of_the_image(lab: Lab, tmp_path: Path, terminal: bool) -> None:
    _set_traps(lab.rootfs)

    async def story() -> None:
        with traced(await _nursery_of(lab), tmp_path / "trace"):
            shim = await lab.spawn("sleep", "1000", terminal=terminal)
            await shim.start()
            client = await lab.exec(shim, "e", "echo", "in", terminal=terminal, framed=False)
            assert (await client.everything()).strip() == b"in"
            await client.close()
            await shim.delete()

    lab.go(story)

    processes = inside(tmp_path / "trace")
    assert [calls[-1] for calls in processes] == [("execve", ("/bin/sleep",)), ("execve", ("/bin/echo",))]
    for calls in processes:
        program = calls[-1][1][0]
        paths = {text for name, texts in calls if name != "execve" for text in texts}
        assert paths <= {*_PLANNED, program}
        opened = [texts[0] for name, texts in calls if name in _OPENS]
        assert opened.count(program) == 1  # is it a script of the engine's own interpreter?
    assert not (lab.rootfs / "imported").exists()


def test_a_home_is_read_from_one_file_and_no_library(lab: Lab, tmp_path: Path) -> None:
    """The traps have a pipe in the place of /etc/passwd: it is neither waited for nor read."""
    _set_traps(lab.rootfs)

    def homeless(spec: Spec) -> Spec:
        assert spec.process is not None
        return msgspec.structs.replace(
            spec, process=msgspec.structs.replace(spec.process, env=("PATH=/bin",))
        )

    async def story() -> None:
        with traced(await _nursery_of(lab), tmp_path / "trace"):
            shim = await lab.spawn("sh", "-c", "echo $HOME", edit=homeless)
            client = await lab.attach(shim, framed=False)
            await shim.start()
            assert (await client.everything()).strip() == b"/"
            await client.close()
            await shim.delete()

    lab.go(story)

    [calls] = inside(tmp_path / "trace")
    paths = {text for name, texts in calls if name != "execve" for text in texts}
    assert paths <= {*_PLANNED, "/bin/sh", "etc/passwd"}
    assert "etc/passwd" in paths


def test_a_shim_imports_nothing(lab: Lab, tmp_path: Path) -> None:
    """All is there before it is forked: in memory that it shares with the others."""

    async def story() -> None:
        with traced(await _nursery_of(lab), tmp_path / "trace"):
            shim = await lab.spawn("cat", terminal=True, open_stdin=True, tty_size=(80, 24))
            client = await lab.attach(shim, stdin=True, framed=False)
            await shim.start()
            client.send(b"line\n")
            await client.until(b"line\r\nline\r\n")
            await shim.resize(90, 30)
            await shim.pause()
            await shim.resume()
            await (await lab.exec(shim, "e", "true")).close()
            await client.close()
            await shim.delete()

    lab.go(story)

    assert [line for line in (tmp_path / "trace").read_text().splitlines() if ".py" in line] == []


def test_a_process_that_is_being_made_ends_with_its_maker_and_a_made_one_does_not(
    lab: Lab, tmp_path: Path
) -> None:
    """A shim that was killed while it made a container left a process in no control group, busy mounting."""

    async def story() -> None:
        with traced(await _nursery_of(lab), tmp_path / "trace"):
            shim = await lab.spawn("sleep", "1000")
            await shim.start()
            client = await lab.exec(shim, "e", "true")
            await client.close()
            await shim.delete()

    lab.go(story)

    calls = re.findall(
        r"^(\d+) +(prctl|execve|pivot_root|setns)\(([^)<]*)", (tmp_path / "trace").read_text(), re.MULTILINE
    )
    for program in ("/bin/sleep", "/bin/true"):
        pid = next(pid for pid, name, words in calls if name == "execve" and program in words)
        own = [(name, words.strip()) for each, name, words in calls if each == pid]
        at = [number for number, (_, words) in enumerate(own) if words.startswith("PR_SET_PDEATHSIG")]
        assert [own[number][1] for number in at] == ["PR_SET_PDEATHSIG, SIGKILL", "PR_SET_PDEATHSIG, 0"]
        entered = next(number for number, (name, _) in enumerate(own) if name in ("pivot_root", "setns"))
        assert at[0] < entered < at[1]


def test_a_failure_inside_is_told_without_opening_anything(lab: Lab, tmp_path: Path) -> None:
    _set_traps(lab.rootfs)
    wrong = "n\u00f6-\u2717"  # for codecs to stumble on

    async def story() -> None:
        with traced(await _nursery_of(lab), tmp_path / "trace"):
            for args in ((wrong,), (f"/{wrong}",), ("/etc",), ("/bin/not-a-program",), ("/proc/self/exe",)):
                with pytest.raises(StartFailed):
                    await lab.spawn(*args)
            shim = await lab.spawn("sleep", "1000")
            await shim.start()
            for number, args in enumerate(((wrong,), ("/etc",), ("/proc/self/exe",))):
                with pytest.raises(StartFailed):
                    await lab.exec(shim, f"e{number}", *args)
            await shim.delete()

    lab.go(story)

    processes = inside(tmp_path / "trace")
    assert len(processes) == 9
    for calls in processes:
        opened = {texts[0] for name, texts in calls if name in _OPENS}
        assert opened <= {"/bin/not-a-program", "/bin/sleep"}
    assert not (lab.rootfs / "imported").exists()


def test_the_traps_catch_a_process_that_is_not_sealed(tmp_path: Path) -> None:
    """The control: what the other tests find nothing of is found here."""
    rootfs = tmp_path / "rootfs"
    _set_traps(rootfs)
    naive = "import os, sys; os.chroot(sys.argv[1]); os.chdir('/'); import uuid"

    assert trace_to_end([sys.executable, "-I", "-S", "-c", naive, str(rootfs)], tmp_path / "trace") == 0

    assert (rootfs / "imported").read_text() == "uuid\n"
    [calls] = inside(tmp_path / "trace")
    assert any(name in _OPENS and texts[0].endswith("/uuid.py") for name, texts in calls)
