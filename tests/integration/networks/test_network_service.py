"""Life of a sandbox: what is made, what is given back, and what is left after a crash (nothing)."""

# ruff: noqa: F811 (a test takes the fixture as its argument)

import asyncio
import contextlib
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from engine.base.errors import (
    AlreadyExists,
    Conflict,
    Denied,
    InvalidArgument,
    NotFound,
    NotSupported,
    OutOfSpace,
    Unavailable,
)
from engine.base.ids import new_id
from engine.networks.hostports import HostPorts
from engine.networks.model import PortBinding, PortMapping, SandboxRequest
from tests.support.netlab import Lab, lab  # noqa: F401 (a fixture)

if TYPE_CHECKING:
    from engine.networks.service import NetworkService

pytestmark = pytest.mark.requires("root", "namespaces", "net_admin", "nftables")

WEB = PortMapping(80, host_port=8080)
DEADLINE_S = 5.0


def eventually(lab: Lab, holds: object) -> None:
    """Wait until `holds()` is true: the kernel takes namespaces down in its own time."""
    deadline = time.monotonic() + DEADLINE_S
    while not holds():  # type: ignore[operator]
        assert time.monotonic() < deadline, (lab.links(), lab.pins())
        lab.do(asyncio.sleep(0.01))


def elements(service: "NetworkService") -> set[object]:
    return lab_thread(service, service._plumbing.elements)


def lab_thread(service: "NetworkService", work: object) -> set[object]:
    return service._thread.submit(work).result()  # type: ignore[arg-type]


def rows(lab: Lab, table: str) -> int:
    with contextlib.closing(sqlite3.connect(lab.tmp_path / "state.db")) as db:
        return int(db.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


def leave_nothing(lab: Lab, service: "NetworkService") -> None:
    eventually(lab, lambda: lab.links() == {"lo", "wan0", "brtest"} or "ifb0" in lab.links())
    eventually(lab, lambda: not any(name.startswith("pe") for name in lab.links()))
    assert lab.pins() == []
    assert elements(service) == set()
    eventually(lab, lambda: rows(lab, "network_sandbox") == rows(lab, "network_lease") == 0)
    assert len(service._pool) == 0
    with socket.socket() as free:
        free.bind(("0.0.0.0", 8080))


def test_release_leaves_nothing(lab: Lab) -> None:
    service = lab.engine()
    ids = [new_id() for _ in range(3)]
    for number, container in enumerate(ids):
        mapping = PortMapping(80, host_port=8080 + number)
        sandbox = lab.do(service.connect(container, SandboxRequest(ports=[mapping])))
        assert sandbox.ports == (PortBinding(80, "tcp", "0.0.0.0", 8080 + number),)
        assert service.sandbox(container) == sandbox
    assert len(elements(service)) == rows(lab, "network_lease") == 3

    for container in ids:
        lab.do(service.release(container))
        lab.do(service.release(container))

    assert service.sandbox(ids[0]) is None
    leave_nothing(lab, service)


def test_the_link_goes_even_when_somebody_is_left_in_the_namespace(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.networks.service._LINGER_S", 0.05)
    service = lab.engine()
    owner = new_id()
    first = lab.do(service.connect(owner, SandboxRequest()))
    shared = lab.do(service.connect(new_id(), SandboxRequest(mode=f"container:{owner}")))
    assert shared.netns_path == first.netns_path
    inside = lab.container(shared.netns_path)

    lab.do(service.release(owner))

    leave_nothing(lab, service)
    assert inside.call(socket.if_nameindex)[0] == (1, "lo")


def test_an_explicit_address_and_mac_are_given(lab: Lab) -> None:
    service = lab.engine(bip="10.99.8.1/24")
    request = SandboxRequest(ipv4="10.99.8.77", mac="02:00:00:AA:BB:CC")
    sandbox = lab.do(service.connect(new_id(), request))

    inside = lab.container(sandbox.netns_path)
    read = Path("/sys/class/net/eth0/address").exists
    assert sandbox.endpoints[0].ipv4 == "10.99.8.77"
    assert sandbox.endpoints[0].mac == "02:00:00:aa:bb:cc"
    assert inside.ping("10.99.8.1")
    assert read is not None
    with pytest.raises(AlreadyExists, match=r"10\.99\.8\.77"):
        lab.do(service.connect(new_id(), request))
    with pytest.raises(InvalidArgument, match="does not belong"):
        lab.do(service.connect(new_id(), SandboxRequest(ipv4="10.99.9.1")))


def test_a_taken_port_is_told_in_dockers_words_and_leaves_nothing(lab: Lab) -> None:
    service = lab.engine()
    request = SandboxRequest(ports=[PortMapping(443, host_port=8443), WEB], container_name="web")
    for address in ("0.0.0.0", "127.0.0.1"):
        with socket.create_server((address, 8080)), pytest.raises(Conflict) as caught:
            lab.do(service.connect(new_id(), request))
        assert "driver failed programming external connectivity on endpoint web (" in str(caught.value)
        assert "for 0.0.0.0:8080:172.17.0." in str(caught.value)
        assert str(caught.value).endswith(":80/tcp: address already in use")
    leave_nothing(lab, service)

    lab.do(service.connect(new_id(), request))
    with pytest.raises(Conflict, match="8443"):
        lab.do(service.connect(new_id(), request))
    with pytest.raises(OSError, match="in use"):
        socket.create_server(("0.0.0.0", 8080))  # with SO_REUSEADDR


def test_a_port_in_time_wait_is_free(lab: Lab) -> None:
    with socket.create_server(("127.0.0.1", 8080)) as server:
        client = socket.create_connection(("127.0.0.1", 8080))
        accepted, _ = server.accept()
        accepted.close()  # this end closes first, so the server's port is the one that waits
        client.recv(1)
        client.close()
    with socket.socket() as probe, pytest.raises(OSError, match="in use"):
        probe.bind(("127.0.0.1", 8080))
    service = lab.engine()

    lab.do(service.connect(new_id(), SandboxRequest(ports=[WEB])))

    assert len(elements(service)) == 1


def test_addresses_that_are_not_the_hosts_are_refused(lab: Lab) -> None:
    service = lab.engine()
    for host_ip, error in (("192.0.2.77", InvalidArgument), ("::1", NotSupported), ("x", InvalidArgument)):
        with pytest.raises(error, match=host_ip):
            lab.do(service.connect(new_id(), SandboxRequest(ports=[PortMapping(80, host_ip=host_ip)])))
    leave_nothing(lab, service)


def test_modes(lab: Lab) -> None:
    service = lab.engine()
    host = lab.do(service.connect(new_id(), SandboxRequest(mode="host")))
    assert host.netns_path is None
    none = lab.do(service.connect(new_id(), SandboxRequest(mode="none")))
    inside = lab.container(none.netns_path)
    assert inside.ping("127.0.0.1")
    assert "eth0" not in {name for _index, name in inside.call(socket.if_nameindex)}
    with pytest.raises(NotFound, match="no such network: backend"):
        lab.do(service.connect(new_id(), SandboxRequest(mode="backend")))
    with pytest.raises(NotFound, match="no such container: nobody"):
        lab.do(service.connect(new_id(), SandboxRequest(mode="container:nobody")))
    for mode in ("host", "none", "container:x"):
        with pytest.raises(InvalidArgument, match="port publishing"):
            lab.do(service.connect(new_id(), SandboxRequest(mode=mode, ports=[WEB])))
    with pytest.raises(InvalidArgument, match="container id"):
        lab.do(service.connect("../../etc", SandboxRequest()))
    for container in (host.container_id, none.container_id):
        lab.do(service.release(container))
    leave_nothing(lab, service)


def test_networks_are_shown_in_dockers_shape(lab: Lab) -> None:
    service = lab.engine()
    container = new_id()
    sandbox = lab.do(service.connect(container, SandboxRequest(mode="default", container_name="web")))

    shown = service.inspect("bridge")

    endpoint = sandbox.endpoints[0]
    assert shown["Containers"] == {
        container: {
            "Name": "web",
            "EndpointID": endpoint.endpoint_id,
            "MacAddress": "02:42:ac:11:00:02",
            "IPv4Address": "172.17.0.2/16",
            "IPv6Address": "",
        }
    }
    assert shown["IPAM"]["Config"] == [{"Subnet": "172.17.0.0/16", "Gateway": "172.17.0.1"}]
    assert [each["Name"] for each in service.list()] == ["bridge", "host", "none"]
    assert service.inspect(shown["Id"][:12]) == service.inspect(shown["Id"]) == shown
    with pytest.raises(NotFound, match="no such network: backend"):
        service.inspect("backend")
    with pytest.raises(NotSupported, match="backend"):
        service.create("backend")
    with pytest.raises(AlreadyExists):
        service.create("host")
    with pytest.raises(Denied, match="pre-defined"):
        service.remove("bridge")


def test_a_full_network_says_so_and_works_again_after_a_release(lab: Lab) -> None:
    service = lab.engine(bip="10.99.7.1/29")
    ids = [new_id() for _ in range(5)]
    for container in ids:
        lab.do(service.connect(container, SandboxRequest()))
    with pytest.raises(OutOfSpace, match=r"10\.99\.7\.0/29"):
        lab.do(service.connect(new_id(), SandboxRequest()))

    lab.do(service.release(ids[2]))

    assert lab.do(service.connect(new_id(), SandboxRequest())).endpoints[0].ipv4 == "10.99.7.4"


def test_the_default_subnet_avoids_the_hosts_routes_and_stays(lab: Lab) -> None:
    subprocess.run(["ip", "route", "add", "172.17.128.0/24", "via", "198.18.0.2"], check=True)
    service = lab.engine()
    assert str(service.network.subnet) == "172.18.0.0/16"
    identity = service.inspect("bridge")["Id"]
    lab.do(service.destroy())
    subprocess.run(["ip", "route", "del", "172.17.128.0/24"], check=True)

    again = lab.engine()

    assert str(again.network.subnet) == "172.18.0.0/16"
    assert again.inspect("bridge")["Id"] == identity


def test_a_bridge_that_cannot_be_is_refused(lab: Lab) -> None:
    for options, error in (
        ({"bip": "198.18.0.9/24"}, Conflict),
        ({"bip": "10.1.1.0/24"}, InvalidArgument),
        ({"bip": "nonsense"}, InvalidArgument),
        ({"bridge": "wan0"}, Conflict),
        ({"bridge": "much-too-long-name"}, InvalidArgument),
        ({"bridge": "../x"}, InvalidArgument),
    ):
        with pytest.raises(error):
            lab.engine(**options)


def test_a_bridge_that_exists_is_taken_over_or_moved_to_another_subnet(lab: Lab) -> None:
    subprocess.run(["ip", "link", "add", "brtest", "type", "bridge"], check=True)
    subprocess.run(["ip", "address", "add", "10.99.1.1/24", "dev", "brtest"], check=True)

    taken_over = lab.engine()
    assert str(taken_over.network.subnet) == "10.99.1.0/24"
    lab.do(taken_over.close())
    moved = lab.engine(bip="10.99.2.1/24")
    assert str(moved.network.subnet) == "10.99.2.0/24"

    shown = subprocess.run(["ip", "-4", "-br", "address", "show", "brtest"], check=True, capture_output=True)
    assert shown.stdout.split()[2:] == [b"10.99.2.1/24"]
    sandbox = lab.do(moved.connect(new_id(), SandboxRequest()))
    assert lab.container(sandbox.netns_path).ping("10.99.2.1")


def test_many_start_and_stop_at_once(lab: Lab) -> None:
    service = lab.engine()
    ids = [new_id() for _ in range(40)]

    async def churn() -> list[str]:
        made = await asyncio.gather(
            *(service.connect(each, SandboxRequest(ports=[PortMapping(80)])) for each in ids)
        )
        await asyncio.gather(*(service.release(each) for each in ids[::2]))
        await asyncio.gather(*(service.connect(each, SandboxRequest()) for each in ids[::2]))
        await asyncio.gather(*(service.release(each) for each in ids))
        return [sandbox.endpoints[0].ipv4 for sandbox in made]

    assert len(set(lab.do(churn()))) == 40
    leave_nothing(lab, service)


def test_a_cancelled_start_leaves_nothing(lab: Lab) -> None:
    service = lab.engine()

    async def cancel_after(steps: int) -> bool:
        job = asyncio.ensure_future(service.connect(new_id(), SandboxRequest(ports=[WEB])))
        for _ in range(steps):
            await asyncio.sleep(0)
        job.cancel()
        try:
            sandbox = await job
        except asyncio.CancelledError:
            return False
        await service.release(sandbox.container_id)
        return True

    assert not any(lab.do(cancel_after(steps)) for steps in range(6))
    leave_nothing(lab, service)


def test_rules_that_others_flush_come_back(lab: Lab) -> None:
    service = lab.engine()
    container = new_id()
    lab.do(service.connect(container, SandboxRequest(ports=[WEB])))
    before = elements(service)
    assert len(before) == 1

    subprocess.run(["nft", "flush", "ruleset"], check=True)

    eventually(lab, lambda: elements(service) == before)
    rules = subprocess.run(["nft", "list", "ruleset"], check=True, capture_output=True).stdout
    assert b"172.17.0.2 . 80" in rules
    assert b"ct status dnat masquerade" in rules


def test_a_bridge_and_a_table_that_others_removed_are_made_again(lab: Lab) -> None:
    service = lab.engine()
    lab.do(service.connect(new_id(), SandboxRequest(ports=[WEB])))
    service._guard.close()  # so that the start itself finds the damage
    subprocess.run(["ip", "link", "del", "brtest"], check=True)
    subprocess.run(["nft", "delete", "table", "ip", "pyengine-brtest"], check=True)
    Path("/proc/sys/net/ipv4/ip_forward").write_text("0")

    sandbox = lab.do(service.connect(new_id(), SandboxRequest(ports=[PortMapping(81, host_port=8081)])))

    assert lab.container(sandbox.netns_path).ping("172.17.0.1")
    assert len(elements(service)) == 2
    assert Path("/proc/sys/net/ipv4/ip_forward").read_text() == "1\n"


def test_a_restarted_daemon_keeps_what_lives_and_removes_the_rest(lab: Lab) -> None:
    first = lab.engine()
    live, dead = new_id(), new_id()
    kept = lab.do(first.connect(live, SandboxRequest(ports=[WEB], container_name="web")))
    lab.do(first.connect(dead, SandboxRequest(ports=[PortMapping(80, host_port=8081)])))
    inside = lab.container(kept.netns_path)
    inside.serve("web", 80)
    lab.do(first.close())
    assert lab.host.ask("127.0.0.1", 8080) == "web 172.17.0.1"

    second = lab.engine()
    assert lab.host.ask("127.0.0.1", 8080) == "web 172.17.0.1"
    lab.do(second.recover([live]))

    assert second.sandbox(live) == kept
    assert second.sandbox(dead) is None
    assert lab.pins() == [live]
    assert len(elements(second)) == 1
    eventually(
        lab, lambda: [each for each in lab.links() if each.startswith("pe")] == [kept.endpoints[0].link]
    )
    assert lab.host.ask("127.0.0.1", 8080) == "web 172.17.0.1"
    assert inside.ping("172.17.0.1")
    with socket.socket() as taken, pytest.raises(OSError, match="in use"):
        taken.bind(("0.0.0.0", 8080))
    assert lab.do(second.connect(new_id(), SandboxRequest())).endpoints[0].ipv4 != kept.endpoints[0].ipv4


def test_a_record_that_cannot_be_read_does_not_stop_the_engine(lab: Lab) -> None:
    first = lab.engine()
    container = new_id()
    lab.do(first.connect(container, SandboxRequest(ports=[WEB])))
    lab.do(first.close())
    with contextlib.closing(sqlite3.connect(lab.tmp_path / "state.db")) as db, db:
        db.execute("UPDATE network_sandbox SET record = '{'")

    second = lab.engine()
    lab.do(second.recover([]))

    assert lab.pins() == []
    assert elements(second) == set()
    lab.do(second.connect(container, SandboxRequest(ports=[WEB])))
    assert rows(lab, "network_sandbox") == 1


CHILD = """
import asyncio, os, signal, sys
from pathlib import Path
from engine.base.database import Database
from engine.base.paths import Run
from engine.kernel import mount, netlink, process
from engine.networks import plumbing
from engine.networks.model import PortMapping, SandboxRequest
from engine.networks.service import NetworkService

left = int(sys.argv[2])

def fatal(work):
    def call(*args, **kwargs):
        global left
        if armed and left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= armed
        return work(*args, **kwargs)
    return call

armed = False
for owner, name in ((netlink.NetlinkSocket, "transact"), (plumbing, "mount"), (plumbing, "umount2"),
                    (plumbing, "unshare"), (plumbing, "setns"), (plumbing.os, "open")):
    setattr(owner, name, fatal(getattr(owner, name)))

async def main():
    global armed
    root = Path(sys.argv[1])
    database = Database(root / "state.db")
    service = NetworkService(database, Run(root / "run"), bridge="brtest")
    await service.open()
    await service.recover([])
    request = SandboxRequest(ports=[PortMapping(80, host_port=8080)], container_name="web")
    await service.connect("a" * 64, request)
    armed = True
    await service.connect("b" * 64, SandboxRequest(ports=[PortMapping(80, host_port=8081)]))
    await service.release("b" * 64)
    armed = False
    await service.close()
    database.close()

asyncio.run(main())
"""


def test_a_daemon_killed_at_any_step_leaves_nothing_after_recovery(lab: Lab) -> None:
    outcomes = []
    for step in range(100):
        argv = [sys.executable, "-c", CHILD, str(lab.tmp_path), str(step)]
        outcomes.append(subprocess.run(argv, check=False).returncode)
        service = lab.engine()
        lab.do(service.recover(["a" * 64]))
        assert lab.pins() == ["a" * 64], step
        assert len(elements(service)) == 1, step
        assert len(service._pool) == 1
        sandbox = service.sandbox("a" * 64)
        assert sandbox is not None
        eventually(
            lab,
            lambda link=sandbox.endpoints[0].link: (
                [each for each in lab.links() if each.startswith("pe")] == [link]
            ),
        )
        lab.do(service.release("a" * 64))
        leave_nothing(lab, service)
        lab.do(service.close())
        if outcomes[-1] == 0:
            break
    assert set(outcomes[:-1]) == {-signal.SIGKILL}
    assert outcomes[-1] == 0
    assert len(outcomes) > 8


@contextlib.contextmanager
def machine_host(path: Path, answer: object) -> Iterator[list[dict[str, object]]]:
    """Serve the port lease protocol as the guest agent does; yields the requests that came."""
    seen: list[dict[str, object]] = []
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.listen()

    def work() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = server.accept()
                with client, client.makefile("rwb") as lines:
                    for line in lines:
                        seen.append(json.loads(line))
                        lines.write(json.dumps(answer(seen[-1])).encode() + b"\n")  # type: ignore[operator]
                        lines.flush()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()


def test_in_a_machine_the_host_is_asked_for_each_port(lab: Lab) -> None:
    def answer(request: dict[str, object]) -> dict[str, object]:
        return {"ok": True, "host_port": request["host_port"] or 49999}

    path = lab.tmp_path / "ports.sock"
    with machine_host(path, answer) as seen:
        service = lab.engine(host_ports=HostPorts(path))
        container = new_id()
        ports = [WEB, PortMapping(81), PortMapping(82, host_ip="::1", host_port=8082)]
        with socket.create_server(("127.0.0.1", 8080)):  # taken in the guest only: no clash
            sandbox = lab.do(service.connect(container, SandboxRequest(ports=ports)))
        inside = lab.container(sandbox.netns_path)
        for port in (80, 81, 82):
            inside.serve(f"port {port}", port)

        assert sandbox.ports == (
            PortBinding(80, "tcp", "127.0.0.1", 8080),
            PortBinding(81, "tcp", "127.0.0.1", 49999),
            PortBinding(82, "tcp", "::1", 8082),
        )
        for port, request in zip((80, 81, 82), seen, strict=True):
            assert (request["op"], request["container"], request["proto"]) == ("publish", container, "tcp")
            answered = lab.host.ask("127.0.0.1", int(str(request["guest_port"])))
            assert answered == f"port {port} 172.17.0.1"
        assert seen[0]["guest_port"] != 8080
        assert seen[2]["guest_port"] == 8082

        lab.do(service.release(container))

        asked = [{**request, "op": "", "host_ip": "", "host_port": 0} for request in seen]
        assert asked[3:] == asked[:3]
        assert [request["op"] for request in seen[3:]] == ["unpublish"] * 3
        assert [request["host_port"] for request in seen[3:]] == [8080, 49999, 8082]
        leave_nothing(lab, service)
        lab.do(service.close())


def test_in_a_machine_a_refusal_of_the_host_is_the_users_error(lab: Lab) -> None:
    def answer(request: dict[str, object]) -> dict[str, object]:
        if request["host_port"] == 8080:
            return {"ok": False, "error": "port 8080 is in use by process 77 (nginx)"}
        return {"ok": True, "host_port": request["host_port"]}

    path = lab.tmp_path / "ports.sock"
    with machine_host(path, answer) as seen:
        service = lab.engine(host_ports=HostPorts(path))
        request = SandboxRequest(ports=[PortMapping(79, host_port=8079), WEB], container_name="web")
        with pytest.raises(Conflict, match=r"endpoint web \(.*\): port 8080 is in use by process 77"):
            lab.do(service.connect(new_id(), request))
        assert [(each["op"], each["host_port"]) for each in seen] == [
            ("publish", 8079),
            ("publish", 8080),
            ("unpublish", 8079),
        ]
        leave_nothing(lab, service)
        lab.do(service.close())


def test_in_a_machine_without_its_host_a_port_cannot_be_had(lab: Lab) -> None:
    service = lab.engine(host_ports=HostPorts(lab.tmp_path / "absent.sock"))

    with pytest.raises(Unavailable, match=r"absent\.sock"):
        lab.do(service.connect(new_id(), SandboxRequest(ports=[WEB])))
    lab.do(service.connect(new_id(), SandboxRequest()))


def test_close_is_final_and_containers_keep_their_network(lab: Lab) -> None:
    service = lab.engine()
    sandbox = lab.do(service.connect(new_id(), SandboxRequest()))
    inside = lab.container(sandbox.netns_path)

    lab.do(service.close())

    assert inside.ping("172.17.0.1")
    assert os.path.exists(str(sandbox.netns_path))
