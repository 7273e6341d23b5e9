"""Which engine a command talks to, and making sure that it is there.

    --host, -H                          any endpoint, used as it is
    --native, PYENGINE_MODE=native      this Linux kernel; pyengined is started when nobody answers
    DOCKER_HOST                         any endpoint, used as it is
    otherwise                           the machine PYENGINE_INSTANCE (`default`), started on first use

The machine is started by a function that the caller passes in: this package is
below `hostagent.machine`.
"""

import os
import select
import sys
from collections.abc import Callable, Mapping
from typing import NamedTuple

from engine.base.errors import Denied, InvalidArgument, NotSupported, Unavailable
from hostagent.client.errors import Unreachable
from hostagent.client.http import connect

_PLATFORM = str(sys.platform)  # a variable, so that type checkers look at every branch
_READY_TIMEOUT_S = 60.0
_LOG_TAIL_BYTES = 2000
# What the daemon is told of the caller's environment: itself, proxies and certificates.
_PASSED_ON = (
    "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy",
    "SSL_CERT_FILE", "SSL_CERT_DIR", "PYENGINE_LOG", "TMPDIR",
)  # fmt: skip
NATIVE, MACHINE, EXPLICIT = "native", "machine", "explicit"


class Choice(NamedTuple):
    """The endpoint of a command: `where` is an address, or the name of a machine."""

    kind: str  # NATIVE, MACHINE or EXPLICIT
    where: str


def choose(host: str | None, native: bool, environ: Mapping[str, str]) -> Choice:
    """Return what the flags and the environment ask for.

    Raises:
        InvalidArgument: --host and --native, or an address of no known form.
    """
    if host and native:
        raise InvalidArgument("--host and --native exclude each other")
    if host:
        return Choice(EXPLICIT, _address(host, "--host"))
    mode = environ.get("PYENGINE_MODE", "")
    if mode not in {"", NATIVE, MACHINE}:
        raise InvalidArgument(f"invalid PYENGINE_MODE {mode!r}: want native or machine")
    if native or mode == NATIVE:
        return Choice(NATIVE, "unix://" + native_run(environ) + "/pyengine.sock")
    if environ.get("DOCKER_HOST") and mode != MACHINE:
        return Choice(EXPLICIT, _address(environ["DOCKER_HOST"], "DOCKER_HOST"))
    return Choice(MACHINE, environ.get("PYENGINE_INSTANCE") or "default")


def _address(text: str, origin: str) -> str:
    scheme, separator, rest = text.partition("://")
    if not separator and text.startswith("/"):
        return "unix://" + text
    if not separator or scheme not in {"unix", "tcp", "npipe"} or not rest:
        raise InvalidArgument(
            f"invalid {origin} {text!r}: want unix:///path/to/socket or tcp://host:port",
            hint="ssh:// endpoints are not supported" if scheme == "ssh" else "",
        )
    return text


def native_root(environ: Mapping[str, str]) -> str:
    """Return the durable directory of the native engine."""
    return os.path.abspath(environ.get("PYENGINE_ROOT") or "/var/lib/pyengine")


def native_run(environ: Mapping[str, str]) -> str:
    """Return the run directory of the native engine."""
    return os.path.abspath(environ.get("PYENGINE_RUN") or "/run/pyengine")


def answers(address: str) -> bool:
    """Tell whether somebody accepts connections at `address`."""
    try:
        connect(address).close()
    except Unreachable:
        return False
    return True


def ensure_native(
    address: str, environ: Mapping[str, str], *, preload: str, progress: Callable[[str], None]
) -> None:
    """Start pyengined when nobody answers at `address`, and wait until it does.

    Two callers at once start one: the second waits for the first. `preload` is
    a directory of image archives, or empty.

    Raises:
        NotSupported: this is not Linux.
        Denied: the daemon is not running and the caller is not root.
        Unavailable: it did not come up; the message has the last line of its log.
    """
    if answers(address):
        return
    if _PLATFORM != "linux":
        raise NotSupported("native mode needs Linux", hint="leave out --native to use a machine")
    if getattr(os, "geteuid", int)() != 0:
        raise Denied(
            f"the native engine is not running at {address}, and starting it needs root",
            hint="run `sudo pyengine --native ...`, or leave out --native to use a machine",
        )
    run = native_run(environ)
    os.makedirs(run, mode=0o711, exist_ok=True)
    import fcntl  # noqa: PLC0415 (only here: off the fast path, and absent on Windows)

    lock_fd = os.open(f"{run}/start.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock_fd, fcntl.LOCK_EX)  # type: ignore[attr-defined,unused-ignore]  # the holder gives up within _READY_TIMEOUT_S
        if not answers(address):
            progress("starting the native engine")
            _start_daemon(address, environ, preload)
    finally:
        os.close(lock_fd)


def _start_daemon(address: str, environ: Mapping[str, str], preload: str) -> None:
    from engine.base.process import MINIMAL_ENV, module_argv, spawn  # noqa: PLC0415 (off the fast path)

    run = native_run(environ)
    log_path = f"{run}/pyengined.log"
    read_fd, ready_fd = os.pipe()
    log_fd = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_CLOEXEC", 0), 0o600)
    log_start = os.fstat(log_fd).st_size
    argv = module_argv("engine.daemon.main", "--root", native_root(environ), "--run", run)
    argv += ["--host", address, "--ready-fd", str(ready_fd)]
    argv += ["--preload", preload] if preload else []
    env = dict(MINIMAL_ENV) | {name: environ[name] for name in _PASSED_ON if name in environ}
    try:
        daemon = spawn(argv, env=env, output_fd=log_fd, pass_fds=(ready_fd,))
    finally:
        os.close(ready_fd)
        os.close(log_fd)
    try:
        readable, _, _ = select.select([read_fd], [], [], _READY_TIMEOUT_S)
        ready = bool(readable) and os.read(read_fd, 1) != b""
    finally:
        os.close(read_fd)
    if ready:
        daemon.returncode = 0  # it lives on by itself: Popen must not warn that it still runs
        return
    if daemon.poll() is None and not readable:
        daemon.kill()
        daemon.wait()
        raise Unavailable(f"the native engine was not ready within {_READY_TIMEOUT_S:g} s; see {log_path}")
    code = daemon.wait()
    reason = _last_line(log_path, log_start)
    raise Unavailable(
        f"the native engine did not start (exit status {code}): {reason}", hint=f"see {log_path}"
    )


def _last_line(path: str, start: int) -> str:
    with open(path, "rb") as file:
        file.seek(max(start, os.path.getsize(path) - _LOG_TAIL_BYTES))
        lines = file.read().decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"
