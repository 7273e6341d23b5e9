"""/version, /info, /_ping, /events and what else is about the whole engine.

Source: Docker Engine API v1.51, "System".
"""

import contextlib
import os
import platform
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

from engine.api import filters, versions
from engine.api.http import Request, Response, Route, Stream, json_response
from engine.base import jsonio
from engine.base.errors import NotSupported, Unavailable
from engine.base.version import VERSION
from engine.containers.events import EventBus
from engine.containers.runtimes import Program, Runtimes
from engine.containers.service import ContainerService
from engine.images.service import ImageService
from engine.networks.service import NetworkService
from engine.spec.docker import AuthRequest
from engine.spec.runtime import OCI_VERSION
from engine.volumes.service import VolumeService

_GO_ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}
_NO_CACHE = {"Cache-Control": "no-cache, no-store, must-revalidate", "Pragma": "no-cache"}
_OS_RELEASE = Path("/etc/os-release")


@dataclass(frozen=True, slots=True)
class About:
    """What the engine knows of itself."""

    engine_id: str
    root: str
    driver: str
    cgroup_version: str
    in_machine: bool
    runtimes: Runtimes


class SystemRoutes:
    """Maps requests to the services, and nothing else."""

    def __init__(  # noqa: PLR0917 (one collaborator each)
        self,
        about: About,
        containers: ContainerService,
        images: ImageService,
        volumes: VolumeService,
        networks: NetworkService,
        events: EventBus,
    ) -> None:
        self._about = about
        self._containers = containers
        self._images = images
        self._volumes = volumes
        self._networks = networks
        self._events = events
        self._started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())

    def routes(self) -> list[Route]:
        """Return the table."""
        return [
            Route("GET", "/_ping", self.ping),
            Route("HEAD", "/_ping", self.ping),
            Route("GET", "/version", self.version),
            Route("GET", "/info", self.info),
            Route("GET", "/events", self.events),
            Route("GET", "/system/df", self.disk_usage),
            Route("POST", "/auth", self.auth),
            Route("POST", "/build/prune", self.prune_build_cache),
            Route("GET", "/plugins", self.plugins),
            *(Route("GET", pattern, _no_manager) for pattern in _CLUSTER),
            *(Route(method, pattern, _refuse(what)) for method, pattern, what in _MISSING),
        ]

    async def ping(self, _request: Request) -> Response:
        """GET or HEAD /_ping."""
        headers = {**_NO_CACHE, "Builder-Version": "1", "Swarm": "inactive"}
        return Response(HTTPStatus.OK, b"OK", "text/plain; charset=utf-8", headers)

    async def version(self, _request: Request) -> Response:
        """GET /version."""
        uname = os.uname()
        common = {
            "Version": VERSION,
            "ApiVersion": versions.text(versions.MAXIMUM),
            "MinAPIVersion": versions.text(versions.MINIMUM),
            "GitCommit": "",
            "GoVersion": "",
            "Os": "linux",
            "Arch": _GO_ARCHITECTURE.get(uname.machine, uname.machine),
            "KernelVersion": uname.release,
            "Experimental": False,
            "BuildTime": "",
        }
        details = {
            key: ("false" if key == "Experimental" else value)
            for key, value in common.items()
            if key != "Version"
        }
        components = [
            {"Name": "Engine", "Version": VERSION, "Details": details},
            {"Name": "pyengine-oci", "Version": VERSION, "Details": {"Spec": OCI_VERSION}},
            {"Name": "Python", "Version": platform.python_version(), "Details": {}},
        ]
        named = {"Platform": {"Name": "pyengine"}, "Components": components}
        return json_response({**named, **common})

    async def info(self, _request: Request) -> Response:
        """GET /info."""
        uname = os.uname()
        return json_response(
            {
                "ID": self._about.engine_id,
                **self._containers.counts(),
                "Images": len(self._images.all()),
                "Driver": self._about.driver,
                "DriverStatus": [["Backing Filesystem", "overlayfs"], ["Supports d_type", "true"]],
                "Plugins": {
                    "Volume": ["local"],
                    "Network": ["bridge", "host", "null"],
                    "Authorization": None,
                    "Log": ["json-file", "local", "none"],
                },
                "MemoryLimit": True,
                "SwapLimit": True,
                "CpuCfsPeriod": True,
                "CpuCfsQuota": True,
                "CPUShares": True,
                "CPUSet": True,
                "PidsLimit": True,
                "OomKillDisable": self._about.cgroup_version == "1",
                "IPv4Forwarding": True,
                "Debug": False,
                "NFd": len(os.listdir("/proc/self/fd")),
                "NGoroutines": 0,
                "NEventsListener": self._events.listeners,
                "SystemTime": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                "LoggingDriver": "json-file",
                "CgroupDriver": "cgroupfs",
                "CgroupVersion": self._about.cgroup_version,
                "KernelVersion": uname.release,
                "OperatingSystem": _operating_system(),
                "OSVersion": "",
                "OSType": "linux",
                "Architecture": uname.machine,
                "IndexServerAddress": "https://index.docker.io/v1/",
                "RegistryConfig": {
                    "InsecureRegistryCIDRs": ["127.0.0.0/8"],
                    "IndexConfigs": {},
                    "Mirrors": None,
                },
                "NCPU": os.cpu_count() or 1,
                "MemTotal": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
                "DockerRootDir": self._about.root,
                "HttpProxy": os.environ.get("HTTP_PROXY", ""),
                "HttpsProxy": os.environ.get("HTTPS_PROXY", ""),
                "NoProxy": os.environ.get("NO_PROXY", ""),
                "Name": uname.nodename,
                "Labels": ["pyengine.machine=true"] if self._about.in_machine else [],
                "ExperimentalBuild": False,
                "ServerVersion": VERSION,
                "Runtimes": {name: _runtime(one) for name, one in self._about.runtimes.listed().items()},
                "DefaultRuntime": self._about.runtimes.default,
                "Swarm": {"LocalNodeState": "inactive", "ControlAvailable": False, "NodeID": "", "Error": ""},
                "LiveRestoreEnabled": True,
                "Isolation": "",
                "InitBinary": "",
                "SecurityOptions": ["name=seccomp,profile=builtin", "name=cgroupns"],
                "ProductLicense": "",
                "DefaultAddressPools": [],
                "CDISpecDirs": [],
                "Warnings": [],
            }
        )

    async def events(self, request: Request) -> Stream:
        """GET /events."""
        since, until = request.text("since"), request.text("until")
        listening = self._events.listen(
            since_ns=filters.moment_ns(since, "since") if since else None,
            until_ns=filters.moment_ns(until, "until") if until else None,
            filters=filters.parse(request),
        )

        async def lines() -> AsyncIterator[bytes]:
            async with contextlib.aclosing(listening):
                async for event in listening:
                    yield jsonio.encode(event.document()) + b"\n"

        return Stream(lines())

    async def disk_usage(self, _request: Request) -> Response:
        """GET /system/df."""
        images = self._images.list()
        containers = await self._containers.list(everything=True, size=True)
        volumes = self._volumes.list(in_use=self._containers.volume_uses)
        for image in images:
            image["Containers"] = len(self._containers.image_uses(image["Id"]))
        return json_response(
            {
                "LayersSize": sum(image["Size"] for image in images),
                "Images": images,
                "Containers": containers,
                "Volumes": volumes,
                "BuildCache": [],
            }
        )

    async def prune_build_cache(self, _request: Request) -> Response:
        """POST /build/prune, a part of `docker system prune`: nothing is built here, so nothing is cached."""
        return json_response({"CachesDeleted": [], "SpaceReclaimed": 0})

    async def plugins(self, _request: Request) -> Response:
        """GET /plugins: there are none."""
        return json_response([])

    async def auth(self, request: Request) -> Response:
        """POST /auth: credentials are not checked here, and never stored."""
        body = await request.json(AuthRequest, noun="credentials")
        raise NotSupported(
            f"login to {body.serveraddress or 'a registry'}: not supported yet",
            hint="credentials in ~/.docker/config.json are sent along with each pull",
        )


def _runtime(program: Program) -> dict[str, Any]:
    arguments = {"runtimeArgs": list(program.arguments)} if program.arguments else {}
    return {"path": program.path, **arguments}


def _operating_system() -> str:
    try:
        for line in _OS_RELEASE.read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition("=")
            if key == "PRETTY_NAME":
                return value.strip('"')
    except OSError:
        pass
    return "Linux"


# What docker's clients may ask for and this engine does not have; an honest no, by name.
_MISSING: tuple[tuple[str, str, str], ...] = (
    ("POST", "/build", "building images"),
    ("POST", "/session", "building images"),
    ("POST", "/grpc", "building images"),
    ("POST", "/commit", "committing containers"),
    ("GET", "/images/search", "searching registries"),
    ("GET", "/images/get", "saving images"),
    ("GET", "/images/{name...}/get", "saving images"),
    ("POST", "/images/{name...}/push", "pushing images"),
    ("GET", "/containers/{name}/stats", "container statistics"),
    ("GET", "/containers/{name}/changes", "listing changes"),
    ("GET", "/containers/{name}/export", "exporting containers"),
    ("GET", "/containers/{name}/archive", "copying files"),
    ("HEAD", "/containers/{name}/archive", "copying files"),
    ("PUT", "/containers/{name}/archive", "copying files"),
    ("POST", "/containers/{name}/update", "updating containers"),
    ("POST", "/networks/{name}/connect", "connecting containers to more networks"),
    ("POST", "/networks/{name}/disconnect", "disconnecting containers"),
    ("POST", "/plugins/pull", "plugins"),
    ("POST", "/swarm/init", "swarm"),
    ("POST", "/swarm/join", "swarm"),
)
_CLUSTER = ("/swarm", "/nodes", "/services", "/tasks", "/secrets", "/configs")


async def _no_manager(_request: Request) -> Response:
    raise Unavailable(
        'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this '
        "node to swarm and try again."
    )


def _refuse(what: str) -> Callable[[Request], Any]:
    async def call(_request: Request) -> Response:
        raise NotSupported(f"{what} is not supported by this engine yet")

    return call
