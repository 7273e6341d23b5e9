"""The containers of one engine: what the API's routes call.

A facade: rules are in `model`, `creation`, `spec`; work in `launcher`,
`lifecycle`, `execs`, `recover`; docker's JSON in `view`.
"""

import asyncio
import contextlib
import os
import struct
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.base import detachkeys, trace
from engine.base.database import Database
from engine.base.errors import AlreadyExists, Conflict, EngineError, InvalidArgument
from engine.base.paths import Root, Run
from engine.containers import creation, filters, limits, logs, names, processes, recover, spec, view
from engine.containers.core import Core
from engine.containers.events import EventBus
from engine.containers.execs import Client, Execs
from engine.containers.launcher import Launcher
from engine.containers.lifecycle import Lifecycle
from engine.containers.live import Attachment, Container, Ended
from engine.containers.model import MountPoint, State, Status, stamp
from engine.containers.runtimes import INSTALLED, Runtimes
from engine.containers.security import Mode
from engine.containers.shims import Shims
from engine.containers.store import ContainerStore
from engine.images.model import ImageUse
from engine.images.service import ImageService
from engine.networks.service import NetworkService
from engine.snapshots.model import Snapshotter
from engine.spec.docker import CreateRequest, ExecRequest
from engine.volumes.service import VolumeService

_FRAME = struct.Struct(">BxxxI")
_STREAMS = {"stdout": 1, "stderr": 2}
_NAME_ATTEMPTS = 100
Objects = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Created:
    """Answer of `create`."""

    id: str
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AttachOptions:
    """What a client wants of `attach`."""

    stdin: bool = False
    stdout: bool = False
    stderr: bool = False
    stream: bool = False
    logs: bool = False
    detach_keys: str = ""


@dataclass(frozen=True, slots=True)
class LogOptions:
    """What a client wants of `logs`; times in wall-clock nanoseconds, 0 for none."""

    stdout: bool = True
    stderr: bool = True
    follow: bool = False
    tail: int | None = None
    since_ns: int = 0
    until_ns: int = 0
    timestamps: bool = False
    details: bool = False  # the attributes that log options have put into each record


class ContainerService:
    """All containers below one root. `open` first, `close` last."""

    def __init__(  # noqa: PLR0917 (one collaborator each)
        self,
        root: Root,
        run: Run,
        database: Database,
        images: ImageService,
        snapshotter: Snapshotter,
        networks: NetworkService,
        volumes: VolumeService,
        shims: Shims,
        events: EventBus,
        *,
        mode: Mode = Mode.STRICT,
        runtimes: Runtimes = INSTALLED,
        rebuild: bool = False,
    ) -> None:
        self._core = Core(
            root, run, ContainerStore(root, database), images, snapshotter, networks, volumes, shims, events
        )
        self._core.rebuild = rebuild
        self._core.runtimes = runtimes
        launcher = Launcher(self._core, mode, os.uname().machine)
        self._lifecycle = Lifecycle(self._core, launcher)
        self._execs = Execs(self._core, launcher)

    async def open(self) -> None:
        """Take over what runs, note what ended meanwhile, restart by policy."""
        await recover.recover(self._core, self._lifecycle)

    async def close(self) -> None:
        """Let go; containers run on."""
        self._core.closing = True
        for container in self._core.containers.values():
            container.hang_up()
        for task in list(self._core.tasks):
            task.cancel()
        if self._core.tasks:
            await asyncio.wait(self._core.tasks)

    # create and remove

    async def create(self, request: CreateRequest, name: str = "", platform: str = "") -> Created:
        """Make a container; it does not run yet.

        Raises:
            NotFound: kind "image" (docker's words), or "image for <platform>".
            AlreadyExists: the name is taken; docker's words.
            InvalidArgument, NotSupported: the request cannot be carried out.
        """
        chosen = names.check(name) if name else self._free_name()
        self._check_free(chosen)
        image = self._core.images.resolve(request.image)
        creation.check_platform(image, request.image, platform)
        if request.host_config.nano_cpus or request.host_config.cpuset_cpus:
            limits.check_processors(request.host_config, await asyncio.to_thread(creation.online_processors))
        if request.host_config.init:
            await asyncio.to_thread(creation.find_init, request.host_config)  # told now, not at the start
        definition = creation.define(request, chosen, image, self._mounts_of, self._core.runtimes)
        layers = tuple(reversed(self._core.snapshotter.layer_dirs(image.chain_ids)))
        with trace.span("containers", "volumes"):
            definition = await creation.make_volumes(
                definition, layers, self._make_volume, self._core.volumes.populate
            )
        container = Container(definition, chosen, State())
        self._check_free(chosen)  # others ran while volumes were made
        self._core.add(container)
        try:
            with trace.span("containers", "write"):
                await asyncio.to_thread(self._core.store.write_definition, definition)
                await self._core.store.insert(definition, chosen, container.state)
        except BaseException:
            self._core.drop(container)
            await asyncio.shield(asyncio.to_thread(self._core.store.remove_files, container.id))
            raise
        self._core.publish(container, "create")
        return Created(container.id, creation.warnings(request, image, platform))

    def _free_name(self) -> str:
        for _ in range(_NAME_ATTEMPTS):
            name = names.made_up()
            if name not in self._core.names:
                return name
        return f"{names.made_up()}_{len(self._core.names)}"

    def _check_free(self, name: str) -> None:
        owner = self._core.names.get(name)
        if owner is not None:
            raise AlreadyExists(
                f'Conflict. The container name "/{name}" is already in use by container "{owner}". '
                "You have to remove (or rename) that container to be able to reuse that name."
            )

    async def _make_volume(self, name: str | None, labels: Mapping[str, str]) -> str:
        volume = await self._core.volumes.create(name, labels=labels)
        return str(volume["Name"])

    def _mounts_of(self, name: str) -> tuple[MountPoint, ...]:
        return self._core.find(name).definition.mounts

    async def remove(self, name: str, *, force: bool = False, volumes: bool = False) -> None:
        """Remove a container; see `Lifecycle.remove`."""
        await self._lifecycle.remove(self._core.find(name), force=force, volumes=volumes)

    async def rename(self, name: str, new_name: str) -> None:
        """Give it another name.

        Raises:
            AlreadyExists, InvalidArgument: as `create`.
        """
        container = self._core.find(name)
        chosen = names.check(new_name)
        async with container.lock:
            self._check_free(chosen)
            old = container.name
            self._core.names[chosen] = container.id
            try:
                await self._core.store.rename(container.id, chosen)
            except BaseException:
                del self._core.names[chosen]
                raise
            container.name = chosen
            self._core.names.pop(old, None)
        self._core.publish(container, "rename", oldName=f"/{old}")

    async def prune(self, chosen: Mapping[str, Sequence[str]]) -> dict[str, Any]:
        """Remove the containers that do not run; docker's ContainersDeleted and SpaceReclaimed."""
        tests = filters.prune_tests(chosen)
        deleted, freed = [], 0
        for container in list(self._core.containers.values()):
            if not container.removable or not all(test(container) for test in tests):
                continue
            usage = await asyncio.to_thread(self._core.snapshotter.usage, container.id)
            with contextlib.suppress(Conflict):  # it was started meanwhile
                await self._lifecycle.remove(container, force=False, volumes=False)
                deleted.append(container.id)
                freed += usage.size_bytes
        return {"ContainersDeleted": deleted, "SpaceReclaimed": freed}

    # run

    async def start(self, name: str) -> bool:
        """Start it; False when it runs already. Raises as `Lifecycle.start`."""
        return await self._lifecycle.start(self._core.find(name))

    async def stop(self, name: str, *, timeout_s: int | None = None, signal: str = "") -> bool:
        """Stop it; False when it did not run. Raises as `Lifecycle.stop`."""
        return await self._lifecycle.stop(self._core.find(name), timeout_s=timeout_s, signal=signal)

    async def restart(self, name: str, *, timeout_s: int | None = None, signal: str = "") -> None:
        """Stop it if it runs, then start it."""
        await self._lifecycle.restart(self._core.find(name), timeout_s=timeout_s, signal=signal)

    async def kill(self, name: str, signal: str = "") -> None:
        """Send a signal. Raises as `Lifecycle.kill`."""
        await self._lifecycle.kill(self._core.find(name), signal)

    async def pause(self, name: str) -> None:
        """Freeze it."""
        await self._lifecycle.pause(self._core.find(name))

    async def unpause(self, name: str) -> None:
        """Thaw it."""
        await self._lifecycle.unpause(self._core.find(name))

    def waiter(self, name: str, condition: str = "") -> "asyncio.Future[Ended]":
        """Return a future of the end that `condition` means; registered when this returns.

        Raises:
            NotFound: no such container.
            InvalidArgument: no such condition.
        """
        container = self._core.find(name)
        if condition == "removed":
            return container.wait_removal()
        if condition == "next-exit":
            return container.wait_exit()
        if condition not in {"", "not-running"}:
            raise InvalidArgument(f"invalid condition: {condition!r}")
        if container.state.live or container.state.status is Status.RESTARTING:
            return container.wait_exit()
        done: asyncio.Future[Ended] = asyncio.get_running_loop().create_future()
        done.set_result(container.ended())
        return done

    # streams

    def tty(self, name: str) -> bool:
        """Tell whether it has a terminal, so that its output is not framed."""
        return self._core.find(name).definition.config.tty

    async def attach(self, name: str, options: AttachOptions, client: Client) -> None:
        """Join a client's connection to the container's streams, now or when it starts.

        Raises:
            Conflict: it is paused, or ending.
        """
        container = self._core.find(name)
        keys = detachkeys.parse(options.detach_keys)
        greeting = client.greeting
        if container.state.status is Status.PAUSED:
            raise Conflict(f"container {container.name} is paused, unpause the container before attach")
        if options.logs:
            await self._send_logs(container, options, client)
            greeting = b""
        if not options.stream:
            return
        self._core.publish(container, "attach")
        if container.shim is not None and container.state.live:
            await container.shim.attach(
                client.socket,
                stdin=options.stdin and container.definition.config.open_stdin,
                stdout=options.stdout,
                stderr=options.stderr,
                prefix=client.prefix,
                greeting=greeting,
                detach_keys=keys,
                framed=not container.definition.config.tty,
            )
            return
        # Kept before the client hears of it, because then it may start the container.
        container.pending.append(
            Attachment(
                client=client.socket.dup(),
                prefix=client.prefix,
                stdin=options.stdin and container.definition.config.open_stdin,
                stdout=options.stdout,
                stderr=options.stderr,
                detach_keys=keys,
            )
        )
        await asyncio.get_running_loop().sock_sendall(client.socket, greeting)

    async def _send_logs(self, container: Container, options: AttachOptions, client: Client) -> None:
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(client.socket, client.greeting)
        wanted = LogOptions(stdout=options.stdout, stderr=options.stderr)
        async with contextlib.aclosing(self._log_chunks(container, wanted)) as chunks:
            async for chunk in chunks:
                await loop.sock_sendall(client.socket, chunk)

    async def resize(self, name: str, *, width: int, height: int) -> None:
        """Set the terminal's size. Raises Conflict when it does not run."""
        await self._core.find(name).running_shim().resize(width, height)

    def logs(self, name: str, options: LogOptions) -> AsyncGenerator[bytes, None]:
        """Return the container's log as a client reads it; framed unless it has a terminal. Close it.

        Raises:
            NotFound: no such container.
            InvalidArgument: neither stdout nor stderr.
            EngineError: the container keeps no log.
        """
        container = self._core.find(name)
        if not (options.stdout or options.stderr):
            raise InvalidArgument("Bad parameters: you must choose at least one stream")
        if container.definition.host.log_config.type == "none":
            raise EngineError("configured logging driver does not support reading")
        return self._log_chunks(container, options)

    async def _log_chunks(self, container: Container, options: LogOptions) -> AsyncGenerator[bytes, None]:
        shim = container.shim
        framed = not container.definition.config.tty
        lines = logs.read(
            self._core.root.container(container.id).log,
            follow=options.follow and shim is not None,
            tail=options.tail,
            since_ns=options.since_ns,
            until_ns=options.until_ns,
            ended=shim.wait() if shim is not None and options.follow else None,
        )
        async with contextlib.aclosing(lines):
            async for line in lines:
                if not (options.stdout if line.stream == "stdout" else options.stderr):
                    continue
                text = logs.details(line) + line.text if options.details else line.text
                if options.timestamps:
                    text = f"{stamp(line.time_ns)} ".encode() + text
                yield _FRAME.pack(_STREAMS.get(line.stream, 1), len(text)) + text if framed else text

    # exec

    def exec_create(self, name: str, request: ExecRequest) -> str:
        """Remember an exec instance and return its id. Raises as `Execs.create`."""
        return self._execs.create(self._core.find(name), request)

    async def exec_start(
        self, exec_id: str, *, client: Client | None = None, tty_size: tuple[int, int] | None = None
    ) -> None:
        """Run it. Raises as `Execs.start`."""
        await self._execs.start(exec_id, client=client, tty_size=tty_size)

    def exec_tty(self, exec_id: str) -> bool:
        """Tell whether it has a terminal. Raises NotFound."""
        return self._execs.get(exec_id).request.tty

    async def exec_inspect(self, exec_id: str) -> dict[str, Any]:
        """Return docker's ExecInspectResponse. Raises NotFound."""
        return await self._execs.document(exec_id)

    async def exec_resize(self, exec_id: str, *, width: int, height: int) -> None:
        """Set its terminal's size. Raises NotFound, Conflict."""
        await self._execs.resize(exec_id, width=width, height=height)

    # looking

    def counts(self) -> dict[str, int]:
        """Return how many containers run, are paused, and are neither."""
        running = sum(one.state.status is Status.RUNNING for one in self._core.containers.values())
        paused = sum(one.state.status is Status.PAUSED for one in self._core.containers.values())
        return {
            "Containers": len(self._core.containers),
            "ContainersRunning": running,
            "ContainersPaused": paused,
            "ContainersStopped": len(self._core.containers) - running - paused,
        }

    async def list(
        self,
        *,
        everything: bool = False,
        limit: int = 0,
        size: bool = False,
        chosen: Mapping[str, Sequence[str]] | None = None,
    ) -> Objects:
        """Return docker's ContainerSummary of each container, newest first.

        Raises:
            InvalidArgument, NotFound: a filter makes no sense.
        """
        chosen = chosen or {}
        tests = filters.tests(chosen, self._core.find, self._image_id)
        everything = everything or limit > 0 or "status" in chosen or "exited" in chosen
        found = [
            one
            for one in reversed(self._core.containers.values())
            if (everything or one.state.live or one.state.status is Status.RESTARTING)
            and all(test(one) for test in tests)
        ]
        sizes = {one.id: await self._size(one) for one in found[: limit or None]} if size else {}
        return [
            view.summary(one, self._sandbox(one), self._volume_paths(one), sizes.get(one.id))
            for one in found[: limit or None]
        ]

    def _image_id(self, name: str) -> str:
        with contextlib.suppress(EngineError):
            return self._core.images.resolve(name).id
        return ""

    def _sandbox(self, container: Container) -> Any:  # noqa: ANN401 (Sandbox or None, of another package)
        return self._core.networks.sandbox(container.id)

    def _volume_paths(self, container: Container) -> dict[str, str]:
        paths = {}
        for point in container.definition.mounts:
            if point.type == "volume":
                with contextlib.suppress(EngineError):
                    paths[point.name] = str(self._core.volumes.source_path(point.name))
        return paths

    async def _size(self, container: Container) -> tuple[int, int]:
        usage = await asyncio.to_thread(self._core.snapshotter.usage, container.id)
        image = 0
        with contextlib.suppress(EngineError):
            image = self._core.images.resolve(container.definition.image_id).size_bytes
        return usage.size_bytes, usage.size_bytes + image

    async def inspect(self, name: str, *, size: bool = False) -> dict[str, Any]:
        """Return docker's ContainerInspectResponse. Raises NotFound."""
        container = self._core.find(name)
        return view.details(
            container,
            self._sandbox(container),
            directory=self._core.root.container(container.id),
            volume_paths=self._volume_paths(container),
            driver=self._core.snapshotter.name,
            size=await self._size(container) if size else None,
        )

    async def top(self, name: str, ps_args: str = "") -> dict[str, Any]:
        """Return docker's ContainerTopResponse.

        Raises:
            Conflict: it does not run.
            InvalidArgument: unknown arguments.
        """
        container = self._core.find(name)
        container.running_shim()
        return await asyncio.to_thread(processes.table, spec.cgroup_path(container.definition), ps_args)

    # for the other services

    def image_uses(self, image_id: str) -> Sequence[ImageUse]:
        """Return the containers that stand on an image."""
        return [
            ImageUse(one.id, one.state.live)
            for one in self._core.containers.values()
            if one.definition.image_id == image_id
        ]

    def volume_uses(self, name: str) -> Sequence[str]:
        """Return the ids of the containers that have a volume."""
        return self._lifecycle.volume_uses(name)
