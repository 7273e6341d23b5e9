"""The verb `exec` of `pyengine-oci`: another program in a container."""

from argparse import Namespace

import msgspec

from engine.base.errors import InvalidArgument
from engine.runtime import birth, inherited, outside, reading
from engine.runtime.commands import Context
from engine.runtime.exec import enter
from engine.runtime.listener import agent_of
from engine.spec.runtime import Capabilities, Process, Spec, User


def execute(context: Context) -> int:
    """Run another program in a container."""
    flags = context.flags
    given = inherited.given(flags.preserve_fds, {}, context.warn)
    container = context.container()
    found = container.demand("exec")
    spec = container.spec()
    process = exec_process(flags, spec)
    outside.check_console(process, flags.console_socket, detached=flags.detach)
    with container.pidfd() as pidfd:
        created = enter(
            found.pid,
            spec,
            process,
            stdio=outside.STDIO,
            cgroup=found.cgroup,
            target_pidfd=pidfd,
            preserved_fds=given.numbers,
        )
        created = msgspec.structs.replace(
            created, agent=agent_of(spec, container.id, found.bundle, found.pid)
        )
    try:
        for warning in created.warnings:
            context.warn(warning)
        outside.tell(created, flags)
        if not flags.detach:
            return outside.foreground(created, lambda: birth.start(created))
        birth.start(created)
    except BaseException:
        outside.end_child(created)
        raise
    return 0


def exec_process(flags: Namespace, spec: Spec) -> Process:
    """Return the process that `exec` asks for: a whole one, or the container's own with changes.

    Raises:
        InvalidArgument: there is nothing to execute, or a value is malformed.
    """
    if flags.process is not None:
        return reading.document(flags.process, Process)
    words = tuple(flags.args[1:] if flags.args[:1] == ["--"] else flags.args)
    if not words or spec.process is None:
        raise InvalidArgument("exec: no command given")
    base = spec.process
    user = _user(flags.user, base.user) if flags.user else base.user
    if flags.additional_gids:
        user = msgspec.structs.replace(user, additional_gids=(*user.additional_gids, *flags.additional_gids))
    return msgspec.structs.replace(
        base,
        args=words,
        env=(*base.env, *flags.env),
        cwd=flags.cwd or base.cwd,
        terminal=flags.tty,
        user=user,
        no_new_privileges=base.no_new_privileges or flags.no_new_privs,
        capabilities=_with(base.capabilities, tuple(flags.cap)),
    )


def _user(text: str, base: User) -> User:
    uid, colon, gid = text.partition(":")
    if not (text.isascii() and uid.isdecimal() and (gid.isdecimal() or not colon)):
        raise InvalidArgument(f"invalid user: {text!r}", hint="give numbers, as 1000 or 1000:1000")
    return msgspec.structs.replace(base, uid=int(uid), gid=int(gid) if colon else base.gid)


def _with(base: Capabilities | None, more: tuple[str, ...]) -> Capabilities | None:
    if not more:
        return base
    base = base or Capabilities()
    return msgspec.structs.replace(
        base,
        bounding=(*base.bounding, *more),
        effective=(*base.effective, *more),
        permitted=(*base.permitted, *more),
    )
