"""What a new daemon makes of the containers of one that was killed."""

import contextlib
import http.client
import os
import threading
from pathlib import Path

import pytest

from tests.support.engine import Engine, eventually

pytestmark = pytest.mark.requires("root", "namespaces", "net_admin", "nftables", "busybox")

COUNT = "n=0; while :; do n=$((n + 1)); echo $n; sleep 0.02; done"


def test_a_running_container_is_taken_over_with_its_log_and_exit_code(own_engine: Engine) -> None:
    made = own_engine.begin("sh", "-c", COUNT, name="survivor", host={"NetworkMode": "bridge"})
    before = own_engine.inspect(made)
    own_engine.kill()
    lines = Path(before["LogPath"]).read_bytes().count(b"\n")

    own_engine.start()

    after = own_engine.inspect(made)
    assert after["State"]["Pid"] == before["State"]["Pid"]
    assert after["State"]["StartedAt"] == before["State"]["StartedAt"]
    assert after["NetworkSettings"]["Networks"] == before["NetworkSettings"]["Networks"]
    eventually(lambda: own_engine.output(made)[0].count("\n") > lines, "the log goes on")
    assert own_engine.exec(made, "echo", "in") == (0, "in\n", "")
    own_engine.post(f"/containers/{made}/kill")
    assert own_engine.wait(made) == 137
    numbers = own_engine.output(made)[0].split()
    assert numbers == [str(number) for number in range(1, len(numbers) + 1)]


def test_an_exit_while_no_daemon_was_there_is_collected(own_engine: Engine) -> None:
    gate = own_engine.base / "gate"
    gate.mkdir()
    host = {"Binds": [f"{gate}:/gate"]}
    made = own_engine.begin("sh", "-c", "until [ -e /gate/open ]; do sleep 0.02; done; exit 6", host=host)
    pid = own_engine.state(made)["Pid"]
    own_engine.kill()
    (gate / "open").touch()
    eventually(lambda: not Path(f"/proc/{pid}").exists(), "it has ended")

    own_engine.start()

    assert own_engine.wait(made) == 6
    assert own_engine.state(made)["Error"] == ""


def test_policies_are_applied_to_what_ended_meanwhile(own_engine: Engine) -> None:
    always = {"RestartPolicy": {"Name": "always"}}
    kept = own_engine.begin("sleep", "1000", name="kept", host=always)
    left = own_engine.begin("sleep", "1000", name="left")
    gone = own_engine.begin("sleep", "1000", name="gone", host={"AutoRemove": True})
    pids = [own_engine.state(each)["Pid"] for each in (kept, left, gone)]
    own_engine.kill()
    for pid in pids:
        os.kill(pid, 9)
    for pid in pids:
        eventually(lambda pid=pid: not Path(f"/proc/{pid}").exists(), "it has ended")  # type: ignore[misc]

    own_engine.start()

    eventually(lambda: own_engine.state(kept)["Running"], "it is started again")
    assert own_engine.state(kept)["Pid"] not in pids
    assert own_engine.state(left)["Status"] == "exited"
    assert own_engine.state(left)["ExitCode"] == 137
    assert own_engine.call("GET", f"/containers/{gone}/json").status == 404
    assert not (own_engine.root / "containers" / gone).exists()


def test_a_start_that_was_cut_off_leaves_a_container_that_can_be_started(own_engine: Engine) -> None:
    """Wherever in a start the daemon dies: the container runs and is known, or has ended and says so."""
    for step in range(4):
        made = own_engine.create("sleep", "1000")
        begun = threading.Thread(target=lambda made=made: _start(own_engine, made))
        begun.start()
        if step:  # at once, or when it has come a certain way
            seen = (own_engine.run / "shims" / made, own_engine.run / "shims" / made / "shim.sock")
            path = seen[0] if step == 1 else seen[1]
            eventually(lambda path=path: path.exists() or not begun.is_alive(), "the start is under way")  # type: ignore[misc]  # noqa: B023
        if step == 3:
            begun.join()
        own_engine.kill()
        begun.join()
        own_engine.start()

        state = own_engine.state(made)
        if state["Running"]:
            assert Path(f"/proc/{state['Pid']}").exists()
        else:
            assert list((own_engine.run / "shims").iterdir()) == []
            assert (state["Status"], state["ExitCode"]) in {("created", 0), ("exited", 255)}
            own_engine.post(f"/containers/{made}/start")
        own_engine.post(f"/containers/{made}/kill")
        assert own_engine.call("DELETE", f"/containers/{made}").status == 204


def _start(engine: Engine, container: str) -> None:
    with contextlib.suppress(OSError, http.client.HTTPException):  # it dies in the middle of the answer
        engine.call("POST", f"/containers/{container}/start")


def test_a_start_is_on_record_before_its_program_does_anything(own_engine: Engine) -> None:
    gate = own_engine.base / "gate"
    gate.mkdir()
    for number in range(5):
        command = ("sh", "-c", f"echo $$ > /gate/{number}; sleep 1000")
        made = own_engine.create(*command, host={"Binds": [f"{gate}:/gate"], "PidMode": "host"})
        begun = threading.Thread(target=lambda made=made: _start(own_engine, made))
        begun.start()
        seen = gate / str(number)
        eventually(lambda seen=seen: seen.exists() and bool(seen.read_text()), "it runs")  # type: ignore[misc]
        own_engine.kill()
        begun.join()
        _lose_the_machine(int(seen.read_text()), own_engine.run / "shims" / made)

        own_engine.start()

        state = own_engine.state(made)
        assert (state["Status"], state["ExitCode"]) == ("exited", 255)


def _parent(pid: int) -> int:
    [line] = [
        line
        for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
        if line.startswith("PPid:")
    ]
    return int(line.split()[1])


def _lose_the_machine(pid: int, bundle: Path) -> None:
    """Do to a container what the end of its machine does: no shim, no exit.json, no process."""
    os.kill(_parent(pid), 9)  # the shim, which can record nothing any more
    os.kill(pid, 9)
    eventually(lambda: not Path(f"/proc/{pid}").exists(), "it has ended")
    assert bundle.exists()


@pytest.mark.parametrize("verb", ["stop?t=5", "kill", "restart?t=5"])
def test_a_container_whose_shim_was_killed_that_moment_is_ended_as_asked(
    own_engine: Engine, verb: str
) -> None:
    for number in range(5):
        made = own_engine.begin("sleep", "1000", name=f"orphan{number}")
        os.kill(_parent(own_engine.state(made)["Pid"]), 9)

        answer = own_engine.call("POST", f"/containers/{made}/{verb}")

        assert answer.status in {204, 304, 409}, answer  # 304 and 409: its end was noticed first
        wanted = "running" if "restart" in verb else "exited"
        eventually(lambda made=made, wanted=wanted: own_engine.state(made)["Status"] == wanted, wanted)  # type: ignore[misc]


def test_what_no_row_names_is_removed(own_engine: Engine) -> None:
    own_engine.kill()
    stray = own_engine.root / "containers" / ("ab" * 32)
    stray.mkdir()
    (stray / "config.json").write_text("{}")
    make_deep(stray, 2000)  # a container may have left it so; deeper than a path or a stack is long
    halves = [own_engine.root / "tmp" / name for name in ("snapshot-1", "volume-1", "image-1")]
    for half in halves:
        half.mkdir()
        make_deep(half, 2000)

    own_engine.start()

    assert not stray.exists()
    assert [half for half in halves if half.exists()] == []


def make_deep(path: Path, depth: int) -> None:
    fd = os.open(path, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("directory", dir_fd=fd)
        below = os.open("directory", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)


def test_a_damaged_definition_makes_a_dead_container_that_can_be_removed(own_engine: Engine) -> None:
    made = own_engine.create("true", name="hurt")
    own_engine.kill()
    (own_engine.root / "containers" / made / "config.json").write_text("{")

    own_engine.start()

    assert own_engine.state("hurt")["Status"] == "dead"
    assert own_engine.call("DELETE", "/containers/hurt?force=1").status == 204
    assert own_engine.listed() == []
