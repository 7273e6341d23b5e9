"""A place to run containers under real shims: directories, a root file system of busybox, a leak check."""

import asyncio
import contextlib
import os
import select
import shutil
import signal
import socket
import struct
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from engine.base import jsonio
from engine.base.errors import EngineError
from engine.base.ids import new_id
from engine.base.paths import Root, Run
from engine.containers.shim import Shim
from engine.containers.shims import Shims, SpawnRequest
from engine.spec.runtime import (
    OCI_VERSION,
    Capabilities,
    ConsoleSize,
    Linux,
    Memory,
    Mount,
    Namespace,
    NamespaceType,
    Process,
    Resources,
    Spec,
)
from engine.spec.runtime import Root as RootSpec

TIMEOUT_S = 60.0
# what a user sees of a container is the same, whichever runtime made it
EACH_RUNTIME = pytest.mark.parametrize(
    "lab",
    ["", *(pytest.param(name, marks=pytest.mark.requires(name)) for name in ("runc", "crun"))],
    ids=["built-in", "runc", "crun"],
    indirect=True,
)
_END_TIMEOUT_MS = 5000
_HEADER = struct.Struct(">BxxxL")
_SPACES = tuple(
    Namespace(type=kind)
    for kind in (
        NamespaceType.PID,
        NamespaceType.NETWORK,
        NamespaceType.MOUNT,
        NamespaceType.IPC,
        NamespaceType.UTS,
    )
)
_CAPABILITIES = ("CAP_CHOWN", "CAP_KILL", "CAP_SETUID", "CAP_SETGID", "CAP_NET_BIND_SERVICE")
_TOOLS = "sh cat echo sleep true head tr stty kill dd tail yes wc nohup fold seq ps grep ls mount ln"
_MOUNTS = (
    Mount(destination="/proc", type="proc", source="proc", options=("nosuid", "noexec", "nodev")),
    Mount(destination="/dev", type="tmpfs", source="tmpfs", options=("nosuid", "strictatime", "mode=755")),
    Mount(
        destination="/dev/pts",
        type="devpts",
        source="devpts",
        options=("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"),
    ),
)


class Client:
    """The far end of an attached socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    def half_close(self) -> None:
        self.writer.write_eof()

    async def everything(self) -> bytes:
        async with asyncio.timeout(TIMEOUT_S):
            return await self.reader.read()

    async def until(self, text: bytes) -> bytes:
        async with asyncio.timeout(TIMEOUT_S):
            return await self.reader.readuntil(text)

    async def streams(self) -> tuple[bytes, bytes]:
        """Return all of stdout and all of stderr."""
        return unframe(await self.everything())

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()


def unframe(data: bytes) -> tuple[bytes, bytes]:
    """Take 8-byte frames apart into stdout and stderr."""
    parts: dict[int, list[bytes]] = {1: [], 2: []}
    at = 0
    while at < len(data):
        kind, size = _HEADER.unpack_from(data, at)
        at += _HEADER.size
        parts[kind].append(data[at : at + size])
        at += size
    assert at == len(data), "the last frame is torn"
    return b"".join(parts[1]), b"".join(parts[2])


class Lab:
    """One engine's directories; containers are made from a busybox root."""

    def __init__(self, runtime: str = "") -> None:
        self.runtime = runtime
        self.base = Path(tempfile.mkdtemp(prefix="shimlab-"))
        self.run = Run(self.base / "run")
        self.root = Root(self.base / "root")
        self.cgroup = f"/{self.base.name}"
        self.rootfs = self.base / "rootfs"
        make_rootfs(self.rootfs)
        self.shims = Shims(self.run)
        self.pids: set[int] = set()
        self._fds = _open_fds()

    def go(self, story: Callable[[], Awaitable[None]]) -> None:
        """Run `story` with the nursery open, and close it after."""

        async def run() -> None:
            async with asyncio.timeout(TIMEOUT_S * 2):
                await self.shims.open()
                try:
                    await story()
                finally:
                    await self.shims.close()

        asyncio.run(run())

    async def restart(self) -> None:
        """Do to the shims what the daemon's end and a new daemon's start do."""
        await self.shims.close()
        self.shims = Shims(self.run)
        await self.shims.open()

    async def spawn(
        self,
        *args: str,
        terminal: bool = False,
        memory_bytes: int | None = None,
        host_pids: bool = False,
        container_id: str = "",
        edit: Callable[[Spec], Spec] = lambda spec: spec,
        **options: Any,
    ) -> Shim:
        """Create a container that will run `args`; `edit` may change its configuration before."""
        container_id = container_id or new_id()
        bundle = self.run.shim(container_id)
        bundle.path.mkdir(parents=True)
        durable = self.root.container(container_id)
        durable.path.mkdir(parents=True, exist_ok=True)
        spaces = [space for space in _SPACES if not (host_pids and space.type is NamespaceType.PID)]
        spec = Spec(
            oci_version=OCI_VERSION,
            process=self.process(*args, terminal=terminal),
            root=RootSpec(path=str(self.rootfs)),
            mounts=_MOUNTS,
            hostname="lab",
            linux=Linux(
                namespaces=tuple(spaces),
                cgroups_path=f"{self.cgroup}/{container_id}",
                resources=Resources(
                    memory=Memory(limit=memory_bytes, swap=memory_bytes) if memory_bytes else None
                ),
            ),
        )
        bundle.config.write_bytes(jsonio.encode(edit(spec)))
        request = SpawnRequest(
            container_id=container_id,
            bundle=str(bundle.path),
            exit_path=str(durable.exit),
            log_path=str(durable.log),
            runtime=self.runtime,
            **options,
        )
        shim = await self.shims.spawn(request)
        self.pids |= {shim.pid, shim.shim_pid}
        return shim

    async def run_to_end(self, *args: str, **options: Any) -> tuple[int, str]:
        """Run a container and delete its shim; return exit code and log."""
        shim = await self.spawn(*args, **options)
        await shim.start()
        code = (await shim.wait()).code
        await shim.delete()
        return code, self.log_text(shim)

    def said(self, script: str, **options: Any) -> str:
        """Run a shell script in a container, with `go`, to its end; return its log."""
        texts: list[str] = []

        async def story() -> None:
            texts.append((await self.run_to_end("sh", "-c", script, **options))[1])

        self.go(story)
        return texts[0]

    def refusal(self, kind: type[EngineError], **options: Any) -> str:
        """Spawn a container, with `go`, which must be refused by an error of `kind`; return its text."""
        texts: list[str] = []

        async def story() -> None:
            with pytest.raises(kind) as caught:
                await self.spawn("true", **options)
            texts.append(str(caught.value))

        self.go(story)
        return texts[0]

    def process(self, *args: str, terminal: bool = False, width: int = 80) -> Process:
        return Process(
            cwd="/",
            args=args,
            env=("PATH=/bin", "HOME=/", "TERM=dumb"),
            terminal=terminal,
            console_size=ConsoleSize(height=24, width=width) if terminal else None,
            no_new_privileges=True,
            capabilities=Capabilities(
                bounding=_CAPABILITIES, effective=_CAPABILITIES, permitted=_CAPABILITIES
            ),
        )

    async def attach(self, shim: Shim, **options: Any) -> Client:
        ours, theirs = socket.socketpair()
        chosen = {"stdin": False, "stdout": True, "stderr": True, "framed": True} | options
        with theirs:
            await shim.attach(theirs, **chosen)
        return Client(*await asyncio.open_connection(sock=ours))

    async def exec(self, shim: Shim, exec_id: str, *args: str, **options: Any) -> Client:
        ours, theirs = socket.socketpair()
        process = self.process(*args, terminal=options.pop("terminal", False))
        with theirs:
            try:
                await shim.exec_start(exec_id, process, client=theirs, **options)
            except BaseException:
                ours.close()
                raise
        return Client(*await asyncio.open_connection(sock=ours))

    def log_text(self, shim: Shim) -> str:
        path = self.root.container(shim.container_id).log
        return "".join(jsonio.decode(line, dict)["log"] for line in path.read_bytes().splitlines())

    def exit_path(self, shim: Shim) -> Path:
        return self.root.container(shim.container_id).exit

    def close(self) -> None:
        """Fail when anything is left, after removing it."""
        left = [f"process {pid}" for pid in sorted(self.pids) if not _ends(pid)]
        left += [str(path) for path in self.run.shims.iterdir()]
        left += [f"cgroup {path}" for path in _cgroups(self.cgroup) if path.name != self.base.name]
        left += [f"mount {line}" for line in _mounts() if str(self.base) in line]
        left += sorted(f"descriptor {link}" for link in _open_fds() - self._fds)
        for pid in self.pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for path in _cgroups(self.cgroup):
            with contextlib.suppress(OSError):
                path.rmdir()
        shutil.rmtree(self.base)
        assert not left, left


def parent_of(pid: int) -> int:
    """Return the pid of its parent."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("PPid:"))


def make_rootfs(path: Path) -> None:
    """Make a root file system of busybox."""
    for name in ("bin", "proc", "dev", "tmp", "sys", "etc"):
        (path / name).mkdir(parents=True)
    shutil.copy("/bin/busybox", path / "bin/busybox")
    for name in _TOOLS.split():
        (path / "bin" / name).symlink_to("busybox")
    (path / "bin/not-a-program").write_text("no program\n")


def _ends(pid: int) -> bool:
    """Tell whether the process has ended, or does so in a moment."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    ended = bool(poll.poll(_END_TIMEOUT_MS))
    os.close(pidfd)
    return ended


def _cgroups(name: str) -> list[Path]:
    """Return the directories of the lab in every hierarchy, deepest first."""
    found = []
    for top in [Path("/sys/fs/cgroup"), *Path("/sys/fs/cgroup").iterdir()]:
        path = top / name.lstrip("/")
        if path.is_dir():
            found += [Path(directory) for directory, _, _ in os.walk(path, topdown=False)]
    return found


def _mounts() -> list[str]:
    return Path("/proc/self/mountinfo").read_text().splitlines()


def _open_fds() -> set[str]:
    links = set()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            links.add(f"{name} {os.readlink(f'/proc/self/fd/{name}')}")
    return {link for link in links if "/fd" not in link.split()[1]}
