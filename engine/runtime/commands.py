"""The verbs of `pyengine-oci` that make, change and end containers."""

import contextlib
import os
import select
import signal
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from engine.base.errors import Conflict, InvalidArgument, NotFound, NotSupported
from engine.runtime import birth, hooks, inherited, outside, reading, validate
from engine.runtime import delete as ending
from engine.runtime.cgroups import place
from engine.runtime.cgroups.select import cgroup_at
from engine.runtime.create import create, prepare
from engine.runtime.errors import StartFailed
from engine.runtime.hooks import HookPlan
from engine.runtime.listener import agent_of
from engine.runtime.model import Created
from engine.runtime.store import Container, Status, Store
from engine.spec.runtime import Resources, Spec

_END_TIMEOUT_MS = 5000
_OPTION_REASONS = {
    "criu": "there is no checkpoint and no restore",
    "ignore_paused": "a process that joins a paused container waits with it",
    "systemd_cgroup": "control groups are not asked of systemd; have the engine use cgroupfs",
    "no_new_keyring": "every container has a key ring of its own",
    "process_label": "SELinux labels are not supported",
    "apparmor": "AppArmor profiles are not supported",
    "cgroup": "processes join the container's own control group",
}


class Context(msgspec.Struct, frozen=True):
    """What every verb is given."""

    flags: Namespace
    store: Store
    warn: Callable[[str], None]

    def container(self) -> Container:
        """Return the container that the command line names."""
        return self.store.find(self.flags.id)


def refuse_unsupported(flags: Namespace) -> None:
    """Refuse the flags that this runtime knows and does not honour.

    Raises:
        NotSupported: one is set.
    """
    for name, reason in _OPTION_REASONS.items():
        if getattr(flags, name, None):
            raise NotSupported(f"--{name.replace('_', '-')} is not supported: {reason}")
    if flags.rootless_mode != "auto":
        mode = validate.shown(flags.rootless_mode)
        raise NotSupported(f"--rootless {mode} is not supported: it is found out by itself")


def create_only(context: Context) -> int:
    """Make a container whose program waits for `start`."""
    with _made(context, detached=True, waits=True) as (_, created):
        os.close(created.control_fd)
        os.close(created.pidfd)
    return 0


def run(context: Context) -> int:
    """Make a container, run it, and unless detached wait for its end and delete it."""
    detached = context.flags.detach
    with _made(context, detached=detached, waits=False) as (container, created):
        found = _hooks_of(container, Path(context.flags.bundle).absolute())
        if detached:
            _start(created, found)
            os.close(created.pidfd)
            return 0
        code = outside.foreground(created, lambda: _start(created, found))
        if not context.flags.keep:
            _forget(container, created.cgroup, context.warn)
    return code


def _hooks_of(container: Container, bundle: Path | str) -> HookPlan:
    return hooks.plan(container.spec(), bundle, container.id)


def _start(created: Created, found: HookPlan) -> None:
    """Start the container and run its poststart hooks; as with runc, one that fails is a failure to start."""
    birth.start(created, patience_s=hooks.patience(found.start_container, birth.READY_TIMEOUT_S))
    if found.poststart:
        hooks.run_all(found.poststart, found.document("running", created.pid), found.bundle)


@contextlib.contextmanager
def _made(context: Context, *, detached: bool, waits: bool) -> Iterator[tuple[Container, Created]]:
    """Lend the container and its process; when the caller fails, nothing of either is left."""
    flags = context.flags
    given = inherited.given(flags.preserve_fds, os.environ, context.warn)
    bundle = flags.bundle.absolute()
    _refuse_unspeakable(bundle)
    text, spec = _read_spec(bundle)
    if flags.no_pivot:
        context.warn("--no-pivot: the host's mounts stay below the root of the container")
    outside.check_console(spec.process, flags.console_socket, detached=detached)
    with contextlib.ExitStack() as undo:
        container = context.store.claim(flags.id)
        undo.callback(container.remove)
        container.config_path.write_bytes(text)
        _refuse_populated(spec, container.id)
        listener = undo.enter_context(container.listen()) if waits else None
        told = inherited.told(spec, given)
        try:
            created = create(
                told,
                bundle,
                container.id,
                stdio=outside.STDIO,
                state_path=container.state_path,
                listener_fd=listener.fileno() if listener else None,
                prepared=prepare(told, bundle, container.id, pivot=not flags.no_pivot),
                preserved_fds=given.numbers,
            )
        except StartFailed:
            container.remove()
            hooks.run_poststop(hooks.plan(spec, bundle, container.id), context.warn)
            raise
        undo.callback(_abandon, created, container, context.warn)
        for warning in created.warnings:
            context.warn(warning)
        outside.tell(created, flags)
        yield container, created
        undo.pop_all()


def _read_spec(bundle: Path) -> tuple[bytes, Spec]:
    """Return `config.json` of a bundle, whatever may lie there in its place."""
    path = bundle / "config.json"
    try:
        text = reading.contents(path)
    except (FileNotFoundError, NotADirectoryError):
        raise InvalidArgument(f"not a bundle: {path} does not exist") from None
    return text, reading.decode(text, Spec, noun=str(path))


def _refuse_unspeakable(bundle: Path) -> None:
    """Refuse a path that no JSON can hold: the state, and what hooks are told, name it."""
    try:
        str(bundle).encode()
    except UnicodeEncodeError:
        raise InvalidArgument(f"bundle: its path is not UTF-8: {validate.shown(str(bundle))}") from None


def _refuse_populated(spec: Spec, container_id: str) -> None:
    """Refuse a control group with processes: `delete` would kill them, whosever they are."""
    path = place.path_of(spec.linux.cgroups_path, container_id)
    if path and (group := cgroup_at(path)).processes():
        raise Conflict(f"control group {group.path} has processes already")


def _abandon(created: Created, container: Container, warn: Callable[[str], None]) -> None:
    """Undo a container that was made; descriptors end with this process."""
    outside.end_child(created)
    _forget(container, created.cgroup, warn)


def _forget(container: Container, cgroup: str, warn: Callable[[str], None]) -> None:
    found = None
    with contextlib.suppress(OSError, InvalidArgument):  # damaged: it must go all the same
        found = _hooks_of(container, container.state().bundle)
    ending.delete(cgroup, container.path)
    container.remove()
    if found is not None:
        hooks.run_poststop(found, warn)


def start(context: Context) -> int:
    """Execute the program of a created container."""
    container = context.container()
    found = container.demand("start")
    plan = _hooks_of(container, found.bundle)
    line = container.connect()
    try:
        agent = agent_of(container.spec(), container.id, found.bundle)
        _start(Created(found.pid, -1, None, found.cgroup, (), line.detach(), agent=agent), plan)
    except StartFailed as err:
        cgroup_at(found.cgroup).signal(signal.SIGKILL)
        if err.step in hooks.STEPS:  # runtime.md, "Lifecycle": it goes on where the container is destroyed
            _forget(container, found.cgroup, context.warn)
        raise
    return 0


def kill(context: Context) -> int:
    """Send a signal."""
    container = context.container()
    number = signal_number(context.flags.signal)
    if context.flags.all and container.status() is Status.STOPPED:
        # Where the PID namespace is shared others live on; with runc they are reached all the same.
        cgroup_at(container.state().cgroup).signal(number)
        return 0
    found = container.demand("kill")
    paused = container.status() is Status.PAUSED
    with container.pidfd() as pidfd:
        ending.kill(found.cgroup, pidfd, number, everyone=context.flags.all)
    if paused and number == signal.SIGKILL:
        ending.resume(found.cgroup)  # frozen, it would not even die
    return 0


def signal_number(text: str) -> int:
    """Return the number of `9`, `KILL`, `SIGKILL`, `sigkill` or `RTMIN+3`.

    Raises:
        InvalidArgument: it is none of a signal.
    """
    if text.isascii() and text.isdecimal() and 0 < int(text) < signal.NSIG:
        return int(text)
    name, sign, steps = text.upper().removeprefix("SIG").partition("+")
    found = getattr(signal.Signals, f"SIG{name}", None)
    if found is not None and not sign:
        return int(found)
    last = signal.SIGRTMAX - signal.SIGRTMIN
    if found == signal.SIGRTMIN and steps.isdecimal() and steps.isascii() and int(steps) <= last:
        return int(found) + int(steps)
    raise InvalidArgument(f"unknown signal: {validate.shown(text)}")


def delete(context: Context) -> int:
    """Remove what is left of a container."""
    force = context.flags.force
    try:
        container = context.container()
    except NotFound:
        if force:
            return 0
        raise
    if not _is_complete(container):
        if not force:
            container.state()  # says what is wrong
        _forget_incomplete(container)
        return 0
    found = container.state() if force else container.demand("delete")
    if force and not found.cgroup:
        _end_init(container)
    _forget(container, found.cgroup, context.warn)
    return 0


def _is_complete(container: Container) -> bool:
    """Tell whether its making came to an end, and left a state that names a control group."""
    try:
        cgroup_at(container.state().cgroup)
    except (Conflict, InvalidArgument):
        return False
    return True


def _end_init(container: Container) -> None:
    """Kill a container that no control group holds together, by its first process, and wait for its end."""
    with contextlib.suppress(Conflict), container.pidfd() as pidfd:
        ending.kill("", pidfd, signal.SIGKILL)
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        if not poll.poll(_END_TIMEOUT_MS):
            raise Conflict(f"container {container.id}: its first process does not end")


def _forget_incomplete(container: Container) -> None:
    """Remove a container whose making was cut short, or whose state is damaged: its spec names its group.

    Its poststop hooks do not run: what they would be told of it is not known.
    """
    path = ""
    with contextlib.suppress(OSError, InvalidArgument):
        path = container.spec().linux.cgroups_path
    with contextlib.suppress(InvalidArgument, NotSupported):
        ending.delete(place.path_of(path, container.id), container.path)
    container.remove()


def pause(context: Context) -> int:
    """Stop all processes."""
    ending.pause(context.container().demand("pause").cgroup)
    return 0


def resume(context: Context) -> int:
    """Let all processes run again."""
    ending.resume(context.container().demand("resume").cgroup)
    return 0


def update(context: Context) -> int:
    """Change limits."""
    from engine.runtime.update import updated  # noqa: PLC0415 (of this verb only)

    container = context.container()
    found = container.demand("update")
    change = _change(context.flags)
    spec = container.spec()
    resources = updated(spec.linux.resources or Resources(), change)
    for warning in cgroup_at(found.cgroup).update(resources):
        context.warn(warning)
    linux = msgspec.structs.replace(spec.linux, resources=resources)
    container.rewrite(msgspec.structs.replace(spec, linux=linux))
    return 0


def _change(flags: Namespace) -> Resources:
    from engine.runtime.update import asked  # noqa: PLC0415 (of this verb only)

    change = asked(flags)
    if flags.resources is not None:
        if change != Resources():
            raise InvalidArgument("--resources and other limits at once", hint="give one of them")
        path = Path("/proc/self/fd/0") if str(flags.resources) == "-" else flags.resources
        change = reading.document(path, Resources)
    validate.check(change, "linux.resources")
    return change


def exit_code_of(err: BaseException) -> int:
    """Return the exit status for a failure: a program's own, or 1."""
    if isinstance(err, StartFailed) and err.exit_code in (126, 127):
        return err.exit_code
    return 1
