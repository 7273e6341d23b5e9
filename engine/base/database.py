"""The engine's one SQLite database: what is mutable and relational, and never lost once acknowledged.

Writes run on one thread, in the order they were handed in; those that queue
up while a commit is being synced share the next one (group commit), so the
cost of durability is paid once for many. A write's future resolves after the
commit that holds it is on disk.

Each component owns its tables and brings its own list of migrations; the
versions are in the table `component`. A database written by a newer version
is refused and left untouched.

On a full disk a reserve is given up, so that what frees space can be
committed; only what is no database any more counts as damaged.

Source: sqlite.org, "Write-Ahead Logging" and "PRAGMA synchronous".
"""

import logging
import os
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from engine.base.errors import FREE_SPACE_HINT, Conflict, EngineError, OutOfSpace
from engine.base.reserve import Reserve

log = logging.getLogger(__name__)
T = TypeVar("T")

_GROUP_MAX = 64
_CLOSE_TIMEOUT_S = 30.0
_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_PRIMARY_CODE = 0xFF  # the rest of a result code tells more of the same


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
            OutOfSpace: the disk is full, and there was no reserve to give up.
            EngineError: it cannot be read or written.
        """
        self.path = path
        self._reserve = Reserve(path.with_name(f"{path.name}-reserve"))
        self._reader = self._connect()
        self._writer = self._connect()
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._write_loop, name="database", daemon=True)
        self._thread.start()

    def migrate(self, component: str, migrations: Sequence[str]) -> None:
        """Bring the tables of `component` to version len(`migrations`); each entry is one SQL script.

        Raises:
            Conflict: the file was written by a newer version of the component.
        """
        if self.read("SELECT version FROM component WHERE name = ?", (component,)) == [(len(migrations),)]:
            return

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
            return self._open()
        except OutOfSpace:
            if not self._reserve.release():
                raise
            return self._open()

    def _open(self) -> sqlite3.Connection:
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
        except sqlite3.Error as err:
            raise self._disk_error(err) from err
        return connection

    def _write_loop(self) -> None:
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
                self._commit(group)
        self._writer.close()

    def _commit(self, group: list[_Job]) -> None:
        """Commit `group`; on a full disk, once more without the reserve."""
        try:
            try:
                outcomes = _run_group(self._writer, group)
            except sqlite3.Error as err:
                if not (_is_full(err) and self._reserve.release()):
                    raise
                log.warning("%s: the disk is full; its reserve is given up", self.path)
                outcomes = _run_group(self._writer, group)
        except sqlite3.Error as err:
            failure = self._disk_error(err)
            for job in group:
                job.done.set_exception(failure)
            return
        for outcome in outcomes:
            outcome.tell()
        try:
            self._reserve.restore()
        except OSError as err:
            log.warning("%s: no reserve for a full disk: %s", self.path, err)

    def _disk_error(self, err: sqlite3.Error) -> EngineError:
        code = getattr(err, "sqlite_errorcode", 0) & _PRIMARY_CODE
        if code in _DAMAGED:
            return DatabaseDamaged(f"{self.path}: {err}")
        if _is_full(err) or _no_room(self.path):  # some calls of SQLite say "disk i/o error" to a full disk
            return OutOfSpace("no space left on device for the engine's state", hint=FREE_SPACE_HINT)
        return EngineError(f"{self.path}: {err}")


@dataclass(slots=True)
class _Outcome:
    """What came of a job that is committed, or was taken back alone."""

    job: _Job
    value: Any = None
    error: Exception | None = None

    def tell(self) -> None:
        if self.error is None:
            self.job.done.set_result(self.value)
        else:
            self.job.done.set_exception(self.error)


def _run_group(connection: sqlite3.Connection, group: list[_Job]) -> list[_Outcome]:
    """Run each job in its own savepoint and commit once.

    Raises:
        sqlite3.Error: nothing of the group is committed.
    """
    try:
        connection.execute("BEGIN IMMEDIATE")
        outcomes = [_run_job(connection, job) for job in group]
        connection.execute("COMMIT")
    except sqlite3.Error:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return outcomes


def _run_job(connection: sqlite3.Connection, job: _Job) -> _Outcome:
    connection.execute("SAVEPOINT job")
    try:
        value = job.work(connection)
    except Exception as err:
        if isinstance(err, sqlite3.Error) and _is_full(err):
            raise  # it concerns all of the group
        connection.execute("ROLLBACK TO job")
        connection.execute("RELEASE job")
        return _Outcome(job, error=err)
    connection.execute("RELEASE job")
    return _Outcome(job, value)


def _is_full(err: sqlite3.Error) -> bool:
    return getattr(err, "sqlite_errorcode", 0) & _PRIMARY_CODE == sqlite3.SQLITE_FULL


def _no_room(path: Path) -> bool:
    disk = os.statvfs(path.parent)
    return disk.f_bavail == 0 or (disk.f_files > 0 and disk.f_favail == 0)
