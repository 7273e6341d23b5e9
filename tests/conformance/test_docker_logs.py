"""Logs of the `local` and json-file drivers between dockerd and this engine, each reading the other's."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.containers.logs import LogLine, details, read
from tests.support.drivers import IMAGE, Dockerd, call, ok
from tests.support.loglab import log_of

pytestmark = pytest.mark.requires("root", "namespaces", "busybox", "dockerd")

LONG = "x" * 40_000 + "\n"
TEXT = "out\n\n" + "".join(f"{number}\n" for number in range(1, 601)) + LONG + "end"
SCRIPT = "echo out; echo; seq 1 600; head -c 40000 /dev/zero | tr '\\0' x; echo; printf end"
DRIVERS = pytest.mark.parametrize("driver", ["local", "json-file"])
_OPTIONS = ("--log-opt", "max-size=8k", "--log-opt", "max-file=99", "--log-opt", "compress=true")


@pytest.fixture(scope="module")
def docker() -> Iterator[Dockerd]:
    made = Dockerd()
    yield made
    made.close()


@pytest.fixture
def name(docker: Dockerd) -> Iterator[str]:
    yield "logged"
    call(docker, "rm", "-f", "logged")


def run(docker: Dockerd, name: str, driver: str, *words: str) -> Path:
    """Run a container to its end; return where its log is."""
    ok(docker, "run", "--name", name, "--network", "host", "--log-driver", driver, *_OPTIONS, *words)
    container = ok(docker, "inspect", "--format", "{{.Id}}", name)
    directory = docker.base / "data/containers" / container
    return directory / ("local-logs/container.log" if driver == "local" else f"{container}-json.log")


def ours(path: Path) -> list[LogLine]:
    async def run() -> list[LogLine]:
        return [line async for line in read(path)]

    return asyncio.run(run())


@DRIVERS
def test_dockers_log_is_read(docker: Dockerd, name: str, driver: str) -> None:
    path = run(docker, name, driver, IMAGE, "sh", "-c", SCRIPT)

    lines = ours(path)

    assert list(path.parent.glob("*.gz"))
    assert b"".join(line.text for line in lines).decode() == TEXT
    stamps = [word.split(" ")[0] for word in call(docker, "logs", "--timestamps", name).out.splitlines()]
    assert lines[0].time_ns % 10**9 == int(stamps[0].split(".")[1].rstrip("Z"))


@DRIVERS
def test_docker_reads_ours(docker: Dockerd, name: str, driver: str) -> None:
    path = run(docker, name, driver, IMAGE, "true")
    log = log_of(driver, path, max_bytes=8000, max_files=99, compress=True, attrs={"tag": "a b"})
    for at in range(0, len(TEXT), 1000):
        log.write("stdout", TEXT[at : at + 1000].encode())
    log.write("stderr", b"err\n")
    log.finish()
    log.close()

    got = call(docker, "logs", name)

    assert list(path.parent.glob("*.gz"))
    text = TEXT
    if driver == "local":  # docker 20.10 forgets the newline of a line in pieces, of its own ones too
        text = text.replace(LONG, LONG.rstrip())
    assert (got.out, got.err) == (text, "err\n")
    assert call(docker, "logs", "--since", "2999-01-01T00:00:00Z", name).out == ""
    if driver == "json-file":  # docker 20.10 knows no attributes of `local` records, and passes over them
        assert details(ours(path)[0]) == b"tag=a+b "
        assert call(docker, "logs", "--details", "--tail", "2", name).err == "tag=a+b err\n"
