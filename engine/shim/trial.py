"""Run containers through a nursery of one's own, without a daemon, and time them.

A program, for `pyengine bench runtime`: it starts a nursery, then takes one
order a line from standard input and writes one answer a line, both JSON, until
its input ends. What it times is the way of a container from the request to
fork a shim to the shim's word that nothing of the container is left.
"""

import array
import contextlib
import os
import select
import socket
import sys
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import msgspec

from engine.base import jsonio
from engine.base.errors import EngineError, Unavailable
from engine.base.ids import new_id
from engine.base.process import spawn
from engine.shim.cleanup import remove_leftovers
from engine.shim.launch import nursery_argv
from engine.shim.peer import receive
from engine.shim.protocol import (
    AnyAnswer,
    AnyRequest,
    Delete,
    Done,
    Exited,
    Failed,
    Hello,
    Kill,
    Reader,
    Spawn,
    SpawnRequest,
    Start,
    answer_decoder,
    encode,
)
from engine.spec.runtime import Spec

_TIMEOUT_S = 120.0
_SIGKILL = 9
_END_ID = 2


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """Run containers of the bundle directory `bundle`: its config.json, each with a cgroup of its own."""

    bundle: str
    count: int = 1
    parallel: int = 1
    log: bool = False  # with a json-file log in `bundle`, which is removed after
    hold: bool = False  # one container, which runs until standard input has another line


class Answer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How it went: wall-clock seconds for all, or what failed; `shim_pid` of the one that is held."""

    seconds: float = 0.0
    shim_pid: int = 0
    error: str = ""


class _Container:
    """One container on its way; what its shim says next decides what it is told."""

    def __init__(self, nursery: socket.socket, request: SpawnRequest) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            fds = array.array("i", [theirs.fileno()])
            frame = encode(Spawn(request=request, sent_ns=time.monotonic_ns()), 1)
            nursery.sendmsg([frame], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
        self.bundle = Path(request.bundle)
        self.socket = ours
        self.shim_pid = 0
        self.runs = self.is_over = False
        self._reader: Reader[AnyAnswer] = Reader(answer_decoder)

    def step(self) -> None:
        """Take what the shim says."""
        data, _ = receive(self.socket)
        if not data:
            raise Unavailable("the shim has ended")
        for message, _ in self._reader.feed(data):
            self._take(message)

    def end(self) -> None:
        """Kill what runs."""
        self._tell(Kill(signal=_SIGKILL, everyone=True))

    def _take(self, message: AnyAnswer) -> None:
        match message:
            case Hello():
                self.shim_pid = message.shim_pid
                self._tell(Start(id=1))
            case Exited():
                self._tell(Delete(id=_END_ID))
            case Failed():
                raise Unavailable(message.message)
            case Done():
                self.runs = self.runs or message.id == 1
                self.is_over = message.id == _END_ID

    def _tell(self, request: AnyRequest) -> None:
        self.socket.sendall(encode(request))


class Trial:
    """A nursery, and the directory in which its containers' bundles are made."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._nursery, theirs = socket.socketpair()
        with theirs:
            spawn(nursery_argv(theirs.fileno()), output_fd=2, pass_fds=[theirs.fileno()])

    def run(self, order: Order) -> Answer:
        """Run the containers of an order to their end.

        Raises:
            EngineError, OSError: one of them failed; nothing of any is left.
        """
        requests = self._requests(order)
        with self._cleaned(order, requests):
            started = time.perf_counter()
            self._run_all(requests, order.parallel)
            return Answer(seconds=time.perf_counter() - started)

    def hold(self, order: Order) -> Iterator[Answer]:
        """Run one container; it is ended when the iterator goes on."""
        requests = self._requests(order)
        with self._cleaned(order, requests):
            container = _Container(self._nursery, requests[0])
            while not container.runs:
                container.step()
            yield Answer(shim_pid=container.shim_pid)
            container.end()
            while not container.is_over:
                container.step()
            container.socket.close()
        yield Answer()

    def _run_all(self, requests: list[SpawnRequest], parallel: int) -> None:
        waiting = deque(requests)
        live: dict[int, _Container] = {}
        poll = select.poll()
        while waiting or live:
            while waiting and len(live) < parallel:
                container = _Container(self._nursery, waiting.popleft())
                live[container.socket.fileno()] = container
                poll.register(container.socket, select.POLLIN)
            ready = poll.poll(_TIMEOUT_S * 1000)
            if not ready:
                raise Unavailable(f"no shim has said anything for {_TIMEOUT_S:.0f} s")
            for fd, _ in ready:
                live[fd].step()
                if live[fd].is_over:
                    poll.unregister(fd)
                    live.pop(fd).socket.close()

    def _requests(self, order: Order) -> list[SpawnRequest]:
        spec = jsonio.read(Path(order.bundle) / "config.json", Spec)
        return [self._request(order, spec) for _ in range(order.count)]

    def _request(self, order: Order, spec: Spec) -> SpawnRequest:
        container_id = new_id()
        bundle = self._directory / container_id
        bundle.mkdir(mode=0o700)
        linux = msgspec.structs.replace(spec.linux, cgroups_path=f"{spec.linux.cgroups_path}-{container_id}")
        document = jsonio.encode(msgspec.structs.replace(spec, linux=linux))
        (bundle / "config.json").write_bytes(document)
        return SpawnRequest(
            container_id=container_id,
            bundle=str(bundle),
            exit_path=str(self._directory / f"{container_id}.exit"),
            durable=False,
            log_driver="json-file" if order.log else "none",
            log_path=str(Path(order.bundle) / "log"),
        )

    @contextlib.contextmanager
    def _cleaned(self, order: Order, requests: list[SpawnRequest]) -> Iterator[None]:
        try:
            yield
        finally:
            for request in requests:
                remove_leftovers(Path(request.bundle))
                Path(request.exit_path).unlink(missing_ok=True)
            (Path(order.bundle) / "log").unlink(missing_ok=True)


def main(directory: Path) -> None:
    """Take orders until standard input ends; bundles are made in `directory`."""
    trial = Trial(directory)
    orders = iter(sys.stdin.buffer.readline, b"")
    for line in orders:
        try:
            order = jsonio.decode(line, Order)
            if order.hold:
                for answer in trial.hold(order):
                    _write(answer)
                    if answer.shim_pid:
                        next(orders, b"")
            else:
                _write(trial.run(order))
        except (EngineError, OSError) as err:
            _write(Answer(error=str(err)))


def _write(answer: Answer) -> None:
    os.write(1, jsonio.encode(answer) + b"\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
