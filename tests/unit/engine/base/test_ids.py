import pytest

from engine.base.ids import is_id, new_id, short


def test_ids_are_docker_shaped_and_differ() -> None:
    assert is_id(new_id())
    assert new_id() != new_id()


@pytest.mark.parametrize("text", ["", "abc", "A" * 64, "a" * 63, "a" * 65, "a" * 64 + "\n", "../" + "a" * 61])
def test_anything_else_is_no_id(text: str) -> None:
    assert not is_id(text)


def test_the_short_form_drops_the_algorithm() -> None:
    assert short("sha256:" + "ab" * 32) == "ab" * 6
