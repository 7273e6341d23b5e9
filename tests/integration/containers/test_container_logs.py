"""`logs` through the engine, for each form that a log can have."""

import http.client
import json
import urllib.parse
from pathlib import Path
from typing import Any

import pytest

from tests.support.engine import Engine, unframe

pytestmark = pytest.mark.requires("root", "namespaces", "net_admin", "nftables", "busybox")

DRIVERS = pytest.mark.parametrize("driver", ["json-file", "local"])


def host(driver: str, **options: str) -> dict[str, Any]:
    names = {name.replace("_", "-"): value for name, value in options.items()}
    return {"LogConfig": {"Type": driver, "Config": names}}


def logs(engine: Engine, container: str, **query: object) -> str:
    text = urllib.parse.urlencode({"stdout": 1, **query})
    return unframe(engine.get(f"/containers/{container}/logs?{text}").body)[0]


@DRIVERS
def test_logs_are_read_over_compressed_files(engine: Engine, driver: str) -> None:
    limits = host(driver, max_size="20k", max_file="9", compress="true")
    made = engine.begin("sh", "-c", "seq 1 1500; printf end", host=limits)
    assert engine.wait(made) == 0
    lines = [f"{number}\n" for number in range(1, 1501)] + ["end"]

    files = sorted(path.name for path in (engine.root / "containers" / made).glob("container.log*"))

    assert files[-1].endswith(".gz")
    assert len(files) > 2
    assert logs(engine, made) == "".join(lines)
    assert logs(engine, made, tail=1000) == "".join(lines[-1000:])
    assert logs(engine, made, since="2999-01-01T00:00:00Z") == ""
    assert logs(engine, made, until="1999-01-01T00:00:00Z") == ""
    stamped = logs(engine, made, timestamps=1, tail=3).splitlines()
    assert [line.split()[1] for line in stamped] == ["1499", "1500", "end"]
    middle = stamped[0].split()[0]
    assert logs(engine, made, since=middle).endswith("1499\n1500\nend")


@DRIVERS
def test_following_crosses_rotations_to_the_containers_end(engine: Engine, driver: str) -> None:
    limits = host(driver, max_size="30k", max_file="99", compress="true")
    made = engine.create("sh", "-c", "seq 1 5000", host=limits)

    def follow() -> str:
        return engine.hijack(f"/containers/{made}/attach?logs=0&stream=1&stdout=1", then=start)[0]

    def start() -> None:
        engine.post(f"/containers/{made}/start")

    assert follow() == logs(engine, made, follow=1)
    assert logs(engine, made).split() == [str(number) for number in range(1, 5001)]


@DRIVERS
def test_attributes_are_shown_with_details(engine: Engine, driver: str) -> None:
    options = host(driver, labels="team", env_regex="^TOK", tag="{{.Name}}/{{.ImageName}}")
    made = engine.begin(
        "echo", "hi", name=f"attr-{driver}", host=options, Labels={"team": "red"}, Env=["TOKEN=a b"]
    )
    engine.wait(made)

    tag = f"tag=attr-{driver}%2Fbusybox%3Alatest"
    assert logs(engine, made, details=1) == f"TOKEN=a+b,{tag},team=red hi\n"
    assert logs(engine, made) == "hi\n"
    path = engine.inspect(made)["LogPath"]
    if driver == "json-file":
        record = json.loads(Path(path).read_text())
        assert record["attrs"] == {"TOKEN": "a b", "tag": f"attr-{driver}/busybox:latest", "team": "red"}
    else:
        assert path == ""


def test_none_keeps_no_log_and_says_so(engine: Engine) -> None:
    made = engine.begin("echo", "hi", host=host("none"))
    engine.wait(made)

    answer = engine.call("GET", f"/containers/{made}/logs?stdout=1")

    assert answer.status == http.client.INTERNAL_SERVER_ERROR
    assert answer.message == "configured logging driver does not support reading"
    assert list((engine.root / "containers" / made).glob("container.log*")) == []


@pytest.mark.parametrize(
    ("driver", "options", "words"),
    [
        ("local", {"tags": "x"}, "unknown log opt 'tags' for local log driver"),
        ("json-file", {"max-file": "1", "compress": "1"}, "compress cannot be true when max-file is less"),
    ],
)
def test_options_are_refused_when_the_container_is_created(
    engine: Engine, driver: str, options: dict[str, str], words: str
) -> None:
    body = {"Image": "busybox", "HostConfig": {"LogConfig": {"Type": driver, "Config": options}}}

    answer = engine.call("POST", "/containers/create", body)

    assert answer.status == http.client.BAD_REQUEST
    assert words in answer.message


def test_a_log_goes_on_over_restarts_of_the_container(engine: Engine) -> None:
    made = engine.begin("sh", "-c", "seq 1 300; exit 3", host=host("local", max_size="4k", max_file="50"))
    for _ in range(3):
        engine.wait(made)
        engine.post(f"/containers/{made}/start")
    engine.wait(made)

    assert logs(engine, made).split() == [str(number) for number in range(1, 301)] * 4
