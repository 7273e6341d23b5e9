"""What the API says to requests that make no sense; each is answered in one line and changes nothing."""

import json
from typing import Any

import pytest

from tests.support.pyengined import Engine

pytestmark = pytest.mark.requires("root", "namespaces", "net_admin", "nftables", "busybox")

_CREATE = "/containers/create"
_OTHER: dict[str, Any] = {"Image": "busybox"}


@pytest.fixture(autouse=True)
def _unharmed(engine: Engine) -> Any:
    """After each: no container was made, nothing unforeseen was logged, the engine answers."""
    yield
    assert engine.request("GET", "/containers/json?all=1") == (200, [])
    assert engine.traceback() == ""
    assert engine.request("GET", "/_ping") == (200, b"OK")


@pytest.mark.parametrize(
    ("method", "target", "status", "message"),
    [
        ("GET", "/v1.23/version", 400, "client version 1.23 is too old."),
        ("GET", "/v1.99/version", 400, "client version 1.99 is too new."),
        ("GET", "/v1.51/nothing", 404, "page not found"),
        ("GET", "/vx/version", 404, "page not found"),
        ("PUT", "/version", 405, "method not allowed"),
        ("GET", "/containers/%zz/json", 400, "malformed request: broken percent escape"),
        ("GET", "/containers/a%00b/json", 400, "malformed request: NUL"),
        ("GET", "/containers/json?all=maybe", 400, "invalid value for all: 'maybe' is not a boolean"),
        ("GET", "/containers/json?limit=x", 400, "invalid value for limit: 'x' is not a number"),
        ("GET", "/containers/json?filters=x", 400, "invalid filters: JSON is malformed"),
        ("GET", '/containers/json?filters={"colour":["red"]}', 400, "invalid filter 'colour'"),
        ("GET", '/containers/json?filters={"name":5}', 400, "invalid filter 'name'"),
        ("GET", '/events?filters={"colour":["red"]}', 400, "invalid filter 'colour'"),
        ("GET", "/events?since=yesterday", 400, "invalid value for since: 'yesterday' is not a time"),
        ("POST", '/networks/prune?filters={"name":["x"]}', 400, "invalid filter 'name'"),
        ("GET", "/containers/nobody/json", 404, "No such container: nobody"),
        ("POST", "/containers/nobody/start", 404, "No such container: nobody"),
        ("POST", "/containers/nobody/wait", 404, "No such container: nobody"),
        ("POST", "/containers/nobody/attach?stream=1", 404, "No such container: nobody"),
        ("GET", "/containers/nobody/logs?stdout=1", 404, "No such container: nobody"),
        ("DELETE", "/containers/nobody", 404, "No such container: nobody"),
        ("GET", "/exec/nothing/json", 404, "No such exec instance: nothing"),
        ("GET", "/images/nothing/json", 404, "No such image: nothing:latest"),
        ("POST", "/images/busybox/tag?repo=", 400, "repo: no repository was named"),
        ("POST", "/images/create?fromImage=UPPER", 400, "invalid reference format"),
        ("POST", "/images/load", 400, "invalid image archive: "),
        ("GET", "/volumes/nothing", 404, "get nothing: no such volume"),
        ("GET", "/networks/nothing", 404, "network nothing not found"),
        ("DELETE", "/networks/bridge", 403, "bridge is a pre-defined network and cannot be removed"),
        ("GET", "/images/search?term=x", 501, "searching registries is not supported"),
        ("GET", "/containers/nobody/stats", 501, "container statistics is not supported"),
        ("HEAD", "/containers/nobody/archive?path=/", 501, ""),
        ("POST", "/build", 501, "building images is not supported"),
    ],
)
def test_a_request_that_cannot_be_met(
    engine: Engine, method: str, target: str, status: int, message: str
) -> None:
    got, answer = engine.request(method, target.replace('"', "%22"))

    assert got == status
    if method != "HEAD":
        assert list(answer) == ["message"]
        assert answer["message"].startswith(message)
        assert "\n" not in answer["message"]


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b"{bad", 400, "invalid container configuration: JSON is malformed"),
        (b"[]", 400, "invalid container configuration: expected `object`, got `array`"),
        (b"[" * 100_000, 400, "invalid container configuration: maximum recursion depth"),
        (b"\xff", 400, "invalid container configuration: "),
        ({"Image": 5}, 400, "invalid container configuration: expected `str`, got `int` - at `$.Image`"),
        ({}, 400, "invalid reference format"),
        ({"Image": "nothing"}, 404, "No such image: nothing:latest"),
        ({"Image": "../../etc"}, 400, "invalid reference format"),
        (_OTHER | {"Env": ["A\0B"]}, 400, "invalid environment variable"),
        (_OTHER | {"WorkingDir": "here"}, 400, "the working directory 'here' is invalid"),
        (_OTHER | {"HostConfig": {"Memory": "x"}}, 400, "invalid container configuration: expected `int`"),
        (_OTHER | {"HostConfig": {"Memory": 1}}, 400, "Minimum memory limit allowed is 6MB"),
        (_OTHER | {"HostConfig": {"PortBindings": {"x": [{}]}}}, 400, "invalid containerPort: x"),
        (_OTHER | {"HostConfig": {"NetworkMode": "mine"}}, 501, "network 'mine': "),
        (_OTHER | {"HostConfig": {"RestartPolicy": {"Name": "often"}}}, 400, "invalid restart policy"),
        (b" " * (9 << 20), 413, "request body over 8388608 bytes"),
    ],
)
def test_a_container_that_cannot_be(engine: Engine, body: Any, status: int, message: str) -> None:
    got, answer = engine.request("POST", _CREATE, body)

    assert got == status
    assert answer["message"].startswith(message)


@pytest.mark.parametrize("name", ["%2F", "a%2Fb", "-a", "%20", "a%0Ab"])
def test_a_name_that_cannot_be(engine: Engine, name: str) -> None:
    status, answer = engine.request("POST", f"{_CREATE}?name={name}", {"Image": "busybox"})

    assert status == 400
    assert "Invalid container name" in answer["message"]


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET / HTTP/1.1\r\nX: " + b"a" * 70_000, 431),
        (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 300 + b"\r\n", 431),
        (b"\x16\x03\x01\x02\x00\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"GET http://d/_ping HTTP/1.1\r\nHost: d\r\n\r\n", 400),
        (b"POST /containers/create HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST /build HTTP/1.1\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"POST /containers/create HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n", 400),
        (b"POST /containers/create HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n", 400),
    ],
)
def test_bytes_that_are_no_request(engine: Engine, data: bytes, status: int) -> None:
    got, body = engine.raw(data)

    assert got == status
    assert json.loads(body)["message"]


def test_half_a_request_is_refused_and_half_a_head_is_dropped(engine: Engine) -> None:
    head = b"POST /containers/create HTTP/1.1\r\nContent-Length: 100\r\n\r\n"

    status, body = engine.raw(head + b'{"Image":', end=True)

    assert status == 400
    assert "before the end of its request" in json.loads(body)["message"]
    assert engine.raw(b"GET /version HT", end=True) == (0, b"")
