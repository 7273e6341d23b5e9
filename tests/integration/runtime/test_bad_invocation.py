"""Every option of `pyengine-oci` with a value that it cannot have, and a state root that is damaged."""

import json
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.base import jsonio
from engine.runtime.documents import first_spec
from tests.support.ocimain import Caller, make_root

pytestmark = pytest.mark.requires("root", "namespaces", "busybox")

GROUP = f"pyengine-bad-invocation-{os.getpid()}"
ID = "c"
LONG = "x" * 5000
_SIZES = ("", "x", "-2", "1e5", "9" * 30, "²m")
_NUMBERS = ("", "x", "1.5", "9" * 30, "²")
_LISTS = ("x", "..", "-", "1,,2", "0\n1")


PLACES = ("missing", "directory", "text", "pipe", "loop", "below", "device", "long", "empty")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Caller]:
    """Lend a state root with one container that runs; its bundle is `bundle` beside the root."""
    caller = Caller(tmp_path_factory.mktemp("running"), f"{GROUP}-running")
    write_bundle(caller)
    assert caller("run", "--detach", "--bundle", str(caller.base / "bundle"), ID) == (0, "")
    yield caller
    assert caller("delete", "--force", ID) == (0, "")
    caller.assert_nothing_left()


@pytest.fixture
def caller(tmp_path: Path) -> Iterator[Caller]:
    """Lend a state root without containers, and a bundle."""
    made = Caller(tmp_path, f"{GROUP}-one")
    write_bundle(made)
    yield made
    made("delete", "--force", ID)
    made.assert_nothing_left()


def write_bundle(caller: Caller, **process: Any) -> None:
    bundle = caller.base / "bundle"
    if not bundle.exists():
        make_root(bundle / "rootfs")
    spec = json.loads(jsonio.encode(first_spec()))
    spec["process"] |= {"args": ["/bin/sleep", "1000"], "terminal": False} | process
    spec["linux"]["cgroupsPath"] = f"/{caller.group}"
    (bundle / "config.json").write_text(json.dumps(spec))


def places(base: Path) -> dict[str, str]:
    """Return what may lie where a file is expected, all of it wrong."""
    (base / "directory").mkdir(exist_ok=True)
    (base / "text").write_text("no document")
    if not (base / "pipe").exists():
        os.mkfifo(base / "pipe")
        (base / "loop").symlink_to("loop")
    found = {name: str(base / name) for name in ("missing", "directory", "text", "pipe", "loop")}
    found |= {"below": str(base / "text" / "x"), "device": "/dev/zero", "long": LONG, "empty": ""}
    assert set(found) == set(PLACES)
    return found


@pytest.mark.parametrize(
    "container_id", ["", ".", "..", "a/b", "a b", "x" * 300, "\x1b[0m", "é", "\udcff", "a\nb", "-x"]
)
def test_what_is_no_id_is_refused_by_each_verb(caller: Caller, container_id: str) -> None:
    naming = ("invalid container id", "arguments")
    for verb in ("state", "start", "kill", "delete", "pause", "resume", "ps", "update", "events"):
        caller.refused(verb, container_id, naming=naming)
    caller.refused("exec", container_id, "true", naming=naming)
    for verb in ("create", "run"):
        caller.refused(verb, "--bundle", str(caller.base / "bundle"), container_id, naming=naming)


@pytest.mark.parametrize(
    "words",
    [[], ["fly"], ["state"], ["state", ID, ID], ["list", "x"], ["features", "x"], ["run", "--fly", ID]],
)
def test_what_is_no_command_line_is_refused(caller: Caller, words: list[str]) -> None:
    caller.refused(*words, naming=("arguments", "invalid choice"))


@pytest.mark.parametrize(
    ("verb", "option", "values"),
    [
        *(("update", f"--{name}", _SIZES) for name in ("memory", "memory-swap", "memory-reservation")),
        *(("update", f"--{name}", _SIZES) for name in ("kernel-memory", "kernel-memory-tcp")),
        *(
            ("update", f"--{name}", _NUMBERS)
            for name in ("blkio-weight", "cpu-period", "cpu-quota", "cpu-burst", "cpu-share", "cpu-idle")
        ),
        *(("update", f"--{name}", _NUMBERS) for name in ("cpu-rt-period", "cpu-rt-runtime", "pids-limit")),
        *(("update", f"--cpuset-{name}", _LISTS) for name in ("cpus", "mems")),
        ("update", "--l3-cache-schema", ("x",)),
        ("events", "--interval", ("", "x", "0s", "1", "9" * 400 + "h")),
        ("ps", "--format", ("", "x")),
        ("list", "--format", ("", "x")),
        ("exec", "--user", ("x", "1:", ":1", "-1", "9" * 20, "²", "1:x")),
        ("exec", "--additional-gids", ("", "x", "9" * 20, "1.5")),
        ("exec", "--cwd", ("relative", "/..", LONG, "/" + LONG)),
        ("exec", "--env", ("", "=x", "A=" + "x" * 131072)),
        ("exec", "--process-label", ("x",)),
        ("exec", "--apparmor", ("x",)),
    ],
)
def test_an_option_with_a_wrong_value_is_refused(
    running: Caller, verb: str, option: str, values: tuple[str, ...]
) -> None:
    field = {"--cpu-rt-period": "realtimePeriod", "--cpu-rt-runtime": "realtimeRuntime"}.get(option, "")
    last = option.rsplit("-", 1)[-1].removesuffix("s")
    for value in values:
        if len(value) < 131072:  # what execve takes
            words = [] if verb == "list" else [ID, "/bin/true"] if verb == "exec" else [ID]
            running.refused(
                verb, f"{option}={value}", *words, naming=(last, field or last, "duration", "gid")
            )


@pytest.mark.parametrize("signal", ["", "x", "0", "-1", "65", "9" * 20, "SIG", "²", "SIGRTMIN+99"])
def test_what_is_no_signal_is_refused(running: Caller, signal: str) -> None:
    running.refused("kill", ID, signal, naming=("signal",))


@pytest.mark.parametrize(
    ("words", "naming"),
    [
        (("exec", ID), "no command"),
        (("exec", ID, ""), "process.args"),
        (("exec", "--tty", "--detach", ID, "/bin/true"), "--console-socket"),
        (("exec", "--console-socket", "/x", ID, "/bin/true"), "process.terminal"),
        (("start", ID), "it is running"),
        (("resume", ID), "it is running"),
        (("delete", ID), "it is running"),
        (("checkpoint", ID), "not supported"),
        (("restore", ID), "not supported"),
        (("ps", ID, "-o", "cmd"), "no column PID"),
        (("ps", ID, "--fly"), "ps"),
    ],
)
def test_what_cannot_be_done_now_is_refused(running: Caller, words: tuple[str, ...], naming: str) -> None:
    running.refused(*words, naming=(naming,))


@pytest.mark.parametrize("kind", PLACES)
def test_a_file_that_is_none_is_refused(running: Caller, kind: str) -> None:
    path = places(running.base)[kind]
    naming = (path[:100] if path else "names no file",)

    running.refused("exec", "--process", path, ID, naming=naming)
    running.refused("update", "--resources", path, ID, naming=naming)


@pytest.mark.parametrize("kind", ["directory", "pipe", "loop", "below", "device", "long", "empty"])
def test_a_pid_file_that_cannot_be_written_leaves_no_container(caller: Caller, kind: str) -> None:
    path = places(caller.base)[kind]

    for verb in (["create"], ["run", "--detach"]):
        words = [*verb, "--bundle", str(caller.base / "bundle"), "--pid-file", path, ID]
        caller.refused(*words, naming=(path[-20:] or "names no file",))
        caller.assert_nothing_left()
    assert Path("/dev/zero").is_char_device()


@pytest.mark.parametrize("kind", PLACES)
def test_a_console_socket_that_is_none_leaves_no_container(caller: Caller, kind: str) -> None:
    write_bundle(caller, terminal=True)
    path = places(caller.base)[kind]

    words = ["create", "--bundle", str(caller.base / "bundle"), "--console-socket", path, ID]
    caller.refused(*words, naming=("console",))
    caller.assert_nothing_left()


def test_a_console_socket_may_lie_deep(caller: Caller) -> None:
    write_bundle(caller, terminal=True)
    path = caller.base / ("d" * 100) / "socket"
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        os.chdir(path.parent)
        server.bind("socket")
        server.listen()
        server.settimeout(30)
        words = ["create", "--bundle", str(caller.base / "bundle"), "--console-socket", str(path), ID]
        assert caller(*words) == (0, "")
        with server.accept()[0] as received:
            _, descriptors, _, _ = socket.recv_fds(received, 100, 1)
    os.close(descriptors[0])


@pytest.mark.parametrize("kind", ["directory", "pipe", "loop", "below", "long", "empty"])
def test_without_the_log_that_is_asked_for_nothing_is_done(caller: Caller, kind: str) -> None:
    path = places(caller.base)[kind]
    words = ["--root", str(caller.root), "--log", path, "run", "--bundle", str(caller.base / "bundle"), ID]

    code, text = caller.bare(*words)

    assert (code, text.count("\n")) == (1, 1), text
    assert "--log" in text
    caller.assert_nothing_left()


def test_a_log_on_a_full_disk_does_not_hide_the_error(caller: Caller) -> None:
    code, text = caller.bare("--root", str(caller.root), "--log", "/dev/full", "state", "x")

    assert (code, text) == (1, "pyengine-oci: container does not exist: x\n")


@pytest.mark.parametrize("style", ["text", "json"])
def test_a_log_gets_what_standard_error_gets(caller: Caller, style: str) -> None:
    log = caller.base / "log"

    caller.bare("--log", str(log), "--log-format", style, "--root", str(caller.root), "state", "\udcff\x1b")

    lines = log.read_text().splitlines()
    assert len(lines) == 1
    assert lines[0].isprintable()
    assert "invalid container id" in lines[0]


@pytest.mark.parametrize("kind", ["directory", "text", "pipe", "loop", "below", "device", "long", "empty"])
def test_a_bundle_that_is_none_is_refused(caller: Caller, kind: str) -> None:
    path = places(caller.base)[kind]

    caller.refused("run", "--bundle", path, ID, naming=(path[-20:] or "names no file",))
    if kind != "directory":
        caller.refused("spec", "--bundle", path, naming=(path[-20:] or "names no file",))


def test_a_bundle_whose_path_is_no_text_is_refused(caller: Caller) -> None:
    path = caller.base / "\udcff\n\x1b"
    shutil.copytree(caller.base / "bundle", path)

    caller.refused("run", "--bundle", str(path), ID, naming=("its path is not UTF-8",))


@pytest.mark.parametrize("kind", ["text", "pipe", "loop", "below", "device", "long", "empty"])
def test_a_state_root_that_is_none_is_refused(caller: Caller, kind: str) -> None:
    path = places(caller.base)[kind]

    code, text = caller.bare("--root", path, "run", "--bundle", str(caller.base / "bundle"), ID)

    assert (code, text.count("\n")) == (1, 1), text
    assert (path[-20:] or "names no file") in text
    caller.assert_nothing_left()


DAMAGES: dict[str, bytes] = {
    "empty": b"",
    "cut": b'{"id":"c","pid":',
    "list": b"[]",
    "null": b"null",
    "binary": b"\xff\x00",
    "another": b'{"version":7}',
    "nul": b'{"id":"c","pid":1,"startTime":1,"bundle":"/\\u0000","cgroup":"/\\u0000","createdNs":1}',
    "numbers": b'{"id":"c","pid":%d,"startTime":-1,"bundle":"","cgroup":"/","createdNs":1}' % (1 << 70),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("file", ["state.json", "config.json"])
def test_a_container_whose_state_is_damaged_can_be_removed(caller: Caller, file: str, damage: str) -> None:
    bundle = str(caller.base / "bundle")
    assert caller("run", "--detach", "--bundle", bundle, ID) == (0, "")
    (caller.root / ID / file).write_bytes(DAMAGES[damage])

    for words in (["state", ID], ["exec", ID, "/bin/true"], ["update", "--cpu-share", "10", ID], ["ps", ID]):
        code, text = caller(*words)
        assert "Traceback" not in text
        assert code == 0 or text.count("\n") == 1
    assert caller("delete", "--force", ID)[0] == 0

    caller.assert_nothing_left()


def test_a_damaged_container_does_not_hide_the_others(caller: Caller) -> None:
    assert caller("run", "--detach", "--bundle", str(caller.base / "bundle"), ID) == (0, "")
    shutil.copytree(caller.root / ID, caller.root / "damaged")
    (caller.root / "damaged" / "state.json").write_bytes(b"{")

    code, text = caller("list")
    shutil.rmtree(caller.root / "damaged")

    assert code == 0
    assert "warning: damaged: invalid" in text
    assert f"{ID}   " in text
