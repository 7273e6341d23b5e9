"""The engine daemon as a child of PID 1: started early, let loose late, restarted with care.

Where the processor is emulated, importing the daemon is the longest part of
the boot. So it is started first and imports while PID 1 mounts the disk; then
it waits at a gate, one byte of a pipe, before it opens anything.
"""

import os
from collections.abc import Callable

from vmguest.init.console import say
from vmguest.init.loop import READ, Loop
from vmguest.init.processes import high, spawn

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
_BACKOFF_S = (0.1, 0.5, 2.0, 5.0, 15.0)
_STEADY_S = 60.0  # after so long the next crash counts as the first


class Engine:
    """Keeps one daemon running until `stop_restarting`."""

    def __init__(self, loop: Loop, *, on_ready: Callable[[], None], clock: Callable[[], float]) -> None:
        """`on_ready` is called each time the daemon's API answers."""
        self._loop = loop
        self._on_ready = on_ready
        self._clock = clock
        self._gate: int | None = None
        self._open = False
        self._crashes = 0
        self._started_s = 0.0
        self._wanted = True
        self.pid = 0
        self.ready = False

    def start(self) -> None:
        """Start the daemon; before `open_gate` it only imports."""
        gate_read, gate_write = (high(fd) for fd in os.pipe())
        ready_read, ready_write = (high(fd) for fd in os.pipe())
        self._started_s = self._clock()
        self.pid = spawn(ARGV, fds={_GATE_FD: gate_read, _READY_FD: ready_write})
        os.close(gate_read)
        os.close(ready_write)
        self._gate = gate_write
        self._loop.add(ready_read, READ, lambda _: self._heard(ready_read))
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
            self.ready = True
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
        say(f"engine ended unasked: {code}; starting it again in {delay_s} s")
        self._loop.call_later(delay_s, self._restart)

    def _restart(self) -> None:
        if self._wanted:
            self.start()
