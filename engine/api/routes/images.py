"""/images.

Source: Docker Engine API v1.51, "Images".
"""

import base64
import binascii
from http import HTTPStatus

import msgspec

from engine.api import filters
from engine.api.http import Request, Response, Route, Stream, json_response
from engine.api.streams import json_stream
from engine.base import jsonio
from engine.base.errors import InvalidArgument, NotSupported
from engine.containers.service import ContainerService
from engine.images.model import RegistryAuth
from engine.images.service import ImageService
from engine.spec import reference

_AUTH_MAX_CHARS = 64 * 1024


class _Auth(msgspec.Struct, rename="lower"):
    """The content of X-Registry-Auth."""

    username: str = ""
    password: str = ""
    identitytoken: str = ""
    registrytoken: str = ""


def registry_auth(header: str) -> RegistryAuth:
    """Return the credentials in an X-Registry-Auth header; empty ones for an empty header.

    Raises:
        InvalidArgument: it is not base64url of such a document.
    """
    if not header:
        return RegistryAuth()
    if len(header) > _AUTH_MAX_CHARS:
        raise InvalidArgument("invalid X-Registry-Auth header: too long")
    try:
        data = base64.urlsafe_b64decode(header + "=" * (-len(header) % 4))
    except (binascii.Error, ValueError) as err:
        raise InvalidArgument("invalid X-Registry-Auth header: not base64url") from err
    auth = jsonio.decode(data or b"{}", _Auth, noun="X-Registry-Auth header")
    return RegistryAuth(auth.username, auth.password, auth.identitytoken, auth.registrytoken)


class ImageRoutes:
    """Maps requests to the image service, and nothing else."""

    def __init__(self, images: ImageService, containers: ContainerService) -> None:
        self._images = images
        self._containers = containers

    def routes(self) -> list[Route]:
        """Return the table."""
        one = "/images/{name...}"
        return [
            Route("GET", "/images/json", self.list),
            Route("POST", "/images/create", self.create),
            Route("POST", "/images/load", self.load),
            Route("POST", "/images/prune", self.prune),
            Route("GET", f"{one}/json", self.inspect),
            Route("GET", f"{one}/history", self.history),
            Route("POST", f"{one}/tag", self.tag),
            Route("DELETE", one, self.remove),
        ]

    async def list(self, request: Request) -> Response:
        """GET /images/json."""
        return json_response(self._images.list(filters.parse(request)))

    async def create(self, request: Request) -> Stream:
        """POST /images/create: pull."""
        if request.text("fromSrc"):
            raise NotSupported("import: images are loaded or pulled by this engine", hint="use load")
        name, tag = request.text("fromImage"), request.text("tag")
        if not name:
            raise InvalidArgument("fromImage: no image was named")
        if tag.startswith("sha256:"):
            name = f"{name}@{tag}"
        elif tag and not reference.parse(name).tag:
            name = f"{name}:{tag}"
        auth = registry_auth(request.headers.get("x-registry-auth", ""))
        request.subject = name
        return await json_stream(self._images.pull(name, platform=request.text("platform"), auth=auth))

    async def load(self, request: Request) -> Stream:
        """POST /images/load."""
        return await json_stream(self._images.load(request.body, quiet=request.flag("quiet")))

    async def prune(self, request: Request) -> Response:
        """POST /images/prune."""
        return json_response(
            await self._images.prune(filters.parse(request), in_use=self._containers.image_uses)
        )

    async def inspect(self, request: Request) -> Response:
        """GET /images/{name}/json."""
        return json_response(self._images.inspect(request.params["name"]))

    async def history(self, request: Request) -> Response:
        """GET /images/{name}/history."""
        return json_response(self._images.history(request.params["name"]))

    async def tag(self, request: Request) -> Response:
        """POST /images/{name}/tag."""
        repository, tag = request.text("repo"), request.text("tag")
        if not repository:
            raise InvalidArgument("repo: no repository was named")
        await self._images.tag(request.params["name"], f"{repository}:{tag}" if tag else repository)
        return Response(HTTPStatus.CREATED)

    async def remove(self, request: Request) -> Response:
        """DELETE /images/{name}."""
        return json_response(
            await self._images.remove(
                request.params["name"],
                force=request.flag("force"),
                prune=not request.flag("noprune"),
                in_use=self._containers.image_uses,
            )
        )
