import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.base.errors import InvalidArgument
from engine.networks import etcfiles

HOST = """\
# made by something
search corp.example lan.
options ndots:2 timeout:1
nameserver 127.0.0.53
nameserver 192.0.2.53 # the real one
nameserver fe80::1%eth0
nameserver 2001:db8::53
nameserver 198.51.100.53
"""


def test_the_hosts_servers_are_kept_without_those_a_container_cannot_reach() -> None:
    assert etcfiles.resolv_conf(HOST) == (
        "nameserver 192.0.2.53\nnameserver 198.51.100.53\n"
        "search corp.example lan.\noptions ndots:2 timeout:1\n"
    )


@pytest.mark.parametrize(
    "text", ["", "nameserver 127.0.0.53\n", "nameserver ::1\nnameserver 169.254.1.1\n", "nameserver\n"]
)
def test_without_a_server_that_is_reachable_public_ones_are_taken(text: str) -> None:
    assert etcfiles.resolv_conf(text) == "nameserver 8.8.8.8\nnameserver 8.8.4.4\n"


def test_what_the_user_gives_replaces_the_hosts() -> None:
    text = etcfiles.resolv_conf(HOST, servers=["127.0.0.1", "2001:db8::1"], search=["."], options=["rotate"])

    assert text == "nameserver 127.0.0.1\nnameserver 2001:db8::1\noptions rotate\n"


@pytest.mark.parametrize(
    "given",
    [
        {"servers": ["8.8.8.8\nnameserver 6.6.6.6"]},
        {"servers": ["dns.example"]},
        {"search": ["a b"]},
        {"search": ["a\nnameserver 6.6.6.6"]},
        {"options": ["ndots:1\nnameserver 6.6.6.6"]},
    ],
)
def test_no_value_adds_a_line(given: dict[str, list[str]]) -> None:
    with pytest.raises(InvalidArgument):
        etcfiles.resolv_conf(HOST, **given)


@given(st.text())
def test_any_host_file_gives_lines_of_the_known_kinds(text: str) -> None:
    lines = etcfiles.resolv_conf(text).splitlines()

    assert lines
    assert {line.split(" ")[0] for line in lines} <= {"nameserver", "search", "options"}


def test_the_hosts_file_names_the_container_last() -> None:
    text = etcfiles.hosts(["172.17.0.2"], "web", domainname="example.org", extra=[("db", "10.0.0.5")])

    assert text.startswith("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n")
    assert text.endswith("10.0.0.5\tdb\n172.17.0.2\tweb.example.org web\n")
    assert etcfiles.hosts([], "") == "".join(f"{line}\n" for line in text.splitlines()[:6])


@pytest.mark.parametrize("name", ["web\n6.6.6.6 bank", "a b", "", "-a", "a\tb", "a" * 300, "ü", "a\0"])
def test_a_name_that_would_add_a_line_is_refused(name: str) -> None:
    with pytest.raises(InvalidArgument):
        etcfiles.hostname_file(name)
    with pytest.raises(InvalidArgument):
        etcfiles.hosts([], "web", extra=[(name, "10.0.0.1")])
    with pytest.raises(InvalidArgument):
        etcfiles.hosts([], "web", extra=[("db", "10.0.0.1\n10.0.0.2")])


def test_a_host_name_file_is_one_line() -> None:
    assert etcfiles.hostname_file("Web_1.example") == "Web_1.example\n"
