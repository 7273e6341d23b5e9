"""Progress objects: lines where nobody watches, one moving line a layer on a terminal."""

import io
from typing import Any

import pytest

from hostagent.cli.progress import show_progress
from hostagent.client.errors import ApiError

MESSAGES: list[dict[str, Any]] = [
    {"status": "Pulling from library/busybox", "id": "latest"},
    {"status": "Pulling fs layer", "progressDetail": {}, "id": "aa"},
    {"status": "Downloading", "progressDetail": {"current": 500, "total": 1000}, "id": "aa"},
    {"status": "Pull complete", "progressDetail": {}, "id": "aa"},
    {"stream": "Loaded image: busybox:latest\n"},
]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_file_gets_lines_without_movement() -> None:
    out = io.StringIO()
    show_progress(MESSAGES, out=out)

    assert out.getvalue() == (
        "latest: Pulling from library/busybox\naa: Pulling fs layer\naa: Pull complete\n"
        "Loaded image: busybox:latest\n"
    )


def test_a_terminal_gets_one_line_a_layer() -> None:
    out = Terminal()
    show_progress(MESSAGES, out=out)

    text = out.getvalue()
    assert text.count("\n") == 3  # the first line, the layer's, the last
    assert "aa: Downloading [===============               ] 500B/1kB" in text


@pytest.mark.parametrize(
    ("message", "status"),
    [
        ({"error": "disk full"}, 500),
        ({"errorDetail": {"code": 404, "message": "disk full"}, "error": "disk full"}, 404),
    ],
)
def test_an_error_object_is_an_error(message: dict[str, Any], status: int) -> None:
    with pytest.raises(ApiError, match="disk full") as caught:
        show_progress([message], out=None)
    assert caught.value.status == status
