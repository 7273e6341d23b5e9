"""Port flags (-p, --expose) to the API's maps, and the API's list back to the PORTS column; no I/O.

Source: docker/go-connections v0.5, nat.ParsePortSpec; docker/cli v28, formatter.DisplayablePorts.
"""

import re
from collections.abc import Iterable
from typing import Any

from engine.base.errors import InvalidArgument

PortMap = dict[str, list[dict[str, str]]]
_PROTOCOLS = frozenset({"tcp", "udp", "sctp"})
_MAX_PORT = 65535
_PORT = re.compile(r"[0-9]{1,5}\Z", re.ASCII)


def parse_publish(specs: Iterable[str]) -> PortMap:
    """Return PortBindings for ``[IP:][HOST[-HOST]:]CONTAINER[-CONTAINER][/PROTO]`` words.

    Raises:
        InvalidArgument: a word has no such form.
    """
    bindings: PortMap = {}
    for spec in specs:
        if "=" in spec:
            spec = _from_long_form(spec)  # noqa: PLW2901 (the same thing in its short form)
        for key, binding in _parse_one(spec):
            bindings.setdefault(key, []).append(binding)
    return bindings


def _from_long_form(spec: str) -> str:
    """Return ``published=8080,target=80,protocol=tcp`` as ``8080:80/tcp``."""
    fields = dict(part.partition("=")[::2] for part in spec.split(","))
    unknown = set(fields) - {"published", "target", "protocol", "mode"}
    if unknown or "target" not in fields:
        raise InvalidArgument(f"invalid port {spec!r}: want published=PORT,target=PORT,protocol=tcp")
    published = f"{fields['published']}:" if fields.get("published") else ""
    return f"{published}{fields['target']}/{fields.get('protocol', 'tcp')}"


def _parse_one(spec: str) -> list[tuple[str, dict[str, str]]]:
    rest, protocol = _protocol(spec)
    address, host, container = _split(rest, spec)
    first, last = parse_range(container, spec)
    count = last - first + 1
    if not host or host == "0":
        hosts = [""] * count  # the engine takes free ones
    else:
        host_first, host_last = parse_range(host, spec)
        if host_last - host_first + 1 == count:
            hosts = [str(host_first + number) for number in range(count)]
        elif count == 1:
            hosts = [host]  # the engine takes a free one of the range
        else:
            raise InvalidArgument(f"invalid port {spec!r}: the two ranges have different lengths")
    return [
        (f"{first + number}/{protocol}", {"HostIp": address, "HostPort": hosts[number]})
        for number in range(count)
    ]


def _protocol(spec: str) -> tuple[str, str]:
    """Return ``80/udp`` as its two parts; tcp when it has none."""
    ports, _, protocol = spec.partition("/")
    protocol = protocol.lower() or "tcp"
    if protocol not in _PROTOCOLS:
        raise InvalidArgument(f"invalid port {spec!r}: unknown protocol {protocol!r}")
    return ports, protocol


def _split(rest: str, spec: str) -> tuple[str, str, str]:
    address = ""
    if rest.startswith("["):
        address, bracket, rest = rest[1:].partition("]")
        if not bracket or not rest.startswith(":"):
            raise InvalidArgument(f"invalid port {spec!r}: want [IPv6]:HOST:CONTAINER")
        rest = rest[1:]
        host, _, container = rest.rpartition(":")
        return address, host, container
    parts = rest.split(":")
    if len(parts) > 3:  # noqa: PLR2004 (address, host, container)
        raise InvalidArgument(f"invalid port {spec!r}: put an IPv6 address in brackets")
    address, host, container = ([""] * (3 - len(parts)) + parts)[:3]
    return address, host, container


def parse_range(text: str, spec: str) -> tuple[int, int]:
    """Return first and last of ``80`` or ``8000-8010``; `spec` is for the message."""
    first, dash, last = text.partition("-")
    low = int(first) if _PORT.match(first) else -1
    high = low if not dash else int(last) if _PORT.match(last) else -1
    if not 0 < low <= high <= _MAX_PORT:
        raise InvalidArgument(f"invalid port {spec!r}: {text!r} is no port or range of ports")
    return low, high


def parse_expose(specs: Iterable[str]) -> dict[str, dict[str, str]]:
    """Return ExposedPorts for ``--expose`` words such as ``80`` or ``70-72/udp``."""
    exposed: dict[str, dict[str, str]] = {}
    for spec in specs:
        ports, protocol = _protocol(spec)
        first, last = parse_range(ports, spec)
        for port in range(first, last + 1):
            exposed[f"{port}/{protocol}"] = {}
    return exposed


def displayable(ports: list[dict[str, Any]]) -> str:
    """Return the PORTS column: neighbours with equal mappings merged into ranges."""

    def order(port: dict[str, Any]) -> tuple[int, str, int, str]:
        return port["PrivatePort"], port.get("IP", ""), port.get("PublicPort", 0), port["Type"]

    done: list[str] = []
    mapped: list[str] = []
    open_groups: dict[tuple[str, str], list[int]] = {}
    for port in sorted(ports, key=order):
        private, address = port["PrivatePort"], port.get("IP", "")
        if address and port.get("PublicPort") != private:
            mapped.append(f"{_host(address)}:{port['PublicPort']}->{private}/{port['Type']}")
            continue
        group = open_groups.setdefault((address, port["Type"]), [private, private - 1])
        if private != group[1] + 1:
            done.append(_group(address, port["Type"], group))
            group[0] = private
        group[1] = private
    done += [_group(address, kind, group) for (address, kind), group in open_groups.items()]
    return ", ".join(done + mapped)


def _group(address: str, protocol: str, group: list[int]) -> str:
    ports = str(group[0]) if group[0] == group[1] else f"{group[0]}-{group[1]}"
    return f"{_host(address)}:{ports}->{ports}/{protocol}" if address else f"{ports}/{protocol}"


def _host(address: str) -> str:
    return f"[{address}]" if ":" in address else address
