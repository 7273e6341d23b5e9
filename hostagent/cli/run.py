"""pyengine run, pyengine create."""

import os
import sys
from typing import Any

import click

from engine.base import detachkeys
from engine.base.errors import AlreadyExists
from hostagent.cli import attached, createflags
from hostagent.cli.app import App, current
from hostagent.cli.command import command
from hostagent.cli.createbody import container_body
from hostagent.cli.exits import FLAG_ERROR, ExitWith, start_failure
from hostagent.client.docker import segment
from hostagent.client.errors import ApiError

_NOT_FOUND = 404


@command("create", *createflags.shared(), interspersed=False)
def create(**flags: Any) -> int:  # noqa: ANN401 (one value a flag)
    """Create a new container."""
    app = current()
    app.error_exit = FLAG_ERROR
    body = container_body(flags, os.environ)
    click.echo(_create(app, flags, body))
    return 0


@command("run", *createflags.run_only(), *createflags.shared(), interspersed=False)
def run(**flags: Any) -> int:  # noqa: ANN401 (one value a flag)
    """Create and run a new container from an image."""
    app = current()
    app.error_exit = FLAG_ERROR
    with app.trace.span("read the flags"):
        body = container_body(flags, os.environ)
    detachkeys.parse(flags["detach_keys"])  # before there is a container that would be left behind
    if flags["detach"]:
        return _run_detached(app, flags, body)
    attached.check_terminal(stdin=body.get("AttachStdin", False), terminal=flags["tty"])
    with app.trace.span("create"):
        container_id = _create(app, flags, body)
    return _run_attached(app, flags, body, container_id)


def _run_detached(app: App, flags: dict[str, Any], body: dict[str, Any]) -> int:
    if flags["attach"]:
        raise ExitWith(FLAG_ERROR, "conflicting options: cannot specify both --attach and --detach")
    body |= {"AttachStdin": False, "AttachStdout": False, "AttachStderr": False, "StdinOnce": False}
    with app.trace.span("create"):
        container_id = _create(app, flags, body)
    with app.trace.span("start"):
        _start(app, container_id)
    click.echo(container_id)
    return 0


def _run_attached(app: App, flags: dict[str, Any], body: dict[str, Any], container_id: str) -> int:
    with app.trace.span("attach"):
        session = attached.Attachment(
            app.engine,
            container_id,
            stdin=body.get("AttachStdin", False),
            stdout=body["AttachStdout"],
            stderr=body["AttachStderr"],
            terminal=flags["tty"],
            detach_keys=flags["detach_keys"],
            wait_for="removed" if flags["rm"] else "next-exit",
            proxy_signals=flags["sig_proxy"],
        )
    with session:
        with app.trace.span("start"):
            _start(app, container_id)
        with app.trace.span("run and wait"):
            return session.carry()


def _create(app: App, flags: dict[str, Any], body: dict[str, Any]) -> str:
    """Create the container, pulling the image when it is missing; return the id."""
    if flags["pull"] == "always":
        _pull(flags)
    cidfile = _CidFile(flags["cidfile"])
    if flags["tty"] and (size := attached.console_size()):
        body["HostConfig"]["ConsoleSize"] = list(size)
    query = {"name": flags["name"] or None, "platform": flags["platform"] or None}
    try:
        try:
            answer = app.engine.post("/containers/create", body, **query)
        except ApiError as err:
            if err.status != _NOT_FOUND or flags["pull"] != "missing" or "image" not in str(err).lower():
                raise
            click.echo(f"Unable to find image '{_familiar(flags['image'])}' locally", err=True)
            _pull(flags)
            answer = app.engine.post("/containers/create", body, **query)
    except BaseException:
        cidfile.abandon()
        raise
    for warning in answer.get("Warnings") or []:
        click.echo(f"WARNING: {warning}", err=True)
    cidfile.write(answer["Id"])
    return str(answer["Id"])


def _familiar(image: str) -> str:
    has_tag = ":" in image.rsplit("/", 1)[-1] or "@" in image
    return image if has_tag else f"{image}:latest"


def _pull(flags: dict[str, Any]) -> None:
    from hostagent.cli.pull import pull_image  # noqa: PLC0415 (images are usually there)

    pull_image(
        current().engine, flags["image"], platform=flags["platform"], quiet=flags["quiet"], out=sys.stderr
    )


def _start(app: App, container_id: str) -> None:
    try:
        app.engine.post(f"/containers/{segment(container_id)}/start")
    except ApiError as err:
        raise ExitWith(start_failure(str(err)), str(err)) from err


class _CidFile:
    """The file of --cidfile: reserved before the container is made, removed when it is not."""

    def __init__(self, path: str) -> None:
        self._path = path
        if path:
            try:
                os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644))
            except FileExistsError as err:
                raise AlreadyExists(
                    f"container ID file found: {path}", hint="remove it, or give another path"
                ) from err

    def write(self, container_id: str) -> None:
        if self._path:
            with open(self._path, "w", encoding="ascii") as file:
                file.write(container_id)

    def abandon(self) -> None:
        if self._path:
            os.unlink(self._path)
