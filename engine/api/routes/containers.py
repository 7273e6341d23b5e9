"""/containers and /exec.

Source: Docker Engine API v1.51, "Containers", "Exec".
"""

import socket
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import TYPE_CHECKING

from engine.api import filters
from engine.api.http import (
    MULTIPLEXED_SINCE,
    MULTIPLEXED_STREAM,
    RAW_STREAM,
    Answer,
    Hijack,
    Request,
    Response,
    Route,
    Stream,
    json_response,
    no_content,
)
from engine.base import jsonio, trace
from engine.base.errors import Conflict, InvalidArgument
from engine.containers.execs import Client
from engine.containers.service import AttachOptions, ContainerService, LogOptions
from engine.spec.docker import CreateRequest, ExecRequest, ExecStartRequest

if TYPE_CHECKING:
    from engine.containers.live import Ended

_SIZE_MAX = 65535
_TAIL_DIGITS = 18


def _size(request: Request) -> tuple[int, int]:
    """Return (width, height) of a resize."""
    height, width = request.integer("h", 0) or 0, request.integer("w", 0) or 0
    if not (0 <= height <= _SIZE_MAX and 0 <= width <= _SIZE_MAX):
        raise InvalidArgument(f"invalid terminal size: {width}x{height}")
    return width, height


def _stream_type(request: Request, *, tty: bool) -> str:
    return RAW_STREAM if tty or request.version < MULTIPLEXED_SINCE else MULTIPLEXED_STREAM


class ContainerRoutes:
    """Maps requests to the service, and nothing else."""

    def __init__(self, service: ContainerService) -> None:
        self._service = service

    def routes(self) -> list[Route]:
        """Return the table."""
        one = "/containers/{name}"
        return [
            Route("GET", "/containers/json", self.list),
            Route("POST", "/containers/create", self.create),
            Route("POST", "/containers/prune", self.prune),
            Route("GET", f"{one}/json", self.inspect),
            Route("GET", f"{one}/top", self.top),
            Route("GET", f"{one}/logs", self.logs),
            Route("POST", f"{one}/start", self.start),
            Route("POST", f"{one}/stop", self.stop),
            Route("POST", f"{one}/restart", self.restart),
            Route("POST", f"{one}/kill", self.kill),
            Route("POST", f"{one}/pause", self.pause),
            Route("POST", f"{one}/unpause", self.unpause),
            Route("POST", f"{one}/rename", self.rename),
            Route("POST", f"{one}/attach", self.attach),
            Route("POST", f"{one}/wait", self.wait),
            Route("POST", f"{one}/resize", self.resize),
            Route("POST", f"{one}/exec", self.exec_create),
            Route("DELETE", one, self.remove),
            Route("POST", "/exec/{id}/start", self.exec_start),
            Route("POST", "/exec/{id}/resize", self.exec_resize),
            Route("GET", "/exec/{id}/json", self.exec_inspect),
        ]

    async def list(self, request: Request) -> Response:
        """GET /containers/json."""
        limit = request.integer("limit", 0) or 0
        return json_response(
            await self._service.list(
                everything=request.flag("all"),
                limit=max(0, limit),
                size=request.flag("size"),
                chosen=filters.parse(request),
            )
        )

    async def create(self, request: Request) -> Response:
        """POST /containers/create."""
        body = await request.json(CreateRequest, noun="container configuration")
        with trace.span("containers", "create"):
            created = await self._service.create(body, request.text("name"), request.text("platform"))
        request.subject = created.id
        document = {"Id": created.id, "Warnings": list(created.warnings)}
        return json_response(document, HTTPStatus.CREATED)

    async def prune(self, request: Request) -> Response:
        """POST /containers/prune."""
        return json_response(await self._service.prune(filters.parse(request)))

    async def inspect(self, request: Request) -> Response:
        """GET /containers/{name}/json."""
        return json_response(await self._service.inspect(request.params["name"], size=request.flag("size")))

    async def top(self, request: Request) -> Response:
        """GET /containers/{name}/top."""
        return json_response(await self._service.top(request.params["name"], request.text("ps_args")))

    async def logs(self, request: Request) -> Stream:
        """GET /containers/{name}/logs."""
        name, tail = request.params["name"], request.text("tail", "all")
        options = LogOptions(
            stdout=request.flag("stdout"),
            stderr=request.flag("stderr"),
            follow=request.flag("follow"),
            tail=int(tail[:_TAIL_DIGITS]) if tail.isascii() and tail.isdigit() else None,
            since_ns=filters.moment_ns(request.text("since"), "since"),
            until_ns=filters.moment_ns(request.text("until"), "until"),
            timestamps=request.flag("timestamps"),
            details=request.flag("details"),
        )
        content_type = _stream_type(request, tty=self._service.tty(name))
        return Stream(self._service.logs(name, options), content_type)

    async def start(self, request: Request) -> Response:
        """POST /containers/{name}/start."""
        started = await self._service.start(request.params["name"])
        return no_content() if started else Response(HTTPStatus.NOT_MODIFIED)

    async def stop(self, request: Request) -> Response:
        """POST /containers/{name}/stop."""
        stopped = await self._service.stop(
            request.params["name"], timeout_s=request.integer("t"), signal=request.text("signal")
        )
        return no_content() if stopped else Response(HTTPStatus.NOT_MODIFIED)

    async def restart(self, request: Request) -> Response:
        """POST /containers/{name}/restart."""
        await self._service.restart(
            request.params["name"], timeout_s=request.integer("t"), signal=request.text("signal")
        )
        return no_content()

    async def kill(self, request: Request) -> Response:
        """POST /containers/{name}/kill."""
        await self._service.kill(request.params["name"], request.text("signal"))
        return no_content()

    async def pause(self, request: Request) -> Response:
        """POST /containers/{name}/pause."""
        await self._service.pause(request.params["name"])
        return no_content()

    async def unpause(self, request: Request) -> Response:
        """POST /containers/{name}/unpause."""
        await self._service.unpause(request.params["name"])
        return no_content()

    async def rename(self, request: Request) -> Response:
        """POST /containers/{name}/rename."""
        await self._service.rename(request.params["name"], request.text("name"))
        return no_content()

    async def remove(self, request: Request) -> Response:
        """DELETE /containers/{name}."""
        if request.flag("link"):
            raise InvalidArgument("links are not supported by this engine")
        await self._service.remove(
            request.params["name"], force=request.flag("force"), volumes=request.flag("v")
        )
        return no_content()

    async def wait(self, request: Request) -> Stream:
        """POST /containers/{name}/wait: the head at once, so that the client knows it will miss nothing."""
        waiter = self._service.waiter(request.params["name"], request.text("condition"))

        async def answer() -> AsyncIterator[bytes]:
            ended: Ended = await waiter
            failure = {"Error": {"Message": ended.error}} if ended.error else {}
            yield jsonio.encode({"StatusCode": ended.exit_code, **failure}) + b"\n"

        return Stream(answer())

    async def attach(self, request: Request) -> Answer:
        """POST /containers/{name}/attach."""
        name = request.params["name"]
        tty = self._service.tty(name)
        options = AttachOptions(
            stdin=request.flag("stdin"),
            stdout=request.flag("stdout"),
            stderr=request.flag("stderr"),
            stream=request.flag("stream"),
            logs=request.flag("logs"),
            detach_keys=request.text("detachKeys"),
        )

        async def take(client: socket.socket, prefix: bytes, greeting: bytes) -> None:
            await self._service.attach(name, options, Client(client, prefix, greeting))

        return Hijack(take, _stream_type(request, tty=tty))

    async def resize(self, request: Request) -> Response:
        """POST /containers/{name}/resize."""
        width, height = _size(request)
        await self._service.resize(request.params["name"], width=width, height=height)
        return Response()

    async def exec_create(self, request: Request) -> Response:
        """POST /containers/{name}/exec."""
        body = await request.json(ExecRequest, noun="exec configuration")
        exec_id = self._service.exec_create(request.params["name"], body)
        return json_response({"Id": exec_id}, HTTPStatus.CREATED)

    async def exec_start(self, request: Request) -> Answer:
        """POST /exec/{id}/start."""
        exec_id = request.params["id"]
        body = await request.json(ExecStartRequest, noun="exec start configuration")
        tty = self._service.exec_tty(exec_id)
        size = (body.console_size[1], body.console_size[0]) if body.console_size else None
        if body.detach:
            await self._service.exec_start(exec_id, tty_size=size)
            return Response()
        if (await self._service.exec_inspect(exec_id))["Running"]:
            raise Conflict(f"exec {exec_id} is already running")

        async def take(client: socket.socket, prefix: bytes, greeting: bytes) -> None:
            await self._service.exec_start(exec_id, client=Client(client, prefix, greeting), tty_size=size)

        return Hijack(take, _stream_type(request, tty=tty))

    async def exec_resize(self, request: Request) -> Response:
        """POST /exec/{id}/resize."""
        width, height = _size(request)
        await self._service.exec_resize(request.params["id"], width=width, height=height)
        return Response()

    async def exec_inspect(self, request: Request) -> Response:
        """GET /exec/{id}/json."""
        return json_response(await self._service.exec_inspect(request.params["id"]))
