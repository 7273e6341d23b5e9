"""Packets between containers, the host and a neighbour: what must pass, and what must not."""

# ruff: noqa: F811 (a test takes the fixture as its argument)

import contextlib
import os
import socket
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from engine.base.ids import new_id
from engine.networks import firewall
from engine.networks.model import PortMapping, SandboxRequest
from tests.support.netlab import Lab, lab  # noqa: F401 (a fixture)

if TYPE_CHECKING:
    from engine.networks.service import NetworkService
    from tests.support.netlab import Namespace

pytestmark = pytest.mark.requires("root", "namespaces", "net_admin", "nftables", "busybox")

HOST, NEIGHBOUR = "198.18.0.1", "198.18.0.2"
DROPPED_S = 0.4


def start(
    lab: Lab, engine: "NetworkService", *ports: PortMapping, name: str = "web"
) -> tuple["Namespace", str, tuple[int, ...]]:
    """Connect a container that answers on ports 80 and 53; return its namespace, address and host ports."""
    sandbox = lab.do(engine.connect(new_id(), SandboxRequest(ports=ports, container_name=name)))
    container = lab.container(sandbox.netns_path)
    container.serve(name, 80)
    container.serve(name, 53, proto="udp")
    return container, sandbox.endpoints[0].ipv4, tuple(binding.host_port for binding in sandbox.ports)


def test_containers_reach_each_other_the_gateway_and_the_outside(lab: Lab) -> None:
    engine = lab.engine()
    one, one_address, _ = start(lab, engine, name="one")
    two, two_address, _ = start(lab, engine, name="two")
    lab.neighbour.serve("neighbour", 8000)
    lab.neighbour.serve("neighbour", 8000, proto="udp")

    assert one.ask(two_address, 80) == f"two {one_address}"
    assert two.ask(one_address, 53, proto="udp") == f"one {two_address}"
    assert one.ping(str(engine.network.gateway))
    assert one.ping("127.0.0.1")
    assert lab.host.ask(one_address, 80) == f"one {engine.network.gateway}"
    # Outbound, the neighbour sees the host's address: it has no route to the containers.
    assert one.ask(NEIGHBOUR, 8000) == f"neighbour {HOST}"
    assert one.ask(NEIGHBOUR, 8000, proto="udp") == f"neighbour {HOST}"
    assert one.ping(NEIGHBOUR)


def test_a_published_port_is_reached_from_everywhere(lab: Lab) -> None:
    engine = lab.engine()
    tcp, udp = PortMapping(80, host_port=8080), PortMapping(53, "udp", host_port=5353)
    web, web_address, _ = start(lab, engine, tcp, udp)
    client, client_address, _ = start(lab, engine, name="client")
    gateway = str(engine.network.gateway)

    # The container never sees 127.0.0.1 as a peer.
    assert lab.host.ask("127.0.0.1", 8080) == f"web {gateway}"
    assert lab.host.ask("127.0.0.1", 5353, proto="udp") == f"web {gateway}"
    assert lab.host.ask(HOST, 8080) == f"web {HOST}"
    assert lab.host.ask(gateway, 8080) == f"web {gateway}"
    assert lab.neighbour.ask(HOST, 8080) == f"web {NEIGHBOUR}"
    assert lab.neighbour.ask(HOST, 5353, proto="udp") == f"web {NEIGHBOUR}"
    # Hairpin: from a container, and from the very container, by an address of the host.
    assert client.ask(HOST, 8080) == f"web {gateway}"
    assert client.ask(gateway, 8080) == f"web {gateway}"
    assert client.ask(HOST, 5353, proto="udp") == f"web {gateway}"
    assert web.ask(HOST, 8080) == f"web {gateway}"
    assert client.ask(web_address, 80) == f"web {client_address}"


def test_a_port_that_is_not_published_is_closed_to_the_neighbour(lab: Lab) -> None:
    engine = lab.engine()
    _web, address, _ = start(lab, engine, PortMapping(80, host_port=8080))
    lab.neighbour.call(_ip, "route", "add", str(engine.network.subnet), "via", HOST)

    with pytest.raises(ConnectionRefusedError):
        lab.neighbour.ask(HOST, 80)
    with pytest.raises(TimeoutError):  # routed straight to the container
        lab.neighbour.ask(address, 80, timeout_s=DROPPED_S)


def test_what_is_published_on_loopback_stays_there(lab: Lab) -> None:
    engine = lab.engine()
    _web, address, _ = start(lab, engine, PortMapping(80, host_ip="127.0.0.1", host_port=8080))
    lab.host.serve("host service", 9000, address="127.0.0.1")
    client, _, _ = start(lab, engine, name="client")
    lab.neighbour.call(_ip, "route", "add", "127.0.0.0/8", "via", HOST, "dev", "wan1", "table", "100")
    lab.neighbour.call(_ip, "rule", "add", "pref", "0", "to", "127.0.0.0/8", "lookup", "100")
    lab.neighbour.call(_ip, "rule", "del", "lookup", "local")
    lab.neighbour.call(_ip, "rule", "add", "pref", "1", "lookup", "local")
    for name in ("all", "wan1"):
        lab.neighbour.call(_sysctl, f"ipv4/conf/{name}/route_localnet", "1")
    lab.neighbour.call(_ip, "route", "add", str(engine.network.subnet), "via", HOST)

    assert lab.host.ask("127.0.0.1", 8080) == f"web {engine.network.gateway}"
    with pytest.raises(ConnectionRefusedError):
        lab.neighbour.ask(HOST, 8080)
    for target, port in (("127.0.0.1", 8080), ("127.0.0.1", 9000), (address, 80)):
        with pytest.raises(TimeoutError):
            lab.neighbour.ask(target, port, timeout_s=DROPPED_S)
    with pytest.raises(OSError, match=r"refused|timed out"):  # its own loopback, in fact
        client.ask("127.0.0.1", 9000, timeout_s=DROPPED_S)


def test_a_container_cannot_reach_the_hosts_loopback_by_routing(lab: Lab) -> None:
    engine = lab.engine()
    evil, _, _ = start(lab, engine, name="evil")
    lab.host.serve("host service", 9000, address="127.0.0.1")
    # As a container with NET_ADMIN could: send 127.0.0.1 to the bridge, which routes 127/8.
    evil.call(_ip, "rule", "add", "pref", "0", "to", "127.0.0.2", "lookup", "100")
    evil.call(_ip, "rule", "del", "lookup", "local")
    evil.call(_ip, "rule", "add", "pref", "1", "lookup", "local")
    evil.call(_ip, "route", "add", "127.0.0.2/32", "via", str(engine.network.gateway), "table", "100")
    lab.host.serve("host service", 9001, address="127.0.0.2")
    for name in ("all", "eth0"):
        evil.call(_sysctl, f"ipv4/conf/{name}/route_localnet", "1")

    with pytest.raises(TimeoutError):
        evil.ask("127.0.0.2", 9001, timeout_s=DROPPED_S)


def test_a_port_can_be_published_on_one_address(lab: Lab) -> None:
    engine = lab.engine()
    start(lab, engine, PortMapping(80, host_ip=HOST, host_port=8080))

    assert lab.neighbour.ask(HOST, 8080) == f"web {NEIGHBOUR}"
    with pytest.raises(ConnectionRefusedError):
        lab.host.ask("127.0.0.1", 8080)


def test_without_a_port_the_host_chooses_one(lab: Lab) -> None:
    engine = lab.engine()
    _, _, ports = start(lab, engine, PortMapping(80), PortMapping(80), PortMapping(53, "udp", host_port=0))

    assert len({*ports}) == 3
    assert all(port > 1024 for port in ports)
    assert lab.neighbour.ask(HOST, ports[0]) == lab.neighbour.ask(HOST, ports[1])
    assert lab.neighbour.ask(HOST, ports[2], proto="udp") == f"web {NEIGHBOUR}"


def test_a_udp_client_that_goes_on_reaches_the_next_container(lab: Lab) -> None:
    engine = lab.engine()
    published = SandboxRequest(ports=[PortMapping(53, "udp", host_port=5353)])
    client = lab.neighbour.call(socket.socket, socket.AF_INET, socket.SOCK_DGRAM)
    with client:
        client.settimeout(0.1)
        client.connect((HOST, 5353))
        with contextlib.suppress(ConnectionRefusedError):  # a flow to no container, tracked as such
            client.send(b"?")
            client.recv(100)
        for name in ("first", "second"):
            sandbox = lab.do(engine.connect(new_id(), published))
            lab.container(sandbox.netns_path).serve(name, 53, proto="udp")
            assert persistent_ask(client) == f"{name} {NEIGHBOUR}"
            lab.do(engine.release(sandbox.container_id))


def persistent_ask(client: socket.socket) -> str:
    """Ask over the same flow until there is an answer, as a client that tries again does."""
    for _ in range(50):
        with contextlib.suppress(TimeoutError, ConnectionRefusedError):
            client.send(b"?")
            return client.recv(100).decode()
    return ""


def test_the_ipv6_twin_of_a_published_port_is_refused_and_held(lab: Lab) -> None:
    engine = lab.engine()
    start(lab, engine, PortMapping(80, host_port=8080))

    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("::1", 8080), timeout=5)
    with pytest.raises(OSError, match="in use"):
        socket.create_server(("::1", 8080), family=socket.AF_INET6)


def test_the_table_is_in_nfts_language_what_the_module_says(lab: Lab) -> None:
    lab.engine(bridge="pyengine0", bip="172.17.0.1/16")
    argv = ["nft", "list", "table", "ip", "pyengine-pyengine0"]
    shown = subprocess.run(argv, check=True, capture_output=True, text=True).stdout

    rules = [line.strip() for line in shown.splitlines()]
    documented = [line.split("#")[0].strip() for line in str(firewall.__doc__).splitlines()]
    for line in documented:
        if line.startswith(("iifname", "oifname", "fib", "dnat to")):
            assert line.replace("dnat to", "dnat ip to") in rules


def test_isolated_containers_reach_of_their_machine_only_dns(lab: Lab) -> None:
    _ip("address", "add", "10.0.2.15/24", "dev", "wan0")
    lab.neighbour.call(_ip, "address", "add", "10.0.2.2/24", "dev", "wan1")
    lab.neighbour.call(_ip, "address", "add", "10.0.2.3/24", "dev", "wan1")
    engine = lab.engine(isolate_host=True)
    gateway = str(engine.network.gateway)
    one, one_address, _ = start(lab, engine, PortMapping(80, host_port=8080), name="one")
    two, two_address, _ = start(lab, engine, name="two")
    lab.host.serve("ssh", 22)
    lab.host.serve("dns", 53)
    lab.host.serve("dns", 53, proto="udp")
    for port in (53, 80):
        lab.neighbour.serve("outside", port)
        lab.neighbour.serve("outside", port, proto="udp", address="10.0.2.3")

    for address in (gateway, "10.0.2.15", HOST):
        with pytest.raises(TimeoutError):
            one.ask(address, 22, timeout_s=DROPPED_S)
    for address, port in (("10.0.2.2", 80), ("10.0.2.2", 53), ("10.0.2.3", 80)):
        with pytest.raises(TimeoutError):
            one.ask(address, port, timeout_s=DROPPED_S)
    assert one.ask(gateway, 53) == f"dns {one_address}"
    assert one.ask(gateway, 53, proto="udp") == f"dns {one_address}"
    assert one.ask("10.0.2.3", 53) == "outside 10.0.2.15"
    assert one.ask("10.0.2.3", 53, proto="udp") == "outside 10.0.2.15"
    assert one.ping(gateway)
    # The rest of the world, other containers and published ports are as ever.
    assert one.ask(NEIGHBOUR, 80) == f"outside {HOST}"
    assert one.ask(two_address, 80) == f"two {one_address}"
    assert two.ask("10.0.2.15", 8080) == f"one {gateway}"
    assert lab.host.ask("127.0.0.1", 8080) == f"one {gateway}"


def test_containers_of_two_engines_are_strangers(lab: Lab) -> None:
    first = lab.engine()
    lab.tmp_path = lab.tmp_path / "second"
    lab.tmp_path.mkdir()
    second = lab.engine(bridge="brother")
    one, one_address, _ = start(lab, first, PortMapping(80, host_port=8080), name="one")
    two, _, _ = start(lab, second, name="two")

    assert not first.network.subnet.overlaps(second.network.subnet)
    with pytest.raises(TimeoutError):
        two.ask(one_address, 80, timeout_s=DROPPED_S)
    assert two.ask(HOST, 8080).startswith("one ")
    assert one.ping(HOST)


def test_a_container_has_no_ipv6_beyond_its_loopback(lab: Lab) -> None:
    engine = lab.engine()
    web, _, _ = start(lab, engine)

    table = web.call(Path("/proc/thread-self/net/if_inet6").read_text)

    assert {line.split()[-1] for line in table.splitlines()} <= {"lo"}


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


def _sysctl(name: str, value: str) -> None:
    fd = os.open(f"/proc/sys/net/{name}", os.O_WRONLY)
    os.write(fd, value.encode())
    os.close(fd)
