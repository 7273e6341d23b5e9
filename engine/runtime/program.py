"""Find the program of a process, as execvp(3) would, inside the container.

Runs after pivot_root as the container's user: only stat(2) and one read.
"""

import errno
import os
import stat
from collections.abc import Mapping

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_ANY_EXECUTE = 0o111
_SHEBANG_BYTES = 256
_INTERPRETERS = 5  # what the kernel follows


class OwnExecutable(PermissionError):
    """The program is this very interpreter."""


def parse_environment(pairs: tuple[str, ...]) -> dict[str, str]:
    """Return the environment; of two values for one name the last one wins."""
    environment: dict[str, str] = {}
    for pair in pairs:
        name, _, value = pair.partition("=")
        environment[name] = value
    return environment


def find(program: str, environment: Mapping[str, str]) -> str:
    """Return the path to execute for `program`.

    Raises:
        FileNotFoundError: there is none in PATH, or not at its path.
        PermissionError: it is a directory or has no execute bit.
    """
    if "/" in program:
        _check(program)
        return program
    denied: OSError | None = None
    for directory in environment.get("PATH", DEFAULT_PATH).split(":"):
        candidate = f"{directory or '.'}/{program}"
        try:
            _check(candidate)
        except PermissionError as err:
            denied = err
        except OSError:
            continue
        else:
            return candidate
    if denied and program:
        raise denied
    raise FileNotFoundError(errno.ENOENT, "executable file not found in $PATH", program)


def _check(path: str) -> None:
    found = os.stat(path)
    if not stat.S_ISREG(found.st_mode) or not found.st_mode & _ANY_EXECUTE:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)


def refuse_own_executable(path: str, own: tuple[int, int]) -> None:
    """Refuse to execute this very interpreter, also as the interpreter of a script.

    /proc/self/exe as an entry point would start the engine's own program
    inside the container, where it could be opened and overwritten
    (CVE-2019-5736).

    Raises:
        OwnExecutable: `path` leads to the file `own` (device, inode).
    """
    for _ in range(_INTERPRETERS):
        found = os.stat(path)
        if (found.st_dev, found.st_ino) == own:
            raise OwnExecutable(errno.EACCES, "it is the engine's own executable", path)
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        except OSError:  # may be executable without being readable; then it is no script
            return
        try:
            head = os.read(fd, _SHEBANG_BYTES)
        finally:
            os.close(fd)
        if not head.startswith(b"#!"):
            return
        words = head[2:].split(b"\n", 1)[0].split()
        if not words:
            return
        path = os.fsdecode(words[0])
