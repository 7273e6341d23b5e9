import asyncio
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from engine.base.errors import EngineError, InvalidArgument, NotFound, NotSupported
from engine.containers import creation
from engine.containers.model import MountPoint
from engine.networks.model import PortMapping
from engine.spec.image import ImageConfig
from tests.support.definitions import definition, image, no_mounts, request


@pytest.mark.parametrize(
    ("defaults", "own", "argv"),
    [
        ({"Cmd": ["a"]}, {}, ("a",)),
        ({"Cmd": ["a"]}, {"Cmd": ["b", "c"]}, ("b", "c")),
        ({"Entrypoint": ["e"], "Cmd": ["a"]}, {}, ("e", "a")),
        ({"Entrypoint": ["e"], "Cmd": ["a"]}, {"Cmd": ["b"]}, ("e", "b")),
        ({"Entrypoint": ["e"], "Cmd": ["a"]}, {"Entrypoint": ["f"]}, ("f",)),
        ({"Entrypoint": ["e"], "Cmd": ["a"]}, {"Entrypoint": [""], "Cmd": ["b"]}, ("b",)),
    ],
)
def test_the_command_is_the_images_unless_given(
    defaults: dict[str, Any], own: dict[str, Any], argv: tuple[str, ...]
) -> None:
    made = creation.define(request(**own), "box", image(**defaults), no_mounts)

    assert made.argv == argv


def test_the_images_configuration_lies_below_the_requests() -> None:
    defaults = {"Env": ["A=1", "B=2"], "Labels": {"x": "1", "y": "1"}, "User": "web", "WorkingDir": "/srv"}
    own = {"Env": ["B=3", "A"], "Labels": {"y": "2"}, "WorkingDir": "/own"}

    config = creation.merge(request(**own), image(**defaults))

    assert config.env == ("B=3",)
    assert config.labels == {"x": "1", "y": "2"}
    assert (config.user, config.working_dir) == ("web", "/own")


def test_what_inspect_shows_is_filled_in() -> None:
    host = definition().host

    assert (host.network_mode, host.ipc_mode, host.cgroupns_mode) == ("bridge", "private", "private")
    assert (host.restart_policy.name, host.log_config.type) == ("no", "json-file")


@pytest.mark.parametrize(
    "body",
    [
        {"Cmd": [], "Entrypoint": [""]},
        {"WorkingDir": "relative"},
        {"Hostname": "a b"},
        {"Hostname": "x" * 65},
        {"StopSignal": "SIGNONE"},
        {"Labels": {"a": "\0"}},
        {"ExposedPorts": {"70000/tcp": {}}},
        {"HostConfig": {"PortBindings": {"80": [{"HostPort": "x"}]}}},
        {"HostConfig": {"NetworkMode": "container:x", "PublishAllPorts": True}},
        {"HostConfig": {"NetworkMode": "container:x", "Dns": ["1.1.1.1"]}},
        {"HostConfig": {"NetworkMode": "container:x", "ExtraHosts": ["a:1.1.1.1"]}},
        {"HostConfig": {"NetworkMode": "container:x"}, "Hostname": "me"},
        {"HostConfig": {"NetworkMode": "container:x"}, "ExposedPorts": {"80/tcp": {}}},
        {"HostConfig": {"NetworkMode": "host"}, "MacAddress": "02:42:ac:11:00:99"},
        {"HostConfig": {"UTSMode": "host"}, "Hostname": "me"},
        {"HostConfig": {"Binds": ["/a:/b:ro,rw"]}},
        {"HostConfig": {"Binds": ["/a:/b:shared,slave"]}},
        {"HostConfig": {"Binds": ["/a:/b:often"]}},
        {"HostConfig": {"CapAdd": ["BOGUS"]}},
        {"HostConfig": {"CapDrop": ["BOGUS"]}},
        {"MacAddress": "no"},
        {
            "MacAddress": "02:42:ac:11:00:98",
            "NetworkingConfig": {"EndpointsConfig": {"bridge": {"MacAddress": "02:42:ac:11:00:99"}}},
        },
        {"HostConfig": {"Binds": ["a:/x", "b:/x"]}},
        {"HostConfig": {"Memory": 1024}},
        {"HostConfig": {"MemoryReservation": 1024}},
        {"HostConfig": {"Memory": 10 << 20, "MemoryReservation": 20 << 20}},
        {"HostConfig": {"CpuQuota": 5}},
        {"HostConfig": {"CpuPeriod": 5}},
        {"HostConfig": {"LogConfig": {"Type": "json-file", "Config": {"max-size": "many"}}}},
    ],
)
def test_a_request_without_sense_is_refused(body: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument):
        definition(**body)


@pytest.mark.parametrize(
    ("body", "name"),
    [
        ({"Healthcheck": {"Test": ["CMD", "true"]}}, "Healthcheck"),
        ({"HostConfig": {"NetworkMode": "mine"}}, "mine"),
        ({"HostConfig": {"LogConfig": {"Type": "syslog"}}}, "syslog"),
        ({"HostConfig": {"BlkioWeight": 5}}, "BlkioWeight"),
        ({"HostConfig": {"PortBindings": {"80/sctp": [{}]}}}, "sctp"),
        ({"HostConfig": {"PortBindings": {"80": [{"HostPort": "80-90"}]}}}, "80-90"),
    ],
)
def test_what_this_engine_does_not_do_is_refused_by_name(body: dict[str, Any], name: str) -> None:
    with pytest.raises(NotSupported, match=name):
        definition(**body)


def test_ports_are_published_as_asked_and_the_exposed_ones_on_demand() -> None:
    host = {"PortBindings": {"80": [{"HostIp": "127.0.0.1", "HostPort": "8080"}]}, "PublishAllPorts": True}
    made = definition(ExposedPorts={"80/tcp": {}, "53/udp": {}}, HostConfig=host)

    assert creation.port_mappings(made.config, made.host) == (
        PortMapping(80, "tcp", "127.0.0.1", 8080),
        PortMapping(53, "udp"),
    )


@pytest.mark.parametrize(
    ("text", "number"), [("9", 9), ("KILL", 9), ("sigterm", 15), ("SIGRTMIN+1", 35), ("RTMIN+30", 64)]
)
def test_a_signal_has_a_number_and_several_names(text: str, number: int) -> None:
    assert creation.parse_signal(text) == number


@pytest.mark.parametrize("text", ["", "0", "65", "NONE", "RTMIN+31", "9x", "²"])
def test_no_other_text_is_a_signal(text: str) -> None:
    with pytest.raises(InvalidArgument):
        creation.parse_signal(text)


def test_mounts_of_another_container_come_along_and_are_not_removed_with_this_one() -> None:
    theirs = (
        MountPoint("volume", "/data", name="d", anonymous=True),
        MountPoint("bind", "/own", source="/x"),
    )
    body = request(HostConfig={"VolumesFrom": ["other:ro"], "Binds": ["/mine:/own"]})

    made = creation.define(body, "box", image(), {"other": theirs}.__getitem__)

    points = {point.destination: point for point in made.mounts}
    assert points["/own"].source == "/mine"
    assert (points["/data"].name, points["/data"].rw, points["/data"].anonymous) == ("d", False, False)


def test_mounts_of_a_container_that_is_not_there_are_no_missing_image() -> None:
    def find(name: str) -> tuple[MountPoint, ...]:
        raise NotFound("container", name)

    with pytest.raises(InvalidArgument, match="No such container: gone"):
        creation.define(request(HostConfig={"VolumesFrom": ["gone"]}), "box", image(), find)


@pytest.mark.parametrize("where", ["old", "new"])
def test_a_hardware_address_is_taken_from_both_places(where: str) -> None:
    mac = "02:42:AC:11:00:99"
    new = {"NetworkingConfig": {"EndpointsConfig": {"bridge": {"MacAddress": mac}}}}

    made = definition(**({"MacAddress": mac} if where == "old" else new))

    assert made.config.mac_address == mac.lower()


def test_an_image_for_another_platform_is_not_found() -> None:
    config = msgspec.convert({"os": "linux", "architecture": "arm64"}, ImageConfig)
    arm = replace(image(), config=config)

    creation.check_platform(arm, "box", "")
    creation.check_platform(arm, "box", "linux/arm64")
    creation.check_platform(arm, "box", "linux/arm64/v8")
    with pytest.raises(NotFound, match="linux/amd64"):
        creation.check_platform(arm, "box", "linux/amd64")
    with pytest.raises(InvalidArgument):
        creation.check_platform(arm, "box", "arm64?")


def test_what_an_image_asks_for_in_vain_is_told() -> None:
    checked = image(Healthcheck={"Test": ["CMD", "true"]})
    foreign = replace(image(), config=msgspec.convert({"os": "linux", "architecture": "pdp11"}, ImageConfig))

    [told] = creation.warnings(request(), checked, "")
    assert "health check is not run" in told
    [told] = creation.warnings(request(), foreign, "")
    assert "(linux/pdp11) does not match" in told
    assert not creation.warnings(request(), foreign, "linux/pdp11")
    assert not creation.warnings(request(Healthcheck={"Test": ["NONE"]}), checked, "")
    assert not creation.warnings(request(), image(Healthcheck={"Test": ["NONE"]}), "")


def test_volumes_are_made_named_and_filled_before_the_container_is() -> None:
    mount = {"Type": "volume", "Source": "own", "Target": "/o", "VolumeOptions": {"Labels": {"a": "b"}}}
    made = definition(
        HostConfig={"Binds": ["data:/data", "bare:/bare:nocopy", "/host:/h"], "Mounts": [mount]},
        Volumes={"/v": {}},
    )
    filled: list[tuple[str, str]] = []
    labelled: dict[str, dict[str, str]] = {}

    async def create(name: str | None, labels: Mapping[str, str]) -> str:
        labelled[name or "made-up"] = dict(labels)
        return name or "made-up"

    async def populate(name: str, layers: tuple[Path, ...], path: str) -> None:
        assert layers == (Path("/layer"),)
        filled.append((name, path))

    result = asyncio.run(creation.make_volumes(made, (Path("/layer"),), create, populate))

    assert filled == [("data", "/data"), ("own", "/o"), ("made-up", "/v")]
    assert labelled == {"data": {}, "bare": {}, "own": {"a": "b"}, "made-up": {}}
    assert [point.name for point in result.mounts] == ["data", "bare", "", "own", "made-up"]
    assert result.mounts[4].anonymous


def test_a_missing_source_of_a_bind_is_made_but_one_of_a_mount_is_refused(tmp_path: Path) -> None:
    creation.check_binds(definition(HostConfig={"Binds": [f"{tmp_path}/new:/x"]}))
    assert (tmp_path / "new").is_dir()

    mount = {"Type": "bind", "Source": f"{tmp_path}/gone", "Target": "/x"}
    with pytest.raises(EngineError, match="bind source path does not exist"):
        creation.check_binds(definition(HostConfig={"Mounts": [mount]}))
    assert not (tmp_path / "gone").exists()
