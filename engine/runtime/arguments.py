"""The command line of `pyengine-oci`: runc's verbs and flags, as podman, containerd and dockerd use them.

Parsers are made of the verbs that the command line names only: argparse takes
longer to make all of them than the kernel to make a container.
"""

import argparse
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from engine.base.errors import InvalidArgument
from engine.kernel import process

_NAME = "pyengine-oci"
_HELP_WIDTH = 100
_DESCRIPTION = """\
Run containers of OCI bundles: directories with a config.json and, mostly, a root file system.
`spec` writes a first config.json, `run` runs it. `create` and `start` are the halves of `run`,
`delete` removes what is left."""
_EPILOG = """\
The exit status of run and exec is their program's own, 128 and the signal's number where one
ended it, 127 where it was not found and 126 where it could not be executed. All else ends with 0,
or with 1 and one line on standard error: what is refused, and what fails.

Known from runc, and refused by name: --systemd-cgroup, --criu, --rootless true and false,
checkpoint and restore; --no-new-keyring of create and run; --apparmor, --process-label, --cgroup
and --ignore-paused of exec; --l3-cache-schema and --mem-bw-schema of update."""


def _path(text: str) -> Path:
    if not text:
        raise argparse.ArgumentTypeError("names no file")
    return Path(text)


class _Help(argparse.RawDescriptionHelpFormatter):
    """Texts as they are, help of one width: argparse asks for the terminal's with each argument."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=_HELP_WIDTH)


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are this project's."""

    def __init__(self, **how: Any) -> None:  # noqa: ANN401 (as argparse has them)
        super().__init__(allow_abbrev=False, formatter_class=_Help, **how)

    def error(self, message: str) -> NoReturn:
        raise InvalidArgument(message.replace("\n", " "), hint=f"see {self.prog} --help")


def parse(arguments: Sequence[str], version: str) -> argparse.Namespace:
    """Return the flags; `verb` names what is to be done.

    Raises:
        InvalidArgument: they make no sense.
        SystemExit: help or the version was asked for, and printed.
    """
    parser, verbs = _parser(version, lambda name: name in arguments)
    if not verbs:  # help, or a mistake: all of them are to be named
        parser, _ = _parser(version, lambda _: True)
    flags = parser.parse_args(arguments)
    if flags.root is None:
        flags.root = default_root(os.geteuid(), os.environ, in_user_namespace=process.in_user_namespace())
    return flags


def default_root(user: int, environment: Mapping[str, str], *, in_user_namespace: bool) -> Path:
    """Return where the state of a user's containers is: gone after a reboot, as they are.

    The root of a user namespace, as rootless podman has one, is that user. But with USER=root it may
    be that of a container, to whom /run belongs; so does runc tell them apart.

    Raises:
        InvalidArgument: the session of an unprivileged user has no such place.
    """
    home = environment.get("XDG_RUNTIME_DIR", "")
    if user == 0 and not (in_user_namespace and home and environment.get("USER") != "root"):
        return Path("/run") / _NAME
    if not home.startswith("/"):
        raise InvalidArgument("XDG_RUNTIME_DIR is not set", hint="set it, or give --root")
    return Path(home) / _NAME


def _parser(version: str, wanted: Callable[[str], bool]) -> tuple[_Parser, bool]:
    """Return the parser with the verbs that are `wanted`, and whether there is one."""
    parser = _Parser(prog=_NAME, description=_DESCRIPTION, epilog=_EPILOG)
    parser.add_argument("-v", "--version", action="version", version=version, help="print versions, and end")
    parser.add_argument(
        "--root",
        type=_path,
        metavar="DIR",
        help="the containers' state; /run/pyengine-oci, for a user below XDG_RUNTIME_DIR",
    )
    parser.add_argument("--log", type=_path, metavar="FILE", help="file that gets errors and warnings, too")
    parser.add_argument("--log-format", choices=("text", "json"), default="text", help="of that file; text")
    parser.add_argument("--debug", action="store_true", help="accepted: there is nothing more to tell")
    parser.add_argument("--systemd-cgroup", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--criu", help=argparse.SUPPRESS)
    parser.add_argument(
        "--rootless", dest="rootless_mode", metavar="auto", default="auto", help="it is found out by itself"
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB", prog=_NAME)

    def verb(name: str, text: str, *, container: bool = True) -> argparse.ArgumentParser | _Unnamed:
        if not wanted(name):
            return _Unnamed()
        found = verbs.add_parser(name, help=text, description=text)
        if container:
            found.add_argument("id", metavar="ID")
        return found

    _add_making(verb("create", "make a container; its program waits for start"))
    run = verb("run", "create, start, wait and delete")
    _add_making(run)
    run.add_argument("-d", "--detach", action="store_true", help="do not wait for its end")
    run.add_argument("--keep", action="store_true", help="do not delete it after its end")
    run.add_argument("--no-subreaper", action="store_true", help="accepted: it never is a subreaper")
    verb("start", "execute the program of a created container")
    verb("state", "print the state as the specification has it")
    kill = verb("kill", "send a signal, SIGTERM unless told otherwise")
    text = "name or number, as KILL, SIGKILL, 9 or RTMIN+3; TERM"
    kill.add_argument("signal", nargs="?", default="TERM", metavar="SIGNAL", help=text)
    kill.add_argument("-a", "--all", action="store_true", help="to every process of the container")
    delete = verb("delete", "remove what is left of a container")
    delete.add_argument("-f", "--force", action="store_true", help="kill it when it runs")
    _add_exec(verb("exec", "run another program in a container", container=False))
    verb("pause", "stop all processes of a container")
    verb("resume", "let them run again")
    ps = verb("ps", "print the processes of a container")
    ps.add_argument("-f", "--format", choices=("table", "json"), default="table", help="json: numbers only")
    ps.add_argument("ps_args", nargs=argparse.REMAINDER, metavar="PS-OPTIONS", help="of ps(1); -ef")
    listing = verb("list", "print the containers", container=False)
    listing.add_argument("-f", "--format", choices=("table", "json"), default="table", help="table")
    listing.add_argument("-q", "--quiet", action="store_true", help="ids only")
    spec = verb("spec", "write a config.json to start from", container=False)
    spec.add_argument("-b", "--bundle", type=_path, default=Path(), metavar="DIR", help="where; here")
    spec.add_argument("--rootless", action="store_true", help="for the user who runs this, without root")
    verb("features", "print what this runtime can do, as JSON", container=False)
    _add_update(verb("update", "change limits of a container"))
    events = verb("events", "print what becomes of a container's resources, as JSON")
    events.add_argument("--interval", default="5s", metavar="DURATION", help="between two statistics; 5s")
    events.add_argument("--stats", action="store_true", help="print statistics once, and end")
    for name in ("checkpoint", "restore"):
        verb(name, "not supported").add_argument("rest", nargs=argparse.REMAINDER)
    return parser, bool(verbs.choices)


class _Unnamed:
    """In place of the parser of a verb that the command line does not name."""

    def add_argument(self, *names: str, **how: Any) -> None:  # noqa: ANN401 (as argparse has them)
        """Add nothing."""


def _add_update(parser: argparse.ArgumentParser | _Unnamed) -> None:
    parser.add_argument(
        "-r", "--resources", type=_path, metavar="FILE", help="linux.resources as JSON; - for stdin"
    )
    for name, text in (
        ("blkio-weight", "weight of block devices, 10 to 1000"),
        ("cpu-period", "microseconds"),
        ("cpu-quota", "microseconds of a period"),
        ("cpu-burst", "microseconds that may be saved up"),
        ("cpu-share", "shares against other groups"),
        ("cpu-rt-period", "microseconds"),
        ("cpu-rt-runtime", "microseconds of a period"),
        ("cpu-idle", "1: only what nobody else wants"),
        ("memory", "bytes, or as 64m"),
        ("memory-reservation", "bytes, or as 64m"),
        ("memory-swap", "bytes of memory and swap together, or as 64m; -1: no limit"),
        ("kernel-memory", "accepted: the kernel has no such limit"),
        ("kernel-memory-tcp", "bytes, or as 64m"),
        ("pids-limit", "tasks; -1: no limit"),
    ):
        parser.add_argument(f"--{name}", help=text)
    parser.add_argument("--cpuset-cpus", default="", metavar="LIST", help="processors, as 0-2,4")
    parser.add_argument("--cpuset-mems", default="", metavar="LIST", help="memory nodes, as 0-1")
    for name in ("l3-cache-schema", "mem-bw-schema"):
        parser.add_argument(f"--{name}", default="", help=argparse.SUPPRESS)


def _add_making(parser: argparse.ArgumentParser | _Unnamed) -> None:
    parser.add_argument(
        "-b", "--bundle", type=_path, default=Path(), metavar="DIR", help="directory with config.json; here"
    )
    parser.add_argument(
        "--no-pivot", action="store_true", help="lay the root over the host's, where that is a ramfs"
    )
    parser.add_argument("--no-new-keyring", action="store_true", help=argparse.SUPPRESS)
    _add_outside(parser)


def _add_outside(parser: argparse.ArgumentParser | _Unnamed) -> None:
    text = "unix socket that gets the terminal's master"
    parser.add_argument("--console-socket", type=_path, metavar="SOCKET", help=text)
    parser.add_argument("--pid-file", type=_path, metavar="FILE", help="file that gets the process id")
    parser.add_argument(
        "--preserve-fds", type=int, default=0, metavar="N", help="pass on N descriptors, from 3 up"
    )


def _add_exec(parser: argparse.ArgumentParser | _Unnamed) -> None:
    parser.add_argument("--cwd", metavar="DIR", help="working directory; the container's")
    text = "variable besides the container's; may be repeated"
    parser.add_argument("-e", "--env", action="append", default=[], metavar="NAME=VALUE", help=text)
    parser.add_argument("-t", "--tty", action="store_true", help="with a terminal of its own")
    parser.add_argument("-u", "--user", metavar="UID[:GID]", help="numbers; the container's user")
    text = "group besides the container's; may be repeated"
    parser.add_argument(
        "-g", "--additional-gids", type=int, action="append", default=[], metavar="GID", help=text
    )
    text = "the whole process as JSON, instead of a command and the options above"
    parser.add_argument("-p", "--process", type=_path, metavar="FILE", help=text)
    parser.add_argument("-d", "--detach", action="store_true", help="do not wait for its end")
    text = "nothing that it executes gains privileges"
    parser.add_argument("--no-new-privs", action="store_true", help=text)
    text = "capability besides the container's; may be repeated"
    parser.add_argument("-c", "--cap", action="append", default=[], metavar="CAP", help=text)
    for name in ("--process-label", "--apparmor", "--cgroup"):
        parser.add_argument(name, default="", help=argparse.SUPPRESS)
    parser.add_argument("--ignore-paused", action="store_true", help=argparse.SUPPRESS)
    _add_outside(parser)
    parser.add_argument("id", metavar="ID")
    parser.add_argument("args", nargs=argparse.REMAINDER, metavar="COMMAND")
