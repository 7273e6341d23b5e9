"""A private engine on this kernel, gone without a trace when the measurement ends."""

import contextlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from benchmarks import memory
from benchmarks.commands import environment, pyengine, timed
from engine.base.errors import NotSupported, Unavailable
from engine.base.process import module_argv, spawn
from hostagent.client.docker import Engine

_START_TIMEOUT_S = 60.0
_READ_BYTES = 64 * 1024


class Native:
    """One private pyengined."""

    def __init__(self, directory: Path, address: str, pid: int) -> None:
        self.directory = directory  # holds `root` and `run`; more may be put there
        self.address = address
        self._argv = [*pyengine(), "--host", address]
        self.pid = pid

    def command(self, words: Sequence[str]) -> float:
        """Run `pyengine words` against it; return wall-clock seconds."""
        return timed([*self._argv, *words], environment())[0]

    def run_true(self) -> float:
        """Time `run --rm busybox true`."""
        return self.command(["run", "--rm", "busybox", "true"])

    def daemon_bytes(self) -> float:
        """Return the daemon's resident memory."""
        return float(memory.resident_bytes(self.pid))

    @contextlib.contextmanager
    def idle_container(self) -> Iterator[int]:
        """Yield the pid of the first process of a container that has nothing left to do."""
        with Engine(self.address) as engine:
            body = {"Image": "busybox", "Cmd": ["sleep", "86400"], "HostConfig": {"AutoRemove": True}}
            container_id = engine.post("/containers/create", body)["Id"]
            try:
                engine.post(f"/containers/{container_id}/start")
                pid = int(engine.get(f"/containers/{container_id}/json")["State"]["Pid"])
                memory.wait_until_asleep(pid)
                yield pid
            finally:
                engine.delete(f"/containers/{container_id}", force=True)

    @contextlib.contextmanager
    def exec_true(self) -> Iterator[Callable[[], float]]:
        """Lend a function that times `true` in a container that runs, over a connection that is open."""
        with self.idle_container() as _, Engine(self.address) as engine:
            (container,) = engine.get("/containers/json")
            body = {"Cmd": ["true"], "AttachStdout": True, "AttachStderr": True}

            def measure() -> float:
                started = time.perf_counter()
                exec_id = engine.post(f"/containers/{container['Id']}/exec", body)["Id"]
                sock, _ = engine.hijack(f"/exec/{exec_id}/start", {}, {"Detach": False, "Tty": False})
                with sock:
                    while sock.recv(_READ_BYTES):
                        pass
                return time.perf_counter() - started

            yield measure


def reason_against(preload: str) -> str:
    """Return why the native engine cannot be measured here; empty when it can."""
    if sys.platform != "linux":
        return "native: needs Linux"
    if os.geteuid() != 0:
        return "native: needs root; run with sudo to include it"
    if not preload:
        return "native: no image yet; it comes with the machine's, which is built at the first machine start"
    return ""


@contextlib.contextmanager
def opened(preload: str) -> Iterator[Native]:
    """Start a private engine with the images of the directory `preload`; end and remove it after.

    Raises:
        NotSupported: `reason_against` has the words.
        Unavailable: it does not start.
    """
    reason = reason_against(preload)
    if reason:
        raise NotSupported(reason)
    with tempfile.TemporaryDirectory(prefix="pyengine-bench-") as name:
        directory = Path(name)
        address = f"unix://{directory}/sock"
        read_fd, ready_fd = os.pipe()
        log_fd = os.open(directory / "log", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        argv = module_argv("engine.daemon.main", "--root", f"{directory}/root")
        argv += ["--run", f"{directory}/run", "--host", address, "--preload", preload]
        argv += ["--bridge", f"peb{os.getpid()}", "--ready-fd", str(ready_fd)]
        daemon = spawn(argv, env=environment(), output_fd=log_fd, pass_fds=(ready_fd,))
        os.close(ready_fd)
        os.close(log_fd)
        try:
            if os.read(read_fd, 1) != b"1":
                daemon.wait(_START_TIMEOUT_S)  # its end closed the pipe: the log is whole then
                raise Unavailable(f"native engine: {_last_line(directory / 'log')}")
            yield Native(directory, address, daemon.pid)
        finally:
            os.close(read_fd)
            daemon.terminate()
            daemon.wait(_START_TIMEOUT_S)
            _remove_bridge(f"peb{os.getpid()}")
            shutil.rmtree(directory / "root", ignore_errors=True)


def _remove_bridge(name: str) -> None:
    """Remove the bridge that the private engine leaves for its next start, which never comes."""
    import pyroute2  # noqa: PLC0415 (180 ms that nobody else needs)

    with pyroute2.IPRoute() as route:
        for index in route.link_lookup(ifname=name):
            route.link("del", index=index)


def _last_line(path: Path) -> str:
    lines = path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else "it did not start, and did not say why"
