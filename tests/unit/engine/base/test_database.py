import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.base.database import Database, DatabaseDamaged
from engine.base.errors import Conflict, EngineError, OutOfSpace

SCHEMA = ["CREATE TABLE tag (name TEXT PRIMARY KEY, image TEXT NOT NULL) STRICT"]


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database(tmp_path / "state.db")
    opened.migrate("images", SCHEMA)
    yield opened
    opened.close()


def insert(database: Database, name: str, image: str = "x") -> None:
    database.write(lambda c: c.execute("INSERT INTO tag VALUES (?, ?)", (name, image))).result()


def test_what_was_acknowledged_is_there_after_opening_again(tmp_path: Path) -> None:
    first = Database(tmp_path / "state.db")
    first.migrate("images", SCHEMA)
    insert(first, "a")
    first.close()

    second = Database(tmp_path / "state.db")
    second.migrate("images", SCHEMA)
    assert second.read("SELECT name FROM tag") == [("a",)]
    second.close()


def test_a_failed_write_takes_only_itself_back(database: Database) -> None:
    def half(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO tag VALUES ('half', 'x')")
        raise KeyError("half")

    before = database.write(lambda c: c.execute("INSERT INTO tag VALUES ('before', 'x')"))
    failing = database.write(half)
    after = database.write(lambda c: c.execute("INSERT INTO tag VALUES ('after', 'x')"))

    before.result()
    with pytest.raises(KeyError):
        failing.result()
    after.result()
    assert database.read("SELECT name FROM tag ORDER BY name") == [("after",), ("before",)]


def test_writes_that_queue_up_are_all_done_in_order(database: Database) -> None:
    futures = [
        database.write(lambda c, n=n: c.execute("INSERT INTO tag VALUES (?, 'x')", (f"{n:03}",)))  # type: ignore[misc]
        for n in range(300)
    ]

    for future in futures:
        future.result()
    assert [name for (name,) in database.read("SELECT name FROM tag ORDER BY rowid")] == [
        f"{n:03}" for n in range(300)
    ]


def test_migrations_run_once_and_a_newer_schema_is_refused_untouched(tmp_path: Path) -> None:
    database = Database(tmp_path / "state.db")
    database.migrate("images", [*SCHEMA, "ALTER TABLE tag ADD COLUMN used INT"])
    database.migrate("images", [*SCHEMA, "ALTER TABLE tag ADD COLUMN used INT"])

    with pytest.raises(Conflict, match="images has schema 2, this engine knows 1"):
        database.migrate("images", SCHEMA)
    database.close()


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    path.write_bytes(b"not a database at all, but long enough" * 40)

    with pytest.raises(DatabaseDamaged, match=r"state\.db: file is not a database"):
        Database(path)


def _fill(database: Database, pages: int) -> None:
    """Let the database grow no further than `pages`, which is what a full disk is to SQLite."""
    database.write(lambda c: c.execute(f"PRAGMA max_page_count = {pages}").fetchone()).result()


def test_a_full_disk_fails_the_write_and_nothing_else(database: Database) -> None:
    insert(database, "before")
    _fill(database, 1)

    for number in range(2):  # the reserve, if there is one, does not help against this kind of full
        with pytest.raises(OutOfSpace, match="no space left on device for the engine's state"):
            insert(database, f"{number}" * 100_000)

    _fill(database, 1_000_000)
    insert(database, "after")
    assert database.read("SELECT name FROM tag ORDER BY name") == [("after",), ("before",)]


def test_a_full_disk_gives_the_reserve_up_and_the_write_is_made(database: Database) -> None:
    reserve = database.path.with_name("state.db-reserve")
    _fill(database, 1)
    assert reserve.stat().st_size > 0

    def insert_when_there_is_room(connection: sqlite3.Connection) -> None:
        if not reserve.exists():
            connection.execute("PRAGMA max_page_count = 1000000").fetchone()
        connection.execute("INSERT INTO tag VALUES (?, 'x')", ("big" * 100_000,))

    other = database.write(lambda c: c.execute("INSERT INTO tag VALUES ('other', 'x')"))
    database.write(insert_when_there_is_room).result()
    other.result()

    assert len(database.read("SELECT name FROM tag")) == 2


def test_a_database_that_may_not_be_opened_is_not_called_damaged(tmp_path: Path) -> None:
    (tmp_path / "state.db").mkdir()

    with pytest.raises(EngineError, match="unable to open database file") as caught:
        Database(tmp_path / "state.db")

    assert not isinstance(caught.value, DatabaseDamaged)


def test_a_cancelled_write_is_not_made_and_stops_no_other(database: Database) -> None:
    started, gate = threading.Event(), threading.Event()

    def hold(_connection: sqlite3.Connection) -> bool:
        started.set()
        return gate.wait(timeout=5)

    first = database.write(hold)
    assert started.wait(timeout=5)
    cancelled = database.write(lambda c: c.execute("INSERT INTO tag VALUES ('cancelled', 'x')"))
    later = database.write(lambda c: c.execute("SELECT count(*) FROM tag").fetchone()[0])

    assert cancelled.cancel()
    gate.set()

    assert first.result(timeout=5)
    assert later.result(timeout=5) == 0
    assert not later.cancel()
