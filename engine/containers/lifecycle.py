"""Start, stop, kill, pause, restart and remove containers, and what follows when one ends.

Whoever changes a status holds the container's lock. An end is dealt with by a
task a live container, which takes the lock too, so `stop` waits for it outside.
"""

import asyncio
import contextlib
import errno
import logging
import os
import signal as signals
from dataclasses import replace

from engine.base import trace
from engine.base.errors import Conflict, EngineError, InvalidArgument, OutOfSpace, Unavailable
from engine.containers import restart as restarts
from engine.containers.core import Core
from engine.containers.creation import parse_signal
from engine.containers.launcher import Launcher
from engine.containers.live import Container, Ended
from engine.containers.model import NANOSECONDS, Event, Status, now_ns
from engine.containers.shim import Shim
from engine.containers.shimlink import StartFailed
from engine.networks.model import Sandbox
from engine.shim.protocol import Exit

log = logging.getLogger(__name__)

STOP_TIMEOUT_S = 10
_KILL_WAIT_S = 10.0
_WRONG_KIND = (
    "Are you trying to mount a directory onto a file (or vice-versa)? "
    "Check if the specified host path exists and is the expected type"
)
_STOP_FIRST = "stop the container before removing or force remove"


class Lifecycle:
    """Everything that changes a container's status."""

    def __init__(self, core: Core, launcher: Launcher) -> None:
        self._core = core
        self._launcher = launcher

    # start

    async def start(self, container: Container) -> bool:
        """Start it; False when it runs already.

        Raises:
            Conflict: it is being removed, or is paused.
            InvalidArgument: its program cannot be executed; docker's words.
        """
        async with container.lock:
            if container.state.status is Status.PAUSED:
                raise Conflict("cannot start a paused container, try unpause instead")
            if container.state.live:
                return False
            if container.state.status in {Status.REMOVING, Status.DEAD}:
                raise Conflict("container is marked for removal and cannot be started")
            self._cancel_restart(container)
            container.restart_delay_s = 0.0
            try:
                await self._start_locked(container, restart_count=0)
            except EngineError:
                if container.definition.host.auto_remove:
                    await self._remove_locked(container, volumes=True)
                raise
            return True

    async def _start_locked(self, container: Container, *, restart_count: int) -> None:
        started_ns = now_ns()
        try:
            recorded = self._record_intent(container, started_ns)
            shim = await self._launcher.launch(container)
            try:
                await self._attach_pending(container, shim)
                if recorded is not None:
                    await recorded
                with trace.span("containers", "start"):
                    await shim.start()
            except StartFailed:
                await self._core.networks.release(container.id)
                raise
            except BaseException:
                await asyncio.shield(self._undo_launch(container, shim))
                raise
        except EngineError as err:
            await self._start_failed(container, err)
            raise worded(err, container) from err
        except BaseException:
            self._core.save_soon(container)  # the intent is void
            raise
        container.advance(
            Event.START,
            pid=shim.pid,
            exit_code=0,
            error="",
            oom_killed=False,
            started_ns=started_ns,
            restart_count=restart_count,
            stopped_by_user=False,
        )
        self._tell_network(container, self._core.networks.sandbox(container.id), "connect")
        self._core.publish(container, "start")
        self.watch(container, shim)
        self._core.save_soon(container)

    def _record_intent(self, container: Container, started_ns: int) -> "asyncio.Future[None] | None":
        """Queue a commit that it runs since `started_ns`, to be durable before its program does anything.

        Otherwise a machine that is cut off just after would come back with a
        container that never ran. It costs nothing: the commit goes on while the
        container is made. The pid is 0 until the start is known to have
        succeeded. With --rm there is nothing to come back to.
        """
        if container.definition.host.auto_remove:
            return None
        intent = container.state.advance(Event.START, pid=0, error="", started_ns=started_ns)
        recorded = self._core.store.save_state(container.id, intent)
        recorded.add_done_callback(_retrieve)  # where a failed launch leaves it unread
        return recorded

    async def _undo_launch(self, container: Container, shim: Shim) -> None:
        with contextlib.suppress(EngineError):
            await shim.delete()
        await self._core.networks.release(container.id)

    async def _start_failed(self, container: Container, err: EngineError) -> None:
        code = err.exit_code if isinstance(err, StartFailed) else 128
        error = str(worded(err, container))
        container.advance(Event.START_FAILED, exit_code=code, error=error, finished_ns=now_ns())
        container.hang_up()
        ended = container.ended()
        self._core.publish(container, "die", exitCode=str(code), execDuration="0")
        container.tell_exit(ended)
        await self._core.save(container)

    async def _attach_pending(self, container: Container, shim: Shim) -> None:
        waiting, container.pending = container.pending, []
        for attachment in waiting:
            try:
                await shim.attach(
                    attachment.client,
                    stdin=attachment.stdin,
                    stdout=attachment.stdout,
                    stderr=attachment.stderr,
                    prefix=attachment.prefix,
                    detach_keys=attachment.detach_keys,
                    framed=not container.definition.config.tty,
                )
            finally:
                attachment.close()

    # end

    def watch(self, container: Container, shim: Shim) -> None:
        """Deal with the end of a container that runs, whenever it comes."""
        container.shim = shim
        # The client's trace ends with its request, not with the container.
        self._core.begin(asyncio.get_running_loop().create_task(self._watch(container, shim)))

    async def _watch(self, container: Container, shim: Shim) -> None:
        try:
            ended = await shim.wait()
        except Unavailable:
            return  # this daemon is closing; the container runs on
        async with container.lock:
            await self._ended(container, shim, ended)

    async def _ended(self, container: Container, shim: Shim, ended: Exit) -> None:
        core = self._core
        container.shim = None
        self.note_exit(container, ended)
        again = (
            restarts.wanted(container.definition.host.restart_policy, container.state) and not core.closing
        )
        if again:
            container.advance(Event.WAIT_TO_RESTART)
        core.save_soon(container)
        sandbox = core.networks.sandbox(container.id)
        self._tell_network(container, sandbox, "disconnect")
        releasing = asyncio.ensure_future(core.networks.release(container.id))
        if sandbox is not None and sandbox.ports:
            await asyncio.wait({releasing})  # who waited for the end may want the port
        container.tell_exit(container.ended())  # also when it starts again: each run has its end
        await asyncio.gather(releasing, _delete(shim))
        if container.definition.host.auto_remove:
            await self._remove_locked(container, volumes=True)
        elif again:
            self.restart_later(container)

    def _tell_network(self, container: Container, sandbox: Sandbox | None, action: str) -> None:
        for endpoint in sandbox.endpoints if sandbox is not None else ():
            attributes = {"container": container.id, "name": endpoint.network, "type": endpoint.network}
            self._core.events.publish("network", action, endpoint.network_id, attributes)

    def note_exit(self, container: Container, ended: Exit) -> None:
        """Take an end into the container's state and tell of it."""
        finished_ns = ended.finished_at_ns or now_ns()
        container.advance(
            Event.EXIT,
            exit_code=ended.code,
            error=ended.error,
            oom_killed=ended.oom_killed,
            finished_ns=finished_ns,
        )
        if ended.oom_killed:
            self._core.publish(container, "oom")
        ran_s = max(0, finished_ns - container.state.started_ns) // NANOSECONDS
        self._core.publish(container, "die", exitCode=str(ended.code), execDuration=str(ran_s))

    # restart policy

    def restart_later(self, container: Container) -> None:
        """Start a container in `restarting` again after its back-off."""
        state = container.state
        ran_s = (state.finished_ns - state.started_ns) / NANOSECONDS
        container.restart_delay_s = restarts.delay_s(container.restart_delay_s, ran_s)
        task = asyncio.get_running_loop().create_task(self._restart(container, container.restart_delay_s))
        container.restart_task = task
        self._core.begin(task)

    async def _restart(self, container: Container, delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        async with container.lock:
            container.restart_task = None
            if container.state.status is not Status.RESTARTING:
                return
            try:
                await self._start_locked(container, restart_count=container.state.restart_count + 1)
            except EngineError as err:
                log.warning("container %s is not restarted: %s", container.id, err)

    def _cancel_restart(self, container: Container) -> None:
        if container.restart_task is not None:
            container.restart_task.cancel()
            container.restart_task = None

    # stop and kill

    async def stop(self, container: Container, *, timeout_s: int | None, signal: str) -> bool:
        """End it in an orderly way, by force after `timeout_s`; False when it did not run.

        Raises:
            InvalidArgument: no such signal.
            Conflict: it cannot be ended.
        """
        config = container.definition.config
        number = parse_signal(signal or config.stop_signal or "TERM")
        if timeout_s is None:
            timeout_s = STOP_TIMEOUT_S if config.stop_timeout is None else config.stop_timeout
        async with container.lock:
            if container.state.status is Status.RESTARTING:
                await self._give_up_restart(container)
                return True
            if not container.state.live:
                return False
            shim = container.running_shim()
            container.state = replace(container.state, stopped_by_user=True)
            await self._core.save(container)
            ended = container.wait_exit()
            self._core.publish(container, "kill", signal=str(number))
            await _signal(shim, number)
            await self._thaw(container, shim)
        await self._await_end(container, shim, ended, timeout_s)
        self._core.publish(container, "stop")
        return True

    async def _give_up_restart(self, container: Container) -> None:
        self._cancel_restart(container)
        container.advance(Event.GIVE_UP_RESTART)
        container.state = replace(container.state, stopped_by_user=True)
        container.tell_exit(container.ended())
        await self._core.save(container)

    async def _thaw(self, container: Container, shim: Shim) -> None:
        """Let a paused container run: a frozen process does not see its signal."""
        if container.state.status is Status.PAUSED:
            with contextlib.suppress(Conflict, Unavailable):
                await shim.resume()
            if container.state.status is Status.PAUSED:
                container.advance(Event.UNPAUSE)

    async def _await_end(
        self, container: Container, shim: Shim, ended: "asyncio.Future[Ended]", timeout_s: int
    ) -> None:
        try:
            async with asyncio.timeout(timeout_s if timeout_s >= 0 else None):
                await asyncio.shield(ended)
        except TimeoutError:
            self._core.publish(container, "kill", signal=str(int(signals.SIGKILL)))
            await _signal(shim, signals.SIGKILL)
            async with asyncio.timeout(_KILL_WAIT_S):
                await asyncio.shield(ended)

    async def kill(self, container: Container, signal: str) -> None:
        """Send a signal; after SIGKILL, return once the container has ended.

        Raises:
            InvalidArgument: no such signal.
            Conflict: it does not run; docker's words.
        """
        number = parse_signal(signal or "KILL")
        async with container.lock:
            if not container.state.live:
                raise Conflict(
                    f"cannot kill container: {container.id}: container {container.id} is not running"
                )
            shim = container.running_shim()
            stop = parse_signal(container.definition.config.stop_signal or "TERM")
            if number in {signals.SIGKILL, stop}:
                container.state = replace(container.state, stopped_by_user=True)
                self._core.save_soon(container)
            ended = container.wait_exit()
            await _signal(shim, number)
            self._core.publish(container, "kill", signal=str(int(number)))
        if number == signals.SIGKILL:
            async with asyncio.timeout(_KILL_WAIT_S):
                await asyncio.shield(ended)

    async def restart(self, container: Container, *, timeout_s: int | None, signal: str) -> None:
        """Stop it if it runs, and start it."""
        await self.stop(container, timeout_s=timeout_s, signal=signal)
        await self.start(container)
        self._core.publish(container, "restart")

    async def pause(self, container: Container) -> None:
        """Freeze it. Raises Conflict in docker's words."""
        async with container.lock:
            if container.state.status is Status.PAUSED:
                raise Conflict(f"container {container.id} is already paused")
            await container.running_shim().pause()
            container.advance(Event.PAUSE)
            self._core.publish(container, "pause")
            await self._core.save(container)

    async def unpause(self, container: Container) -> None:
        """Thaw it. Raises Conflict in docker's words."""
        async with container.lock:
            if container.state.status is not Status.PAUSED:
                raise Conflict(f"container {container.id} is not paused")
            await container.running_shim().resume()
            container.advance(Event.UNPAUSE)
            self._core.publish(container, "unpause")
            await self._core.save(container)

    # remove

    async def remove(self, container: Container, *, force: bool, volumes: bool) -> None:
        """Remove it and all it wrote; with `volumes` its anonymous volumes too.

        Raises:
            Conflict: it runs and `force` is not given; docker's words.
        """
        removed = container.wait_removal()
        if force and container.state.live:
            with contextlib.suppress(Conflict, TimeoutError):
                await self.kill(container, "KILL")
        async with container.lock:
            if removed.done() and not removed.result().error:
                return  # --rm was faster
            if container.state.live or (container.state.status is Status.RESTARTING and not force):
                paused = container.state.status is Status.PAUSED
                advice = " and must be unpaused first" if paused else f": {_STOP_FIRST}"
                raise Conflict(
                    f'cannot remove container "/{container.name}": '
                    f"container is {container.state.status}{advice}"
                )
            self._cancel_restart(container)
            await self._remove_locked(container, volumes=volumes)

    async def _remove_locked(self, container: Container, *, volumes: bool) -> None:
        core = self._core
        if container.state.status is not Status.REMOVING:
            container.advance(Event.REMOVE)
        container.hang_up()
        try:
            await self._remove_row(container)
            await asyncio.to_thread(self._remove_files, container)
        except (EngineError, OSError) as err:
            container.advance(Event.REMOVE_FAILED, error=str(err))
            container.tell_removal_failed(str(err))
            raise
        core.drop(container)
        if volumes:
            await self._remove_volumes(container)
        core.publish(container, "destroy")
        container.tell_removal()

    async def _remove_row(self, container: Container) -> None:
        """Commit the removal. Where the disk is full, what the container wrote goes first and makes room."""
        try:
            await self._core.store.delete(container.id)
        except OutOfSpace:
            await asyncio.to_thread(self._core.snapshotter.remove, container.id)
            await self._core.store.delete(container.id)

    def _remove_files(self, container: Container) -> None:
        self._core.snapshotter.remove(container.id)
        self._core.store.remove_files(container.id)

    async def _remove_volumes(self, container: Container) -> None:
        for point in container.definition.mounts:
            if point.anonymous and point.name:
                # Shared with another container by --volumes-from, or removed by hand: not ours to insist.
                with contextlib.suppress(EngineError):
                    await self._core.volumes.remove(point.name, in_use=self.volume_uses)

    def volume_uses(self, name: str) -> list[str]:
        """Return the ids of the containers that have this volume."""
        return [
            container.id
            for container in self._core.containers.values()
            if any(point.type == "volume" and point.name == name for point in container.definition.mounts)
        ]


async def _signal(shim: Shim, number: int) -> None:
    with contextlib.suppress(Conflict, Unavailable):  # it is ending by itself, or its shim has ended
        await shim.kill(number)


def _retrieve(done: "asyncio.Future[None]") -> None:
    if not done.cancelled():
        done.exception()


async def _delete(shim: Shim) -> None:
    try:
        await shim.delete()
    except EngineError as err:
        log.warning("shim of container %s: %s", shim.container_id, err)


def worded(err: EngineError, container: Container) -> EngineError:
    """Return a failed start in the words that docker's clients look for.

    Source: docker/cli v28, cli/command/container/run.go, toStatusError.
    """
    if not isinstance(err, StartFailed):
        return err
    return InvalidArgument(
        f"failed to create task for container: {start_text(err, container.definition.argv)}"
    )


def start_text(err: StartFailed, argv: tuple[str, ...]) -> str:
    """Return why a process could not be started, as runc and docker say it."""
    if err.step.startswith("mount ") and err.errno == errno.ENOTDIR:
        return f"{err}: {_WRONG_KIND}"
    if err.step not in {"look up", "exec"} or not argv:
        return str(err)
    program = argv[0]
    if err.errno == errno.ENOENT and "/" not in program:
        return f'exec: "{program}": executable file not found in $PATH'
    verb = "stat " if err.errno == errno.ENOENT else ""
    return f'exec: "{program}": {verb}{program + ": " if verb else ""}{os.strerror(err.errno).lower()}'
