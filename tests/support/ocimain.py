"""`pyengine-oci` in a fork of this process, so that hundreds of calls take seconds; each call is watched."""

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from engine.runtime.main import main

_GROUPS = Path("/sys/fs/cgroup")
_LINE_MAX = 1000


def make_root(path: Path) -> None:
    """Make a root file system with /bin/true, /bin/sleep and an empty /proc."""
    (path / "bin").mkdir(parents=True)
    for name in ("true", "sleep"):
        shutil.copy(shutil.which("busybox") or "", path / "bin" / name)
    (path / "proc").mkdir()


def leftovers(group: str, path: Path) -> list[str]:
    """Return the control groups of the name `group` and the mounts below `path`."""
    groups = [*_GROUPS.glob(group), *_GROUPS.glob(f"*/{group}")]
    mounts = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(path) in line]
    return [*map(str, groups), *mounts]


@dataclass(frozen=True)
class Caller:
    """One state root; `base` is a directory for what the calls need."""

    base: Path
    group: str

    @property
    def root(self) -> Path:
        """The directory of the containers' state."""
        return self.base / "state"

    def __call__(self, *words: str, stdin: bytes = b"", user: int = 0) -> tuple[int, str]:
        """Return exit status and standard error of one call with this root, by `user`."""
        return self.bare("--root", str(self.root), *words, stdin=stdin, user=user)

    def bare(self, *words: str, stdin: bytes = b"", user: int = 0) -> tuple[int, str]:
        """Return exit status and standard error of one call, by `user`."""
        said, given = self.base / "stderr", self.base / "stdin"
        given.write_bytes(stdin)
        pid = os.fork()
        if pid == 0:
            self._child(words, given, said, user)
        _, status = os.waitpid(pid, 0)
        return os.waitstatus_to_exitcode(status), said.read_text(errors="replace")

    def _child(self, words: tuple[str, ...], given: Path, said: Path, user: int) -> None:
        code = 99
        try:
            os.dup2(os.open(given, os.O_RDONLY), 0)
            fd = os.open(said, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
            os.dup2(fd, 1)
            os.dup2(fd, 2)
            # pytest's streams are its own; a descriptor is what a program has.
            sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)
            sys.stdout = os.fdopen(1, "w", errors="backslashreplace", closefd=False)
            if user:
                os.setgroups([])
                os.setresgid(user, user, user)
                os.setresuid(user, user, user)
            code = main(words)
            sys.stdout.flush()
        finally:
            os._exit(code)

    def refused(self, *words: str, naming: tuple[str, ...], stdin: bytes = b"") -> None:
        """Fail unless the call ends with 1 and one line that has one of `naming`, and nothing is left."""
        code, text = self(*words, stdin=stdin)
        assert (code, text.count("\n")) == (1, 1), (words, text[:_LINE_MAX])
        assert len(text) < _LINE_MAX
        assert text[:-1].isprintable(), (words, text)
        assert any(word.lower() in text.lower() for word in naming), (words, text)

    def assert_nothing_left(self) -> None:
        """Fail when there is a container, a control group or a mount."""
        assert not self.root.is_dir() or os.listdir(self.root) == []
        assert leftovers(self.group, self.base) == []
