"""Kill daemon, nursery and shims at random moments of a command; nothing is lost, and nothing is left.

PYENGINE_KILL_ROUNDS makes it longer, PYENGINE_KILL_SEED repeats a run.
"""

import contextlib
import http.client
import json
import os
import random
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.engine import Answer, Engine, eventually

pytestmark = pytest.mark.requires("root", "namespaces", "net_admin", "nftables", "busybox")

ROUNDS = int(os.environ.get("PYENGINE_KILL_ROUNDS", "24"))
SEED = int(os.environ.get("PYENGINE_KILL_SEED", "7"))
COMMANDS = ("create", "start", "run", "exec", "stop", "kill", "rm")
VICTIMS = (
    ("daemon",),
    ("nursery",),
    ("shims",),
    ("daemon", "shims"),
    ("daemon", "nursery"),
    ("shims", "nursery"),
)
LATEST_S = 0.12
LOOP = ("sh", "-c", "while :; do sleep 1; done")


class Ground:
    """One engine under fire."""

    def __init__(self, engine: Engine, dice: random.Random) -> None:
        self.engine = engine
        self.dice = dice
        self.made: set[str] = set()

    # what runs

    def named(self, name: str) -> dict[int, str]:
        """Return the pids of this engine's processes of that name, with where their log is."""
        found = {}
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdigit() and (entry / "comm").read_text() == f"{name}\n":
                    log = os.readlink(entry / "fd/2")
                    if log.startswith(f"{self.engine.base}/"):
                        found[int(entry.name)] = log
        return found

    def shims(self) -> set[str]:
        """Return the ids of the containers that have one."""
        return {Path(log).parent.name for log in self.named("pyengine-shim").values()}

    def kill(self, victims: tuple[str, ...]) -> None:
        """End them all at once, as a crash does."""
        pids = [self.engine.pid] if "daemon" in victims else []
        pids += self.named("pyengine-nurse") if "nursery" in victims else []
        pids += self.named("pyengine-shim") if "shims" in victims else []
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    # commands, whose answers may never come

    def call(self, method: str, path: str, body: object = None) -> Answer | None:
        try:
            return self.engine.call(method, path, body)
        except (OSError, http.client.HTTPException):
            return None

    def create(self, name: str, *command: str) -> Answer | None:
        port = str(20000 + len(self.made))
        host: dict[str, Any] = {"NetworkMode": "none"}
        if self.dice.random() < 0.5:
            host = {"NetworkMode": "bridge", "PortBindings": {"80/tcp": [{"HostPort": port}]}}
        body = {"Image": "busybox:latest", "Cmd": list(command), "HostConfig": host}
        answer = self.call("POST", f"/containers/create?name={name}", body)
        if answer is not None and answer.status == 201:
            self.made.add(answer.json["Id"])
        return answer

    def command(self, verb: str, name: str) -> Answer | None:
        """Do one command; return its answer."""
        one = f"/containers/{name}"
        if verb in ("create", "run"):
            made = self.create(name, *LOOP)
            return self.call("POST", f"{one}/start") if made is not None and verb == "run" else made
        if verb == "exec":
            with contextlib.suppress(OSError, http.client.HTTPException, AssertionError):
                self.engine.exec(name, "sh", "-c", "sleep 0.05; echo x")
            return None
        if verb == "rm":
            return self.call("DELETE", f"{one}?force=1")
        return self.call("POST", f"{one}/{verb}?t=0" if verb == "stop" else f"{one}/{verb}")

    # one round

    def play(self, number: int) -> None:
        verb, victims = self.dice.choice(COMMANDS), self.dice.choice(VICTIMS)
        delay_s = self.dice.choice((0.0, 0.01, LATEST_S)) * self.dice.random()
        try:
            self.round(f"c{number}", verb, victims, delay_s)
            self.check_works(f"n{number}")
            assert self.engine.call("DELETE", f"/containers/c{number}?force=1").status in (204, 404)
            assert self.engine.listed() == []
            eventually(lambda: not self.leftovers(), f"nothing is left: {self.leftovers()}")
        except AssertionError as err:
            err.add_note(f"round {number}: {verb}; {' and '.join(victims)} killed after {delay_s:.4f} s")
            raise

    def round(self, name: str, verb: str, victims: tuple[str, ...], delay_s: float) -> None:
        """Give a command and kill the victims meanwhile; what is said and shown is true then."""
        if verb not in ("create", "run"):
            made = self.create(name, *LOOP)
            assert made is not None
            if verb != "start":
                self.engine.post(f"/containers/{name}/start")
        answers: list[Answer | None] = []
        command = threading.Thread(target=lambda: answers.append(self.command(verb, name)))
        shot = threading.Timer(delay_s, self.kill, [victims])
        command.start()
        shot.start()
        for thread in (shot, command):
            thread.join()
        if "daemon" in victims:
            self.engine.restart()
        said = answers[0].status if answers and answers[0] is not None else 0
        self.check_said(verb, victims, name, said)

    def check_said(self, verb: str, victims: tuple[str, ...], name: str, said: int) -> None:
        """What was acknowledged is so; what is shown is so."""
        shown = self.engine.call("GET", f"/containers/{name}/json")
        if verb == "create" and said == 201:
            assert shown.status == 200
        if verb == "rm" and said == 204:
            assert shown.status == 404
        if shown.status == 404:
            return
        if (verb in ("start", "run") and said == 204) or verb == "exec":
            assert shown.json["State"]["Running"] or "shims" in victims
        if verb in ("stop", "kill") and said == 204 and "shims" not in victims:
            eventually(lambda: not self.engine.state(name)["Running"], "it has ended")
        eventually(lambda: self.is_as_shown(name), f"{name} is as shown: {self.engine.state(name)}")

    def is_as_shown(self, name: str) -> bool:
        state = self.engine.inspect(name)
        runs = state["Id"] in self.shims() and Path(f"/proc/{state['State']['Pid']}").exists()
        return bool(state["State"]["Running"]) == runs

    def check_works(self, name: str) -> None:
        """The next container is made, started, waited for and removed."""
        made = self.create(name, "sh", "-c", "echo out; exit 3")
        assert made is not None
        self.engine.post(f"/containers/{name}/start")
        assert self.engine.wait(name) == 3
        assert self.engine.output(name) == ("out\n", "")
        assert self.engine.call("DELETE", f"/containers/{name}").status == 204

    # what must not be there between two rounds

    def leftovers(self) -> list[str]:
        return [
            *self._files(),
            *self._control_groups(),
            *(f"shim of {container}" for container in self.shims()),
            *self._network(),
        ]

    def _files(self) -> Iterator[str]:
        run, root = self.engine.run, self.engine.root
        for directory in (run / "shims", run / "netns", root / "containers", root / "tmp"):
            yield from map(str, directory.iterdir())
        mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
        places = (line.split()[4] for line in mounts)
        yield from (
            place for place in places if place.startswith(f"{self.engine.base}/") and "netns/" in place
        )

    def _control_groups(self) -> Iterator[str]:
        for top in (Path("/sys/fs/cgroup"), *Path("/sys/fs/cgroup").iterdir()):
            if (top / "pyengine").is_dir():
                yield from (str(group) for group in (top / "pyengine").iterdir() if group.name in self.made)

    def _network(self) -> Iterator[str]:
        ports = self._inside("ip", "-j", "link", "show", "type", "veth")
        yield from (f"link {link['ifname']}" for link in ports if link)
        for item in self._inside("nft", "-j", "list", "ruleset")["nftables"]:
            if item.get("map", {}).get("elem"):
                yield f"map {item['map']['name']}: {item['map']['elem']}"

    def _inside(self, *argv: str) -> Any:
        command = ["nsenter", f"--net=/proc/{self.engine.pid}/ns/net", *argv]
        return json.loads(subprocess.run(command, check=True, capture_output=True).stdout or b"[]")


@pytest.mark.parametrize("victims", [("shims",), ("nursery",), ("daemon", "shims"), ("daemon", "nursery")])
def test_an_exec_in_flight_ends_with_its_shim_and_with_nothing_else(
    own_engine: Engine, victims: tuple[str, ...]
) -> None:
    ground = Ground(own_engine, random.Random(SEED))
    ground.create("one", *LOOP)
    own_engine.post("/containers/one/start")
    made = own_engine.post("/containers/one/exec", {"Cmd": ["sleep", "1000"]}).json["Id"]
    own_engine.post(f"/exec/{made}/start", {"Detach": True})
    pid = own_engine.get(f"/exec/{made}/json").json["Pid"]

    ground.kill(victims)
    if "daemon" in victims:
        own_engine.restart()

    runs = "shims" not in victims
    eventually(lambda: own_engine.state("one")["Running"] == runs, f"the container runs: {runs}")
    eventually(lambda: Path(f"/proc/{pid}").exists() == runs, f"the exec's process is there: {runs}")
    ground.check_works("next")
    assert own_engine.call("DELETE", "/containers/one?force=1").status == 204
    eventually(lambda: not ground.leftovers(), f"nothing is left: {ground.leftovers()}")
    assert not Path(f"/proc/{pid}").exists()


def test_whatever_is_killed_nothing_is_lost_and_nothing_is_left(own_engine: Engine) -> None:
    ground = Ground(own_engine, random.Random(SEED))

    for number in range(ROUNDS):
        ground.play(number)

    assert "Traceback" not in own_engine.log.read_text()
