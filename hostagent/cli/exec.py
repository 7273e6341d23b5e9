"""pyengine exec."""

import contextlib
import os
from typing import Any

from engine.base import detachkeys
from engine.base.errors import EngineError
from hostagent.cli import attached
from hostagent.cli.app import App, current
from hostagent.cli.command import argument, command, switch, value, values
from hostagent.cli.createbody import environment
from hostagent.cli.exits import ExitWith, start_failure
from hostagent.cli.session import Session
from hostagent.client.docker import segment
from hostagent.client.errors import ApiError


@command(
    "exec",
    switch("-d", "--detach", help="Run command in the background"),
    value("--detach-keys", default="", help="Override the key sequence for detaching a container"),
    values("-e", "--env", help="Set environment variables"),
    values("--env-file", help="Read in a file of environment variables"),
    switch("-i", "--interactive", help="Keep STDIN open even if not attached"),
    switch("--privileged", help="Give extended privileges to the command"),
    switch("-t", "--tty", help="Allocate a pseudo-TTY"),
    value("-u", "--user", default="", help='Username or UID (format: "<name|uid>[:<group|gid>]")'),
    value("-w", "--workdir", default="", help="Working directory inside the container"),
    argument("container"),
    argument("words", nargs=-1, metavar="COMMAND [ARG...]"),
    interspersed=False,
)
def exec_(container: str, words: tuple[str, ...], **flags: Any) -> int:  # noqa: ANN401 (one value a flag)
    """Execute a command in a running container."""
    app = current()
    attach = not flags["detach"]
    stdin = attach and flags["interactive"]
    attached.check_terminal(stdin=stdin, terminal=flags["tty"])
    body = {
        "Cmd": list(words),
        "Env": environment(flags["env_file"], flags["env"], os.environ),
        "User": flags["user"],
        "WorkingDir": flags["workdir"],
        "Privileged": flags["privileged"],
        "Tty": flags["tty"],
        "AttachStdin": stdin,
        "AttachStdout": attach,
        "AttachStderr": attach,
    }
    if flags["detach_keys"]:
        body["DetachKeys"] = flags["detach_keys"]
    size = attached.console_size() if flags["tty"] else None
    if size:
        body["ConsoleSize"] = list(size)
    with app.trace.span("create"):
        exec_id = app.engine.post(f"/containers/{segment(container)}/exec", body)["Id"]
    try:
        if flags["detach"]:
            app.engine.post(f"/exec/{exec_id}/start", {"Detach": True, "Tty": flags["tty"]})
            return 0
        return _attached(app, exec_id, flags, stdin=stdin, size=size)
    except ApiError as err:
        raise ExitWith(_failure(str(err)), str(err)) from err


def _failure(message: str) -> int:
    """Return 126 or 127 for a command that could not be executed, else 1 as docker does."""
    code = start_failure(message)
    return code if code != start_failure("") else 1


def _attached(
    app: App, exec_id: str, flags: dict[str, Any], *, stdin: bool, size: tuple[int, int] | None
) -> int:
    engine, terminal = app.engine, flags["tty"]
    start: dict[str, Any] = {"Detach": False, "Tty": terminal}
    if size:
        start["ConsoleSize"] = list(size)
    with app.trace.span("start"):
        stream, early = engine.hijack(f"/exec/{exec_id}/start", {}, start)

    def resize() -> None:
        now = attached.console_size() if terminal else None
        if now:
            with contextlib.suppress(EngineError):
                engine.post(f"/exec/{exec_id}/resize", h=now[0], w=now[1])

    keys = detachkeys.parse(flags["detach_keys"])
    session = Session(
        stream,
        early,
        stdin_fd=0 if stdin else None,
        framed=not terminal,
        detach_keys=keys if terminal and stdin else b"",
        on_resize=resize,
    )
    with app.trace.span("run"):
        outcome = session.run()
    if outcome.detached:
        os.write(2, b"read escape sequence\n")
        return 0
    return _exit_code(app, exec_id)


def _exit_code(app: App, exec_id: str) -> int:
    """Return how the command ended; 0 for one that closed its streams and runs on, as docker does."""
    return int(app.engine.get(f"/exec/{exec_id}/json")["ExitCode"] or 0)
