"""The client's HTTP against bytes on a real socket."""

import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine.base.errors import InvalidArgument
from hostagent.client.docker import Engine, encode_filters, encode_query, image_segment, segment
from hostagent.client.errors import ApiError, ConnectionLost, Unreachable
from hostagent.client.http import Connection

Say = Callable[[bytes], "Server"]


class Server:
    """Answers each connection with the same bytes, keeps what it was sent, and closes."""

    def __init__(self, path: Path, answer: bytes) -> None:
        self.endpoint = f"unix://{path}"
        self.heard = b""
        self._answer = answer
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            with connection:
                data = connection.recv(1 << 16)
                if not data:
                    return
                self.heard += data
                connection.sendall(self._answer)
                connection.shutdown(socket.SHUT_WR)
                connection.settimeout(10)
                while connection.recv(1 << 16):
                    pass

    def close(self) -> None:
        with socket.socket(socket.AF_UNIX) as end:
            end.connect(self.endpoint.removeprefix("unix://"))
        self._thread.join(10)
        self._listener.close()


@pytest.fixture
def say(tmp_path: Path) -> Iterator[Say]:
    servers: list[Server] = []

    def make(answer: bytes) -> Server:
        servers.append(Server(tmp_path / f"s{len(servers)}", answer))
        return servers[-1]

    yield make
    for server in servers:
        server.close()


def test_a_document_is_asked_for_and_decoded(say: Say) -> None:
    server = say(b'HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n{"a":1}\n')

    with Engine(server.endpoint) as engine:
        assert engine.get("/containers/json", all=True, limit=None, name="a b&c") == {"a": 1}

    assert server.heard.startswith(b"GET /containers/json?all=1&name=a%20b%26c HTTP/1.1\r\n")


def test_a_chunked_stream_of_documents(say: Say) -> None:
    body = b'{"n": 1}\r\n{"n"', b': "\xc3', b'\xa4"}{"n": 3}'
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in body)
    server = say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n")

    with Engine(server.endpoint) as engine, engine.stream("GET", "/events", {}) as answer:
        assert [item["n"] for item in answer.json_lines()] == [1, "ä", 3]


def test_an_upgrade_keeps_the_bytes_that_came_early(say: Say) -> None:
    server = say(b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\nearly")

    with Engine(server.endpoint) as engine:
        sock, early = engine.hijack("/containers/x/attach", {})
        with sock:
            assert early + sock.recv(100) == b"early"

    assert b"Upgrade: tcp" in server.heard


@pytest.mark.parametrize(
    ("answer", "status", "text"),
    [
        (b'404 Not Found\r\nContent-Length: 24\r\n\r\n{"message":"No such x"}\n', 404, "^No such x$"),
        (b"500 Oops\r\nContent-Length: 5\r\n\r\na\nb\n\n", 500, "^a b$"),
        (b"502 Bad\r\nContent-Length: 0\r\n\r\n", 502, "status 502"),
    ],
)
def test_an_error_has_the_engines_words(say: Say, answer: bytes, status: int, text: str) -> None:
    server = say(b"HTTP/1.1 " + answer)

    with Engine(server.endpoint) as engine, pytest.raises(ApiError, match=text) as caught:
        engine.post("/x")
    assert caught.value.status == status


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (b"", "without an answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Le", "without an answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{", "middle of an answer"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{", "middle of an answer"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "not HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\noops", "not JSON"),
    ],
)
def test_a_broken_answer_is_told(say: Say, answer: bytes, text: str) -> None:
    server = say(answer)

    with Engine(server.endpoint) as engine, pytest.raises(ConnectionLost, match=text):
        engine.post("/x")


def test_nobody_there_is_told_by_address(tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match=f"{tmp_path}/none"):
        Connection(f"unix://{tmp_path}/none")
    with pytest.raises(Unreachable, match="port is not a number"):
        Connection("tcp://localhost:http")


def test_words_for_urls() -> None:
    assert segment("a/b c") == "a%2Fb%20c"
    assert image_segment("reg:5000/a/b:1@sha256:0") == "reg:5000/a/b:1@sha256:0"
    assert encode_query({"a": False, "b": None, "c": ["1", "2"], "d": 0}) == "c=1&c=2&d=0"
    assert encode_filters(["Name=a", "name= b "]) == '{"name": ["a", "b"]}'
    assert encode_filters([]) is None
    with pytest.raises(InvalidArgument, match="want key=value"):
        encode_filters(["name"])


def test_what_is_not_utf8_is_refused_before_it_is_sent(say: Say) -> None:
    server = say(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
    with Engine(server.endpoint) as engine:
        for path, body in (("/x", {"Cmd": ["a\udcffb"]}), ("/" + "x", {"a\udcffb": ""})):
            with pytest.raises(InvalidArgument, match=r"not UTF-8 text: .*a\\xffb"):
                engine.post(path, body)
        with pytest.raises(InvalidArgument, match="not UTF-8 text"):
            engine.get("/x", name="a\udcff")
    with pytest.raises(InvalidArgument, match="not UTF-8 text"):
        segment("a\udcff")

    assert server.heard == b""
