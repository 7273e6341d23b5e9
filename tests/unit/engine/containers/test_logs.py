import asyncio
import contextlib
import json
import os
import time
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import Any

import pytest

from engine.containers.logs import LogLine, details, read
from tests.support.loglab import log_of

TIMEOUT_S = 20
FORMS = pytest.mark.parametrize(
    ("driver", "compress"),
    [("json-file", False), ("json-file", True), ("local", False), ("local", True)],
    ids=["json", "json-gz", "local", "local-gz"],
)


def write(path: Path, texts: list[str], *, start_ns: int = 0) -> None:
    with path.open("ab") as file:
        for number, text in enumerate(texts):
            time_ns = start_ns + number
            record = {"log": text, "stream": "stdout", "time": f"2026-01-01T00:00:00.{time_ns:09d}Z"}
            file.write(json.dumps(record).encode() + b"\n")


def collect(path: Path, **options: Any) -> list[str]:
    async def run() -> list[str]:
        return [line.text.decode() async for line in read(path, **options)]

    return asyncio.run(asyncio.wait_for(run(), TIMEOUT_S))


BASE_NS = 1_767_225_600 * 10**9


def test_a_line_has_stream_time_and_bytes(tmp_path: Path) -> None:
    write(tmp_path / "log", ["é\n"], start_ns=5)

    async def run() -> list[LogLine]:
        return [line async for line in read(tmp_path / "log")]

    assert asyncio.run(run()) == [LogLine("stdout", BASE_NS + 5, "é\n".encode())]


def test_gos_shortened_times_are_read(tmp_path: Path) -> None:
    (tmp_path / "log").write_text(
        '{"log":"a","stream":"stderr","time":"2026-01-01T00:00:00.5Z"}\n'
        '{"log":"b","stream":"stderr","time":"2026-01-01T00:00:01Z"}\n'
    )

    async def run() -> list[int]:
        return [line.time_ns async for line in read(tmp_path / "log")]

    assert asyncio.run(run()) == [BASE_NS + 5 * 10**8, BASE_NS + 10**9]


def test_no_file_is_an_empty_log(tmp_path: Path) -> None:
    assert collect(tmp_path / "log") == []


def test_torn_and_damaged_records_are_skipped(tmp_path: Path) -> None:
    path = tmp_path / "log"
    write(path, ["a"])
    with path.open("ab") as file:
        file.write(b'{"log":"to\n\xff\xfe\n')
    write(path, ["b"])
    with path.open("ab") as file:
        file.write(b'{"log":"torn","stream":"std')

    assert collect(path) == ["a", "b"]


def rotated(tmp_path: Path) -> Path:
    write(tmp_path / "log.2", ["1", "2", "3"])
    write(tmp_path / "log.1", ["4", "5"], start_ns=3)
    write(tmp_path / "log", ["6", "7"], start_ns=5)
    return tmp_path / "log"


def test_rotated_files_are_read_oldest_first(tmp_path: Path) -> None:
    assert collect(rotated(tmp_path)) == list("1234567")


@pytest.mark.parametrize("missing", ["log", "log.1", "log.2", "log.3"])
def test_a_name_that_is_missing_in_the_middle_of_a_rotation_hides_nothing(
    tmp_path: Path, missing: str
) -> None:
    names = [name for name in ("log.3", "log.2", "log.1", "log") if name != missing]
    for name in names:
        write(tmp_path / name, [name])

    assert collect(tmp_path / "log") == names


@pytest.mark.parametrize("tail", range(9))
def test_the_tail_reaches_into_rotated_files(tmp_path: Path, tail: int) -> None:
    assert collect(rotated(tmp_path), tail=tail) == list("1234567")[max(0, 7 - tail) :]


@pytest.mark.parametrize("tail", [0, 1, 2, 999, 5000, 5001])
def test_the_tail_of_a_large_file_is_exact(tmp_path: Path, tail: int) -> None:
    texts = [f"{number} {'x' * (number % 200)}\n" for number in range(5000)]
    write(tmp_path / "log", texts)

    assert collect(tmp_path / "log", tail=tail) == (texts[-tail:] if tail else [])


def test_a_torn_end_does_not_count_for_the_tail(tmp_path: Path) -> None:
    write(tmp_path / "log", ["a", "b"])
    with (tmp_path / "log").open("ab") as file:
        file.write(b'{"log":"torn')

    assert collect(tmp_path / "log", tail=1) == ["b"]


def test_since_and_until_choose_by_time(tmp_path: Path) -> None:
    path = rotated(tmp_path)

    assert collect(path, since_ns=BASE_NS + 2, until_ns=BASE_NS + 4) == ["3", "4", "5"]
    assert collect(path, since_ns=BASE_NS + 5, tail=5) == ["6", "7"]


async def follow(lines: AsyncIterator[LogLine], count: int) -> list[str]:
    async with asyncio.timeout(TIMEOUT_S):
        return [(await anext(lines)).text.decode() for _ in range(count)]


def test_following_sees_what_is_added_and_ends_with_the_container(tmp_path: Path) -> None:
    async def run() -> None:
        path = tmp_path / "log"
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        lines = read(path, follow=True, ended=ended)
        waiting = asyncio.ensure_future(follow(lines, 1))
        await asyncio.sleep(0)
        write(path, ["a"])
        assert await waiting == ["a"]
        write(path, ["b", "c"])
        assert await follow(lines, 2) == ["b", "c"]
        write(path, ["last"])
        ended.set_result(None)
        assert await follow(lines, 1) == ["last"]
        with pytest.raises(StopAsyncIteration):
            await anext(lines)

    asyncio.run(run())


@FORMS
@pytest.mark.parametrize("files", [1, 2, 4])
def test_following_goes_over_rotations_without_loss(
    tmp_path: Path, files: int, driver: str, compress: bool
) -> None:
    async def run() -> None:
        path = tmp_path / "log"
        log = log_of(driver, path, max_bytes=3000, max_files=files, compress=compress)
        lines = read(path, follow=True)
        for number in range(60):
            texts = [f"{number}.{part}\n" for part in range(5)]
            log.write("stdout", "".join(texts).encode())
            assert await follow(lines, 5) == texts
        log.close()
        await lines.aclose()

    asyncio.run(run())


@FORMS
def test_a_follower_that_was_away_goes_on_with_the_oldest_that_is_left(
    tmp_path: Path, driver: str, compress: bool
) -> None:
    async def run() -> None:
        path = tmp_path / "log"
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        log = log_of(driver, path, max_bytes=1000, max_files=3, compress=compress)
        log.write("stdout", b"first\n")
        lines = read(path, follow=True, ended=ended)
        assert await follow(lines, 1) == ["first\n"]
        texts = [f"{number}\n" for number in range(100)]
        for text in texts:
            log.write("stdout", text.encode())
        log.close()
        ended.set_result(None)
        got = [line.text.decode() async for line in lines]

        # what was in the file that it had open, then what is still there; nothing twice, order kept
        assert got[-1] == texts[-1]
        assert [text for text in texts if text in set(got)] == got

    asyncio.run(run())


def test_an_error_of_ended_ends_the_following(tmp_path: Path) -> None:
    async def fails() -> None:
        raise OSError("gone")

    write(tmp_path / "log", ["a"])

    assert collect(tmp_path / "log", follow=True, ended=fails()) == ["a"]


def test_many_followers_share_one_inotify_descriptor(tmp_path: Path) -> None:
    def count() -> int:
        links = [entry.resolve() for entry in Path("/proc/self/fd").iterdir()]
        return sum("inotify" in str(link) for link in links)

    async def run() -> None:
        write(tmp_path / "log", ["a"])
        before = count()
        followers = [read(tmp_path / "log", follow=True) for _ in range(200)]
        for lines in followers:
            assert await follow(lines, 1) == ["a"]
        assert count() == before + 1
        write(tmp_path / "log", ["b"])
        for lines in followers:
            assert await follow(lines, 1) == ["b"]
            await lines.aclose()
        assert count() == before

    asyncio.run(run())


def written(path: Path, count: int, driver: str, compress: bool, **options: Any) -> list[str]:
    """Write so many lines of growing length; return them."""
    log = log_of(driver, path, compress=compress, **options)
    texts = [f"{number} {'x' * (number % 50)}\n" for number in range(count)]
    for text in texts:
        log.write("stdout" if len(text) % 2 else "stderr", text.encode())
    log.close()
    return texts


@FORMS
def test_what_was_written_is_read_over_all_files(tmp_path: Path, driver: str, compress: bool) -> None:
    texts = written(tmp_path / "log", 500, driver, compress, max_bytes=9000, max_files=20)

    assert collect(tmp_path / "log") == texts
    packed = [path.name for path in tmp_path.iterdir() if path.suffix == ".gz"]
    assert bool(packed) == compress
    assert list(tmp_path.glob(".*")) == []


@FORMS
@pytest.mark.parametrize("tail", [0, 1, 9, 100, 499, 500, 501])
def test_the_tail_reaches_into_files_of_each_form(
    tmp_path: Path, tail: int, driver: str, compress: bool
) -> None:
    texts = written(tmp_path / "log", 500, driver, compress, max_bytes=9000, max_files=20)

    assert collect(tmp_path / "log", tail=tail) == (texts[-tail:] if tail else [])


@FORMS
def test_times_and_streams_survive_each_form(tmp_path: Path, driver: str, compress: bool) -> None:
    before_ns = time.time_ns()
    written(tmp_path / "log", 100, driver, compress, max_bytes=2000, max_files=20)

    async def run() -> list[LogLine]:
        return [line async for line in read(tmp_path / "log")]

    lines = asyncio.run(run())
    assert before_ns <= lines[0].time_ns <= lines[-1].time_ns <= time.time_ns()
    assert all((line.stream == "stdout") == bool(len(line.text) % 2) for line in lines)
    middle = lines[50].time_ns
    assert collect(tmp_path / "log", since_ns=middle) == [
        line.text.decode() for line in lines if line.time_ns >= middle
    ]


@FORMS
def test_attributes_and_a_line_in_pieces_survive_each_form(
    tmp_path: Path, driver: str, compress: bool
) -> None:
    log = log_of(driver, tmp_path / "log", compress=compress, attrs={"tag": "a b", "X": "1"})
    log.write("stdout", b"x" * 20_000)
    log.write("stderr", b"between\n")
    log.write("stdout", b"y\n\nend")
    log.finish()
    log.close()

    async def run() -> list[LogLine]:
        return [line async for line in read(tmp_path / "log")]

    lines = asyncio.run(run())
    assert [line.text for line in lines] == [b"x" * 20_000, b"between\n", b"y\n", b"\n", b"end"]
    assert {details(line) for line in lines} == {b"X=1,tag=a+b "}


def test_a_damaged_local_record_ends_its_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "log"
    texts = written(path, 200, "local", False, max_bytes=4000, max_files=9)
    (tmp_path / "log.2").write_bytes(b"\x00\xff\xff\xff damaged")
    with path.open("ab") as file:
        file.write(b"\x00\x00\x00\x09torn")

    got = collect(path)

    assert got[-1] == texts[-1]
    assert set(got) < set(texts)
    assert collect(path, tail=1) == texts[-1:]


def test_a_damaged_compressed_file_gives_what_can_be_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "log"
    texts = written(path, 400, "local", True, max_bytes=9000, max_files=9)
    packed = tmp_path / "log.1.gz"
    packed.write_bytes(packed.read_bytes()[:-200])

    got = collect(path)

    assert (got[0], got[-1]) == (texts[0], texts[-1])
    assert len(got) < len(texts)


def test_a_follower_goes_on_after_its_file_was_compressed_under_another_name(tmp_path: Path) -> None:
    async def run() -> None:
        path = tmp_path / "log"
        log = log_of("local", path, max_bytes=1500, max_files=100, compress=True)
        log.write("stdout", b"first\n")
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        lines = read(path, follow=True, ended=ended)
        assert await follow(lines, 1) == ["first\n"]
        texts = [f"{number}\n" for number in range(1000)]
        for text in texts:
            log.write("stdout", text.encode())
        log.close()
        assert sum(name.endswith(".gz") for name in os.listdir(tmp_path)) > 10
        ended.set_result(None)
        assert [line.text.decode() async for line in lines] == texts

    asyncio.run(run())


def ended_never() -> Awaitable[None]:
    return asyncio.get_running_loop().create_future()


def test_cancelling_a_follower_leaves_nothing(tmp_path: Path) -> None:
    async def run() -> None:
        ended = ended_never()
        lines = read(tmp_path / "log", follow=True, ended=ended)
        task = asyncio.ensure_future(follow(lines, 1))
        await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        assert isinstance(ended, asyncio.Future)
        assert not ended.cancelled()

    asyncio.run(run())
