"""Containers from create to remove, through the API of a real engine."""

import json
import time

import pytest

from tests.support.engine import IMAGE, Engine, eventually

pytestmark = pytest.mark.requires("root", "namespaces", "net_admin", "nftables", "busybox")


def test_a_container_runs_and_its_exit_code_and_output_are_kept(engine: Engine) -> None:
    made = engine.begin("sh", "-c", "echo out; echo err >&2; exit 3")

    assert engine.wait(made) == 3
    assert engine.output(made) == ("out\n", "err\n")
    state = engine.state(made)
    assert (state["Status"], state["ExitCode"], state["Running"], state["Pid"]) == ("exited", 3, False, 0)
    assert state["StartedAt"] < state["FinishedAt"]


def test_a_wait_registered_before_the_start_sees_the_exit(engine: Engine) -> None:
    made = engine.create("sh", "-c", "exit 4")

    with engine.waiting(made, "next-exit") as code:
        engine.post(f"/containers/{made}/start")
        assert code() == 4


def test_removed_is_answered_only_after_the_removal(engine: Engine) -> None:
    for _ in range(10):
        made = engine.create("sh", "-c", "exit 4", host={"AutoRemove": True})
        with engine.waiting(made, "removed") as code:
            engine.post(f"/containers/{made}/start")
            assert code() == 4
        assert engine.call("GET", f"/containers/{made}/json").status == 404
        assert not (engine.root / "containers" / made).exists()


def test_a_client_attached_before_the_start_misses_nothing(engine: Engine) -> None:
    made = engine.create("sh", "-c", "echo first; echo second >&2")

    streams = engine.hijack(
        f"/containers/{made}/attach?stream=1&stdout=1&stderr=1",
        then=lambda: engine.post(f"/containers/{made}/start"),
    )

    assert streams == ("first\n", "second\n")


def signals_of(engine: Engine, made: str) -> list[str]:
    chosen = json.dumps({"container": [made], "event": ["kill"]}).replace(" ", "")
    body = engine.get(f"/events?since=1&until={time.time():.9f}&filters={chosen}").body
    return [json.loads(line)["Actor"]["Attributes"]["signal"] for line in body.splitlines()]


def test_stop_gives_the_program_time_and_then_kills_it(engine: Engine) -> None:
    polite = engine.begin("sh", "-c", "trap 'exit 7' TERM; echo up; while :; do sleep 0.05; done")
    deaf = engine.begin("sh", "-c", "trap '' TERM; echo up; while :; do sleep 0.05; done")
    for made in (polite, deaf):
        eventually(lambda made=made: engine.output(made)[0] == "up\n", "the trap is set")  # type: ignore[misc]

    engine.post(f"/containers/{polite}/stop?t=30")
    engine.post(f"/containers/{deaf}/stop?t=0")

    assert engine.state(polite)["ExitCode"] == 7
    assert engine.state(deaf)["ExitCode"] == 137
    assert engine.call("POST", f"/containers/{deaf}/stop").status == 304
    assert signals_of(engine, deaf) == ["15", "9"]


def test_what_the_status_forbids_is_refused(engine: Engine) -> None:
    made = engine.begin("sleep", "1000", name="busy")

    assert engine.call("POST", "/containers/busy/start").status == 304
    refused = engine.call("DELETE", "/containers/busy")
    assert (refused.status, 'container "/busy": container is running: stop' in refused.message) == (409, True)
    assert engine.call("POST", "/containers/busy/unpause").status == 409
    engine.post("/containers/busy/pause")
    assert engine.state(made)["Status"] == "paused"
    assert "must be unpaused first" in engine.call("DELETE", "/containers/busy").message
    assert engine.call("POST", "/containers/busy/start").status == 409
    engine.post("/containers/busy/unpause")
    engine.post("/containers/busy/kill")
    assert engine.call("POST", "/containers/busy/kill").status == 409
    assert engine.wait("busy") == 137


def test_a_name_is_one_containers_and_can_be_passed_on(engine: Engine) -> None:
    made = engine.create("true", name="first")

    taken = engine.call("POST", "/containers/create?name=first", {"Image": IMAGE, "Cmd": ["true"]})
    assert (taken.status, made in taken.message) == (409, True)
    engine.post("/containers/first/rename?name=second")

    assert engine.inspect("second")["Id"] == made
    assert engine.inspect(made[:12])["Name"] == "/second"
    engine.create("true", name="first")


@pytest.mark.parametrize(
    ("program", "code", "words"),
    [
        ("no-such-program", 127, 'exec: "no-such-program": executable file not found in $PATH'),
        ("/bin/not-a-program", 126, "permission denied"),
    ],
)
def test_a_program_that_cannot_be_executed_is_named(
    engine: Engine, program: str, code: int, words: str
) -> None:
    made = engine.create(program)

    answer = engine.call("POST", f"/containers/{made}/start")

    assert answer.status == 400
    assert words in answer.message
    assert engine.state(made)["ExitCode"] == code
    assert engine.state(made)["Error"] == answer.message
    assert not (engine.run / "shims" / made).exists()
    assert engine.call("DELETE", f"/containers/{made}").status == 204


def test_a_failed_start_of_an_auto_remove_container_leaves_nothing(engine: Engine) -> None:
    made = engine.create("no-such-program", host={"AutoRemove": True})

    assert engine.call("POST", f"/containers/{made}/start").status == 400

    assert engine.call("GET", f"/containers/{made}/json").status == 404
    assert not (engine.root / "containers" / made).exists()


def test_an_exec_exit_code_is_known_as_soon_as_its_stream_ends(engine: Engine) -> None:
    made = engine.begin("sleep", "1000")

    results = [engine.exec(made, "sh", "-c", "echo in; exit 9") for _ in range(25)]

    assert results == [(9, "in\n", "")] * 25
    assert engine.exec(made, "no-such-program")[0] == 127


def test_an_exec_ends_with_its_container(engine: Engine) -> None:
    made = engine.begin("sleep", "1000")
    body = {"Cmd": ["sleep", "1000"], "AttachStdout": True}
    exec_id = engine.post(f"/containers/{made}/exec", body).json["Id"]

    engine.hijack(f"/exec/{exec_id}/start", then=lambda: engine.post(f"/containers/{made}/kill"))

    eventually(lambda: not engine.get(f"/exec/{exec_id}/json").json["Running"], "the exec has ended")
    assert engine.get(f"/exec/{exec_id}/json").json["ExitCode"] == 137


def test_a_restart_policy_starts_again_until_its_limit(engine: Engine) -> None:
    policy = {"RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 2}}
    made = engine.begin("sh", "-c", "echo again; exit 5", host=policy)

    eventually(lambda: engine.inspect(made)["State"]["Status"] == "exited", "it is given up")

    assert engine.inspect(made)["RestartCount"] == 2
    assert engine.output(made)[0] == "again\n" * 3


def test_a_wait_ends_with_the_run_although_the_policy_starts_another(engine: Engine) -> None:
    made = engine.begin("sh", "-c", "read _; exit 5", host={"RestartPolicy": {"Name": "always"}})

    assert engine.call("POST", f"/containers/{made}/wait?condition=next-exit").json["StatusCode"] == 5


def test_a_stopped_container_is_not_restarted(engine: Engine) -> None:
    made = engine.begin("sleep", "1000", host={"RestartPolicy": {"Name": "always"}})

    engine.post(f"/containers/{made}/kill")

    assert engine.state(made)["Status"] == "exited"
    assert engine.inspect(made)["RestartCount"] == 0


def test_an_anonymous_volume_is_filled_from_the_image_and_goes_with_its_container(engine: Engine) -> None:
    made = engine.create("cat", "/seed/file", Volumes={"/seed": {}})
    [mount] = engine.inspect(made)["Mounts"]
    engine.post(f"/containers/{made}/start")

    assert engine.wait(made) == 0
    assert engine.output(made)[0] == "from the image\n"
    assert engine.call("DELETE", f"/volumes/{mount['Name']}").status == 409
    assert engine.call("DELETE", f"/containers/{made}?v=1").status == 204
    assert engine.call("GET", f"/volumes/{mount['Name']}").status == 404


def test_two_containers_share_a_network(engine: Engine) -> None:
    other = engine.begin("sleep", "1000", host={"NetworkMode": "bridge"})
    address = engine.inspect(other)["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]

    made = engine.begin("cat", "/etc/hosts", host={"NetworkMode": f"container:{other}"})

    assert engine.wait(made) == 0
    assert address in engine.output(made)[0]
    engine.post(f"/containers/{other}/kill")
    assert engine.call("POST", f"/containers/{made}/start").status == 409


def test_a_published_port_is_free_once_the_end_is_known(engine: Engine) -> None:
    published = {
        "NetworkMode": "bridge",
        "PortBindings": {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "18080"}]},
    }
    for _ in range(5):
        made = engine.begin("sleep", "1000", host=published)
        engine.post(f"/containers/{made}/kill")


def test_top_shows_the_processes_of_the_container_alone(engine: Engine) -> None:
    made = engine.begin("sh", "-c", "sleep 1000 & wait")

    def commands() -> list[str]:
        return [row[7] for row in engine.get(f"/containers/{made}/top").json["Processes"]]

    # Between its fork and its exec the second one has the name of the first.
    eventually(lambda: commands() == ["sh -c sleep 1000 & wait", "sleep 1000"], "both run")

    table = engine.get(f"/containers/{made}/top").json

    assert table["Titles"] == ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
    assert engine.call("GET", f"/containers/{made}/top?ps_args=--rotate").status == 400


def test_list_finds_by_filter_and_prune_removes_what_does_not_run(engine: Engine) -> None:
    up = engine.begin("sleep", "1000", name="up", Labels={"kind": "test"})
    down = engine.begin("sh", "-c", "exit 8", name="down", Labels={"kind": "test"})
    engine.wait(down)

    assert engine.listed(label=["kind=test"]) == ["down", "up"]
    assert engine.listed(label=["kind=test"], status=["running"]) == ["up"]
    assert engine.listed(label=["kind"], exited=["8"]) == ["down"]
    assert engine.listed(before=["down"], label=["kind"]) == ["up"]
    assert engine.call("GET", '/containers/json?filters={"color":["red"]}').status == 400
    pruned = engine.post('/containers/prune?filters={"label":["kind=test"]}').json
    assert pruned["ContainersDeleted"] == [down]
    assert engine.state(up)["Running"]


def test_events_tell_a_life_in_order(engine: Engine) -> None:
    made = engine.begin("true")
    engine.wait(made)
    engine.call("DELETE", f"/containers/{made}")

    filters = json.dumps({"container": [made]}).replace(" ", "")
    body = engine.get(f"/events?since=1&until={time.time():.9f}&filters={filters}").body

    told = [json.loads(line)["Action"] for line in body.splitlines()]
    assert told == ["create", "start", "die", "destroy"]
