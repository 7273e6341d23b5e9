import argparse

import pytest

from engine.base.errors import InvalidArgument, NotSupported
from engine.runtime import arguments
from engine.runtime.commands import refuse_unsupported, signal_number


def test_a_verb_has_its_options_and_the_common_ones() -> None:
    found = arguments.parse(["--root", "/r", "run", "--bundle", "/b", "-d", "id"], "v")

    assert (found.verb, found.id, str(found.root), str(found.bundle), found.detach) == (
        "run",
        "id",
        "/r",
        "/b",
        True,
    )


@pytest.mark.parametrize("container_id", ["run", "delete", "web"])
def test_a_container_may_be_named_as_a_verb(container_id: str) -> None:
    found = arguments.parse(["kill", container_id, "9"], "v")

    assert (found.verb, found.id, found.signal) == ("kill", container_id, "9")


def test_exec_passes_the_rest_on() -> None:
    found = arguments.parse(["exec", "-e", "A=b", "id", "run", "--bundle", "x"], "v")

    assert (found.verb, found.id, found.args) == ("exec", "id", ["run", "--bundle", "x"])


@pytest.mark.parametrize("words", [["fly"], ["fly", "id"], []])
def test_no_verb_is_a_mistake_that_names_all(words: list[str]) -> None:
    with pytest.raises(InvalidArgument) as caught:
        arguments.parse(words, "v")

    if words:
        assert all(f"'{name}'" in str(caught.value) for name in ("run", "exec", "delete", "features"))


def test_help_names_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        arguments.parse(["--help"], "v")

    text = capsys.readouterr().out
    assert all(f"    {name} " in text for name in ("create", "run", "start", "exec", "features"))


_MAKING = "bundle= console-socket= pid-file= no-pivot no-new-keyring preserve-fds=1"
RUNC = {  # the options of runc 1.1, by verb; "" are the common ones
    "": "debug log= log-format=json root= criu= systemd-cgroup rootless=auto",
    "create": _MAKING,
    "run": f"{_MAKING} detach keep no-subreaper",
    "exec": (
        "additional-gids=1 apparmor= cap= cgroup= console-socket= cwd= detach env= ignore-paused"
        " no-new-privs pid-file= preserve-fds=1 process= process-label= tty user="
    ),
    "kill": "all",
    "delete": "force",
    "ps": "format=json",
    "list": "format=json quiet",
    "spec": "bundle= rootless",
    "events": "interval= stats",
    "update": (
        "blkio-weight= cpu-period= cpu-quota= cpu-rt-period= cpu-rt-runtime= cpu-share= cpuset-cpus="
        " cpuset-mems= l3-cache-schema= mem-bw-schema= memory= memory-reservation= memory-swap= pids-limit="
        " resources="
    ),
    "start": "",
    "state": "",
    "pause": "",
    "resume": "",
    "features": "",
}
VERBS = [verb for verb in RUNC if verb]
REFUSED = [
    "systemd-cgroup",
    "criu",
    "no-new-keyring",
    "process-label",
    "apparmor",
    "cgroup",
    "ignore-paused",
    "l3-cache-schema",
    "mem-bw-schema",
]


def options(verb: str) -> list[str]:
    return [f"--{option}x" if option.endswith("=") else f"--{option}" for option in RUNC[verb].split()]


@pytest.mark.parametrize("verb", VERBS)
def test_every_option_of_runc_is_known(verb: str) -> None:
    container = [] if verb in ("list", "spec", "features") else ["id"]

    found = arguments.parse([*options(""), verb, *options(verb), *container], "v")

    assert found.verb == verb


@pytest.mark.parametrize("verb", RUNC)
def test_help_tells_of_every_option(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        arguments.parse([*filter(None, [verb]), "--help"], "v")

    text = capsys.readouterr().out
    names = [option.partition("=")[0] for option in RUNC[verb].split()]
    assert [name for name in names if name not in REFUSED and f"--{name}" not in text] == []


def test_help_names_what_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        arguments.parse(["--help"], "v")

    text = capsys.readouterr().out
    assert all(f"--{option}" in text for option in REFUSED)


@pytest.mark.parametrize(
    ("text", "number"),
    [("9", 9), ("KILL", 9), ("SIGKILL", 9), ("sigkill", 9), ("RTMIN+3", 37), ("SIGRTMIN", 34), ("64", 64)],
)
def test_signals_have_names_and_numbers(text: str, number: int) -> None:
    assert signal_number(text) == number


@pytest.mark.parametrize(
    "text", ["", "0", "65", "KILL+1", "RTMIN+31", "RTMIN+", "+3", "²", "SIG", "SIGSIGKILL"]
)
def test_what_is_no_signal_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="unknown signal"):
        signal_number(text)


def flags(*words: str) -> argparse.Namespace:
    return arguments.parse([*words], "v")


@pytest.mark.parametrize(
    "words",
    [
        *(["--systemd-cgroup", "list"], ["--criu", "x", "list"], ["--rootless", "true", "list"]),
        *(["run", "--no-new-keyring", "id"], ["exec", "--ignore-paused", "id", "true"]),
        *(["exec", option, "x", "id", "true"] for option in ("--apparmor", "--process-label", "--cgroup")),
    ],
)
def test_what_runc_can_and_this_runtime_not_is_refused_by_name(words: list[str]) -> None:
    option = next(word for word in words if word.startswith("--"))

    with pytest.raises(NotSupported, match=f"^{option} .*is not supported: "):
        refuse_unsupported(flags(*words))
