"""--cidfile: there when the container is, absent when it is not."""

from pathlib import Path

import pytest

from hostagent.cli.main import run


@pytest.mark.parametrize("pull", ["missing", "always"])
def test_no_container_leaves_no_file(capsys: pytest.CaptureFixture[str], tmp_path: Path, pull: str) -> None:
    file = tmp_path / "cid"

    words = [
        "--host",
        "unix:///nonexistent/sock",
        "create",
        "--cidfile",
        str(file),
        "--pull",
        pull,
        "busybox",
    ]
    assert run(words) == 125

    assert "/nonexistent/sock" in capsys.readouterr().err
    assert not file.exists()


def test_a_file_that_is_there_is_kept(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "cid"
    file.write_text("mine")

    assert run(["--host", "unix:///nonexistent/sock", "create", "--cidfile", str(file), "busybox"]) == 125

    assert f"container ID file found: {file}" in capsys.readouterr().err
    assert file.read_text() == "mine"
