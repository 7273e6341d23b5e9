from ipaddress import IPv4Address, IPv4Network

from engine.kernel.netlink import Request
from engine.networks import firewall
from engine.networks.model import PortBinding

SUBNET = IPv4Network("172.17.0.0/16")
CONTAINER = IPv4Address("172.17.0.2")
ANY = firewall.element(PortBinding(80, "tcp", "0.0.0.0", 8080), CONTAINER)
LOCAL = firewall.element(PortBinding(53, "udp", "127.0.0.1", 5353), CONTAINER)


def calls(requests: list[Request]) -> list[str]:
    return [request.call for request in requests]


def test_an_element_leads_from_the_hosts_port_to_the_containers() -> None:
    assert (ANY.map, ANY.key.hex(), ANY.data.hex()) == ("ports_any", "060000001f900000", "ac11000200500000")
    assert (LOCAL.map, LOCAL.key.hex(), LOCAL.data.hex()) == (
        "ports_addr",
        "7f0000011100000014e90000",
        "ac11000200350000",
    )


def test_the_plan_replaces_the_table_in_one_transaction() -> None:
    plan = calls(firewall.plan("br0", SUBNET))

    table = "ip pyengine-br0"
    assert plan[:5] == [
        f"nft add table {table}",
        f"nft delete table {table}",
        f"nft add table {table}",
        f"nft add map {table} ports_any",
        f"nft add map {table} ports_addr",
    ]
    chains = [call.split()[-1] for call in plan if "add chain" in call]
    assert chains == ["raw", "prerouting", "output", "postrouting", "forward"]
    assert [call.split()[-1] for call in plan if "add rule" in call] == [
        "raw",
        *["prerouting"] * 2,
        *["output"] * 2,
        *["postrouting"] * 3,
        *["forward"] * 4,
    ]


def test_isolation_adds_rules_and_takes_none_away() -> None:
    plain = {(request.call, request.body) for request in firewall.plan("br0", SUBNET)}
    isolated = {(request.call, request.body) for request in firewall.plan("br0", SUBNET, isolate_host=True)}

    assert plain < isolated
    assert {call.split()[-1] for call, _body in isolated - plain} == {"input", "forward"}


def test_one_message_a_map_however_many_ports() -> None:
    many = [firewall.element(PortBinding(80, "tcp", "0.0.0.0", port), CONTAINER) for port in range(1, 500)]

    assert len(firewall.publish("br0", [*many, LOCAL])) == 2
    assert len(firewall.withdraw("br0", [LOCAL, *many])) == 2
    assert firewall.publish("br0", []) == []
    assert len(calls(firewall.plan("br0", SUBNET, many))) == len(calls(firewall.plan("br0", SUBNET))) + 1
