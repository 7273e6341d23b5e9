"""The daemon's command line.

`getopt` and a text of our own: argparse costs half a second under emulation,
and the daemon's flags are few.
"""

import getopt
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.base.errors import InvalidArgument
from engine.base.paths import DEFAULT_ROOT, DEFAULT_RUN
from engine.containers.security import Mode

USAGE = """\
usage: pyengined [options]

The container engine: serves the Docker Engine API on a unix socket. Needs root.
Several may run side by side, each with its own --root, --run and --host.

  --root DIR           durable state (default /var/lib/pyengine)
  --run DIR            sockets and what a reboot may forget (default /run/pyengine)
  --host ADDRESS       where to serve the API, unix://PATH (default unix://RUN/pyengine.sock)
  --preload PATH       image archive, or directory of them, to load once
  --bridge NAME        interface of the default network (default pyengine0, or made from --root)
  --bip ADDRESS/BITS   its address and subnet, such as 172.30.0.1/24
  --security MODE      defaults for containers: strict, or compat (docker's own)
  --ports-socket PATH  inside a machine: where the guest agent asks the host for ports
  --isolate-host       inside a machine: keep containers away from its host
  --ready-fd N         write one byte there when the API answers
  --config-file FILE   configuration, by dockerd's names (default /etc/pyengine/daemon.json, if it is there)
  --add-runtime NAME=PATH  an OCI runtime for run --runtime NAME; may be given several times
  --default-runtime NAME   for containers that name none (default pyengine, the built-in one)
  --log-level LEVEL    debug, info, warning or error (default info)
  --log-json           one JSON object a line
  -h, --help           print this
  --version            print the version
"""

_LEVELS = frozenset(("debug", "info", "warning", "error"))
_VALUES = (
    "root",
    "run",
    "host",
    "preload",
    "bridge",
    "bip",
    "security",
    "ports-socket",
    "ready-fd",
    "log-level",
    "config-file",
    "add-runtime",
    "default-runtime",
)
_SWITCHES = ("isolate-host", "log-json", "help", "version")
_SOCKET_PATH_MAX = 107  # sun_path of unix(7), without its NUL
_RUN_PATH_MAX = 60  # a socket's path holds 107 bytes, and the names below RUN take the rest


@dataclass(frozen=True, slots=True)
class Config:
    """The flags, checked."""

    root: Path = DEFAULT_ROOT
    run: Path = DEFAULT_RUN
    host: Path = DEFAULT_RUN / "pyengine.sock"
    preload: Path | None = None
    bridge: str = "pyengine0"
    bip: str = ""
    mode: Mode = Mode.STRICT
    ports_socket: Path | None = None
    isolate_host: bool = False
    ready_fd: int | None = None
    config_file: Path | None = None  # None: the usual one, if it is there
    add_runtime: tuple[str, ...] = ()  # NAME=PATH
    default_runtime: str = ""
    log_level: str = "info"
    log_json: bool = False
    help: bool = False
    version: bool = False


def parse(arguments: Sequence[str]) -> Config:
    """Return what the command line asks for.

    Raises:
        InvalidArgument: a flag is unknown, or its value makes no sense.
    """
    try:
        pairs, rest = getopt.gnu_getopt(list(arguments), "h", [*(f"{name}=" for name in _VALUES), *_SWITCHES])
    except getopt.GetoptError as err:
        raise InvalidArgument(str(err), hint="see pyengined --help") from err
    if rest:
        raise InvalidArgument(f"unexpected argument: {rest[0]}", hint="see pyengined --help")
    flags = {("help" if name == "-h" else name.removeprefix("--")): value for name, value in pairs}
    root = _directory(flags, "root", DEFAULT_ROOT)
    run = _directory(flags, "run", DEFAULT_RUN)
    level = flags.get("log-level", "info").lower()
    if level not in _LEVELS:
        raise InvalidArgument(f"invalid --log-level {level!r}: want one of {', '.join(sorted(_LEVELS))}")
    return Config(
        root=root,
        run=run,
        host=_host(flags.get("host", ""), run),
        preload=Path(flags["preload"]).absolute() if flags.get("preload") else None,
        bridge=flags.get("bridge") or bridge_of(root),
        bip=flags.get("bip", ""),
        mode=_mode(flags.get("security", Mode.STRICT)),
        ports_socket=Path(flags["ports-socket"]) if flags.get("ports-socket") else None,
        isolate_host="isolate-host" in flags,
        ready_fd=_number(flags["ready-fd"], "--ready-fd") if "ready-fd" in flags else None,
        config_file=Path(flags["config-file"]).absolute() if "config-file" in flags else None,
        add_runtime=tuple(value for name, value in pairs if name == "--add-runtime"),
        default_runtime=flags.get("default-runtime", ""),
        log_level=level,
        log_json="log-json" in flags,
        help="help" in flags,
        version="version" in flags,
    )


def bridge_of(root: Path) -> str:
    """Return the name of the bridge of the engine at `root`: two engines never share one unasked."""
    if root == DEFAULT_ROOT:
        return "pyengine0"
    return "pe" + hashlib.sha256(str(root).encode()).hexdigest()[:10]


def _directory(flags: dict[str, str], name: str, default: Path) -> Path:
    text = flags.get(name)
    if text is None:
        return default
    if not text:
        raise InvalidArgument(f"--{name}: a directory is needed")
    path = Path(text).absolute()
    if name == "run" and len(str(path)) > _RUN_PATH_MAX:
        raise InvalidArgument(
            f"--run {path}: longer than {_RUN_PATH_MAX} characters", hint="use a shorter one"
        )
    return path


def _host(text: str, run: Path) -> Path:
    if not text:
        return run / "pyengine.sock"
    scheme, separator, rest = text.partition("://")
    path = rest if separator else text
    if (separator and scheme != "unix") or not path.startswith("/"):
        raise InvalidArgument(
            f"invalid --host {text!r}: want unix:///path/to/socket",
            hint="the API is not served over TCP: whoever reaches it is root",
        )
    if len(os.fsencode(path)) > _SOCKET_PATH_MAX:
        raise InvalidArgument(
            f"--host {path}: longer than the {_SOCKET_PATH_MAX} bytes of a socket's path",
            hint="use a shorter one",
        )
    return Path(path)


def _mode(text: str) -> Mode:
    try:
        return Mode(text)
    except ValueError:
        raise InvalidArgument(f"invalid --security {text!r}: want strict or compat") from None


def _number(text: str, name: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise InvalidArgument(f"invalid {name}: {text!r}")
    return int(text)
