from typing import Any

import pytest

from engine.base.errors import InvalidArgument, NotSupported
from engine.containers.logoptions import LogSettings, attributes, settings
from engine.spec.docker import LogConfig
from tests.support.definitions import definition

MIB = 1 << 20


def chosen(driver: str = "", **options: str) -> LogSettings:
    names = {name.replace("_", "-"): value for name, value in options.items()}
    return settings(LogConfig(type=driver, config=names))


def attrs(options: dict[str, str], **body: Any) -> dict[str, str]:
    made = definition(HostConfig={"LogConfig": {"Type": "json-file", "Config": options}}, **body)
    return attributes(made)


def test_a_log_is_rotated_unless_told_otherwise() -> None:
    assert chosen() == LogSettings("json-file", 20 * MIB, 5, compress=False)
    assert chosen("local") == LogSettings("local", 20 * MIB, 5, compress=True)
    assert chosen("json-file", max_size="-1").max_bytes == 0
    assert chosen("none").driver == "none"


def test_limits_are_taken_as_docker_takes_them() -> None:
    assert chosen("local", max_size="2m", max_file="3") == LogSettings("local", 2_000_000, 3, compress=True)
    assert chosen("local", max_size="64k", compress="F").max_bytes == 64_000
    assert chosen("json-file", compress="true").compress
    assert not chosen("local", max_file="1", compress="false").compress


@pytest.mark.parametrize(
    ("driver", "options", "words"),
    [
        ("json-file", {"max-size": "many"}, "invalid value for max-size: invalid size: 'many'"),
        ("json-file", {"max-size": "0"}, "max-size must be a positive number"),
        ("json-file", {"max-file": "0"}, "invalid value for max-file: 0"),
        ("json-file", {"compress": "maybe"}, "invalid boolean value for compress: maybe"),
        ("json-file", {"compress": "1", "max-file": "1"}, "compress cannot be true when max-file is less"),
        ("json-file", {"compress": "1", "max-size": "-1"}, "or max-size is not set"),
        ("local", {"max-file": "1"}, "compression cannot be enabled when max file count is 1"),
        ("local", {"mode": "x"}, "unknown log opt 'mode' for local log driver"),
        ("none", {"max-file": "2"}, "invalid logging opts for driver none"),
        ("json-file", {"labels-regex": "("}, "invalid value for labels-regex: ("),
        ("json-file", {"tag": "{{.Nothing}}"}, "{{.Nothing}} is not known"),
        ("json-file", {"tag": "{{.ID"}, "unclosed action"),
    ],
)
def test_options_without_sense_are_refused(driver: str, options: dict[str, str], words: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        settings(LogConfig(type=driver, config=options))

    assert words in str(caught.value)


def test_another_driver_is_refused_by_name() -> None:
    with pytest.raises(NotSupported, match="logging driver 'syslog' is not supported"):
        chosen("syslog")


def test_labels_and_variables_are_chosen_by_name_and_by_expression() -> None:
    body = {"Labels": {"team": "red", "tier": "web", "other": "x"}, "Env": ["TOKEN=1", "PORT=80", "EMPTY="]}

    assert attrs({"labels": "team,nothing", "env": "PORT"}, **body) == {"team": "red", "PORT": "80"}
    assert attrs({"labels-regex": "^t", "env-regex": "^(P|E)"}, **body) == {
        "team": "red", "tier": "web", "PORT": "80", "EMPTY": "",
    }  # fmt: skip
    assert attrs({}, **body) == {}


def test_a_tag_names_the_container() -> None:
    got = attrs({"tag": "{{.Name}}/{{ .ImageName }}/{{.ID}}-{{.ImageID}}"})["tag"]

    name, image, ids = got.split("/")
    assert (name, image) == ("box", "busybox")
    assert [len(part) for part in ids.split("-")] == [12, 12]
    assert attrs({"tag": "plain"}) == {"tag": "plain"}
