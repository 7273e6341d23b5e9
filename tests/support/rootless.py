"""An unprivileged user for tests: nobody, in a mount namespace in which it may come to this checkout.

The user's range of ids is mounted over /etc/subuid and /etc/subgid there, so the machine keeps its own.
"""

import os
import shlex
import sys
from collections.abc import Iterable
from pathlib import Path

_USER = 65534  # nobody: newuidmap wants a name
FIRST, COUNT = 300_000, 65_536
_OTHERS_MAY_ENTER = 0o1


def closed_above(paths: Iterable[Path]) -> dict[Path, list[Path]]:
    """Return, for each topmost directory that others may not enter, those of `paths` that lie below."""
    found: dict[Path, list[Path]] = {}
    for path in paths:
        above = (each for each in reversed(path.parents) if not each.stat().st_mode & _OTHERS_MAY_ENTER)
        closed = next(above, None)
        if closed is not None:
            found.setdefault(closed, []).append(path)
    return found


def command(home: Path, *argv: str) -> list[str]:
    """Return the command line that runs `argv` as the user, whose files are below `home`."""
    lines = ["set -e", "mount --make-rprivate /"]
    places = {Path(__file__).parents[2], Path(sys.prefix), Path(sys.base_prefix)}
    for closed, below in closed_above(sorted(places)).items():
        kept = [(path, home / f".kept-{number}") for number, path in enumerate(below)]
        lines += [f"mkdir -p {there}; mount --rbind {path} {there}" for path, there in kept]
        lines.append(f"mount -t tmpfs -o mode=755 tmpfs {closed}")
        lines += [f"mkdir -p {path}; mount --rbind {there} {path}; umount -l {there}" for path, there in kept]
    lines.append(f"echo nobody:{FIRST}:{COUNT} > {home}/ids; chmod 644 {home}/ids")
    lines += [f"mount --bind {home}/ids /etc/{name}" for name in ("subuid", "subgid")]
    lines.append(
        f"cd {home}; exec setpriv --reuid {_USER} --regid {_USER} --clear-groups -- {shlex.join(argv)}"
    )
    return ["unshare", "--mount", "sh", "-c", "\n".join(lines)]


def give(path: Path) -> None:
    """Make the user the owner of `path` and all below, without following links."""
    for directory, _, names in os.walk(path):
        for name in (".", *names):
            os.chown(os.path.join(directory, name), _USER, _USER, follow_symlinks=False)
