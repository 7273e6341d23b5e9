"""The one table from errors to exit codes and to what the user reads.

0        done
1        the engine refused, or an argument is missing
125      `run`, `create`, `exec`-like commands: the engine refused; any command: a flag is wrong
126/127  the container's command cannot be executed / is not there
128+n    ended by signal n; 130 for ctrl-C
other    the container's own
"""

import os

import click

from engine.base.errors import EngineError, InvalidArgument

FLAG_ERROR = 125
NOT_EXECUTABLE = 126
NOT_FOUND = 127
INTERRUPTED = 130
_HELP_WANTED: tuple[type[click.UsageError], ...] = tuple(
    kind
    for kind in (getattr(click.exceptions, "NoArgsIsHelpError", None),)
    if kind  # click 8.2
)


class ExitWith(Exception):
    """End the command with this code; the message, when there is one, is printed first."""

    def __init__(self, code: int, message: str = "") -> None:
        super().__init__(message)
        self.code = code


def describe(err: BaseException, *, error_exit: int = 1) -> tuple[int, list[str]]:  # noqa: PLR0911 (a table)
    """Return the exit code for `err` and the lines to print on stderr.

    An error that is nowhere in the table is a defect; PYENGINE_DEBUG=1 shows where.
    """
    if isinstance(err, ExitWith):
        return err.code, [f"pyengine: {err}"] if str(err) else []
    if isinstance(err, EngineError):
        lines = [f"pyengine: {_one_line(str(err))}"]
        code = FLAG_ERROR if isinstance(err, InvalidArgument) else error_exit
        return code, [*lines, f"hint: {err.hint}"] if err.hint else lines
    if isinstance(err, _HELP_WANTED):
        return 0, [err.format_message()]
    if isinstance(err, click.UsageError):
        return _usage(err)
    if isinstance(err, click.ClickException):
        return 1, [f"pyengine: {_one_line(err.format_message())}"]
    if isinstance(err, KeyboardInterrupt | click.Abort):
        return INTERRUPTED, []
    if isinstance(err, OSError):
        where = f"{err.filename}: " if err.filename else ""
        return error_exit, [f"pyengine: {where}{(err.strerror or str(err)).lower()}"]
    if os.environ.get("PYENGINE_DEBUG"):
        raise err
    hint = "hint: this is a defect of pyengine; PYENGINE_DEBUG=1 shows where it happened"
    return error_exit, [f"pyengine: internal error: {type(err).__name__}: {_one_line(str(err))}", hint]


def _usage(err: click.UsageError) -> tuple[int, list[str]]:
    flag = isinstance(err, click.NoSuchOption | click.BadOptionUsage) or type(err) is click.BadParameter
    message = _one_line(err.format_message())
    lines = [f"pyengine: {message[:1].lower()}{message[1:]}"]
    if err.ctx is not None:
        lines += ["", err.ctx.get_usage(), "", f"Run '{err.ctx.command_path} --help' for more information"]
    return FLAG_ERROR if flag else 1, lines


def _one_line(text: str) -> str:
    text = " ".join(text.split())
    return text.removesuffix(".")


def start_failure(message: str) -> int:
    """Return the exit code of a failed start, by docker's own rule.

    The API has no field for it: the text is the contract that the docker CLI
    lives by too.

    Source: docker/cli v28, cli/command/container/run.go, toStatusError.
    """
    text = message.lower()
    if any(part in text for part in ("executable file not found", "no such file or directory")):
        return NOT_FOUND
    if any(part in text for part in ("permission denied", "exec format error", "is a directory")):
        return NOT_EXECUTABLE
    return FLAG_ERROR
