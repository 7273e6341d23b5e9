"""The engine's one SQLite database: what is mutable and relational, and never lost once acknowledged.

Writes run on one thread, in the order they were handed in; those that queue
up while a commit is being synced share the next one (group commit), so the
cost of durability is paid once for many. A write's future resolves after the
commit that holds it is on disk.

Each component owns its tables and brings its own list of migrations; the
versions are in the table `component`. A database written by a newer version
is refused and left untouched.

Source: sqlite.org, "Write-Ahead Logging" and "PRAGMA synchronous".
"""

import logging
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from engine.base.errors import Conflict, EngineError, OutOfSpace

log = logging.getLogger(__name__)
T = TypeVar("T")

_GROUP_MAX = 64
_CLOSE_TIMEOUT_S = 30.0


class DatabaseDamaged(EngineError):
    """The file is not a database, or fails its own consistency check."""


@dataclass(slots=True)
class _Job:
    work: Callable[[sqlite3.Connection], Any]
    done: Future[Any]


class Database:
    """One open database; close it once."""

    def __init__(self, path: Path) -> None:
        """Open or create the file `path`.

        Raises:
            DatabaseDamaged: it is not a database or fails `quick_check`.
        """
        self.path = path
        self._reader = self._connect()
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._write_loop, name="database", daemon=True)
        self._thread.start()

    def migrate(self, component: str, migrations: Sequence[str]) -> None:
        """Bring the tables of `component` to version len(`migrations`); each entry is one SQL script.

        Raises:
            Conflict: the file was written by a newer version of the component.
        """

        def work(connection: sqlite3.Connection) -> None:
            row = connection.execute("SELECT version FROM component WHERE name = ?", (component,)).fetchone()
            version = row[0] if row else 0
            if version > len(migrations):
                raise Conflict(
                    f"{self.path}: {component} has schema {version}, this engine knows {len(migrations)}",
                    hint="use the newer pyengine that wrote it",
                )
            for script in migrations[version:]:
                for statement in filter(str.strip, script.split(";")):
                    connection.execute(statement)
            connection.execute("INSERT OR REPLACE INTO component VALUES (?, ?)", (component, len(migrations)))

        self.write(work).result()

    def write(self, work: Callable[[sqlite3.Connection], T]) -> "Future[T]":
        """Run `work` in a transaction on the writer thread; the future resolves when it is durable.

        An exception of `work` rolls back what it did, and only that. Async
        callers wrap the result with `asyncio.wrap_future`. A future that is
        cancelled before its turn was never run; later it cannot be.
        """
        done: Future[T] = Future()
        self._jobs.put(_Job(work, done))
        return done

    def read(self, query: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Return the rows of `query` as of the last commit; for the thread that opened the database."""
        return self._reader.execute(query, parameters).fetchall()

    def close(self) -> None:
        """Finish the queued writes and close the file."""
        self._jobs.put(None)
        self._thread.join(_CLOSE_TIMEOUT_S)
        self._reader.close()

    def _connect(self) -> sqlite3.Connection:
        try:
            connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA foreign_keys = ON")
            if connection.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
                raise DatabaseDamaged(f"{self.path}: quick_check failed")
            connection.execute(
                "CREATE TABLE IF NOT EXISTS component (name TEXT PRIMARY KEY, version INT) STRICT"
            )
        except sqlite3.DatabaseError as err:
            raise DatabaseDamaged(f"{self.path}: {err}") from err
        return connection

    def _write_loop(self) -> None:
        connection = self._connect()
        closing = False
        while not closing:
            group: list[_Job] = []
            job = self._jobs.get()
            while job is not None:
                if job.done.set_running_or_notify_cancel():  # from here on it cannot be cancelled
                    group.append(job)
                if len(group) == _GROUP_MAX or self._jobs.empty():
                    break
                job = self._jobs.get()
            closing = job is None
            if group:
                _commit_group(connection, group)
        connection.close()


def _commit_group(connection: sqlite3.Connection, group: list[_Job]) -> None:
    """Run each job in its own savepoint, commit once, then resolve the futures."""
    results: list[tuple[_Job, Any, BaseException | None]] = []
    try:
        connection.execute("BEGIN IMMEDIATE")
        results.extend(_run_job(connection, job) for job in group)
        connection.execute("COMMIT")
    except sqlite3.Error as err:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        failure = _disk_error(err)
        for job in group:
            job.done.set_exception(failure)
        return
    for job, value, error in results:
        if error is None:
            job.done.set_result(value)
        else:
            job.done.set_exception(error)


def _run_job(connection: sqlite3.Connection, job: _Job) -> tuple[_Job, Any, BaseException | None]:
    connection.execute("SAVEPOINT job")
    try:
        value = job.work(connection)
    except Exception as err:  # noqa: BLE001 (handed to whoever waits for the future)
        connection.execute("ROLLBACK TO job")
        connection.execute("RELEASE job")
        return job, None, err
    connection.execute("RELEASE job")
    return job, value, None


def _disk_error(err: sqlite3.Error) -> Exception:
    if "full" in str(err):
        return OutOfSpace(f"state database: {err}", hint="free disk space, for example with: pyengine rmi")
    return EngineError(f"state database: {err}")
