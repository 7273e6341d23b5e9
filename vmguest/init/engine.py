"""The engine daemon as a child of PID 1: started early, let loose late, restarted with care.

Where the processor is emulated, importing the daemon is the longest part of
the boot. So it is started first and imports while PID 1 mounts the disk; then
it waits at a gate, one byte of a pipe, before it opens anything.
"""

import os

from vmguest.init.console import say
from vmguest.init.processes import high, spawn

TYPE_CHECKING = False  # and no import of typing, which costs what the rest of this module does
if TYPE_CHECKING:
    from collections.abc import Callable

    from vmguest.init.loop import Loop

SOCKET = "/run/pyengine/pyengine.sock"
PORTS_SOCKET = "/run/machine/ports.sock"
_GATE_FD = 3
_READY_FD = 4
_PROGRAM = (
    "import sys; sys.path.insert(0, '/usr/lib/pyengine')\n"
    "import os\n"
    "from engine.daemon.main import main\n"
    f"os.read({_GATE_FD}, 1); os.close({_GATE_FD})\n"
    "sys.exit(main())\n"
)
ARGV = (
    "/usr/bin/python3", "-I", "-S", "-c", _PROGRAM,
    "--root", "/var/lib/pyengine", "--run", "/run/pyengine", "--host", f"unix://{SOCKET}",
    "--preload", "/usr/share/pyengine/images", "--ports-socket", PORTS_SOCKET, "--isolate-host",
    "--ready-fd", str(_READY_FD),
)  # fmt: skip
_READ = 1  # EPOLLIN
_BACKOFF_S = (0.1, 0.5, 2.0, 5.0, 15.0)
_TRIES_AT_BOOT = 3
_STEADY_S = 60.0  # after so long the next crash counts as the first


class Launched:
    """A daemon's process at its gate; the descriptors are the owner's to close."""

    def __init__(self, pid: int, gate_write: int, ready_read: int) -> None:
        self.pid = pid
        self.gate_write = gate_write
        self.ready_read = ready_read


def launch() -> Launched:
    """Start a daemon; before its gate is opened it only imports."""
    gate_read, gate_write = (high(fd) for fd in os.pipe())
    ready_read, ready_write = (high(fd) for fd in os.pipe())
    pid = spawn(ARGV, fds={_GATE_FD: gate_read, _READY_FD: ready_write})
    os.close(gate_read)
    os.close(ready_write)
    return Launched(pid, gate_write, ready_read)


class Engine:
    """Keeps one daemon running until `stop_restarting`."""

    def __init__(
        self,
        loop: "Loop",
        *,
        on_ready: "Callable[[], None]",
        on_hopeless: "Callable[[str], None]",
        clock: "Callable[[], float]",
    ) -> None:
        """Prepare.

        `on_ready` is called each time the daemon's API answers, `on_hopeless` with
        the reason when the first ones ended before any did.
        """
        self._loop = loop
        self._on_ready = on_ready
        self._on_hopeless = on_hopeless
        self._ever_ready = False
        self._clock = clock
        self._gate: int | None = None
        self._open = False
        self._crashes = 0
        self._started_s = 0.0
        self._wanted = True
        self.pid = 0
        self.ready = False

    def take(self, launched: Launched) -> None:
        """Watch over a daemon that was launched."""
        self._started_s = self._clock()
        self.pid = launched.pid
        self._gate = launched.gate_write
        self._loop.add(launched.ready_read, _READ, lambda _: self._heard(launched.ready_read))
        self._loop.on_exit(self.pid, self._ended)
        if self._open:
            self.open_gate()

    def open_gate(self) -> None:
        """Let the daemon, and every later one, go on to open its files."""
        self._open = True
        if self._gate is not None:
            os.close(self._gate)  # the daemon reads the end of the pipe
            self._gate = None

    def stop_restarting(self) -> None:
        """Let the next end of the daemon be the last."""
        self._wanted = False

    def _heard(self, ready_read: int) -> None:
        said = os.read(ready_read, 1)
        self._loop.remove(ready_read)
        os.close(ready_read)
        if said:
            self.ready = self._ever_ready = True
            self._on_ready()

    def _ended(self, status: int) -> None:
        self.pid = 0
        self.ready = False
        code = os.waitstatus_to_exitcode(status)
        if not self._wanted:
            say(f"engine ended: {code}")
            return
        if self._clock() - self._started_s > _STEADY_S:
            self._crashes = 0
        delay_s = _BACKOFF_S[min(self._crashes, len(_BACKOFF_S) - 1)]
        self._crashes += 1
        if not self._ever_ready and self._crashes >= _TRIES_AT_BOOT:
            self._on_hopeless(f"the engine ended {self._crashes} times before it was ready, last with {code}")
            return
        say(f"engine ended unasked: {code}; starting it again in {delay_s} s")
        self._loop.call_later(delay_s, self._restart)

    def _restart(self) -> None:
        if self._wanted:
            self.take(launch())
