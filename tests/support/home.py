"""A private home of pyengine, and its real command line as a user would run it."""

import contextlib
import json
import os
import pty
import select
import signal
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

PYENGINE = Path(sys.executable).parent / "pyengine"
COMMAND_TIMEOUT_S = 120.0
_TAIL_CHARS = 3000
START_TIMEOUT_S = 300.0  # a first start builds the image, which may download packages
_IDENTITY = ("PYENGINE_", "DOCKER_")


class Home:
    """One PYENGINE_HOME: its machines are its own, and `close` leaves nothing of them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.env = {k: v for k, v in os.environ.items() if not k.startswith(_IDENTITY)}
        self.env["PYENGINE_HOME"] = str(directory)

    def run(
        self,
        *args: str,
        stdin: bytes = b"",
        timeout_s: float = COMMAND_TIMEOUT_S,
        env: Mapping[str, str] | None = None,
    ) -> "Result":
        """Run `pyengine args` to its end."""
        return Result.of([str(PYENGINE), *args], {**self.env, **(env or {})}, stdin, timeout_s)

    def output(self, *args: str, **how: Any) -> str:
        """Run `pyengine args`, which must succeed, and return what it printed, without the last newline."""
        result = self.run(*args, **how)
        assert result.code == 0, f"pyengine {' '.join(args)}: {result}{self._last_words()}"
        return result.out.removesuffix("\n")

    def start(self, *args: str, env: Mapping[str, str] | None = None) -> "Running":
        """Start `pyengine args` and return while it runs."""
        return Running([str(PYENGINE), *args], {**self.env, **(env or {})})

    def terminal(self, *args: str, program: str = str(PYENGINE)) -> "Terminal":
        """Start `pyengine args` under a terminal of its own."""
        return Terminal([program, *args], self.env)

    def inspect_machine(self, name: str = "default") -> dict[str, Any]:
        """Return what `machine inspect` says."""
        found = json.loads(self.output("machine", "inspect", name))
        return dict(found[0] if isinstance(found, list) else found)

    def guest(self, command: str, *, name: str = "default") -> str:
        """Run a shell command in the machine itself and return what it printed."""
        return self.output("machine", "ssh", name, "--", command)

    def qemu_pids(self) -> list[int]:
        """Return the emulators whose command line names this home."""
        return self._pids("qemu-system")

    def agent_pids(self) -> list[int]:
        """Return the host agents of this home."""
        return self._pids("hostagent.agent")

    def _last_words(self) -> str:
        """Return the end of each log of its machines, which are removed when the test has failed."""
        found = sorted(self.directory.glob("**/*.log"))
        return "".join(
            f"\n--- {path.name}\n{path.read_text(errors='replace')[-_TAIL_CHARS:]}" for path in found
        )

    def close(self) -> None:
        """End what still runs, by its id."""
        for pid in (*self.agent_pids(), *self.qemu_pids()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _pids(self, program: str) -> list[int]:
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                words = (entry / "cmdline").read_bytes().decode(errors="replace")
                environment = (entry / "environ").read_bytes().split(b"\0")
                ours = (
                    f"PYENGINE_HOME={self.directory}".encode() in environment or str(self.directory) in words
                )
                if program in words and ours and "pytest" not in words:
                    found.append(int(entry.name))
        return found


class Result:
    """How a command ended."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code = code
        self.out = out
        self.err = err

    @classmethod
    def of(cls, argv: Sequence[str], env: Mapping[str, str], stdin: bytes, timeout_s: float) -> "Result":
        """Run `argv` to its end."""
        done = subprocess.run(argv, env=env, input=stdin, capture_output=True, timeout=timeout_s, check=False)
        return cls(
            done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
        )

    @property
    def error(self) -> str:
        """The one line of stderr; progress lines and hints left out, and a second error is a failure."""
        lines = [line for line in self.err.splitlines() if line.startswith(("pyengine:", "docker:"))]
        assert len(lines) == 1, f"not one line of error: {self}"
        return lines[0]

    def __repr__(self) -> str:
        return f"exit {self.code}, stdout {self.out!r}, stderr {self.err!r}"


class Running:
    """A command that goes on beside the test; its lines arrive with a deadline."""

    def __init__(self, argv: Sequence[str], env: Mapping[str, str]) -> None:
        self.process = subprocess.Popen(
            argv, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        self._errors: list[bytes] = []
        self._reader = threading.Thread(target=self._read_errors)
        self._reader.start()
        self._buffer = b""

    def line(self, *, timeout_s: float = COMMAND_TIMEOUT_S) -> str:
        """Return the next line of stdout."""
        assert self.process.stdout is not None
        deadline = time.monotonic() + timeout_s
        while b"\n" not in self._buffer:
            ready, _, _ = select.select([self.process.stdout], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"no line within {timeout_s} s, so far {self._buffer!r}"
            data = os.read(self.process.stdout.fileno(), 65536)
            assert data, f"stdout ended, so far {self._buffer!r}, stderr {b''.join(self._errors)!r}"
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line.decode(errors="replace")

    def end(self, *, timeout_s: float = COMMAND_TIMEOUT_S) -> Result:
        """Wait for the end and return it."""
        assert self.process.stdout is not None
        code = self.process.wait(timeout_s)
        self._reader.join()
        rest = self._buffer + self.process.stdout.read()
        self._close()
        return Result(code, rest.decode(errors="replace"), b"".join(self._errors).decode(errors="replace"))

    def _read_errors(self) -> None:
        assert self.process.stderr is not None
        while data := os.read(self.process.stderr.fileno(), 65536):
            self._errors.append(data)

    def _close(self) -> None:
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()

    def __enter__(self) -> "Running":
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._reader.join()
        self._close()


class Terminal:
    """A command whose standard streams are a terminal; what it shows arrives with a deadline."""

    def __init__(self, argv: Sequence[str], env: Mapping[str, str]) -> None:
        self._fd, child_fd = pty.openpty()
        try:
            self.process = subprocess.Popen(
                ["setsid", "--ctty", "--wait", *argv],
                env={**env, "TERM": "xterm"},
                stdin=child_fd,
                stdout=child_fd,
                stderr=child_fd,
            )
        finally:
            os.close(child_fd)
        self.shown = ""

    def type(self, text: str) -> None:
        """Send what a user would type."""
        os.write(self._fd, text.encode())

    def is_raw(self) -> bool:
        """Tell whether keys go to the command unread."""
        return not termios.tcgetattr(self._fd)[3] & (termios.ECHO | termios.ICANON | termios.ISIG)

    def expect(self, text: str, *, timeout_s: float = COMMAND_TIMEOUT_S) -> str:
        """Return what was shown before `text`, when that is shown; forget what was shown up to it."""
        deadline = time.monotonic() + timeout_s
        while text not in self.shown:
            ready, _, _ = select.select([self._fd], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"{text!r} was not shown within {timeout_s} s, but {self.shown!r}"
            try:
                self.shown += os.read(self._fd, 65536).decode(errors="replace")
            except OSError as err:  # EIO: the other side is closed
                raise AssertionError(f"{text!r} was not shown before the end, but {self.shown!r}") from err
        before, _, self.shown = self.shown.partition(text)
        return before

    def end(self, *, timeout_s: float = COMMAND_TIMEOUT_S) -> int:
        """Wait for the end and return the exit code."""
        return self.process.wait(timeout_s)

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._fd)


class Deadline:
    """Tells a loop to go on, until it is late; then the test fails and says what did not happen."""

    def __init__(self, what: str, timeout_s: float = COMMAND_TIMEOUT_S) -> None:
        self._what = what
        self._timeout_s = timeout_s
        self._end = time.monotonic() + timeout_s

    def check(self) -> None:
        """Fail when the time is over."""
        assert time.monotonic() < self._end, f"not within {self._timeout_s} s: {self._what}"
