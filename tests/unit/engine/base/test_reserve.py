from pathlib import Path

from engine.base.reserve import Reserve


def test_it_is_made_where_there_is_room_and_given_back_once(tmp_path: Path) -> None:
    path = tmp_path / "reserve"
    reserve = Reserve(path)

    reserve.restore()
    held = path.stat()
    assert held.st_blocks * 512 >= held.st_size > 0

    assert reserve.release()
    assert not path.exists()
    assert not reserve.release()


def test_it_comes_back_after_a_while_and_not_at_once(tmp_path: Path) -> None:
    path = tmp_path / "reserve"
    reserve = Reserve(path)
    reserve.restore(now_s=100.0)
    reserve.release()

    reserve.restore(now_s=101.0)
    assert not path.exists()

    reserve.restore(now_s=200.0)
    assert path.exists()
