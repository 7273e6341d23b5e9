import enum
from pathlib import Path

import msgspec
import pytest

from engine.base import jsonio
from engine.base.errors import InvalidArgument


class Colour(enum.StrEnum):
    RED = "red"


class Point(msgspec.Struct):
    x: int
    y: int = 0


def test_a_document_survives_the_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "point.json"
    path.write_bytes(jsonio.encode_pretty(Point(1, 2)))

    assert jsonio.read(path, Point) == Point(1, 2)


def test_a_message_is_short_and_ends_with_the_field() -> None:
    with pytest.raises(InvalidArgument, match=r"x\.\.\.x+' - at `\$\[0\]`$") as caught:
        jsonio.decode(b'["' + b"x" * 100_000 + b'"]', list[Colour], noun="colours")
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "invalid point: input data was truncated"),
        ('{"x": "1"}', r"invalid point: expected `int`, got `str` - at `\$\.x`"),
        ("{}", "invalid point: object missing required field `x`"),
        ("[" * 100_000, "invalid point: "),
        (b"\xff\xfe", "invalid point: "),
    ],
)
def test_a_bad_document_is_one_line_that_names_the_field(text: str | bytes, message: str) -> None:
    with pytest.raises(InvalidArgument, match=f"^{message}") as caught:
        jsonio.decode(text, Point, noun="point")
    assert "\n" not in str(caught.value)
