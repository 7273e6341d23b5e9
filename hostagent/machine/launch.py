"""From a machine's name to its running engine: agent spawned, machine made and started if they must be.

The command line comes here only when its fast path fails. Everything is safe
to do twice at once: settings are made under a lock, a second agent ends by
itself, and two starts are one.
"""

import contextlib
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from engine.base.errors import AlreadyExists, NotFound, Unavailable
from engine.base.lockfile import holder_of
from engine.base.process import module_argv, spawn
from hostagent.client.agent import AgentClient
from hostagent.machine import accel, store
from hostagent.machine.model import Machine, check_name
from hostagent.paths import DEFAULT_MACHINE, MachinePaths, make_directories

_AGENT_TIMEOUT_S = 30.0
_OTHER_AGENT_TIMEOUT_S = 10.0
_EXIT_SECOND = 3  # of an agent that is not the first; the agent itself is not imported here
_RETRY_S = 0.02
_TAIL_BYTES = 4000

Progress = Callable[[str], None]


def ensure_running(name: str, *, progress: Progress) -> Path:
    """Return the Docker socket of the machine `name`, once the engine in it answers.

    The default machine is made when there is none yet.

    Raises:
        NotFound: there is no machine of another name.
        EngineError: it cannot be started; the message says why.
    """
    check_name(name)
    if not MachinePaths(name).settings.exists():
        if name != DEFAULT_MACHINE:
            raise NotFound("machine", name, hint=f"pyengine machine init {name}")
        with contextlib.suppress(AlreadyExists):  # another command was first
            store.create(Machine(name, arch=accel.host_arch()))
            progress(f"made machine {name} with 2 cpus, 1 GiB of memory and a 64 GiB sparse disk")
    client = ensure_agent(name)
    try:
        return Path(str(client.start(progress)["docker_socket"]))
    except KeyboardInterrupt:
        progress(f"machine {name} goes on starting; `pyengine machine stop {name}` ends it")
        raise


def ensure_agent(name: str) -> AgentClient:
    """Return a client of the machine's agent, which is spawned when none answers.

    Raises:
        Unavailable: the agent does not start; the message has its last words.
    """
    paths = MachinePaths(name)
    client = AgentClient(paths.agent_socket)
    if _answers(client, paths):
        return client
    make_directories(paths)
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_CLOEXEC", 0)
    log_fd = os.open(paths.agent_log, flags, 0o600)
    try:
        argv = module_argv("hostagent.agent.main", name)
        agent = spawn(argv, env=agent_environment(os.environ), output_fd=log_fd)
    finally:
        os.close(log_fd)
    started = time.monotonic()
    while not _answers(client, paths):
        code = agent.poll()
        another = code == _EXIT_SECOND  # it found the lock taken: somebody else's agent is about to answer
        if code is not None and not another:
            raise Unavailable(f"the agent of machine {name} does not start: {_last_line(paths.agent_log)}")
        if time.monotonic() - started > (_OTHER_AGENT_TIMEOUT_S if another else _AGENT_TIMEOUT_S):
            raise _no_answer(paths, elsewhere=another)
        time.sleep(_RETRY_S)  # it may be another command's agent: there is no event for both
    agent.returncode = 0 if agent.returncode is None else agent.returncode  # it lives on by itself
    return client


def agent_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of an agent: all of the user's, who chooses directories, emulator and proxies.

    What is relative to the working directory is made absolute, as the agent has another one.
    """
    env = dict(environ)
    for name, value in environ.items():
        if name == "PYENGINE_HOME" or (name.startswith("QEMU_SYSTEM_") and os.sep in value):
            env[name] = os.path.abspath(value) if value else value
    return env


def _no_answer(paths: MachinePaths, *, elsewhere: bool) -> Unavailable:
    holder = holder_of(paths.agent_lock)
    if elsewhere and holder:
        return Unavailable(
            f"the agent of machine {paths.name}, process {holder}, does not answer in {paths.run}",
            hint="if it was started with another XDG_RUNTIME_DIR, set that one here",
        )
    return Unavailable(f"the agent of machine {paths.name} does not answer", hint=f"see {paths.agent_log}")


def wait_for_agent_end(name: str) -> None:
    """Return when no agent of the machine `name` lives any more.

    Raises:
        Unavailable: one still does after a while.
    """
    deadline = time.monotonic() + _AGENT_TIMEOUT_S
    while (holder := holder_of(MachinePaths(name).agent_lock)) is not None:
        if time.monotonic() > deadline:
            raise Unavailable(f"the agent of machine {name}, process {holder}, does not end")
        time.sleep(_RETRY_S)  # the lock of another process tells nobody when it is dropped


def _answers(client: AgentClient, paths: MachinePaths) -> bool:
    if not paths.agent_socket.exists():
        return False
    try:
        client.status()
    except Unavailable:
        return False
    return True


def _last_line(path: Path) -> str:
    lines = path.read_bytes()[-_TAIL_BYTES:].decode(errors="replace").strip().splitlines()
    return lines[-1].split(": ", 1)[-1] if lines else "it said nothing"
