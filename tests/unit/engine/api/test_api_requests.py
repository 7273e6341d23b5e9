"""engine.api.http, versions, filters, errors: what a request says, and how errors are spelled."""

import asyncio
import datetime
from collections.abc import Iterator

import pytest

from engine.api import errors, filters, versions
from engine.api.http import Body, BodyTooLarge, Peer, Request, Response, Route, Router, split_target, unquote
from engine.base.errors import EngineError, InvalidArgument, NotFound
from engine.spec.docker import CreateRequest


async def _nothing(_request: Request) -> Response:
    return Response()


def _request(target: str, body: bytes = b"") -> Request:
    path, query = split_target(target.encode())
    arrived = Body(lambda: None, lambda: None)
    arrived.feed(body)
    arrived.end()
    return Request("POST", path, (1, 51), query, {}, arrived, Peer())


# targets and routes


def test_a_target_is_split_and_decoded() -> None:
    assert split_target(b"/a%20b?c=%2Fd&c=e+f&g") == ("/a b", {"c": ("/d", "e f"), "g": ("",)})


@pytest.mark.parametrize("target", [b"a", b"http://d/a", b"/%", b"/%g0", b"/%ff", b"/%00", b"/?a=%2"])
def test_a_target_that_makes_no_sense_is_refused(target: bytes) -> None:
    with pytest.raises(InvalidArgument, match="malformed request"):
        split_target(target)


def test_unquote_leaves_what_is_not_escaped() -> None:
    assert unquote(b"a+b\xc3\xa9%41") == "a+b\u00e9A"


def test_routes_match_by_segment_and_names_of_images_may_have_several() -> None:
    router = Router(
        [
            Route("GET", "/images/json", _nothing),
            Route("GET", "/images/{name...}/json", _nothing),
            Route("DELETE", "/images/{name...}", _nothing),
            Route("GET", "/containers/{name}/json", _nothing),
        ]
    )
    assert router.find("GET", "/images/json")[1] == {}
    assert router.find("GET", "/images/a/b:c/json")[1] == {"name": "a/b:c"}
    assert router.find("DELETE", "/images/host:5000/a/b")[1] == {"name": "host:5000/a/b"}
    assert router.find("GET", "/containers/x/json")[1] == {"name": "x"}
    assert router.find("GET", "/containers/x/y/json") == (None, {}, False)
    assert router.find("GET", "/containers//json") == (None, {}, False)
    assert router.find("PUT", "/containers/x/json") == (None, {}, True)
    assert router.find("GET", "/nothing") == (None, {}, False)


# parameters and bodies


@pytest.mark.parametrize(
    ("text", "value"), [("1", True), ("True", True), ("0", False), ("", False), ("false", False)]
)
def test_flags_are_spelled_in_many_ways(text: str, *, value: bool) -> None:
    assert _request(f"/?f={text}").flag("f") is value


def test_parameters_of_the_wrong_kind_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="not a boolean"):
        _request("/?f=maybe").flag("f")
    for text in ("x", "1.5", "%D9%A1", "9" * 30, "--1"):
        with pytest.raises(InvalidArgument, match="not a number"):
            _request(f"/?n={text}").integer("n")
    assert _request("/?n=-1").integer("n") == -1
    assert _request("/").integer("n", 7) == 7


def test_a_null_counts_as_absent_except_as_a_value_of_a_map() -> None:
    body = b'{"Image":"a","Cmd":null,"Volumes":{"/v":null},"HostConfig":{"Binds":null,"Memory":null}}'

    got = asyncio.run(_request("/", body).json(CreateRequest))

    assert got.cmd is None
    assert got.volumes == {"/v": None}
    assert got.host_config.memory == 0


def test_a_body_has_a_limit() -> None:
    with pytest.raises(BodyTooLarge):
        asyncio.run(_request("/", b"x" * 11).body.read(10))


def test_an_unread_body_pauses_its_connection_until_it_is_read() -> None:
    said: list[str] = []
    body = Body(lambda: said.append("pause"), lambda: said.append("resume"))
    body.feed(b"x" * 400_000)
    assert said == []
    body.feed(b"x" * 400_000)
    assert said == ["pause"]
    body.end()

    assert len(asyncio.run(body.read())) == 800_000

    assert said == ["pause", "resume"]


# versions


@pytest.mark.parametrize(
    ("path", "version", "rest"),
    [
        ("/v1.24/info", (1, 24), "/info"),
        ("/v1.51/info", (1, 51), "/info"),
        ("/info", versions.MAXIMUM, "/info"),
        ("/v1.24", versions.MAXIMUM, "/v1.24"),
        ("/volumes/x", versions.MAXIMUM, "/volumes/x"),
        ("/v1.x/info", versions.MAXIMUM, "/v1.x/info"),
    ],
)
def test_a_path_may_name_its_version(path: str, version: tuple[int, int], rest: str) -> None:
    assert versions.split(path) == (version, rest)


@pytest.mark.parametrize(("path", "word"), [("/v1.23/info", "too old"), ("/v1.52/info", "too new")])
def test_versions_outside_the_window_are_refused(path: str, word: str) -> None:
    with pytest.raises(InvalidArgument, match=word):
        versions.split(path)


# filters and times


def test_filters_have_two_spellings() -> None:
    assert filters.parse(_request('/?filters={"a":["b","c"]}')) == {"a": ["b", "c"]}
    assert filters.parse(_request('/?filters={"a":{"b":true,"c":false}}')) == {"a": ["b"]}
    assert filters.parse(_request("/")) == {}


@pytest.mark.parametrize("text", ["x", "[]", '{"a":1}', '{"a":[1]}', '{"a":"b"}'])
def test_filters_in_another_form_are_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid filter"):
        filters.parse(_request(f"/?filters={text}"))


def test_moments_are_seconds_or_rfc_3339() -> None:
    assert filters.moment_ns("", "since") == 0
    assert filters.moment_ns("12", "since") == 12_000_000_000
    assert filters.moment_ns("12.000000345", "since") == 12_000_000_345
    moment = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
    assert filters.moment_ns("2026-01-02T03:04:05Z", "since") == int(moment.timestamp()) * 1_000_000_000
    with pytest.raises(InvalidArgument, match="invalid value for since: 'soon' is not a time"):
        filters.moment_ns("soon", "since")


# errors


def _subclasses(kind: type[EngineError]) -> Iterator[type[EngineError]]:
    for one in kind.__subclasses__():
        yield one
        yield from _subclasses(one)


def test_every_kind_of_error_below_the_first_has_a_status() -> None:
    direct = [kind for kind in EngineError.__subclasses__() if kind.__module__ == "engine.base.errors"]
    assert direct
    for kind in direct:
        assert any(issubclass(kind, listed) for listed, _ in errors.STATUS), kind


def test_no_entry_of_the_table_hides_a_later_one() -> None:
    kinds = [kind for kind, _ in errors.STATUS]
    for at, kind in enumerate(kinds):
        assert not any(issubclass(kind, earlier) for earlier in kinds[:at]), kind


def test_what_was_not_raised_on_purpose_is_500_in_one_line() -> None:
    answer = errors.error_response(ZeroDivisionError())
    assert (answer.status, answer.body) == (500, b'{"message":"ZeroDivisionError"}\n')


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("container", "No such container: x"),
        ("image", "No such image: x"),
        ("exec", "No such exec instance: x"),
        ("network", "network x not found"),
        ("volume", "get x: no such volume"),
    ],
)
def test_what_is_missing_is_named_as_docker_does(kind: str, text: str) -> None:
    assert errors.text_of(NotFound(kind, "x")) == text
    assert errors.status_of(NotFound(kind, "x")) == 404


def test_a_hint_is_part_of_the_message() -> None:
    assert errors.text_of(InvalidArgument("no", hint="try yes")) == "no (try yes)"
