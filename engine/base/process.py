"""Run a program to its end: the only door to `subprocess`."""

import os
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from engine.base.errors import EngineError, NotSupported

_STDERR_TAIL_BYTES = 4096
MINIMAL_ENV: Mapping[str, str] = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C.UTF-8",
}


class ProcessFailed(EngineError):
    """A program ended with a status other than zero."""

    def __init__(self, argv: Sequence[str], returncode: int, stderr: bytes) -> None:
        tail = stderr[-_STDERR_TAIL_BYTES:].decode(errors="replace").strip()
        super().__init__(f"{shlex.join(argv)}: exit status {returncode}: {tail}")
        self.argv = tuple(argv)
        self.returncode = returncode


@dataclass(frozen=True, slots=True)
class Completed:
    """Output of a program that succeeded."""

    stdout: bytes
    stderr: bytes


def run(
    argv: Sequence[str],
    *,
    timeout_s: float,
    stdin: bytes = b"",
    env: Mapping[str, str] | None = None,
) -> Completed:
    """Run `argv` and return what it printed.

    Never uses a shell. The environment is `env` and nothing else, so that a
    result does not depend on who started the daemon.

    Raises:
        NotSupported: the program is not installed.
        ProcessFailed: it exited with a status other than 0 (negative: the
            number of the signal that killed it).
        TimeoutError: it ran past `timeout_s` seconds and was killed.
    """
    try:
        done = subprocess.run(
            argv,
            input=stdin,
            capture_output=True,
            env=dict(MINIMAL_ENV if env is None else env),
            timeout=timeout_s,
            check=False,
        )
    except FileNotFoundError as err:
        raise NotSupported(f"program not found: {argv[0]}") from err
    except subprocess.TimeoutExpired as err:
        raise TimeoutError(f"{shlex.join(argv)}: still running after {timeout_s} s") from err
    if done.returncode != 0:
        raise ProcessFailed(argv, done.returncode, done.stderr)
    return Completed(done.stdout, done.stderr)


def module_argv(module: str, *args: str) -> list[str]:
    """Return the words that run `module` of this installation under this interpreter.

    With ``-P``: plain ``-m`` looks in the working directory first, and would run
    whatever package of that name lies where the user happens to be.
    """
    return [sys.executable, "-P", "-m", module, *args]


def spawn(
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    stdin_fd: int | None = None,
    output_fd: int | None = None,
    stdout_fd: int | None = None,
    pass_fds: Sequence[int] = (),
) -> "subprocess.Popen[bytes]":
    """Start `argv` as a long-lived process in a session of its own, in the root directory, and return it.

    The caller is its one owner. stdin is /dev/null and output is discarded
    unless descriptors are given (`stdout_fd`: standard output apart from the
    rest); those stay the caller's to close.

    Raises:
        NotSupported: the program is not installed.
    """
    output = subprocess.DEVNULL if output_fd is None else output_fd
    try:
        return subprocess.Popen(
            argv,
            env=dict(MINIMAL_ENV if env is None else env),
            stdin=subprocess.DEVNULL if stdin_fd is None else stdin_fd,
            stdout=output if stdout_fd is None else stdout_fd,
            stderr=output,
            pass_fds=tuple(pass_fds),
            cwd=os.path.abspath(os.sep),  # it must not hold the user's directory
            start_new_session=True,
        )
    except FileNotFoundError as err:
        raise NotSupported(f"program not found: {argv[0]}") from err
