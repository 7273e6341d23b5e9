"""pyengine-oci: the runtime as a program, with runc's verbs and flags.

podman, containerd and dockerd may use it as their runtime. A failure is one
line on standard error, and in the file given by `--log`, where they look for it.

What only single verbs need is imported by them: `run` is waited for.
"""

import contextlib
import os
import signal
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

from engine.base import jsonio
from engine.base.errors import AlreadyExists, EngineError, InvalidArgument, NotFound, NotSupported
from engine.base.version import VERSION
from engine.runtime import arguments, commands
from engine.runtime.cgroups.select import cgroup_at
from engine.runtime.commands import Context
from engine.runtime.store import Store
from engine.spec.runtime import OCI_VERSION

_VERSION_TEXT = f"pyengine-oci version {VERSION}\nspec: {OCI_VERSION}"
_PS_TIMEOUT_S = 10.0
_INTERRUPTED = 128
_LINE_MAX = 900


class _Interrupted(BaseException):
    """A signal that ends this process; what is half done is undone on its way."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def main(words: Sequence[str] | None = None) -> int:
    """Do what the command line says; return the exit status."""
    journal = _Journal()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        flags = arguments.parse(sys.argv[1:] if words is None else words, _VERSION_TEXT)
        journal.open(flags.log, flags.log_format)
        return _dispatch(flags, journal)
    except _Interrupted as err:
        return _INTERRUPTED + err.number
    except BrokenPipeError:  # of our own output: who took it is gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    except NotFound as err:  # in runc's words: containerd and podman look for them
        journal.error(f"{err.kind} does not exist: {err.name}")
        return 1
    except EngineError as err:
        journal.error(f"{err} ({err.hint})" if err.hint else str(err))
        return commands.exit_code_of(err)
    except OSError as err:
        where = f"{err.filename}: " if err.filename else ""
        journal.error(f"{where}{(err.strerror or str(err)).lower()}")
        return 1


def _interrupt(number: int, _frame: FrameType | None) -> None:
    raise _Interrupted(number)


def _dispatch(flags: Namespace, journal: "_Journal") -> int:
    commands.refuse_unsupported(flags)
    verb = _VERBS.get(flags.verb)
    if verb is None:
        raise NotSupported(f"{flags.verb}: not supported by this runtime")
    return verb(Context(flags, Store(flags.root.absolute()), journal.warning))


class _Journal:
    """Where errors and warnings go: standard error, and the log that was asked for."""

    def __init__(self) -> None:
        self._fd: int | None = None
        self._style = "text"

    def open(self, path: Path | None, style: str) -> None:
        """Write to the file `path` as well from now on.

        Raises:
            InvalidArgument: it cannot be written: nothing is done that nobody would be told of.
        """
        self._style = style
        if path is None:
            return
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
        try:
            self._fd = os.open(path, flags, 0o600)
        except OSError as err:
            raise InvalidArgument(f"--log: {path}: {(err.strerror or '').lower()}") from err

    def error(self, text: str) -> None:
        """Tell why this process fails."""
        self._tell("error", text)

    def warning(self, text: str) -> None:
        """Tell what could not be done and was not essential."""
        self._tell("warning", text)

    def _tell(self, level: str, text: str) -> None:
        line = _one_line(text)
        if self._fd is not None:
            self._log(self._fd, level, line)
        mark = "" if level == "error" else f"{level}: "
        # containerd gives a container without streams a /dev/null that is open for reading only.
        with contextlib.suppress(OSError):
            sys.stderr.write(f"pyengine-oci: {mark}{line}\n")

    def _log(self, fd: int, level: str, line: str) -> None:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        record = jsonio.encode({"level": level, "msg": line, "time": stamp}) + b"\n"
        if self._style == "text":
            record = f'time="{stamp}" level={level} msg={jsonio.encode(line).decode()}\n'.encode()
        with contextlib.suppress(OSError):  # the disk is full, say: standard error has it
            os.write(fd, record)


def _one_line(text: str) -> str:
    """Return `text` for a terminal and a log: what an image or a caller chose cannot write to either."""
    if len(text) > _LINE_MAX:
        half = _LINE_MAX // 2
        text = f"{text[:half]}...{text[-half:]}"
    if text.isprintable():
        return text
    return "".join(map(_printable, text.replace("\n", " ")))


def _printable(letter: str) -> str:
    return letter if letter.isprintable() else letter.encode("unicode_escape").decode()


def _print(document: object) -> int:
    sys.stdout.write(jsonio.encode_pretty(document).decode())
    sys.stdout.flush()
    return 0


def _state(context: Context) -> int:
    from engine.runtime import documents  # noqa: PLC0415 (see above)

    return _print(documents.state_document(context.container()))


def _list(context: Context) -> int:
    from engine.runtime import documents  # noqa: PLC0415 (see above)

    containers = context.store.all()
    if context.flags.quiet:
        sys.stdout.write("".join(f"{container.id}\n" for container in containers))
        return 0
    found = []
    for container in containers:
        try:
            found.append(documents.state_document(container))
        except (EngineError, OSError) as err:  # damaged: the others are there all the same
            context.warn(f"{container.id}: {err}")
    if context.flags.format == "json":
        return _print(found)
    sys.stdout.write(documents.list_table(found))
    return 0


def _ps(context: Context) -> int:
    from engine.base import process  # noqa: PLC0415 (see above)
    from engine.runtime import documents  # noqa: PLC0415 (see above)

    found = context.container().demand("ps")
    pids = cgroup_at(found.cgroup).processes()
    if context.flags.format == "json":
        return _print(pids)
    listing = process.run(["ps", *(context.flags.ps_args or ["-ef"])], timeout_s=_PS_TIMEOUT_S)
    sys.stdout.write(documents.processes_table(listing.stdout.decode(errors="replace"), pids))
    return 0


def _events(context: Context) -> int:
    from engine.base.units import parse_duration_ns  # noqa: PLC0415 (see above)
    from engine.runtime import events  # noqa: PLC0415

    container = context.container()
    interval_s = parse_duration_ns(context.flags.interval) / 1e9
    if interval_s <= 0:
        raise InvalidArgument(f"--interval: not above 0: {context.flags.interval!r}")
    group = cgroup_at(container.demand("events").cgroup)

    def tell(event: dict[str, object]) -> None:
        sys.stdout.buffer.write(jsonio.encode(event) + b"\n")
        sys.stdout.buffer.flush()

    if context.flags.stats:
        tell(events.statistics(container, group))
    else:
        events.follow(container, group, tell, interval_s=interval_s)
    return 0


def _spec(context: Context) -> int:
    from engine.runtime import documents  # noqa: PLC0415 (see above)

    path = context.flags.bundle / "config.json"
    spec = documents.first_spec()
    if context.flags.rootless:
        spec = documents.rootless(spec, os.geteuid(), os.getegid())
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    except FileExistsError:
        raise AlreadyExists(f"{path} exists: remove it first") from None
    with os.fdopen(fd, "wb") as file:
        file.write(jsonio.encode_pretty(spec))
    return 0


def _exec(context: Context) -> int:
    from engine.runtime.execute import execute  # noqa: PLC0415 (see above)

    return execute(context)


def _features(_context: Context) -> int:
    from engine.runtime.features import features  # noqa: PLC0415 (see above)

    return _print(features())


_VERBS: dict[str, Callable[[Context], int]] = {
    "create": commands.create_only,
    "run": commands.run,
    "start": commands.start,
    "state": _state,
    "kill": commands.kill,
    "delete": commands.delete,
    "exec": _exec,
    "pause": commands.pause,
    "resume": commands.resume,
    "update": commands.update,
    "ps": _ps,
    "events": _events,
    "list": _list,
    "spec": _spec,
    "features": _features,
}
