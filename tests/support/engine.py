"""A private pyengined: its own root, network namespace and image; and a small client of its API."""

import contextlib
import hashlib
import http.client
import io
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

TIMEOUT_S = 60.0
IMAGE = "busybox:latest"
_TOOLS = "sh cat echo sleep true head touch ls kill hostname id pwd env seq stty wc mkdir"
_DIRECTORIES = ("bin", "dev", "etc", "proc", "sys", "tmp", "seed")
_REPOSITORY = Path(__file__).parents[2]
_START = "import sys; from engine.daemon.main import main; sys.exit(main())"
_FRAME = struct.Struct(">BxxxI")


class Answer:
    """Status and body of one response."""

    def __init__(self, status: int, body: bytes) -> None:
        self.status = status
        self.body = body

    @property
    def json(self) -> Any:
        """The body, decoded."""
        return json.loads(self.body)

    @property
    def message(self) -> str:
        """What an error says."""
        return str(self.json["message"])

    def __repr__(self) -> str:
        return f"{self.status} {self.body[:300]!r}"


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("engine", timeout=TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(TIMEOUT_S)
        self.sock.connect(str(self._path))


class Engine:
    """One engine that can be killed and started again; `close` fails when it leaves anything."""

    def __init__(self) -> None:
        self.base = Path(tempfile.mkdtemp(prefix="pe-"))  # short: sockets lie in it
        self.root, self.run, self.socket = self.base / "root", self.base / "run", self.base / "sock"
        self.archive = self.base / "busybox.tar"
        write_image(self.archive)
        self._space = subprocess.Popen(
            ["unshare", "--net", "sh", "-c", "ip link set lo up && echo up && exec cat"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._space.stdout is not None
        assert self._space.stdout.readline() == b"up\n"
        self._daemon: subprocess.Popen[bytes] | None = None
        self.log = self.base / "log"

    # the daemon

    @property
    def pid(self) -> int:
        """Of the daemon."""
        assert self._daemon is not None
        return self._daemon.pid

    def start(self) -> None:
        """Start the daemon and return when it serves."""
        ready, theirs = os.pipe()
        argv = ["nsenter", f"--net=/proc/{self._space.pid}/ns/net", sys.executable, "-c", _START]
        argv += ["--root", str(self.root), "--run", str(self.run), "--host", f"unix://{self.socket}"]
        argv += ["--preload", str(self.archive), "--ready-fd", str(theirs)]
        with self.log.open("ab") as log, os.fdopen(ready, "rb") as served:
            environment = {**os.environ, "PYTHONPATH": str(_REPOSITORY)}
            self._daemon = subprocess.Popen(argv, stderr=log, pass_fds=[theirs], env=environment)
            os.close(theirs)
            assert served.read(1) == b"1", self.log.read_text()

    def kill(self) -> None:
        """Do to the daemon what nobody can prepare for."""
        assert self._daemon is not None
        self._daemon.kill()
        self._daemon.wait(TIMEOUT_S)

    def restart(self) -> None:
        """Kill the daemon and start another."""
        self.kill()
        self.start()

    def close(self) -> None:
        """Remove all containers, stop, and check that nothing is left."""
        try:
            left = self._empty()
        finally:
            self._space.kill()
            self._space.wait(TIMEOUT_S)
            for stream in (self._space.stdin, self._space.stdout):
                if stream is not None:
                    stream.close()
        shutil.rmtree(self.base)
        assert not left, left

    def _empty(self) -> list[str]:
        assert self._daemon is not None
        if self._daemon.poll() is not None:
            self.start()
        left = []
        for each in self.get("/containers/json?all=1").json:
            answer = self.call("DELETE", f"/containers/{each['Id']}?force=1&v=1")
            if answer.status not in {204, 404}:  # 404: --rm was faster
                left.append(f"{each['Names']}: {answer}")
        left += [str(path) for path in (self.root / "containers").iterdir()]
        left += [str(path) for path in (self.run / "shims").iterdir()]
        self._daemon.send_signal(signal.SIGTERM)
        self._daemon.wait(TIMEOUT_S)
        mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
        return left + [line for line in mounts if str(self.base) in line]

    # its API

    def call(self, method: str, path: str, body: object = None) -> Answer:
        """Make one request."""
        with contextlib.closing(_Connection(self.socket)) as connection:
            data = None if body is None else json.dumps(body)
            connection.request(method, path, data, {"Content-Type": "application/json"})
            response = connection.getresponse()
            return Answer(response.status, response.read())

    def get(self, path: str) -> Answer:
        """Make a request that must succeed."""
        answer = self.call("GET", path)
        assert answer.status == 200, f"GET {path}: {answer}"
        return answer

    def post(self, path: str, body: object = None) -> Answer:
        """Make a request that must succeed."""
        answer = self.call("POST", path, body)
        assert answer.status < 300, f"POST {path}: {answer}"
        return answer

    def load(self, archive: Path) -> None:
        """Load images from an archive."""
        with contextlib.closing(_Connection(self.socket)) as connection:
            connection.request("POST", "/images/load?quiet=1", archive.read_bytes())
            response = connection.getresponse()
            answer = Answer(response.status, response.read())
        assert answer.status == 200, answer
        assert b'"error"' not in answer.body, answer

    def create(self, *command: str, name: str = "", host: dict[str, Any] | None = None, **config: Any) -> str:
        """Create a container and return its id."""
        body = {
            "Image": IMAGE,
            "Cmd": list(command),
            "HostConfig": {"NetworkMode": "none", **(host or {})},
            **config,
        }
        query = f"?name={name}" if name else ""
        return str(self.post(f"/containers/create{query}", body).json["Id"])

    def begin(self, *command: str, **how: Any) -> str:
        """Create a container, start it, and return its id."""
        made = self.create(*command, **how)
        self.post(f"/containers/{made}/start")
        return made

    def wait(self, container: str, condition: str = "not-running") -> int:
        """Return the exit code that `condition` waits for."""
        return int(self.post(f"/containers/{container}/wait?condition={condition}").json["StatusCode"])

    @contextlib.contextmanager
    def waiting(self, container: str, condition: str) -> Iterator[Callable[[], int]]:
        """Register a wait; inside, the function given returns the exit code when it is answered."""
        with contextlib.closing(_Connection(self.socket)) as connection:
            connection.request("POST", f"/containers/{container}/wait?condition={condition}")
            response = connection.getresponse()  # the head comes once the wait is registered
            assert response.status == 200, response.read()
            yield lambda: int(json.loads(response.read())["StatusCode"])

    def inspect(self, container: str) -> dict[str, Any]:
        """Return what inspect says."""
        return dict(self.get(f"/containers/{container}/json").json)

    def state(self, container: str) -> dict[str, Any]:
        """Return its State."""
        return dict(self.inspect(container)["State"])

    def output(self, container: str) -> tuple[str, str]:
        """Return what it has written to stdout and stderr."""
        return unframe(self.get(f"/containers/{container}/logs?stdout=1&stderr=1").body)

    def listed(self, **filters: list[str]) -> list[str]:
        """Return the names of the containers that pass."""
        text = urllib.parse.quote(json.dumps(filters))
        return [each["Names"][0][1:] for each in self.get(f"/containers/json?all=1&filters={text}").json]

    def exec(self, container: str, *command: str) -> tuple[int, str, str]:
        """Run a command in a container; return what a client learns that asks as soon as its stream ends."""
        body = {"Cmd": list(command), "AttachStdout": True, "AttachStderr": True}
        exec_id = self.post(f"/containers/{container}/exec", body).json["Id"]
        out, err = self.hijack(f"/exec/{exec_id}/start", {"Detach": False})
        return self.get(f"/exec/{exec_id}/json").json["ExitCode"], out, err

    def hijack(self, path: str, body: object = None, then: Callable[[], object] = bool) -> tuple[str, str]:
        """Take a connection over, do `then`, and return what came on its stdout and stderr to the end."""
        data = json.dumps(body or {}).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: engine\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
        with contextlib.closing(socket.socket(socket.AF_UNIX)) as client:
            client.settimeout(TIMEOUT_S)
            client.connect(str(self.socket))
            client.sendall(head.encode() + data)
            stream = client.makefile("rb")
            with stream:
                status = stream.readline()
                assert b" 101 " in status, status + stream.read()
                while stream.readline().strip():
                    pass
                then()
                return unframe(stream.read())


def unframe(data: bytes) -> tuple[str, str]:
    """Take 8-byte frames apart into stdout and stderr."""
    parts: dict[int, bytes] = {1: b"", 2: b""}
    at = 0
    while at < len(data):
        kind, size = _FRAME.unpack_from(data, at)
        at += _FRAME.size + size
        parts[kind] += data[at - size : at]
    assert at == len(data), "the last frame is torn"
    return parts[1].decode(), parts[2].decode()


def eventually(holds: Callable[[], bool], what: str) -> None:
    """Ask until it is so."""
    deadline = time.monotonic() + TIMEOUT_S
    while not holds():
        assert time.monotonic() < deadline, f"not within {TIMEOUT_S} s: {what}"


def write_image(
    path: Path, name: str = IMAGE, files: Mapping[str, bytes] | None = None, **config: Any
) -> None:
    """Write an archive as `docker save` makes it, with the machine's static busybox, and `files`."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        for place in _DIRECTORIES:
            tar.addfile(_entry(place, tarfile.DIRTYPE, 0o1777 if place == "tmp" else 0o755))
        _add(tar, "bin/busybox", Path("/bin/busybox").read_bytes(), 0o755)
        _add(tar, "etc/passwd", b"root:x:0:0::/:/bin/sh\nuser:x:1000:1000::/:/bin/sh\n", 0o644)
        _add(tar, "etc/group", b"root:x:0:\nuser:x:1000:\n", 0o644)
        _add(tar, "bin/not-a-program", b"no program\n", 0o644)
        _add(tar, "seed/file", b"from the image\n", 0o644)
        for tool in _TOOLS.split():
            link = _entry(f"bin/{tool}", tarfile.SYMTYPE, 0o777)
            link.linkname = "busybox"
            tar.addfile(link)
        for place in sorted({str(parent) for file in files or () for parent in Path(file).parents} - {"."}):
            if place not in _DIRECTORIES:
                tar.addfile(_entry(place, tarfile.DIRTYPE, 0o755))
        for file, data in (files or {}).items():
            _add(tar, file, data, 0o755)
    document = json.dumps(
        {
            "architecture": {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine],
            "os": "linux",
            "config": {"Env": ["PATH=/bin"], "Cmd": ["sh"], "Labels": {"from": "image"}, **config},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{_sha256(layer.getvalue())}"]},
        }
    ).encode()
    manifest = [{"Config": f"{_sha256(document)}.json", "RepoTags": [name], "Layers": ["layer.tar"]}]
    with tarfile.open(path, "w") as tar:
        _add(tar, f"{_sha256(document)}.json", document, 0o644)
        _add(tar, "layer.tar", layer.getvalue(), 0o644)
        _add(tar, "manifest.json", json.dumps(manifest).encode(), 0o644)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _entry(name: str, kind: bytes, mode: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode = kind, mode
    return entry


def _add(tar: tarfile.TarFile, name: str, data: bytes, mode: int) -> None:
    entry = _entry(name, tarfile.REGTYPE, mode)
    entry.size = len(data)
    tar.addfile(entry, io.BytesIO(data))


def running() -> Iterator[Engine]:
    """Yield an engine that serves; the body of a fixture."""
    engine = Engine()
    try:
        engine.start()
        yield engine
    finally:
        engine.close()
