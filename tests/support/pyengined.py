"""A real pyengined of the test's own: root, run directory, socket and network stack are private to it.

It runs in a network namespace that ends with the test, so that neither its
bridge nor its rules touch the machine. Containers outlive a `kill` of it, as
they do a user's; `close` ends them and checks that nothing was left behind.
"""

import contextlib
import json
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from engine.kernel.mount import UmountFlag, umount2
from hostagent.client.docker import Engine as ApiClient
from tests.support.home import Result, Running, Terminal
from tests.support.images import write_busybox
from tests.support.netlab import Namespace

REPOSITORY = Path(__file__).parents[2]
START_TIMEOUT_S = 30.0
COMMAND_TIMEOUT_S = 60.0
_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)\r\n", re.IGNORECASE)


class Engine:
    """One engine; `start` and `kill` as often as wanted, `close` once."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="pe-"))  # short: sockets lie in it
        self.root, self.run = self.directory / "root", self.directory / "run"
        self.socket = self.directory / "sock"
        self.log = self.directory / "engine.log"
        self.archive = write_busybox(self.directory / "busybox.tar")
        self.network = Namespace.new()
        self.env = {k: v for k, v in os.environ.items() if not k.startswith(("PYENGINE_", "DOCKER_"))}
        self.env |= {"DOCKER_HOST": f"unix://{self.socket}", "DOCKER_CONFIG": str(self.directory / "docker")}
        self._daemon: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Process id of the running daemon."""
        assert self._daemon is not None
        return self._daemon.pid

    def argv(self, *flags: str, **paths: Path) -> list[str]:
        """Return the command line of a daemon; `paths` replace root, run or socket."""
        root, run = paths.get("root", self.root), paths.get("run", self.run)
        host = f"unix://{paths.get('socket', self.socket)}"
        program = [sys.executable, "-m", "engine.daemon.main", "--root", str(root), "--run", str(run)]
        return ["nsenter", f"--net=/proc/self/fd/{self.network.fd}", *program, "--host", host, *flags]

    def start(self, *flags: str) -> None:
        """Start the daemon and return when its API answers."""
        read_fd, ready_fd = os.pipe()
        try:
            with self.log.open("ab") as log:
                self._daemon = subprocess.Popen(
                    self.argv("--preload", str(self.archive), "--ready-fd", str(ready_fd), *flags),
                    cwd=REPOSITORY,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    pass_fds=(ready_fd, self.network.fd),
                )
        finally:
            os.close(ready_fd)
        try:
            readable, _, _ = select.select([read_fd], [], [], START_TIMEOUT_S)
            assert readable, f"the engine was not ready within {START_TIMEOUT_S} s"
            assert os.read(read_fd, 1) == b"1", f"the engine did not start: {self.log.read_text()}"
        finally:
            os.close(read_fd)

    def refused(self, *flags: str, **paths: Path) -> Result:
        """Run another daemon, which must end by itself, to its end."""
        done = subprocess.run(
            self.argv(*flags, **paths),
            cwd=REPOSITORY,
            capture_output=True,
            timeout=START_TIMEOUT_S,
            check=False,
            pass_fds=(self.network.fd,),
        )
        return Result(done.returncode, done.stdout.decode(), done.stderr.decode())

    def kill(self) -> None:
        """End the daemon as a crash would."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """End the daemon in order; return its exit status."""
        return self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> int:
        assert self._daemon is not None
        self._daemon.send_signal(number)
        status = self._daemon.wait(COMMAND_TIMEOUT_S)
        self._daemon = None
        return status

    # the docker command line

    def docker(self, *args: str, stdin: bytes = b"", env: Mapping[str, str] | None = None) -> Result:
        """Run `docker args` to its end."""
        return Result.of(["docker", *args], {**self.env, **(env or {})}, stdin, COMMAND_TIMEOUT_S)

    def output(self, *args: str, stdin: bytes = b"") -> str:
        """Run `docker args`, which must succeed, and return what it printed, without the last newline."""
        result = self.docker(*args, stdin=stdin)
        assert result.code == 0, f"docker {' '.join(args)}: {result}"
        return result.out.removesuffix("\n")

    def running(self, *args: str) -> Running:
        """Start `docker args` and return while it runs."""
        return Running(["docker", *args], self.env)

    def terminal(self, *args: str) -> Terminal:
        """Start `docker args` under a terminal of its own."""
        return Terminal(["docker", *args], self.env)

    def inspect(self, name: str) -> dict[str, Any]:
        """Return the container as the API shows it."""
        with contextlib.closing(self.api()) as client:
            return dict(client.get(f"/containers/{name}/json"))

    # the API

    def api(self) -> ApiClient:
        """Return our own client of it; close it."""
        return ApiClient(f"unix://{self.socket}")

    def connect(self) -> socket.socket:
        """Return a plain connection to the API."""
        client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        client.settimeout(COMMAND_TIMEOUT_S)
        client.connect(str(self.socket))
        return client

    def raw(self, data: bytes, *, end: bool = False) -> tuple[int, bytes]:
        """Send `data` and return status and body of the answer; 0 when the connection is closed without one.

        With `end` the sending side is closed after `data`.
        """
        with self.connect() as client:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it may refuse before the end
                client.sendall(data)
                if end:
                    client.shutdown(socket.SHUT_WR)
            return read_answer(client)

    def request(self, method: str, target: str, body: bytes | object = b"") -> tuple[int, Any]:
        """Return status and decoded body of one request; an object is sent as JSON."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        head = f"{method} {target} HTTP/1.1\r\nHost: d\r\nConnection: close\r\n"
        head += f"Content-Length: {len(content)}\r\n\r\n"
        status, answer = self.raw(head.encode() + content)
        return status, json.loads(answer) if answer[:1] in (b"{", b"[") else answer

    # the end

    def traceback(self) -> str:
        """Return what the daemon's log has from its first traceback on; nothing when all was foreseen."""
        text = self.log.read_text() if self.log.exists() else ""
        at = text.find("Traceback")
        return text[at:] if at >= 0 else ""

    def leftovers(self) -> list[str]:
        """Return the mounts and shims below this engine's directories, by name."""
        mounts = [mount for mount in self._mounts() if not mount.endswith("/netns")]
        return mounts + [str(path) for path in self.run.glob("shims/*")]

    def _mounts(self) -> list[str]:
        lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
        return [line.split()[4] for line in lines if line.split()[4].startswith(str(self.directory))]

    def remove_containers(self) -> None:
        """Remove every container, running or not."""
        with contextlib.closing(self.api()) as client:
            for container in client.get("/containers/json", all=True):
                client.call("DELETE", f"/containers/{container['Id']}", {"force": True, "v": True})

    def close(self) -> None:
        """End everything; fails when the engine left something, or logged what it did not foresee."""
        left: list[str] = []
        try:
            if self._daemon is not None:
                self.remove_containers()
                self.stop()
                left = self.leftovers()
        finally:
            if self._daemon is not None:
                self.kill()
            for mount in reversed(self._mounts()):
                with contextlib.suppress(OSError):
                    umount2(Path(mount), UmountFlag.DETACH)
            self.network.close()
        trace = self.traceback()
        shutil.rmtree(self.directory)
        assert not left, f"the engine left: {left}"
        assert not trace, f"the engine logged: {trace}"


def read_answer(client: socket.socket) -> tuple[int, bytes]:
    """Return status and body of one HTTP answer (by its length, or to the connection's end)."""
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := client.recv(65536):
            data += piece
            head, blank, body = data.partition(b"\r\n\r\n")
            length = _LENGTH.search(head + b"\r\n")
            if blank and length and len(body) >= int(length[1]):
                break
    if not data:
        return 0, b""
    head, _, body = data.partition(b"\r\n\r\n")
    return int(head.split(b" ", 2)[1]), body


def opened(*flags: str) -> Iterator[Engine]:
    """Yield a started engine; the body of a fixture."""
    engine = Engine()
    try:
        engine.start(*flags)
        yield engine
    finally:
        engine.close()
