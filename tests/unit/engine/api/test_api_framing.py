import pytest

from engine.api.framing import (
    HEAD_MAX_BYTES,
    HEADERS_MAX,
    ChunkedBody,
    FixedBody,
    HeadTooLarge,
    head_end,
    parse_head,
)
from engine.base.errors import InvalidArgument


def _head(*lines: str, first: str = "GET /a?b=c HTTP/1.1") -> bytes:
    return "\r\n".join((first, "Host: d", *lines, "", "")).encode()


def test_a_head_has_method_target_and_lower_case_headers() -> None:
    head = parse_head(_head("X-Thing: One"))

    assert (head.method, head.target) == ("GET", b"/a?b=c")
    assert head.headers == {"host": "d", "x-thing": "One"}
    assert (head.content_length, head.chunked, head.upgrade) == (0, False, False)


@pytest.mark.parametrize(
    ("version", "connection", "length", "keeps"),
    [
        ("1.1", "", "", True),
        ("1.1", "close", "", False),
        ("1.1", "close", "0", False),
        ("1.1", "close", "5", False),
        ("1.1", "x, Close", "", False),
        ("1.1", "keep-alive", "", True),
        ("1.0", "", "", False),
        ("1.0", "Keep-Alive", "", True),
        ("1.0", "close", "5", False),
    ],
)
def test_a_connection_is_kept_as_the_client_says(
    version: str, connection: str, length: str, *, keeps: bool
) -> None:
    lines = [f"Connection: {connection}"] if connection else []
    lines += [f"Content-Length: {length}"] if length else []

    assert parse_head(_head(*lines, first=f"POST / HTTP/{version}")).keep_alive is keeps


def test_an_upgrade_is_to_tcp_and_keeps_the_connection() -> None:
    head = parse_head(_head("Connection: Upgrade", "Upgrade: tcp"))
    assert head.upgrade
    assert head.keep_alive
    assert not parse_head(_head("Connection: Upgrade", "Upgrade: h2c")).upgrade


@pytest.mark.parametrize(
    "data",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/2.0\r\n\r\n",
        b"GET / HTTP/1.1\r\nA\r\n\r\n",
        b"GET / HTTP/1.1\r\nA: b\r\n folded\r\n\r\n",
        b"GET / HTTP/1.1\nHost: d\n\r\n\r\n",
        _head("Content-Length: -1"),
        _head("Content-Length: 1", "Content-Length: 2"),
        _head("Content-Length: 1", "Transfer-Encoding: chunked"),
        _head("Transfer-Encoding: gzip"),
        _head("Host: other"),
    ],
)
def test_what_is_no_request_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidArgument, match="malformed request"):
        parse_head(data)


def test_heads_have_a_limit() -> None:
    assert head_end(bytearray(b"GET / HT")) == -1
    assert head_end(bytearray(_head() + b"body")) == len(_head())
    with pytest.raises(HeadTooLarge):
        head_end(bytearray(b"a" * HEAD_MAX_BYTES))
    with pytest.raises(HeadTooLarge):
        parse_head(_head(*["A: b"] * HEADERS_MAX))


def test_a_fixed_body_leaves_what_follows_it() -> None:
    buffer = bytearray(b"bodynext")
    body = FixedBody(4)

    assert list(body.take(buffer)) == [b"body"]
    assert body.done
    assert buffer == b"next"
    assert FixedBody(0).done


_CHUNKED = b"4;x=y\r\nwiki\r\n00a\r\npedia in c\r\n0\r\nTrailer: x\r\n\r\n"


@pytest.mark.parametrize("cut", range(len(_CHUNKED) + 1))
def test_chunks_cut_anywhere_give_the_same_body(cut: int) -> None:
    body, buffer = ChunkedBody(), bytearray()
    got = b""
    for part in (_CHUNKED[:cut], _CHUNKED[cut:] + b"GET"):
        buffer += part
        got += b"".join(body.take(buffer))

    assert got == b"wikipedia in c"
    assert body.done
    assert buffer == b"GET"


@pytest.mark.parametrize(
    "data",
    [
        b"ZZ\r\n",
        b"-1\r\n",
        b"\r\n",
        b"123456789\r\n",
        b"1\r\nabc\r\n",
        b"5" * 2000,
        b"0\r\n" + b"A: b\r\n" * 3000,
    ],
)
def test_broken_chunks_are_refused(data: bytes) -> None:
    with pytest.raises(InvalidArgument, match="malformed request"):
        list(ChunkedBody().take(bytearray(data)))
