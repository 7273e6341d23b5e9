"""Registries on loopback: Debian's own, filled by skopeo, and a small one that fails as it is told."""

import base64
import contextlib
import http.server
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import bcrypt

from tests.support import archives

DEADLINE_S = 20.0
MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG = "application/vnd.docker.container.image.v1+json"
LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port), 1):
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.05)
    raise AssertionError("docker-registry does not listen")


@contextlib.contextmanager
def real_registry(path: Path, *, user: str = "", password: str = "") -> Iterator[str]:
    """Run the distribution registry; give its host:port."""
    port = _free_port()
    auth = ""
    if user:
        hashed = bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()
        (path / "htpasswd").write_text(f"{user}:{hashed}\n")
        auth = f"auth: {{htpasswd: {{realm: test, path: {path}/htpasswd}}}}\n"
    settings = path / "registry.yml"
    settings.write_text(
        "version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\n"
        f"storage: {{filesystem: {{rootdirectory: {path}/registry}}}}\n"
        f"http: {{addr: '127.0.0.1:{port}'}}\n{auth}"
    )
    with open(path / "registry.log", "wb") as log:
        process = subprocess.Popen(["docker-registry", "serve", str(settings)], stdout=log, stderr=log)
    try:
        _wait_for(port, process)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(DEADLINE_S)


def push(archive: Path, name: str, *options: str) -> None:
    """Copy a docker-archive into a registry."""
    argv = ["skopeo", "--insecure-policy", "copy", "--dest-tls-verify=false", *options]
    argv += [f"docker-archive:{archive}", f"docker://{name}"]
    subprocess.run(argv, check=True, capture_output=True, timeout=60)


class FakeRegistry:
    """Serves images from memory. `faults[path]` are taken one a request, and answer in its place."""

    def __init__(self) -> None:
        self.documents: dict[str, tuple[str, bytes]] = {}  # path below /v2/ -> (media type, body)
        self.faults: dict[str, list[Callable[[Any], None]]] = {}
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.ranges = True
        self.challenge = ""  # answered to what has no Authorization that is in `accepted`
        self.accepted: set[str] = set()
        self.host = ""

    def add_image(self, repository: str, tag: str, layers: Sequence[bytes], **changes: Any) -> str:
        """Add an image of plain layers; return the digest of its manifest."""
        config = archives.encode(archives.config(layers, **changes))
        blobs = [(CONFIG, config), *((LAYER, layer) for layer in layers)]
        entries = [
            {"mediaType": kind, "digest": archives.digest(data), "size": len(data)} for kind, data in blobs
        ]
        for _, data in blobs:
            self.documents[f"{repository}/blobs/{archives.digest(data)}"] = ("application/octet-stream", data)
        manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": entries[0], "layers": entries[1:]}
        return self.add_manifest(repository, tag, manifest)

    def add_manifest(self, repository: str, tag: str, document: dict[str, Any]) -> str:
        data = archives.encode(document)
        for name in (tag, archives.digest(data)):
            self.documents[f"{repository}/manifests/{name}"] = (document["mediaType"], data)
        return archives.digest(data)

    def fail(self, path: str, *faults: Callable[[Any], None]) -> None:
        """Answer the next requests for `path` by these."""
        self.faults.setdefault(path, []).extend(faults)

    def seen(self, part: str) -> list[dict[str, str]]:
        """Return the headers of each request whose path has `part` in it."""
        return [headers for path, headers in self.requests if part in path]

    @contextlib.contextmanager
    def serving(self) -> Iterator[str]:
        """Serve until the end of the block; give host:port."""
        fake = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                fake.answer(self)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
                pass

        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            server.daemon_threads = True
            server.handle_error = lambda *_: None  # type: ignore[method-assign]
            thread = threading.Thread(target=server.serve_forever, args=(0.02,))
            thread.start()
            self.host = f"127.0.0.1:{server.server_port}"
            try:
                yield self.host
            finally:
                server.shutdown()
                thread.join()

    def answer(self, request: Any) -> None:
        path = request.path.removeprefix("/v2/")
        headers = {key.lower(): value for key, value in request.headers.items()}
        self.requests.append((path, headers))
        if faults := self.faults.get(path):
            faults.pop(0)(request)
            return
        if self.challenge and headers.get("authorization") not in self.accepted:
            reply(request, 401, b"{}", {"WWW-Authenticate": self.challenge})
            return
        if path not in self.documents:
            errors = {"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}
            reply(request, 404, archives.encode(errors))
            return
        kind, data = self.documents[path]
        start = int(headers.get("range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
        if start and self.ranges:
            span = f"bytes {start}-{len(data) - 1}/{len(data)}"
            reply(request, 206, data[start:], {"Content-Type": kind, "Content-Range": span})
        else:
            reply(request, 200, data, {"Content-Type": kind})


def reply(request: Any, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
    request.send_response(status)
    for name, value in (headers or {}).items():
        request.send_header(name, value)
    request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    request.wfile.write(body)


def cut_after(data: bytes, count: int) -> Callable[[Any], None]:
    """Return an answer that promises all that was asked for, and ends after `count` bytes of it."""

    def answer(request: Any) -> None:
        offset = int(request.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
        request.send_response(206 if offset else 200)
        if offset:
            request.send_header("Content-Range", f"bytes {offset}-{len(data) - 1}/{len(data)}")
        request.send_header("Content-Length", str(len(data) - offset))
        request.end_headers()
        request.wfile.write(data[offset : offset + count])
        request.wfile.flush()
        request.connection.shutdown(socket.SHUT_RDWR)
        request.close_connection = True

    return answer


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def random_layer(size: int) -> bytes:
    """Return a layer with one file that does not compress."""
    return archives.tar([archives.Member("data", os.urandom(size))])
