"""strace around processes that are about to enter a container."""

import contextlib
import os
import re
import select
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

TIMEOUT_S = 60.0
_CALLS = "%file,setns,prctl,capset"
_LINE = re.compile(r"(\d+) +(\w+)\((.*)")
_TEXT = re.compile(r'"((?:[^"\\]|\\.)*)"')
_KILLED = b"+++ killed by SIGKILL +++"
_ENTERS = re.compile(r"(?:pivot_root|chroot)\(|setns\(.*CLONE_NEWNS")


def traced(pid: int, path: Path) -> contextlib.AbstractContextManager[None]:
    """Write what `pid` and all that it forks do with files to `path`, which is whole after the block."""
    return watched(pid, _CALLS, path, "-f", "-s", "4096")


@contextlib.contextmanager
def watched(pid: int, calls: str, path: Path, *options: str) -> Iterator[None]:
    """Write the `calls` of `pid`, with what descriptors are, to `path`, which is whole after the block."""
    argv = ["strace", *(options or ["-y"]), "-p", str(pid), "-o", str(path), "-e", f"trace={calls}"]
    with subprocess.Popen(argv, stderr=subprocess.PIPE) as tracer:
        assert tracer.stderr is not None
        assert b"attached" in tracer.stderr.readline()
        try:
            yield
        finally:
            tracer.send_signal(signal.SIGINT)
            tracer.stderr.read()
            tracer.wait(TIMEOUT_S)


@contextlib.contextmanager
def killing(pid: int, call: str, nth: int, *, follow: bool = False) -> Iterator[None]:
    """End with SIGKILL whoever makes the `nth` system call `call`: `pid`, or with `follow` what it forks too.

    The block lets it happen, and after it somebody has been killed. Each process counts its own calls.
    """
    argv = ["strace", *(["-f"] if follow else []), "-p", str(pid), *_fault(call, nth)]
    with subprocess.Popen(argv, stderr=subprocess.PIPE) as tracer:
        assert tracer.stderr is not None
        assert b"attached" in tracer.stderr.readline()
        try:
            yield
            said = _read_until(tracer.stderr.fileno(), _KILLED)
        finally:
            tracer.send_signal(signal.SIGINT)
            tracer.stderr.read()
            tracer.wait(TIMEOUT_S)
    assert _KILLED in said, f"nobody made {call} {nth} times: {said!r}"


def _read_until(fd: int, text: bytes) -> bytes:
    """Return what comes up to `text`, or to the end, or within a time that is long enough."""
    said = b""
    while text not in said and select.select([fd], [], [], TIMEOUT_S)[0] and (more := os.read(fd, 65536)):
        said += more
    return said


def run_killed(argv: list[str], call: str, nth: int, path: Path, *, follow: bool) -> None:
    """Run `argv` with that fault; what it says and how it ends is of no matter."""
    command = ["strace", *(["-f"] if follow else []), "-o", str(path), *_fault(call, nth), *argv]
    null = subprocess.DEVNULL
    with subprocess.Popen(command, stdin=null, stdout=null, stderr=null) as tracer:
        try:
            tracer.wait(TIMEOUT_S)
        finally:
            tracer.kill()
    assert _KILLED in path.read_bytes(), f"nobody made {call} {nth} times"


def _fault(call: str, nth: int) -> list[str]:
    return ["-e", f"trace={call}", "-e", f"inject={call}:signal=SIGKILL:when={nth}"]


def trace_to_end(argv: list[str], path: Path) -> int:
    """Run `argv` to its end under strace; return its exit status."""
    command = ["strace", "-f", "-s", "4096", "-o", str(path), "-e", f"trace={_CALLS}", *argv]
    return subprocess.run(command, check=False, capture_output=True, timeout=TIMEOUT_S).returncode


def inside(path: Path) -> list[list[tuple[str, tuple[str, ...]]]]:
    """Return, for each process that entered another root, its calls from there to its execve or end.

    A call is its name and the texts among its arguments.
    """
    entered: dict[str, list[tuple[str, tuple[str, ...]]]] = {}
    done: list[list[tuple[str, tuple[str, ...]]]] = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        found = _LINE.match(line)
        if found is None:
            continue
        pid, name, rest = found.groups()
        if name == "execve":
            calls = entered.pop(pid, None)
            if calls is not None:
                done.append([*calls, (name, tuple(_TEXT.findall(rest))[:1])])
        elif _ENTERS.match(f"{name}({rest}"):
            entered.setdefault(pid, [])
        elif pid in entered:
            entered[pid].append((name, tuple(_TEXT.findall(rest))))
    return done + list(entered.values())
