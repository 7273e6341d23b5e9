"""runc or crun in the place of the built-in runtime, under the same shim.

The program is executed for what only it can do: `create`, `start`, `exec` and
`delete`. Its state lies in the container's bundle directory, so that whoever
removes that removes it. Signals go through the pidfd and the freezer through
the control group, as with the built-in runtime: a process number can be
another's by the time a second program looks it up.

The shim enters a mount namespace of its own first. There the root of the
container is mounted, out of the host's sight and gone with the shim, and
there a cgroup2 mount without controllers is covered, with which crun refuses
to work; what it writes in its place goes with the shim too.

Source: OCI runtime-spec 1.2.0, runtime.md, "Operations"; runc(8), crun(1).
"""

import array
import contextlib
import errno
import os
import select
import signal
import socket
from collections.abc import Sequence
from pathlib import Path

import msgspec

from engine.base.unixsocket import short_address
from engine.kernel import mount as mounts
from engine.kernel import process as kernel
from engine.kernel.mount import AT_FDCWD, MountFlag
from engine.kernel.process import CloneFlag
from engine.runtime.cgroups.select import mounted
from engine.runtime.delete import delete as delete_cgroup
from engine.runtime.errors import StartFailed
from engine.runtime.model import Created, Stdio
from engine.runtime.progress import Progress
from engine.runtime.rootfs import mount_root
from engine.shim.cleanup import STATE_NAME, cgroup_of, remove_other_groups
from engine.shim.libseccomp import for_libseccomp
from engine.shim.verbs import Runtime
from engine.spec.runtime import Mount, Process, Spec

_TIMEOUT_MS = 120_000
_OCI_VERSION = "1.0.2"  # crun refuses what is newer than itself
_ENV = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
_DEFAULT_SIGNALS = (signal.SIGPIPE, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
_WAIT_ALL = 0x40000000  # __WALL
_NOT_THERE = ("not found in $path", "no such file or directory")
_NOT_EXECUTABLE = ("permission denied", "operation not permitted", "is a directory", "exec format error")
_NO_LINE = -1
_COVER = MountFlag.NOSUID | MountFlag.NODEV | MountFlag.NOEXEC


class _LogLine(msgspec.Struct):
    level: str = ""
    msg: str = ""


_log_decoder = msgspec.json.Decoder(_LogLine)


def foreign(command: tuple[str, ...], container_id: str, bundle: Path) -> Runtime:
    """Return the verbs of one container whose runtime is `command`: an absolute path, and arguments."""
    found = _Foreign(command, container_id, bundle)
    return Runtime(create=found.create, start=found.start, enter=found.enter, delete=found.delete)


def explain(program: str, verb: str, log: bytes) -> StartFailed:
    """Return the failure that the runtime's log tells of; pure.

    Only its words say whether the container's program is to blame, which
    docker's clients are told by exit status 126 and 127.
    """
    text = ""
    for line in log.splitlines():
        try:
            record = _log_decoder.decode(line)
        except msgspec.DecodeError:
            continue
        if record.level in ("error", "fatal") or not record.level:
            text = record.msg
    words = text.lower()
    if "exec" in words:
        if any(part in words for part in _NOT_THERE):
            return StartFailed("exec", errno.ENOENT, text)
        if any(part in words for part in _NOT_EXECUTABLE):
            return StartFailed("exec", errno.EACCES, text)
    return StartFailed(f"{os.path.basename(program)} {verb}", 0, f"failed: {text or 'it does not say why'}")


def portable(spec: Spec) -> Spec:
    """Return the configuration in words that runc and crun understand as we do; pure."""
    linux = spec.linux
    if linux.seccomp is not None:
        linux = msgspec.structs.replace(linux, seccomp=for_libseccomp(linux.seccomp))
    return msgspec.structs.replace(spec, oci_version=_OCI_VERSION, linux=linux)


class _Foreign:
    """One container; every method blocks until the program has ended."""

    def __init__(self, command: tuple[str, ...], container_id: str, bundle: Path) -> None:
        self._command = command
        self._program = command[0]
        self._id = container_id
        self._bundle = bundle
        self._waits = False  # created, and not yet started

    def create(
        self,
        spec: Spec,
        bundle: Path,
        container_id: str,
        *,
        stdio: Stdio,
        rootfs_mounts: Sequence[Mount] = (),
    ) -> Created:
        """Make the container; its init is a child of this process once the program has ended."""
        root = spec.root
        _leave_host()
        if rootfs_mounts and root is not None:
            progress = Progress()
            try:
                os.close(mount_root(str(bundle / root.path), rootfs_mounts, progress))
            except OSError as err:
                raise StartFailed(progress.step, err.errno or 0, progress.said or progress.text) from err
        (bundle / "config.json").write_bytes(msgspec.json.encode(portable(spec)))
        terminal = spec.process is not None and spec.process.terminal
        try:
            created = self._make(
                "create",
                ["--bundle", str(bundle)],
                [container_id],
                stdio,
                terminal,
                cgroup_of(spec, container_id),
            )
        except StartFailed:
            self.delete(cgroup_of(spec, container_id), None)
            raise
        self._waits = True
        return created

    def start(self, created: Created) -> None:  # noqa: ARG002 (as the built-in runtime's)
        """Let the created program run; what `enter` made runs already."""
        if self._waits:
            self._waits = False
            self._run("start", [], [self._id], None)

    def enter(
        self,
        pid: int,  # noqa: ARG002 (as the built-in runtime's)
        spec: Spec,  # noqa: ARG002
        process: Process,
        *,
        stdio: Stdio,
        cgroup: str,
        target_pidfd: int,  # noqa: ARG002
    ) -> Created:
        """Run one more process in the container."""
        path = self._bundle / "process.json"
        path.write_bytes(msgspec.json.encode(process))
        try:
            words = ["--detach", "--process", str(path)]
            return self._make("exec", words, [self._id], stdio, process.terminal, cgroup)
        finally:
            path.unlink()

    def delete(self, cgroup: str, bundle: Path | None) -> None:
        """Remove the container from the program's state, then what it may have left."""
        with contextlib.suppress(
            StartFailed
        ):  # it knows of none, or cannot: what is left is removed without it
            self._run("delete", ["--force"], [self._id], None)
        delete_cgroup(cgroup, bundle)
        remove_other_groups(cgroup)

    def _make(  # noqa: PLR0917 (of its own class only)
        self, verb: str, options: list[str], operands: list[str], stdio: Stdio, terminal: bool, cgroup: str
    ) -> Created:
        pid_file = self._bundle / "made.pid"
        options = [*options, "--pid-file", str(pid_file)]
        master_fd = None
        if terminal:
            master_fd = self._run_with_console(verb, options, operands, stdio)
        else:
            self._run(verb, options, operands, stdio)
        pid = int(pid_file.read_text(encoding="ascii"))
        pid_file.unlink()
        return Created(pid, kernel.pidfd_open(pid), master_fd, cgroup, (), _NO_LINE)

    def _run_with_console(self, verb: str, options: list[str], operands: list[str], stdio: Stdio) -> int:
        """Run the program and return the master of the terminal that it has made."""
        path = self._bundle / "console.sock"
        directory_fd = os.open(self._bundle, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            with short_address(path) as address:
                listener.bind(address)
            listener.listen(1)
            listener.settimeout(_TIMEOUT_MS / 1000)
            short = f"/proc/{os.getpid()}/fd/{directory_fd}/{path.name}"
            self._run(verb, [*options, "--console-socket", short], operands, stdio)
            connection, _ = listener.accept()
            with connection:
                return _received_fd(connection)
        finally:
            listener.close()
            os.close(directory_fd)
            path.unlink(missing_ok=True)

    def _run(self, verb: str, options: list[str], operands: list[str], stdio: Stdio | None) -> None:
        """Execute the program to its end.

        Raises:
            StartFailed: it failed, with the reason that it has logged.
        """
        log = self._bundle / "runtime.log"
        log.unlink(missing_ok=True)
        words = [
            *self._command,
            "--root",
            str(self._bundle / STATE_NAME),
            "--log",
            str(log),
            "--log-format",
            "json",
        ]
        null_fd = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        try:
            fds = (stdio.stdin_fd, stdio.stdout_fd, stdio.stderr_fd) if stdio else (null_fd,) * 3
            pid = os.posix_spawn(
                self._program,
                [*words, verb, *options, *operands],
                _ENV,
                file_actions=[(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate(fds)],
                setsigdef=_DEFAULT_SIGNALS,
            )
        except OSError as err:
            raise StartFailed("execute", err.errno or 0, self._program) from err
        finally:
            os.close(null_fd)
        if _wait(pid) != 0:
            raise explain(self._program, verb, log.read_bytes() if log.exists() else b"")


def _leave_host() -> None:
    """Enter a mount namespace that gets the host's mounts and gives it none."""
    try:
        kernel.unshare(CloneFlag.NEWNS)
        mounts.mount_setattr(AT_FDCWD, "/", propagation=MountFlag.SLAVE, recursive=True)
        found = mounted()
        if found.legacy and found.unified is not None:
            mounts.mount(
                "tmpfs", found.unified, "tmpfs", MountFlag.NOSUID | MountFlag.NODEV | MountFlag.NOEXEC
            )
    except OSError as err:
        raise StartFailed("leave the host's mount namespace", err.errno or 0, "") from err


def _wait(pid: int) -> int:
    """Reap the child and return its exit status; it is killed when it takes too long."""
    pidfd = kernel.pidfd_open(pid)
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        if not poll.poll(_TIMEOUT_MS):
            kernel.pidfd_send_signal(pidfd, signal.SIGKILL)
    finally:
        os.close(pidfd)
    return os.waitstatus_to_exitcode(os.waitpid(pid, _WAIT_ALL)[1])


def _received_fd(connection: socket.socket) -> int:
    fds = array.array("i")
    connection.settimeout(_TIMEOUT_MS / 1000)
    _, ancillary, _, _ = connection.recvmsg(4096, socket.CMSG_SPACE(fds.itemsize), socket.MSG_CMSG_CLOEXEC)
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(content[: fds.itemsize])
    if not fds:
        raise StartFailed("take the terminal", 0, "the runtime has sent none")
    return fds[0]
