"""The host agent's process: `python -m hostagent.agent.main NAME`, one a machine.

Its lock makes it the only one; a second one that is started by a race ends at
once, with exit status 3. It ends when its machine was stopped on request; a
signal ends it too, and leaves the virtual machine to the next agent.
"""

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Sequence

from engine.base import log as logs
from engine.base.errors import EngineError
from engine.base.lockfile import Locked, LockFile
from hostagent.agent import sockets
from hostagent.agent.forward import Forwarder
from hostagent.agent.lifecycle import Lifecycle
from hostagent.agent.ports import Ports
from hostagent.agent.server import Server
from hostagent.machine import store
from hostagent.machine.qemu.driver import QemuDriver
from hostagent.paths import MachinePaths, make_directories

log = logging.getLogger(__name__)

EXIT_SECOND = 3


def main(argv: Sequence[str] | None = None) -> int:
    """Serve one machine; return the exit status."""
    parser = argparse.ArgumentParser(prog="pyengine-host-agent", description="Serve one machine of pyengine.")
    parser.add_argument("name")
    parser.add_argument("--log-level", default=os.environ.get("PYENGINE_LOG", "info"))
    parser.add_argument("--ready-fd", type=int, default=-1, help="gets one byte when the sockets are there")
    options = parser.parse_args(argv)
    logs.configure(level=options.log_level)
    logging.getLogger("paramiko").setLevel(logging.CRITICAL)  # it logs what it also raises
    try:
        store.load(options.name)
        paths = MachinePaths(options.name)
        make_directories(paths)
        with LockFile(paths.agent_lock):
            asyncio.run(serve(paths, ready_fd=options.ready_fd))
    except Locked as err:
        log.info("%s", err)
        return EXIT_SECOND
    except EngineError as err:
        log.error("%s", err)  # noqa: TRY400 (said to a person, who needs no traceback)
        return 1
    return 0


async def serve(paths: MachinePaths, *, ready_fd: int = -1) -> None:
    """Serve until the machine is stopped or a signal comes; the caller holds the agent's lock."""
    done = asyncio.Event()
    loop = asyncio.get_running_loop()
    if sys.platform != "win32":
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, done.set)

    def carry_port(client: socket.socket, guest_port: int) -> None:
        forwarder.carry_port(client, guest_port)

    def tell(text: str) -> None:
        lifecycle.tell(text)

    driver = QemuDriver(paths, progress=tell)
    lifecycle = Lifecycle(paths, driver, Ports(carry_port))
    forwarder = Forwarder(
        loop, ensure_running=lifecycle.start, connect=lifecycle.connect, why_lost=lifecycle.why_lost
    )
    server = Server(lifecycle, on_stopped=done.set)
    listeners = {path: sockets.listen(path) for path in (paths.agent_socket, paths.docker_socket)}
    try:
        await lifecycle.adopt()
        tasks = [
            asyncio.create_task(sockets.accept(listeners[paths.agent_socket], server.take)),
            asyncio.create_task(sockets.accept(listeners[paths.docker_socket], forwarder.carry_docker)),
        ]
        if ready_fd >= 0:
            os.write(ready_fd, b"1")
            os.close(ready_fd)
        log.info("agent of machine %s listens in %s", paths.name, paths.run)
        await done.wait()
        for task in tasks:
            task.cancel()
    finally:
        for path, listener in listeners.items():
            sockets.remove(listener, path)
        with contextlib.suppress(EngineError, OSError):
            await lifecycle.close()


if __name__ == "__main__":
    sys.exit(main())
