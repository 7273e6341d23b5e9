"""The last steps of every process, first of a container or not: who it is, what it runs, execve.

From here on the files of the container surround the process, so nothing is
imported and every call is a system call. The order matters: descriptors
first, the filter and the capabilities last, as each step needs what later
ones take away.
"""

import contextlib
import errno
import fcntl
import os
import resource
from collections.abc import Mapping, Sequence
from typing import NoReturn

import msgspec

from engine.kernel import prctl, seccomp, system, tty
from engine.kernel.process import close_range, set_oom_score_adj
from engine.runtime import home, hooks, identity, program, scheduling, seal
from engine.runtime.handshake import InitLine
from engine.runtime.hooks import HookPlan
from engine.runtime.model import Stdio
from engine.runtime.plan import ProcessPlan
from engine.runtime.progress import Progress

LINE_FD = 3
KEPT_FD = 4
MOUNTS_FD = 5
_OUT_OF_THE_WAY = 64
DEFAULT_UMASK = 0o022
_STDIO_FDS = 3
_LISTENER_FLAGS = seccomp.FLAG_NEW_LISTENER | seccomp.FLAG_WAIT_KILLABLE_RECV


class Preserved(msgspec.Struct, frozen=True):
    """Descriptors that the program gets besides its streams."""

    numbers: tuple[int, ...]  # as the program has them
    first_fd: int  # where they are until `preserve`, in the same order


NONE_PRESERVED = Preserved((), 0)


class OutsideRoot(OSError):
    """The working directory is not below the container's root."""


def take_descriptors(
    line_fd: int, keep_fd: int | None, stdio: Stdio | None, more_fds: Sequence[int] = ()
) -> None:
    """Put stdio at 0 to 2, the line at `LINE_FD`, `keep_fd` at `KEPT_FD`, `more_fds` from `MOUNTS_FD` on.

    All others are closed.
    """
    places = {LINE_FD: line_fd} | {MOUNTS_FD + number: fd for number, fd in enumerate(more_fds)}
    if keep_fd is not None:
        places[KEPT_FD] = keep_fd
    if stdio is not None:
        places |= {0: stdio.stdin_fd, 1: stdio.stdout_fd, 2: stdio.stderr_fd}
    _put(places)
    if keep_fd is None:
        close_range(KEPT_FD, KEPT_FD)
    close_range(MOUNTS_FD + len(more_fds))


def _put(places: Mapping[int, int]) -> None:
    """Copy each descriptor to its place; the copies in between have numbers above all places."""
    # Copies first: a source may have the number of another's place.
    beyond = max(_OUT_OF_THE_WAY, max(places) + 1)
    copies = {place: fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, beyond) for place, fd in places.items()}
    for place, fd in copies.items():
        os.dup2(fd, place, inheritable=place < LINE_FD)


def preserve(line: InitLine, listener_fd: int | None, preserved: Preserved) -> int | None:
    """Give the descriptors that the program gets back their numbers; return the place of `listener_fd`.

    Line and listener make way. Nothing is inherited yet: hooks of the container run before.
    """
    if not preserved.numbers:
        return listener_fd
    line_at = max(preserved.numbers) + 1
    places = {number: preserved.first_fd + index for index, number in enumerate(preserved.numbers)}
    places[line_at] = line.fileno()
    if listener_fd is not None:
        places[line_at + 1] = listener_fd
    _put(places)
    line.move(line_at)
    for fd in {*places.values()} - {*places}:
        os.close(fd)
    close_range(line_at + (1 if listener_fd is None else 2))
    return None if listener_fd is None else line_at + 1


def be_root_inside() -> None:
    """Take the root of the user namespace that this process is in: it came as nobody.

    The change of user has dropped the wish to end with the maker, so that is wished again.
    """
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    seal.end_with_maker()


def use_terminal(slave_fd: int) -> None:
    """Make the terminal the process' own: controlling, and its three streams."""
    tty.make_controlling(slave_fd)
    for number in range(_STDIO_FDS):
        os.dup2(slave_fd, number)
    os.close(slave_fd)


def score_oom(plan: ProcessPlan, line: InitLine) -> None:
    """Set oom_score_adj, through the host's /proc that is still there."""
    score = plan.process.oom_score_adj
    if score is None:
        return
    try:
        set_oom_score_adj(score)
    except PermissionError:
        line.warning(f"oom_score_adj {score}: not permitted; lowering it needs CAP_SYS_RESOURCE")


def run(
    plan: ProcessPlan,
    line: InitLine,
    progress: Progress,
    own: tuple[int, int],
    *,
    listener_fd: int | None = None,
    found: HookPlan | None = None,
    preserved: Preserved = NONE_PRESERVED,
) -> NoReturn:
    """Become the process of `plan`: tell READY, wait for START, execute. Never returns.

    START comes by the line, or from whoever connects to `listener_fd`. The startContainer hooks of
    `found` run after it, each confined as the process itself; `preserved` is for the program alone.

    Raises:
        OSError: a step failed; `progress` has its name.
    """
    process = plan.process
    progress.at("place the descriptors to preserve")
    listener_fd = preserve(line, listener_fd, preserved)
    progress.at("set resource limits")
    for number, soft, hard in plan.rlimits:
        _set_rlimit(number, soft, hard, line)
    progress.at("own the streams")
    for fd in range(_STDIO_FDS):
        _own(fd, process.user.uid)
    os.umask(DEFAULT_UMASK if process.user.umask is None else process.user.umask)
    with contextlib.suppress(OSError):  # a kernel without key rings, or out of quota: nothing to protect
        system.join_session_keyring("_ses")
    progress.at("become user", f"{process.user.uid}:{process.user.gid}")
    identity.become(process, plan.masks, last=plan.last_capability, set_groups=plan.set_groups)
    identity.raise_effective()
    progress.at("chdir to cwd", process.cwd)
    os.chdir(process.cwd)
    if not system.raw_getcwd().startswith(b"/"):
        raise OutsideRoot(errno.EXDEV, "the working directory is outside of the container", process.cwd)
    progress.at("look up", process.args[0])
    path = program.find(process.args[0], plan.environment)
    program.refuse_own_executable(path, own)
    environment = {os.fsencode(name): os.fsencode(value) for name, value in plan.environment.items()}
    if b"HOME" not in environment:
        progress.at("find the home of user", str(process.user.uid))
        environment[b"HOME"] = os.fsencode(home.find(process.user.uid, line))
    arguments = [os.fsencode(word) for word in process.args]
    if process.no_new_privileges:
        prctl.set_no_new_privs()
    if found is None or not found.start_container:
        scheduling.apply(plan.scheduling, progress)
    progress.at("wait for start")
    seal.survive_maker()
    line.await_start(listener_fd)
    if found is not None and found.start_container:
        _run_hooks(plan, found, progress, own)
        scheduling.apply(plan.scheduling, progress)  # a SCHED_DEADLINE process could not have forked them
    progress.at("confine")
    _confine(plan, line)
    progress.at("exec", process.args[0])
    for number in preserved.numbers:
        os.set_inheritable(number, True)
    seal.reset_signals()
    os.execve(path, arguments, environment)  # noqa: S606 (this is what a runtime is for)


def _run_hooks(plan: ProcessPlan, found: HookPlan, progress: Progress, own: tuple[int, int]) -> None:
    document = found.document("created", os.getpid())
    for step in found.start_container:
        progress.at(f"{step.kind} hook", step.path)
        program.refuse_own_executable(step.path, own)
        hooks.run(step, document, lambda: _confine(plan))


def _confine(plan: ProcessPlan, line: InitLine | None = None) -> None:
    """Take the final capabilities and load the filter, which needs one of them without no_new_privs.

    Without `line` nobody answers: a call that is for an agent fails with ENOSYS.
    """
    confined = plan.process.no_new_privileges
    if confined:
        identity.confine(plan.masks)
    if plan.filter is not None:
        _filter(plan.filter, plan.filter_flags, line)
    if not confined:
        identity.confine(plan.masks)


def _filter(program: bytes, flags: int, line: InitLine | None) -> None:
    if line is None or not flags & seccomp.FLAG_NEW_LISTENER:
        seccomp.set_mode_filter(program, flags & ~_LISTENER_FLAGS)
        return
    line.listener(seccomp.set_mode_filter(program, flags))


def _own(fd: int, uid: int) -> None:
    """Let the user reopen its streams by name; not those of devices such as /dev/null."""
    found = os.fstat(fd)
    if found.st_uid == uid or (found.st_rdev and not os.isatty(fd)):
        return
    with contextlib.suppress(PermissionError, OSError):  # read-only, or no owner to change
        os.fchown(fd, uid, -1)


def _set_rlimit(number: int, soft: int, hard: int, line: InitLine) -> None:
    try:
        resource.setrlimit(number, (soft, hard))
    except (PermissionError, ValueError):  # Python's word for EPERM here
        _, allowed = resource.getrlimit(number)
        line.warning(f"resource limit {number}: cannot be raised to {hard}; it stays at {allowed}")
        if allowed != resource.RLIM_INFINITY and (soft == resource.RLIM_INFINITY or soft > allowed):
            soft = allowed
        resource.setrlimit(number, (soft, allowed))


def report(line: InitLine, progress: Progress, err: BaseException) -> None:
    """Tell why this process ends; formatted by the other side."""
    number, text = 0, progress.text
    if isinstance(err, OSError):
        number = err.errno or 0
        if progress.said:
            text = f"{text}: {progress.said}" if text else progress.said
        elif number == 0 or isinstance(err, OutsideRoot | program.OwnExecutable):
            text = f"{text}: {err.strerror}"
    else:
        text = f"{text}: {err!r}"
    with contextlib.suppress(OSError):
        line.error(progress.step, number, text)
