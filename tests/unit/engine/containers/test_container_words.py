"""Small grammars: names, arguments of ps, the words of a failed start."""

import errno

import pytest

from engine.base.errors import InvalidArgument
from engine.containers import names, processes
from engine.containers.lifecycle import start_text, worded
from engine.containers.shimlink import StartFailed
from tests.support.definitions import container


@pytest.mark.parametrize("name", ["ab", "/web", "a.b-c_d", "1x"])
def test_a_name_may_begin_with_dockers_slash(name: str) -> None:
    assert names.check(name) == name.removeprefix("/")


@pytest.mark.parametrize("name", ["", "a", "-ab", "a b", "a/b", "//ab", "ab\n", "ä" * 3, "x" * 256])
def test_what_breaks_the_grammar_is_no_name(name: str) -> None:
    with pytest.raises(InvalidArgument, match="Invalid container name"):
        names.check(name)


def test_a_made_up_name_obeys_the_grammar() -> None:
    assert names.check(names.made_up())


@pytest.mark.parametrize(
    ("arguments", "titles"),
    [
        ("", ("UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD")),
        ("-ef", ("UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD")),
        ("-o pid,comm", ("PID", "COMM")),
        ("-eo pid,args", ("PID", "COMMAND")),
    ],
)
def test_arguments_of_ps_choose_the_columns(arguments: str, titles: tuple[str, ...]) -> None:
    assert processes.columns(arguments) == titles


@pytest.mark.parametrize("arguments", ["--rotate", "-o", "-o color"])
def test_other_arguments_of_ps_are_refused(arguments: str) -> None:
    with pytest.raises(InvalidArgument):
        processes.columns(arguments)


@pytest.mark.parametrize(
    ("program", "number", "text"),
    [
        ("x", errno.ENOENT, 'exec: "x": executable file not found in $PATH'),
        ("/x", errno.ENOENT, 'exec: "/x": stat /x: no such file or directory'),
        ("/x", errno.EACCES, 'exec: "/x": permission denied'),
    ],
)
def test_a_failed_start_is_told_in_the_words_that_clients_look_for(
    program: str, number: int, text: str
) -> None:
    failed = StartFailed("failed", exit_code=127, step="exec", errno=number)

    assert start_text(failed, (program,)) == text
    answer = worded(failed, container(Cmd=[program]))
    assert isinstance(answer, InvalidArgument)
    assert str(answer) == f"failed to create task for container: {text}"


def test_a_start_that_failed_before_the_program_keeps_its_own_words() -> None:
    failed = StartFailed("mount of /x: no such device", step="mount")

    assert start_text(failed, ("x",)) == "mount of /x: no such device"
