"""Networks as docker's API shows them. Pure.

Source: Docker Engine API v1.51, NetworkInspect.
"""

import time
from collections.abc import Iterable
from typing import Any

from engine.networks.model import ANY_ADDRESS, BRIDGE, HOST, NONE, Endpoint, Network


def bridge_document(network: Network, members: Iterable[tuple[str, str, Endpoint]]) -> dict[str, Any]:
    """Return the default bridge network; `members` are (container id, container name, endpoint)."""
    config = {"Subnet": str(network.subnet), "Gateway": str(network.gateway)}
    document = _document(BRIDGE, network.network_id, BRIDGE, network.created_ns, [config])
    document["Containers"] = {
        container_id: {
            "Name": name,
            "EndpointID": endpoint.endpoint_id,
            "MacAddress": endpoint.mac,
            "IPv4Address": f"{endpoint.ipv4}/{endpoint.prefix}",
            "IPv6Address": "",
        }
        for container_id, name, endpoint in members
    }
    document["Options"] = {
        "com.docker.network.bridge.default_bridge": "true",
        "com.docker.network.bridge.enable_icc": "true",
        "com.docker.network.bridge.enable_ip_masquerade": "true",
        "com.docker.network.bridge.host_binding_ipv4": ANY_ADDRESS,
        "com.docker.network.bridge.name": network.bridge,
        "com.docker.network.driver.mtu": str(network.mtu),
    }
    return document


def plain_document(
    name: str, network_id: str, created_ns: int, members: Iterable[tuple[str, str, Endpoint]]
) -> dict[str, Any]:
    """Return `host` or `none`."""
    driver = {HOST: "host", NONE: "null"}[name]
    document = _document(name, network_id, driver, created_ns, None)
    document["Containers"] = {
        container_id: {
            "Name": container_name,
            "EndpointID": endpoint.endpoint_id,
            "MacAddress": "",
            "IPv4Address": "",
            "IPv6Address": "",
        }
        for container_id, container_name, endpoint in members
    }
    return document


def _document(
    name: str, network_id: str, driver: str, created_ns: int, config: list[dict[str, str]] | None
) -> dict[str, Any]:
    seconds, nanoseconds = divmod(created_ns, 1_000_000_000)
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return {
        "Name": name,
        "Id": network_id,
        "Created": f"{stamp}.{nanoseconds:09d}Z",
        "Scope": "local",
        "Driver": driver,
        "EnableIPv4": True,
        "EnableIPv6": False,
        "IPAM": {"Driver": "default", "Options": None, "Config": config},
        "Internal": False,
        "Attachable": False,
        "Ingress": False,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": False,
        "Containers": {},
        "Options": {},
        "Labels": {},
    }
