import pytest

from engine.base.errors import InvalidArgument, NotSupported
from engine.networks.model import PortMapping, check_bridge_name, check_mac
from engine.networks.portmap import host_address


@pytest.mark.parametrize("given", [(0, "tcp"), (65536, "tcp"), (80, "sctp"), (80, "TCP"), (-1, "udp")])
def test_a_port_that_cannot_be_is_refused(given: tuple[int, str]) -> None:
    with pytest.raises(InvalidArgument):
        PortMapping(*given)


def test_a_host_port_that_cannot_be_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="70000:80"):
        PortMapping(80, host_port=70000)


def test_host_addresses_are_shown_as_docker_does() -> None:
    assert host_address("") == host_address("0.0.0.0") == "0.0.0.0"
    assert host_address("127.0.0.1") == "127.0.0.1"
    for text in ("127.1", "localhost", "\uff1127.0.0.1", "127.0.0.1\n"):
        with pytest.raises(InvalidArgument):
            host_address(text)
    with pytest.raises(NotSupported, match="IPv4"):
        host_address("::")


def test_names_of_links_and_addresses_of_hardware_are_checked() -> None:
    assert check_bridge_name("pyengine0") == "pyengine0"
    assert check_mac("02-42-AC-11-00-02") == "02:42:ac:11:00:02"
    for name in ("", "a/b", "..", "a" * 16, "br 0", "br0\n", "bür"):
        with pytest.raises(InvalidArgument):
            check_bridge_name(name)
    for mac in ("", "01:00:5e:00:00:01", "02:42:ac:11:00", "02:42:ac:11:00:0g", "ff:ff:ff:ff:ff:ff"):
        with pytest.raises(InvalidArgument):
            check_mac(mac)
