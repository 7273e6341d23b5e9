import pytest

from engine.base.errors import InvalidArgument
from engine.runtime import arguments


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
