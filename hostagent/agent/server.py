"""The agent's own socket: what `hostagent.client.agent` asks, answered in JSON lines."""

import asyncio
import contextlib
import dataclasses
import json
import logging
import os
import socket
from collections.abc import Callable
from typing import Any

from engine.base.errors import Conflict, EngineError, InvalidArgument, NotSupported, OutOfSpace, Unavailable
from hostagent.agent.lifecycle import Lifecycle
from hostagent.machine import disk, processes
from hostagent.machine.model import Status

log = logging.getLogger(__name__)

_REQUEST_MAX_BYTES = 64 * 1024
_KINDS = (InvalidArgument, OutOfSpace, NotSupported, Unavailable, Conflict)


class Server:
    """Answers requests about one machine; `on_stopped` is called when it was stopped on request."""

    def __init__(self, lifecycle: Lifecycle, *, on_stopped: Callable[[], None]) -> None:
        self._lifecycle = lifecycle
        self._on_stopped = on_stopped
        self._tasks: set[asyncio.Task[None]] = set()

    def take(self, client: socket.socket) -> None:
        """Serve one connection, and own it."""
        task = asyncio.create_task(self._serve(client))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, client: socket.socket) -> None:
        reader, writer = await asyncio.open_connection(sock=client, limit=_REQUEST_MAX_BYTES)
        answer: dict[str, Any] = {}
        with contextlib.suppress(OSError):
            try:
                answer = await self._answer(await reader.readline(), writer)
            except (EngineError, TimeoutError, OSError, ValueError) as err:
                answer = _failure(err)
            except Exception as err:
                log.exception("a request failed")
                answer = _failure(EngineError(f"internal error: {type(err).__name__}: {err}"))
            finally:
                writer.write(
                    json.dumps(answer or _failure(Unavailable("the host agent ends"))).encode() + b"\n"
                )
                writer.close()
            await writer.wait_closed()
        if answer.get("stopped"):
            self._on_stopped()

    async def _answer(self, line: bytes, writer: asyncio.StreamWriter) -> dict[str, Any]:
        request = json.loads(line)
        match request.get("op") if isinstance(request, dict) else None:
            case "status":
                return {"ok": True, **await asyncio.to_thread(describe, self._lifecycle)}
            case "start":

                def progress(text: str) -> None:
                    writer.write(json.dumps({"progress": text}).encode() + b"\n")

                await self._lifecycle.start(progress)
                return {"ok": True, "docker_socket": str(self._lifecycle.paths.docker_socket)}
            case "stop":
                await self._lifecycle.stop(force=request.get("force") is True)
                return {"ok": True, "stopped": self._lifecycle.status is Status.STOPPED}
            case other:
                raise InvalidArgument(f"unknown operation: {str(other)[:40]!r}")


def describe(lifecycle: Lifecycle) -> dict[str, Any]:
    """Return everything that the agent knows of its machine."""
    paths, boot = lifecycle.paths, lifecycle.boot
    status: dict[str, Any] = {
        "name": paths.name,
        "state": str(lifecycle.status),
        "reason": lifecycle.reason,
        "agent_pid": os.getpid(),
        "docker_socket": str(paths.docker_socket),
        "disk_used_bytes": disk.used_bytes(paths.data_disk),
        "ports": [
            {
                "host_ip": lease.host_ip,
                "host_port": lease.host_port,
                "proto": lease.proto,
                "container": lease.container,
            }
            for lease in lifecycle.ports.listing()
        ],
    }
    machine = lifecycle.machine
    if machine is not None:
        facts = dataclasses.asdict(machine.facts)
        status |= {**facts, "accel": str(facts["accel"]), "ssh_port": machine.ssh_port}
        status["resident_bytes"] = processes.resident_bytes(machine.facts.pid)
        status["kernel"] = boot.kernel
        status["boot"] = {"host_ms": boot.host_ms, "guest_ms": boot.guest_ms}
    return status


def _failure(err: Exception) -> dict[str, Any]:
    kind = next((kind.__name__ for kind in _KINDS if isinstance(err, kind)), "EngineError")
    if isinstance(err, TimeoutError):
        kind = "Unavailable"
    if isinstance(err, OSError) and not isinstance(err, TimeoutError):
        text = f"{err.filename}: {err.strerror}" if err.filename else str(err)
    else:
        text = str(err)
    return {"ok": False, "kind": kind, "error": text, "hint": getattr(err, "hint", "")}
