"""The console script: quiet under ctrl-C from its first line on, before the imports that take time."""

import os
import signal
import sys


def main() -> int:
    """Run the command line of this process and end the process."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # no traceback out of an import
    _open_standard_streams()
    from hostagent.cli.main import main as run  # noqa: PLC0415 (see above)

    signal.signal(signal.SIGINT, signal.default_int_handler)
    return run()


def _open_standard_streams() -> None:
    """Put the null device where a standard stream is closed: the first socket would take its place."""
    for fd, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(fd)
        except OSError:
            opened_fd = os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: fd
            setattr(sys, name, os.fdopen(opened_fd, "r" if fd == 0 else "w", encoding="utf-8"))


if __name__ == "__main__":
    main()
