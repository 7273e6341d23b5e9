from ipaddress import IPv4Address, IPv4Interface, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.base.errors import AlreadyExists, Conflict, InvalidArgument, OutOfSpace
from engine.networks import ipam

SMALL = IPv4Network("10.0.0.0/28")
GATEWAY = IPv4Address("10.0.0.1")
CAPACITY = 13  # 16, without the network's own, the broadcast and the gateway's


@given(st.lists(st.one_of(st.none(), st.integers(0, CAPACITY)), max_size=200))
def test_no_address_is_leased_twice(steps: list[int | None]) -> None:
    """None leases; a number gives the address back that is so far down the list."""
    pool = ipam.Pool(SMALL, GATEWAY)
    held: list[IPv4Address] = []
    for step in steps:
        if step is not None:
            if held:
                pool.give_back(held.pop(step % len(held)))
        elif len(held) == CAPACITY:
            with pytest.raises(OutOfSpace, match=r"10\.0\.0\.0/28"):
                pool.lease()
        else:
            address = pool.lease()
            assert address not in held
            assert address in SMALL
            assert address not in {GATEWAY, SMALL.network_address, SMALL.broadcast_address}
            held.append(address)
        assert len(pool) == len(held)


@given(st.integers(16, 29), st.integers(1, 2**16))
def test_a_whole_subnet_can_be_leased_and_given_back(prefix: int, gateway: int) -> None:
    subnet = IPv4Network((0x0A000000, prefix))
    size = min(subnet.num_addresses - 3, 300)
    pool = ipam.Pool(subnet, subnet[1 + gateway % (subnet.num_addresses - 2)])

    leased = [pool.lease() for _ in range(size)]
    assert len(set(leased)) == size
    for address in leased:
        pool.give_back(address)
        pool.give_back(address)
    assert len(pool) == 0


def test_addresses_come_in_turn_so_that_one_given_back_rests() -> None:
    pool = ipam.Pool(SMALL, GATEWAY)
    first = pool.lease()
    pool.give_back(first)

    assert str(first) == "10.0.0.2"
    assert str(pool.lease()) == "10.0.0.3"
    assert [str(pool.lease()) for _ in range(11)][-1] == "10.0.0.14"
    assert pool.lease() == first


def test_a_wanted_address_is_given_once() -> None:
    pool = ipam.Pool(SMALL, GATEWAY)
    wanted = IPv4Address("10.0.0.9")

    assert pool.lease(wanted) == wanted
    for taken in (wanted, GATEWAY):
        with pytest.raises(AlreadyExists, match="already in use"):
            pool.lease(taken)
    for outside in ("10.0.0.0", "10.0.0.15", "10.0.1.9"):
        with pytest.raises(InvalidArgument, match="does not belong"):
            pool.lease(IPv4Address(outside))


@pytest.mark.parametrize("text", ["10.0.0.1/24", "192.168.0.254/29", "172.30.0.5/16"])
def test_a_bip_is_an_address_with_its_subnet(text: str) -> None:
    assert ipam.parse_bip(text) == IPv4Interface(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "10.0.0.1",
        "10.0.0.0/24",
        "10.0.0.255/24",
        "10.0.0.1/30",
        "10.0.0.1/33",
        "::1/64",
        "1/8/8",
        "\uff110.0.0.1/24",
    ],
)
def test_other_bips_are_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid bip"):
        ipam.parse_bip(text)


def test_the_first_free_pool_is_chosen() -> None:
    def chosen(*taken: str, last: str = "") -> str:
        before = IPv4Interface(last) if last else None
        return str(ipam.choose(None, before, [IPv4Network(each) for each in taken]))

    assert chosen() == "172.17.0.1/16"
    assert chosen("172.17.5.0/24", "192.168.1.0/24") == "172.18.0.1/16"
    assert chosen("172.16.0.0/12") == "192.168.0.1/20"
    assert chosen("172.16.0.0/12", "192.168.0.0/18", "10.0.0.0/8") == "192.168.64.1/20"
    assert chosen(last="172.25.0.1/16") == "172.25.0.1/16"
    assert chosen("172.25.1.0/24", last="172.25.0.1/16") == "172.17.0.1/16"
    with pytest.raises(OutOfSpace, match="no free subnet"):
        chosen("172.16.0.0/12", "192.168.0.0/16")


def test_a_bip_that_overlaps_a_route_is_a_conflict() -> None:
    bip = IPv4Interface("10.0.0.1/24")

    assert ipam.choose(bip, None, [IPv4Network("10.0.1.0/24")]) == bip
    with pytest.raises(Conflict, match=r"10\.0\.0\.0/8"):
        ipam.choose(bip, None, [IPv4Network("10.0.0.0/8")])


def test_the_mac_is_made_of_the_address() -> None:
    assert ipam.mac_of(IPv4Address("172.17.0.254")) == "02:42:ac:11:00:fe"
