"""pyengined: the engine daemon."""

import asyncio
import contextlib
import fcntl
import logging
import os
import signal
import sys
from collections.abc import Sequence

from engine.base import log as logs
from engine.base.errors import EngineError, InvalidArgument
from engine.base.version import VERSION
from engine.daemon import config
from engine.daemon.config import Config
from engine.daemon.wiring import Engine
from engine.kernel.process import set_oom_score_adj

log = logging.getLogger(__name__)

_OOM_SCORE = -900  # nursery and shims inherit it; containers are given their own


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the daemon until SIGTERM or SIGINT; return the exit status."""
    try:
        chosen = config.parse(sys.argv[1:] if arguments is None else arguments)
        if chosen.help or chosen.version:
            sys.stdout.write(config.USAGE if chosen.help else f"pyengined {VERSION}\n")
            return 0
        _check_ready_fd(chosen.ready_fd)
        logs.configure(level=chosen.log_level, json_lines=chosen.log_json)
        asyncio.run(_run(chosen))
    except EngineError as err:
        hint = f" ({err.hint})" if err.hint else ""
        sys.stderr.write(f"pyengined: {err}{hint}\n")
        return 1
    except OSError as err:
        where = f"{err.filename}: " if err.filename else ""
        sys.stderr.write(f"pyengined: {where}{(err.strerror or str(err)).lower()}\n")
        return 1
    return 0


def _check_ready_fd(ready_fd: int | None) -> None:
    """Refuse a descriptor that cannot be written to, before anything is opened that might take its number."""
    if ready_fd is None:
        return
    try:
        writable = fcntl.fcntl(ready_fd, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY
    except (OSError, OverflowError):
        writable = False
    if not writable:
        raise InvalidArgument(f"--ready-fd {ready_fd}: not a descriptor open for writing")


async def _run(chosen: Config) -> None:
    with contextlib.suppress(PermissionError):  # without CAP_SYS_RESOURCE, as in a container
        set_oom_score_adj(_OOM_SCORE)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    engine = Engine(chosen)
    await engine.open()
    try:
        log.info("serving %s", chosen.host)
        if chosen.ready_fd is not None:
            os.write(chosen.ready_fd, b"1")
            os.close(chosen.ready_fd)
        await stop.wait()
        log.info("stopping; containers run on")
    finally:
        await engine.close()


if __name__ == "__main__":
    sys.exit(main())
