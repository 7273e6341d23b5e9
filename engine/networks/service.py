"""The networks of one engine: a default bridge, host and none; user-defined ones come later."""

from collections.abc import Collection
from typing import Any

from engine.base.database import Database
from engine.base.paths import Run
from engine.networks.hostports import HostPorts
from engine.networks.model import Sandbox, SandboxRequest


class NetworkService:
    """Gives each running container its network, and takes it away without leaving a trace.

    `open` first, then `recover`, then the rest. All methods are for one event
    loop; blocking work runs on one thread of the service's own.
    """

    def __init__(
        self,
        database: Database,
        run: Run,
        *,
        bridge: str = "pyengine0",
        bip: str = "",
        host_ports: HostPorts | None = None,
        isolate_host: bool = False,
    ) -> None:
        """Remember how to set the networks up.

        Args:
            database: the engine's; tables `network`, `network_sandbox` are ours.
            run: namespaces are pinned at `run.netns`/<container id>.
            bridge: interface of the default network, at most 15 characters;
                engines side by side need different ones.
            bip: "172.30.0.1/24", the bridge's address and subnet; "": the
                subnet of last time, or the first of docker's pool that no
                route of the host overlaps.
            host_ports: inside a machine, the way to ask its host for ports.
            isolate_host: inside a machine, keep containers away from the
                machine's services and from the host's loopback (10.0.2.2).
        """

    async def open(self) -> None:
        """Make or adopt the bridge, install the nftables table, turn forwarding on.

        Raises:
            InvalidArgument: the bridge's name or `bip` is malformed.
            Conflict: `bip` overlaps a route of the host, or the name is taken by a link that is no bridge.
            NotSupported: this process may not, or the kernel cannot, do networks.
        """

    async def close(self) -> None:
        """Stop; containers keep their networks (except that their host ports are no longer reserved)."""

    async def connect(self, container_id: str, request: SandboxRequest) -> Sandbox:
        """Make the sandbox of a container that is about to start; nothing is left behind on failure.

        A container that still has a sandbox (its release was lost) gets a new one.

        Raises:
            InvalidArgument: ports outside bridge mode, or a malformed address.
            Conflict: a port of the host is taken; the text is docker's
                ("driver failed programming external connectivity on endpoint ...").
            NotFound: "network", for an unknown network; "container", for a
                `container:` mode whose target has no sandbox.
            OutOfSpace: the network has no free address.
        """
        raise NotImplementedError

    async def release(self, container_id: str) -> None:
        """Take the container's network away; harmless when it has none, or twice."""

    async def recover(self, live: Collection[str]) -> None:
        """After a start of the daemon: keep what the containers `live` use, remove all else that is ours.

        Published ports of live containers are reserved again; one that was
        taken meanwhile is logged and still forwarded.
        """

    def sandbox(self, container_id: str) -> Sandbox | None:
        """Return the sandbox of a running container, also after a restart of the daemon (once recovered)."""
        raise NotImplementedError

    def list(self) -> list[dict[str, Any]]:
        """Return bridge, host and none, as GET /networks shows them (no `Containers`); filters are the API's."""
        raise NotImplementedError

    def inspect(self, name: str) -> dict[str, Any]:
        """Return one network by name, id or short id, as GET /networks/{id} shows it.

        Raises:
            NotFound: "network".
        """
        raise NotImplementedError

    def create(self, name: str) -> None:
        """Refuse: user-defined networks are not there yet.

        Raises:
            AlreadyExists: for the names of the three that exist.
            NotSupported: for any other.
        """

    def remove(self, name: str) -> None:
        """Refuse: the three networks that exist are never removed.

        Raises:
            Denied: for the three, in docker's words.
            NotFound: for any other.
        """
