"""What can go wrong between a spec and a running process."""

import errno as errnos
import os

from engine.base.errors import Conflict, EngineError

EXIT_NOT_EXECUTABLE = 126
EXIT_NOT_FOUND = 127
EXIT_ENGINE = 125

EXEC_STEPS = frozenset({"look up", "exec"})


class StartFailed(EngineError):
    """The process could not be made, or its program could not be executed.

    Attributes:
        step: what was being done, for example `mount /proc` or `exec`.
        errno: errno of the system call that failed; 0 for none.
        text: the object it was done to, or the reason in words.
    """

    def __init__(self, step: str, errno: int, text: str) -> None:
        reason = f": {os.strerror(errno).lower()}" if errno else ""
        super().__init__(f"{step}{f' {text}' if text else ''}{reason}")
        self.step = step
        self.errno = errno
        self.text = text

    @property
    def exit_code(self) -> int:
        """Docker's exit status for this failure: 127, 126, or 125 when the program is not to blame."""
        if self.step not in EXEC_STEPS:
            return EXIT_ENGINE
        return EXIT_NOT_FOUND if self.errno in (errnos.ENOENT, errnos.ENOTDIR) else EXIT_NOT_EXECUTABLE


class StillRunning(Conflict):
    """The control group still has processes."""
