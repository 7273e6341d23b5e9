"""The content of a container's /etc/resolv.conf, /etc/hosts and /etc/hostname: text in, text out.

Names and addresses from a request are checked here before they become lines
of a file: a newline in a host name must not add a line.

Source: resolv.conf(5), hosts(5); docker's rules for which servers are kept.
"""

import re
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address

from engine.base.errors import InvalidArgument

DEFAULT_SERVERS = ("8.8.8.8", "8.8.4.4")
_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]{0,251}[A-Za-z0-9_])?\Z", re.ASCII)
_SEARCH = re.compile(r"(\.|[A-Za-z0-9_]([A-Za-z0-9._-]{0,251}[A-Za-z0-9_.])?)\Z", re.ASCII)
_OPTION = re.compile(r"[A-Za-z0-9:_.-]{1,64}\Z", re.ASCII)
_HOSTS_HEAD = (
    "127.0.0.1\tlocalhost",
    "::1\tlocalhost ip6-localhost ip6-loopback",
    "fe00::0\tip6-localnet",
    "ff00::0\tip6-mcastprefix",
    "ff02::1\tip6-allnodes",
    "ff02::2\tip6-allrouters",
)


def resolv_conf(
    host: str,
    *,
    servers: Sequence[str] = (),
    search: Sequence[str] | None = None,
    options: Sequence[str] | None = None,
) -> str:
    """Return the resolv.conf of a container on a bridge.

    Servers are `servers` (--dns) if given, else the host's without those on
    its loopback or on a link (a container cannot reach them) and without
    IPv6 ones (the bridge has no IPv6), else public ones. `search` and
    `options` replace the host's lines; ["."] for `search` means none.

    Args:
        host: text of the host's /etc/resolv.conf; lines that make no sense are skipped.
        servers: addresses of --dns.
        search: domains of --dns-search.
        options: of --dns-option.

    Raises:
        InvalidArgument: a server is no address, or a search name or option is malformed.
    """
    parsed = _parse(host)
    chosen = [str(_checked_address(server)) for server in servers] or [
        server for server in parsed["nameserver"] if _reachable(server)
    ]
    searches = (
        parsed["search"] if search is None else [_checked(name, _SEARCH, "search domain") for name in search]
    )
    chosen_options = (
        parsed["options"]
        if options is None
        else [_checked(option, _OPTION, "dns option") for option in options]
    )
    lines = [f"nameserver {server}" for server in chosen or DEFAULT_SERVERS]
    if searches and searches != ["."]:
        lines.append("search " + " ".join(searches))
    if chosen_options:
        lines.append("options " + " ".join(chosen_options))
    return "\n".join(lines) + "\n"


def hosts(
    addresses: Iterable[str],
    hostname: str,
    *,
    domainname: str = "",
    extra: Iterable[tuple[str, str]] = (),
) -> str:
    """Return the hosts file of a container.

    Args:
        addresses: of the container's endpoints; each gets a line with its name.
        hostname: the container's; "" leaves those lines out.
        domainname: makes `hostname.domainname` the first name of those lines.
        extra: (name, address) of --add-host, `host-gateway` already resolved.

    Raises:
        InvalidArgument: a name or an address is malformed.
    """
    lines = list(_HOSTS_HEAD)
    lines.extend(
        f"{_checked_address(address)}\t{_checked(name, _NAME, 'host name')}" for name, address in extra
    )
    if hostname:
        names = _checked(hostname, _NAME, "host name")
        if domainname:
            names = f"{names}.{_checked(domainname, _NAME, 'domain name')} {names}"
        lines.extend(f"{_checked_address(address)}\t{names}" for address in addresses)
    return "\n".join(lines) + "\n"


def hostname_file(hostname: str) -> str:
    """Return the text of /etc/hostname.

    Raises:
        InvalidArgument: the name is malformed.
    """
    return _checked(hostname, _NAME, "host name") + "\n"


def _parse(text: str) -> dict[str, list[str]]:
    """Return nameservers (all), and search and options (last line wins), keeping only well-formed words."""
    found: dict[str, list[str]] = {"nameserver": [], "search": [], "options": []}
    for line in text.splitlines():
        words = line.split("#", 1)[0].split(";", 1)[0].split()
        if len(words) < 2:  # noqa: PLR2004 (a keyword and its first value)
            continue
        keyword, values = words[0], words[1:]
        if keyword == "nameserver":
            found["nameserver"].append(values[0])
        elif keyword in {"search", "domain"}:
            found["search"] = [value for value in values if _SEARCH.match(value)]
        elif keyword == "options":
            found["options"] = [value for value in values if _OPTION.match(value)]
    return found


def _reachable(server: str) -> bool:
    try:
        address = ip_address(server)
    except ValueError:
        return False
    return isinstance(address, IPv4Address) and not (address.is_loopback or address.is_link_local)


def _checked_address(text: str) -> IPv4Address | IPv6Address:
    try:
        return ip_address(text)
    except ValueError as err:
        raise InvalidArgument(f"invalid ip address: {text!r}") from err


def _checked(text: str, grammar: re.Pattern[str], noun: str) -> str:
    if not grammar.match(text):
        raise InvalidArgument(f"invalid {noun}: {text!r}")
    return text
