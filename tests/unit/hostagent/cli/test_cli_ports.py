"""-p and --expose, and the PORTS column."""

from typing import Any

import pytest

from engine.base.errors import InvalidArgument
from hostagent.cli.ports import displayable, parse_expose, parse_publish


def binding(port: str = "", address: str = "") -> dict[str, str]:
    return {"HostIp": address, "HostPort": port}


@pytest.mark.parametrize(
    ("spec", "bindings"),
    [
        ("80", {"80/tcp": [binding()]}),
        ("8080:80", {"80/tcp": [binding("8080")]}),
        ("0:80", {"80/tcp": [binding()]}),
        ("8080:80/UDP", {"80/udp": [binding("8080")]}),
        ("127.0.0.1::80", {"80/tcp": [binding("", "127.0.0.1")]}),
        ("127.0.0.1:8080:80", {"80/tcp": [binding("8080", "127.0.0.1")]}),
        ("[::1]:8080:80", {"80/tcp": [binding("8080", "::1")]}),
        ("8000-8001:80-81", {"80/tcp": [binding("8000")], "81/tcp": [binding("8001")]}),
        ("8000-8010:80", {"80/tcp": [binding("8000-8010")]}),
        ("published=8080,target=80,protocol=udp", {"80/udp": [binding("8080")]}),
        ("target=80", {"80/tcp": [binding()]}),
    ],
)
def test_every_form_of_publish(spec: str, bindings: dict[str, Any]) -> None:
    assert parse_publish([spec]) == bindings


@pytest.mark.parametrize(
    "spec",
    [
        "", "x", "80/icmp", "8080:", ":", "65536", "1:2:3:4", "::1:80:80", "[::1:80:80", "8000-8001:80-82",
        "81-80", "+80", " 80", "\uff18\uff10", "published=1", "target=80,nosuch=1", "-1:80", "80-",
    ],
)  # fmt: skip
def test_another_form_is_refused_by_name(spec: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid port"):
        parse_publish([spec])


def test_exposed_ports_are_ranges_too() -> None:
    assert parse_expose(["80", "70-71/udp"]) == {"80/tcp": {}, "70/udp": {}, "71/udp": {}}
    with pytest.raises(InvalidArgument, match="unknown protocol"):
        parse_expose(["80/http"])


def test_neighbours_become_ranges() -> None:
    def port(private: int, public: int = 0, address: str = "", kind: str = "tcp") -> dict[str, Any]:
        found: dict[str, Any] = {"PrivatePort": private, "Type": kind}
        return found | ({"PublicPort": public, "IP": address} if address else {})

    ports = [port(80, 8080, "0.0.0.0"), port(81), port(82), port(9, kind="udp"), port(90, 90, "::")]

    assert displayable(ports) == "9/udp, 81-82/tcp, [::]:90->90/tcp, 0.0.0.0:8080->80/tcp"
    assert displayable([]) == ""
