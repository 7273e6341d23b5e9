from dataclasses import replace
from pathlib import Path

import pytest

from engine.base.paths import Root
from engine.containers import view
from engine.containers.model import State, Status
from engine.networks.model import Endpoint, PortBinding, Sandbox
from tests.support.definitions import container

SECOND = 10**9
NOW = 1_700_000_000 * SECOND
ENDPOINT = Endpoint("bridge", "net", "end", "172.17.0.2", 16, "172.17.0.1", "02:42:ac:11:00:02")
SANDBOX = Sandbox("x", "bridge", Path("/run/ns"), (ENDPOINT,), (PortBinding(80, "tcp", "0.0.0.0", 8080),))
RUNNING = State(status=Status.RUNNING, pid=7, started_ns=NOW)


@pytest.mark.parametrize(
    ("state", "text"),
    [
        (State(), "Created"),
        (RUNNING, "Up 5 seconds"),
        (replace(RUNNING, status=Status.PAUSED), "Up 5 seconds (Paused)"),
        (State(status=Status.EXITED, exit_code=3, finished_ns=NOW), "Exited (3) 5 seconds ago"),
        (State(status=Status.RESTARTING, exit_code=1, finished_ns=NOW), "Restarting (1) 5 seconds ago"),
        (State(status=Status.REMOVING), "Removal In Progress"),
        (State(status=Status.DEAD), "Dead"),
    ],
)
def test_a_status_is_worded_as_docker_does(state: State, text: str) -> None:
    assert view.status_text(state, NOW + 5 * SECOND) == text


@pytest.mark.parametrize("status", list(Status))
def test_the_flags_of_a_state_agree_with_its_status(status: Status) -> None:
    shown = view.state_document(State(status=status))

    assert shown["Status"] == status.value
    assert shown["Running"] == (status in {Status.RUNNING, Status.PAUSED, Status.RESTARTING})
    assert shown["Paused"] == (status is Status.PAUSED)
    assert shown["Dead"] == (status is Status.DEAD)


def test_a_summary_shows_ports_names_and_command() -> None:
    one = container(state=RUNNING, Cmd=["sh", "-c", "echo hi"], ExposedPorts={"80/tcp": {}, "53/udp": {}})

    shown = view.summary(one, SANDBOX, {}, None)

    assert shown["Names"] == ["/box"]
    assert shown["Command"] == "sh -c 'echo hi'"
    assert shown["Ports"] == [
        {"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"},
        {"PrivatePort": 53, "Type": "udp"},
    ]
    assert shown["NetworkSettings"]["Networks"]["bridge"]["IPAddress"] == "172.17.0.2"
    assert "SizeRw" not in shown
    assert view.summary(one, SANDBOX, {}, (1, 2))["SizeRootFs"] == 2


def test_a_container_that_does_not_run_shows_no_ports() -> None:
    one = container(ExposedPorts={"80/tcp": {}})

    assert view.summary(one, None, {}, None)["Ports"] == []
    assert view.port_map(one, None) == {}


def test_details_have_dockers_shape() -> None:
    host = {"Binds": ["data:/d:ro"], "AutoRemove": True}
    one = container(state=RUNNING, Cmd=["sh"], Entrypoint=["env"], HostConfig=host)
    shown = view.details(
        one,
        SANDBOX,
        directory=Root(Path("/root")).container(one.id),
        volume_paths={"data": "/root/volumes/data/_data"},
        driver="overlay2",
        size=None,
    )

    assert (shown["Path"], shown["Args"]) == ("env", ["sh"])
    assert shown["Name"] == "/box"
    assert shown["HostConfig"]["AutoRemove"] is True
    assert shown["Config"]["Cmd"] == ["sh"]
    assert shown["Config"]["Hostname"] == one.id[:12]
    [mount] = shown["Mounts"]
    assert (mount["Source"], mount["Name"], mount["RW"]) == ("/root/volumes/data/_data", "data", False)
    assert shown["NetworkSettings"]["Ports"] == {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}]}
    assert shown["NetworkSettings"]["IPAddress"] == "172.17.0.2"
    assert shown["GraphDriver"]["Name"] == "overlay2"
    assert shown["LogPath"].startswith(f"/root/containers/{one.id}/")


def test_a_container_without_a_log_has_no_path_of_one() -> None:
    one = container(HostConfig={"LogConfig": {"Type": "none"}})
    directory = Root(Path("/root")).container(one.id)

    shown = view.details(one, None, directory=directory, volume_paths={}, driver="x", size=None)

    assert shown["LogPath"] == ""
