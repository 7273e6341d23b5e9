import pytest

from engine.base.errors import InvalidArgument
from engine.kernel.process import CloneFlag
from engine.runtime.sysctl import check, file_of, kind_of

_ALL = CloneFlag.NEWNET | CloneFlag.NEWIPC | CloneFlag.NEWUTS | CloneFlag.NEWUSER


@pytest.mark.parametrize(
    ("key", "file"),
    [
        ("net.ipv4.ip_forward", "net/ipv4/ip_forward"),
        ("net/ipv4/ip_forward", "net/ipv4/ip_forward"),
        ("net/ipv4/conf/eth0.1/rp_filter", "net/ipv4/conf/eth0.1/rp_filter"),
        ("kernel.shm_rmid_forced", "kernel/shm_rmid_forced"),
    ],
)
def test_dots_and_slashes(key: str, file: str) -> None:
    assert file_of(key) == file


@pytest.mark.parametrize(
    "key",
    [
        "", ".", "/", "net", "net.", ".net.x", "net..x", "net//x", "/net/x", "net/x/",
        "net/../kernel/core_pattern",
        "net/./x", "net/a b", "net.x=1", "net.x\n", "net.x\0", "net.\u0661", "net/~", "net.x+kernel.y",
    ],
)  # fmt: skip
def test_what_is_no_key_is_refused_by_name(key: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        file_of(key)
    assert str(caught.value) == f"invalid sysctl: {key!r}"


@pytest.mark.parametrize(
    ("key", "kind", "name"),
    [
        ("net.ipv4.ip_forward", CloneFlag.NEWNET, "network"),
        ("kernel.msgmax", CloneFlag.NEWIPC, "ipc"),
        ("kernel.sem", CloneFlag.NEWIPC, "ipc"),
        ("fs.mqueue.msg_max", CloneFlag.NEWIPC, "ipc"),
        ("kernel.domainname", CloneFlag.NEWUTS, "uts"),
        ("user.max_user_namespaces", CloneFlag.NEWUSER, "user"),
    ],
)
def test_a_sysctl_needs_its_namespace(key: str, kind: CloneFlag, name: str) -> None:
    assert kind_of(check(key, "1", own=kind)) == kind
    with pytest.raises(InvalidArgument) as caught:
        check(key, "1", own=_ALL & ~kind)
    assert str(caught.value) == f"sysctl {key}: the container shares the {name} namespace of the host"


@pytest.mark.parametrize(
    "key",
    ["kernel.core_pattern", "kernel.shm", "kernel.msgmaxx", "vm.swappiness", "fs.file-max", "fs.mqueuex.y",
     "network.x", "kernel.panic", "kernel/msgmax/x"],
)  # fmt: skip
def test_what_is_the_machines_is_refused_by_name(key: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        check(key, "1", own=_ALL)
    assert str(caught.value) == f"sysctl {key} is not in a namespace: it is the whole machine's"


def test_names_of_the_host_are_set_in_one_place() -> None:
    with pytest.raises(InvalidArgument, match="set hostname instead"):
        check("kernel.hostname", "x", own=_ALL)
    assert check("kernel.domainname", "x", own=_ALL, domainname="x") == "kernel/domainname"
    with pytest.raises(InvalidArgument, match="domainname says otherwise: 'y'"):
        check("kernel.domainname", "x", own=_ALL, domainname="y")


@pytest.mark.parametrize("value", ["1\n", "1\n2", "1\0", "\x1b[m", "1" * 4096, "\u2028"])
def test_a_value_is_one_line(value: str) -> None:
    with pytest.raises(InvalidArgument, match="not one line of text"):
        check("kernel.sem", value, own=_ALL)


@pytest.mark.parametrize("value", ["1", "250 32000 32 128", "32768\t60999", ""])
def test_values(value: str) -> None:
    assert check("kernel.sem", value, own=_ALL) == "kernel/sem"
