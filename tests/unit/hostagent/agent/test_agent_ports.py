import asyncio
import os
import socket
from collections.abc import Callable
from typing import Any

import pytest

from engine.base.portlease import PortReply
from hostagent.agent.ports import Ports

HAS_IPV6 = socket.has_ipv6 and os.path.exists("/proc/net/if_inet6")
Body = Callable[[Ports, list[tuple[socket.socket, int]]], Any]


def _run(body: Body) -> None:
    carried: list[tuple[socket.socket, int]] = []

    async def main() -> None:
        ports = Ports(
            lambda client, port: carried.append((client, port)), owner_of=lambda _: "process 7 (nginx)"
        )
        try:
            await body(ports, carried)
        finally:
            ports.close()
            for client, _ in carried:
                client.close()

    asyncio.run(main())


def _ask(**fields: object) -> dict[str, object]:
    base = {
        "op": "publish",
        "container": "c",
        "proto": "tcp",
        "host_ip": "",
        "host_port": 0,
        "guest_port": 80,
    }
    return base | fields


async def _connects(host: str, port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection(host, port)
    except OSError:
        return False
    writer.close()
    await writer.wait_closed()
    return True


def test_a_published_port_is_reached_on_both_loopbacks() -> None:
    async def body(ports: Ports, carried: list[tuple[socket.socket, int]]) -> None:
        async def arrived(count: int) -> None:
            async with asyncio.timeout(5):
                while len(carried) < count:  # noqa: ASYNC110 (the accepting task only needs its turns)
                    await asyncio.sleep(0)

        reply = ports.handle(_ask())
        assert reply.ok
        assert await _connects("127.0.0.1", reply.host_port)
        if HAS_IPV6:
            assert await _connects("::1", reply.host_port)
        await arrived(2 if HAS_IPV6 else 1)
        assert {port for _, port in carried} == {80}

    _run(body)


def test_a_withdrawn_port_is_free_at_once() -> None:
    async def body(ports: Ports, _carried: object) -> None:
        reply = ports.handle(_ask())
        await asyncio.sleep(0)
        assert ports.handle(_ask(op="unpublish", host_port=reply.host_port)).ok
        await asyncio.sleep(0)

        assert not await _connects("127.0.0.1", reply.host_port)
        assert ports.listing() == []

    _run(body)


def test_withdrawing_without_a_port_withdraws_all_of_the_container() -> None:
    async def body(ports: Ports, _carried: object) -> None:
        ports.handle(_ask())
        ports.handle(_ask(guest_port=81))
        other = ports.handle(_ask(container="d"))
        ports.handle(_ask(op="unpublish", host_port=0))

        assert [lease.host_port for lease in ports.listing()] == [other.host_port]

    _run(body)


def test_a_clash_names_the_port_and_who_has_it() -> None:
    async def body(ports: Ports, _carried: object) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            reply = ports.handle(_ask(host_port=port))

        assert reply == PortReply(
            ok=False,
            error=f"port 127.0.0.1:{port}/tcp on the host is already in use by process 7 (nginx)",
        )
        assert ports.listing() == []

    _run(body)


def test_the_same_wish_again_is_granted_again() -> None:
    async def body(ports: Ports, _carried: object) -> None:
        first = ports.handle(_ask())

        assert ports.handle(_ask(host_port=first.host_port)) == first
        assert len(ports.listing()) == 1

    _run(body)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        (
            {"proto": "udp", "host_port": 53},
            "port 53/udp: only tcp ports can be published from a machine yet",
        ),
        ({"host_port": 70000}, "port 70000 to 80: out of range"),
        ({"guest_port": 0}, "port 0 to 0: out of range"),
        ({"host_ip": "example"}, "not an IP address: 'example'"),
        (
            {"host_ip": "192.0.2.1", "host_port": 8080},
            "port 192.0.2.1:8080/tcp: the host has no such address",
        ),
        ({"op": "format"}, "unknown port operation: 'format'"),
    ],
)
def test_what_cannot_be_had_is_refused_in_one_line(fields: dict[str, object], text: str) -> None:
    async def body(ports: Ports, _carried: object) -> None:
        reply = ports.handle(_ask(**fields))
        assert (reply.ok, reply.error) == (False, text)

    _run(body)


@pytest.mark.parametrize(
    "request_", [None, 7, {}, {"op": "publish"}, _ask(host_port="80"), _ask(guest_port=True)]
)
def test_a_guest_that_asks_nonsense_gets_an_answer(request_: object) -> None:
    async def body(ports: Ports, _carried: object) -> None:
        assert ports.handle(request_).ok is False

    _run(body)


def test_an_owner_is_found_by_looking() -> None:
    from hostagent.agent.ports import owner_of_port

    with socket.create_server(("127.0.0.1", 0)) as server:
        found = owner_of_port(server.getsockname()[1])

    assert found.startswith(f"process {os.getpid()} (")
    assert owner_of_port(1) == ""
