"""Our own command line against an engine on this kernel: streams, terminals, and what is refused."""

import contextlib
import os
import signal

import pytest

from tests.support.home import COMMAND_TIMEOUT_S, PYENGINE, Result, Terminal
from tests.support.pyengined import Engine

pytestmark = pytest.mark.requires("root", "namespaces", "net_admin", "nftables", "busybox")


def pyengine(engine: Engine, *args: str, stdin: bytes = b"") -> Result:
    return Result.of([str(PYENGINE), *args], engine.env, stdin, COMMAND_TIMEOUT_S)


def shell(engine: Engine, script: str) -> Result:
    """Run a script in which `$P` is our command line."""
    return Result.of(["sh", "-c", script], {**engine.env, "P": str(PYENGINE)}, b"", COMMAND_TIMEOUT_S)


@pytest.fixture
def sleeper(engine: Engine) -> str:
    """A container that runs."""
    return pyengine(engine, "run", "-d", "busybox", "sleep", "1000").out.strip()


@pytest.mark.parametrize(
    ("script", "code", "out"),
    [
        ("$P run -i --rm busybox cat <&-", 0, ""),
        ("echo hi | $P run -i --rm busybox cat", 0, "hi\n"),
        ("$P run --rm busybox echo hi >&-", 0, ""),
        ("$P run --rm busybox nothing 2>&-", 127, ""),
        ("$P ps -a >&- 2>&-", 0, ""),
    ],
)
def test_a_standard_stream_may_be_closed(engine: Engine, script: str, code: int, out: str) -> None:
    result = shell(engine, script)

    assert (result.code, result.out, result.err) == (code, out, "")


@pytest.mark.parametrize(
    ("script", "code"), [("$P ps >/dev/full", 1), ("$P run --rm busybox echo hi >/dev/full", 125)]
)
def test_an_output_that_is_full_is_told(engine: Engine, script: str, code: int) -> None:
    result = shell(engine, script)

    assert result.code == code
    assert "no space left on device" in result.error


def test_a_reader_that_goes_away_ends_the_command_quietly(engine: Engine) -> None:
    result = shell(engine, "{ $P logs --tail 0 x; $P images; } 2>&1 | head -c 1 >/dev/null")

    assert (result.code, result.err) == (0, "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGINT])
def test_exec_gives_the_terminal_back_whatever_ends_it(
    engine: Engine, sleeper: str, number: signal.Signals
) -> None:
    words = [str(PYENGINE), "exec", "-it", sleeper, "sh", "-c", "echo ready; sleep 1000"]
    with Terminal(words, engine.env) as terminal:
        terminal.expect("ready")
        assert terminal.is_raw()

        os.kill(terminal.process.pid, number)

        assert terminal.end() == 128 + number
        assert not terminal.is_raw()


def test_the_third_interrupt_ends_the_client_of_a_container_that_does_not_listen(engine: Engine) -> None:
    script = 'trap "echo heard" INT; echo ready; while :; do sleep 0.1; done'
    words = [str(PYENGINE), "run", "--rm", "-t", "busybox", "sh", "-c", script]
    with Terminal(words, engine.env) as terminal:
        terminal.expect("ready")
        for _ in range(2):
            os.kill(terminal.process.pid, signal.SIGINT)
            terminal.expect("heard")
        os.kill(terminal.process.pid, signal.SIGINT)

        assert terminal.end() == 1
        terminal.expect("got 3 SIGTERM/SIGINTs")


def test_bad_detach_keys_leave_no_container(engine: Engine) -> None:
    for verb in (["run"], ["run", "-d"]):
        result = pyengine(engine, *verb, "--detach-keys", "nonsense", "busybox", "true")
        assert result.code == 125
        assert "nonsense" in result.error

    assert pyengine(engine, "ps", "-aq").out == ""


def test_short_flags_take_their_value_after_an_equals_sign(engine: Engine) -> None:
    result = pyengine(engine, "run", "--rm", "-e=A=1", "-w=/etc", "-u=5", "busybox", "sh", "-c",
                      "echo $A $PWD $(id -u)")  # fmt: skip

    assert (result.code, result.out) == (0, "1 /etc 5\n")


def test_removing_by_force_what_is_not_there_is_no_failure(engine: Engine) -> None:
    for verb in ("rm", "rmi"):
        result = pyengine(engine, verb, "--force", "nothing")
        assert result.code == 0
        assert "nothing" in result.error
        assert pyengine(engine, verb, "nothing").code == 1


def test_listings_and_documents_take_templates(engine: Engine, sleeper: str) -> None:
    with contextlib.closing(engine.api()) as api:
        name = api.get(f"/containers/{sleeper}/json")["Name"]
    assert pyengine(engine, "ps", "--format", '{{.ID}}{{.Label "none"}}').out == f"{sleeper[:12]}\n"
    assert pyengine(engine, "inspect", "-f", '{{printf "%s" .Name}}', sleeper).out == f"{name}\n"
    assert pyengine(engine, "info", "-f", "{{.Runtimes.nvidia}}").out == "<no value>\n"
    for words in (["ps", "--format", "{{nosuch}}"], ["inspect", "-f", "{{.Nosuch}}", sleeper]):
        assert pyengine(engine, *words).code == 1


def test_long_names_do_what_the_short_ones_do(engine: Engine, sleeper: str) -> None:
    assert pyengine(engine, "container", "ls", "-q").out == f"{sleeper[:12]}\n"
    assert pyengine(engine, "container", "inspect", "-f", "{{.Id}}", sleeper).out == f"{sleeper}\n"
    assert pyengine(engine, "image", "ls").out == pyengine(engine, "images").out
    assert pyengine(engine, "image", "inspect", sleeper).code == 1
    assert pyengine(engine, "container", "rm", "-f", sleeper).out == f"{sleeper}\n"


def test_bytes_that_are_not_utf8_are_refused_by_name(engine: Engine) -> None:
    for words in ("run --rm busybox echo $(printf 'a\\377b')", "inspect $(printf 'a\\377b')"):
        result = shell(engine, f"$P {words}")
        assert result.code == 125
        assert "not UTF-8 text: 'a\\xffb'" in result.error


def test_a_prune_that_nobody_confirms_removes_nothing(engine: Engine) -> None:
    name = pyengine(engine, "volume", "create").out.strip()
    result = pyengine(engine, "volume", "prune", "--all")

    assert result.code == 1
    assert "nothing was removed" in result.err
    assert name in pyengine(engine, "volume", "ls", "-q").out.split()
    assert pyengine(engine, "volume", "prune", "--all", stdin=b"y\n").code == 0
    assert name not in pyengine(engine, "volume", "ls", "-q").out.split()


def test_log_options_are_shown_with_details(engine: Engine) -> None:
    options = ("--log-opt", "tag={{.Name}}", "--log-opt", "env=A", "-e", "A=1")
    assert pyengine(engine, "run", "--name", "told", *options, "busybox", "echo", "hi").code == 0

    assert pyengine(engine, "logs", "--details", "told").out == "A=1,tag=told hi\n"
    assert pyengine(engine, "logs", "told").out == "hi\n"
