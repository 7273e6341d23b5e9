"""/volumes and /networks.

Source: Docker Engine API v1.51, "Volumes", "Networks".
"""

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import msgspec

from engine.api import filters
from engine.api.http import Request, Response, Route, json_response, no_content
from engine.base.errors import InvalidArgument, NotSupported
from engine.containers.service import ContainerService
from engine.networks.service import NetworkService
from engine.spec.docker import VolumeCreateRequest
from engine.volumes.service import VolumeService

if TYPE_CHECKING:
    from collections.abc import Callable

_NETWORK_FILTERS = frozenset({"name", "id", "driver", "type", "scope", "label", "dangling"})
_NETWORK_PRUNE_FILTERS = frozenset({"until", "label", "label!"})
_BUILT_IN = frozenset({"bridge", "host", "none"})


class _NetworkCreate(msgspec.Struct, rename="pascal"):
    """Body of NetworkCreate, as far as it is looked at."""

    name: str = ""


class VolumeRoutes:
    """Maps requests to the volume service, and nothing else."""

    def __init__(self, volumes: VolumeService, containers: ContainerService) -> None:
        self._volumes = volumes
        self._containers = containers

    def routes(self) -> list[Route]:
        """Return the table."""
        return [
            Route("GET", "/volumes", self.list),
            Route("POST", "/volumes/create", self.create),
            Route("POST", "/volumes/prune", self.prune),
            Route("GET", "/volumes/{name}", self.inspect),
            Route("DELETE", "/volumes/{name}", self.remove),
        ]

    async def list(self, request: Request) -> Response:
        """GET /volumes."""
        found = self._volumes.list(filters.parse(request), in_use=self._containers.volume_uses)
        return json_response({"Volumes": found, "Warnings": None})

    async def create(self, request: Request) -> Response:
        """POST /volumes/create."""
        body = await request.json(VolumeCreateRequest, noun="volume configuration")
        if body.cluster_volume_spec is not None:
            raise NotSupported("cluster volumes are not supported by this engine")
        volume = await self._volumes.create(
            body.name, labels=body.labels, driver=body.driver, driver_opts=body.driver_opts
        )
        return json_response(volume, HTTPStatus.CREATED)

    async def prune(self, request: Request) -> Response:
        """POST /volumes/prune."""
        return json_response(
            await self._volumes.prune(filters.parse(request), in_use=self._containers.volume_uses)
        )

    async def inspect(self, request: Request) -> Response:
        """GET /volumes/{name}."""
        return json_response(self._volumes.get(request.params["name"]))

    async def remove(self, request: Request) -> Response:
        """DELETE /volumes/{name}."""
        await self._volumes.remove(
            request.params["name"], force=request.flag("force"), in_use=self._containers.volume_uses
        )
        return no_content()


class NetworkRoutes:
    """Maps requests to the network service, and nothing else."""

    def __init__(self, networks: NetworkService) -> None:
        self._networks = networks

    def routes(self) -> list[Route]:
        """Return the table."""
        return [
            Route("GET", "/networks", self.list),
            Route("POST", "/networks/create", self.create),
            Route("POST", "/networks/prune", self.prune),
            Route("GET", "/networks/{name}", self.inspect),
            Route("DELETE", "/networks/{name}", self.remove),
        ]

    async def list(self, request: Request) -> Response:
        """GET /networks."""
        chosen = _known_filters(request, _NETWORK_FILTERS)
        return json_response([one for one in self._networks.list() if _passes(one, chosen)])

    async def inspect(self, request: Request) -> Response:
        """GET /networks/{name}."""
        return json_response(self._networks.inspect(request.params["name"]))

    async def create(self, request: Request) -> Response:
        """POST /networks/create."""
        body = await request.json(_NetworkCreate, noun="network configuration")
        self._networks.create(body.name)
        return json_response(self._networks.inspect(body.name), HTTPStatus.CREATED)

    async def prune(self, request: Request) -> Response:
        """POST /networks/prune: the networks that there are, are never removed."""
        _known_filters(request, _NETWORK_PRUNE_FILTERS)
        return json_response({"NetworksDeleted": []})

    async def remove(self, request: Request) -> Response:
        """DELETE /networks/{name}."""
        self._networks.remove(request.params["name"])
        return no_content()


def _known_filters(request: Request, known: frozenset[str]) -> dict[str, list[str]]:
    chosen = filters.parse(request)
    for name in chosen:
        if name not in known:
            raise InvalidArgument(f"invalid filter '{name}'")
    return chosen


def _passes(network: dict[str, Any], chosen: dict[str, list[str]]) -> bool:
    name, identifier = str(network.get("Name", "")), str(network.get("Id", ""))
    tests: dict[str, Callable[[str], bool]] = {
        "name": lambda value: value in name,
        "id": identifier.startswith,
        "driver": lambda value: value == network.get("Driver"),
        "scope": lambda value: value == "local",
        "type": lambda value: (value == "builtin") == (name in _BUILT_IN),
        "label": lambda value: value in (network.get("Labels") or ()),
        "dangling": lambda value: value.lower() in {"false", "0"},
    }
    return all(any(tests[key](value) for value in values) for key, values in chosen.items() if values)
