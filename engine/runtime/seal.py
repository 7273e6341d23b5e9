"""Close this process to everything the container's files could feed it.

After pivot_root an import, a codec, NSS or a traceback would read the image's
files with the engine's rights. So all that is needed is loaded before, the
import system is emptied, and what remains makes system calls only.
"""

import gc
import signal
import sys

from engine.kernel import prctl

_retired: list[
    object
] = []  # finders of modules, out of reach: to free what they know takes as long as all else
_SIGNALS = tuple(sorted(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}))


def seal() -> None:
    """Make imports impossible, garbage collection silent, and this process unreadable to others.

    Until `survive_maker` it also ends when its maker does: nobody would know of it.
    """
    prctl.set_dumpable(False)
    end_with_maker()
    gc.disable()
    sys.meta_path.clear()
    sys.path_hooks.clear()
    sys.path.clear()
    _retired.extend(sys.path_importer_cache.values())
    sys.path_importer_cache.clear()


def end_with_maker() -> None:
    """End when the process ends that made this one. A change of user makes the kernel forget it."""
    prctl.set_pdeathsig(signal.SIGKILL)


def survive_maker() -> None:
    """Live on when the process ends that made this one: from here on the line between them tells."""
    prctl.set_pdeathsig(0)


def reset_signals() -> None:
    """Give the program default dispositions (Python ignores SIGPIPE) and an empty mask."""
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_DFL:
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
