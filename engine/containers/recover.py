"""What a new daemon does about the containers of the one before.

Shims and containers outlive a daemon, whatever ended it. Each bundle may have
a live shim: it is adopted, or cleaned up after. A container that was running
and has no shim has ended meanwhile; its exit.json says how.
"""

import asyncio
import logging
import time
from dataclasses import replace

from engine.base.errors import EngineError
from engine.containers import restart
from engine.containers.core import Core
from engine.containers.lifecycle import Lifecycle
from engine.containers.live import Container
from engine.containers.model import Definition, Event, State, Status
from engine.containers.shim import Shim
from engine.shim.cleanup import read_exit
from engine.shim.protocol import Exit
from engine.spec.docker import ContainerConfig, HostConfig

log = logging.getLogger(__name__)
_LOST = 255


async def recover(core: Core, lifecycle: Lifecycle) -> None:
    """Take over every container; then restart by policy and finish removals."""
    for container_id, name, definition, state in await asyncio.to_thread(
        core.store.open, rebuild=core.rebuild
    ):
        core.add(_container(container_id, name, definition, state))
    known = {name for name in core.shims.bundles() if name in core.containers}
    for container_id in core.shims.bundles():
        if container_id not in known:
            await _remove_stray(core, container_id)
    if not core.rebuild:  # otherwise what could not be taken over may still be wanted
        await asyncio.to_thread(core.store.remove_unknown, list(core.containers))
    was_live = {container.id for container in core.live()}
    for container in core.containers.values():
        if container.id in known or container.state.live:
            await _take_over(core, lifecycle, container, has_bundle=container.id in known)
    await core.networks.recover({container.id for container in core.live()})
    for container in list(core.containers.values()):
        await _settle(core, lifecycle, container, was_live=container.id in was_live)


def _container(container_id: str, name: str, definition: Definition | None, state: State) -> Container:
    if definition is not None:
        return Container(definition, name, state)
    empty = Definition(
        id=container_id,
        name=name,
        created_ns=0,
        image_id="",
        image_name="",
        chain_ids=(),
        config=ContainerConfig(),
        host=HostConfig(),
    )
    return Container(empty, name, State(status=Status.DEAD, error="config.json is damaged"), damaged=True)


async def _remove_stray(core: Core, container_id: str) -> None:
    """End what runs under an id that no row has: its creation was never acknowledged, or it was removed."""
    log.warning("removing what is left of the unknown container %s", container_id)
    try:
        shim = await core.shims.adopt(container_id, exit_path=core.root.container(container_id).exit)
        if shim is not None:
            await shim.delete()
    except (EngineError, TimeoutError) as err:
        log.error("container %s: %s", container_id, err)  # noqa: TRY400 (the reason is the message)


async def _take_over(core: Core, lifecycle: Lifecycle, container: Container, *, has_bundle: bool) -> None:
    exit_path = core.root.container(container.id).exit
    shim: Shim | None = None
    if has_bundle:
        shim = await core.shims.adopt(container.id, exit_path=exit_path)
    if shim is not None and shim.status == "created":
        await shim.delete()  # its start was never acknowledged
        shim = None
        exit_path.unlink(missing_ok=True)
    if shim is not None:
        _run_on(core, lifecycle, container, shim)
        return
    if container.state.live:
        lifecycle.note_exit(container, ended_meanwhile(container.state, read_exit(exit_path), time.time_ns()))
        await core.save(container)


def ended_meanwhile(state: State, found: Exit | None, now_ns: int) -> Exit:
    """Return how a container ended that was `state`, has no shim, and left the exit.json `found`.

    A shim removes the exit.json of the run before when it makes the
    container. Where no pid is on record it may not have come to that, and the
    file counts only if it is of this run.
    """
    if found is not None and (state.pid or found.finished_at_ns >= state.started_ns):
        return found
    error = "exit status unknown: the machine went down"
    if not state.pid:
        error = "the engine ended while the container was being started"
    return Exit(code=_LOST, finished_at_ns=now_ns, error=error)


def _run_on(core: Core, lifecycle: Lifecycle, container: Container, shim: Shim) -> None:
    """Bring the state in line with a live shim: a start may have gone unrecorded."""
    if not container.state.live:
        if container.state.status not in {Status.CREATED, Status.EXITED, Status.RESTARTING}:
            log.warning("container %s is %s and has a shim", container.id, container.state.status)
            container.state = State()
        container.advance(Event.START, pid=shim.pid, started_ns=time.time_ns(), exit_code=0, error="")
    if not container.state.pid:  # the last daemon died while it started it
        container.state = replace(container.state, pid=shim.pid)
    if shim.status == "paused" and container.state.status is Status.RUNNING:
        container.advance(Event.PAUSE)
    if shim.status == "running" and container.state.status is Status.PAUSED:
        container.advance(Event.UNPAUSE)
    core.save_soon(container)
    lifecycle.watch(container, shim)


async def _settle(core: Core, lifecycle: Lifecycle, container: Container, *, was_live: bool) -> None:
    """Finish what the end of the last daemon left open for a container without processes."""
    state = container.state
    if state.live or container.damaged:
        return
    policy = container.definition.host.restart_policy
    if state.status is Status.REMOVING or container.definition.host.auto_remove:
        try:
            await lifecycle.remove(container, force=True, volumes=True)
        except (EngineError, OSError) as err:
            log.error("container %s cannot be removed: %s", container.id, err)  # noqa: TRY400
        return
    if state.status is Status.RESTARTING:
        container.advance(Event.GIVE_UP_RESTART)
        was_live = True
    if restart.wanted_at_boot(policy, container.state, was_live=was_live):
        core.begin(asyncio.get_running_loop().create_task(_start(lifecycle, container)))


async def _start(lifecycle: Lifecycle, container: Container) -> None:
    try:
        await lifecycle.start(container)
    except EngineError as err:
        log.warning("container %s is not restarted: %s", container.id, err)
