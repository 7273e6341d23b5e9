"""Golden bytes: after the generic header all numbers are big-endian, attribute headers little-endian."""

import sys
from ipaddress import IPv4Address, IPv4Network

import pytest

from engine.kernel import nftables as nft
from engine.kernel.netlink import Message

pytestmark = pytest.mark.skipif(sys.byteorder != "little", reason="golden bytes are little-endian")


def golden(text: str) -> bytes:
    return bytes.fromhex("".join(line.split("#")[0] for line in text.splitlines()))


def test_a_chain_on_the_wire() -> None:
    request = nft.chain_add("t", "c", "nat", nft.Hook.PREROUTING, nft.Priority.DSTNAT)

    assert (request.type, request.flags) == (0x0A03, 0x400)
    assert request.body == golden("""
        02 00 0000                               # NFPROTO_IPV4, version 0
        0600 0100 7400 0000                      # NFTA_CHAIN_TABLE "t"
        0600 0300 6300 0000                      # NFTA_CHAIN_NAME "c"
        1400 0480                                # NFTA_CHAIN_HOOK
          0800 0100 00000000                     #   prerouting
          0800 0200 ffffff9c                     #   priority -100
        0800 0500 00000001                       # NFTA_CHAIN_POLICY accept
        0800 0700 6e617400                       # NFTA_CHAIN_TYPE "nat"
    """)


def test_a_rule_on_the_wire() -> None:
    request = nft.rule_add("t", "c", [nft.ip_daddr(0), nft.verdict(nft.Verdict.DROP)])

    assert request.body == golden("""
        02 00 0000
        0600 0100 7400 0000                      # NFTA_RULE_TABLE
        0600 0200 6300 0000                      # NFTA_RULE_CHAIN
        6800 0480                                # NFTA_RULE_EXPRESSIONS
          3400 0180                              #   NFTA_LIST_ELEM
            0c00 0100 7061796c6f616400           #     "payload"
            2400 0280                            #     NFTA_EXPR_DATA
              0800 0100 00000008                 #       to NFT_REG32_00
              0800 0200 00000001                 #       network header
              0800 0300 00000010                 #       offset 16
              0800 0400 00000004                 #       4 bytes
          3000 0180
            0e00 0100 696d6d65646961746500 0000  #     "immediate"
            1c00 0280
              0800 0100 00000000                 #       to the verdict register
              1000 0280                          #       NFTA_IMMEDIATE_DATA
                0c00 0280                        #         NFTA_DATA_VERDICT
                  0800 0100 00000000             #           NF_DROP
    """)


def test_elements_on_the_wire() -> None:
    key, data = nft.port_key(6, 8080), nft.address_port(IPv4Address("172.17.0.2"), 80)
    assert (key.hex(), data.hex()) == ("060000001f900000", "ac11000200500000")

    assert nft.elements_add("t", "m", [(key, data)]).body == golden("""
        02 00 0000
        0600 0100 7400 0000                      # NFTA_SET_ELEM_LIST_TABLE
        0600 0200 6d00 0000                      # NFTA_SET_ELEM_LIST_SET
        2800 0380                                # NFTA_SET_ELEM_LIST_ELEMENTS
          2400 0180                              #   NFTA_LIST_ELEM
            1000 0180                            #     NFTA_SET_ELEM_KEY
              0c00 0100 06000000 1f900000        #       tcp . 8080, each padded to a register
            1000 0280                            #     NFTA_SET_ELEM_DATA
              0c00 0100 ac110002 00500000        #       172.17.0.2 . 80
    """)
    assert nft.elements_del("t", "m", [key]).body.hex().endswith("100001800c000100060000001f900000")


def test_names_and_networks_are_compared_whole() -> None:
    load, compare = nft.meta_iifname("br0", negate=True)
    assert b"meta" in load
    assert compare.endswith(golden("0800 0200 00000001 1800 0380 1400 0100 6272 3000") + bytes(12))
    mask, match = nft.in_network(0, IPv4Network("172.16.0.0/12"))
    assert bytes.fromhex("fff00000") in mask
    assert match.endswith(bytes.fromhex("ac100000"))


def test_concatenations_are_numbered_as_nft_does() -> None:
    assert nft.concatenation(nft.TYPE_INET_PROTO, nft.TYPE_INET_SERVICE) == 12 << 6 | 13


def test_only_removals_from_a_table_are_told() -> None:
    table = bytes(4) + nft.table_add("mine").body[4:]
    assert nft.removed_from(Message(0x0A02, 0, 0, 0, table)) == "mine"
    assert nft.removed_from(Message(0x0A00, 0, 0, 0, table)) is None
