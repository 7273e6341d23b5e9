"""Containers on disk: a directory that describes itself, and a row with name and state.

Written in this order, so that what was acknowledged survives and a row never
names what is not there: config.json and the names that lead to it are durable,
then the row is committed. Removal is the mirror. A directory without a row is
what a crash left of a creation or a removal; it is removed at the next start.
"""

import asyncio
import logging
import os
import sqlite3
from collections.abc import Collection

from engine.base import diskspace, ids, jsonio
from engine.base.atomicfile import fsync_dir, write_atomic
from engine.base.database import Database
from engine.base.errors import AlreadyExists, EngineError
from engine.base.paths import ContainerDir, Root
from engine.containers.model import Definition, State
from engine.snapshots import trees

log = logging.getLogger(__name__)

_MIGRATIONS = (
    """
    CREATE TABLE container (
        id    TEXT PRIMARY KEY,
        name  TEXT NOT NULL UNIQUE,
        state TEXT NOT NULL
    ) STRICT
    """,
)


class ContainerStore:
    """The durable half of the container service."""

    def __init__(self, root: Root, database: Database) -> None:
        self._root = root
        self._database = database

    def open(self, *, rebuild: bool = False) -> list[tuple[str, str, Definition | None, State]]:
        """Return id, name, definition and state of each container, oldest first; blocking.

        A definition that cannot be read is None: such a container is dead.
        With `rebuild` (the database was lost) rows are made again from the
        directories; those without a row are left to `remove_unknown`.
        """
        self._database.migrate("containers", _MIGRATIONS)
        self._root.containers.mkdir(mode=0o700, parents=True, exist_ok=True)
        rows = {row[0]: row for row in self._database.read("SELECT id, name, state FROM container")}
        for entry in sorted(os.listdir(self._root.containers)):
            if rebuild and entry not in rows and ids.is_id(entry):
                row = self._adopt(entry)
                if row is not None:
                    rows[entry] = row
        loaded = [self._load(*row) for row in rows.values()]
        return sorted(loaded, key=lambda item: item[2].created_ns if item[2] else 0)

    def remove_unknown(self, known: Collection[str]) -> None:
        """Remove the directories of containers that are not `known`, of which none runs; blocking."""
        for entry in sorted(set(os.listdir(self._root.containers)) - set(known)):
            log.info("removing leftover directory of container %s", entry)
            try:
                trees.remove(self._root.containers / entry)
            except OSError as err:
                log.warning("cannot remove %s: %s", self._root.containers / entry, err)

    def _load(self, container_id: str, name: str, state: str) -> tuple[str, str, Definition | None, State]:
        definition: Definition | None
        try:
            definition = jsonio.read(self._root.container(container_id).config, Definition)
        except (OSError, EngineError) as err:
            log.error("container %s: %s", container_id, err)  # noqa: TRY400 (the reason is the message)
            definition = None
        return (
            container_id,
            name,
            definition,
            jsonio.decode(state, State, noun=f"state of container {container_id}"),
        )

    def _adopt(self, container_id: str) -> tuple[str, str, str] | None:
        try:
            definition = jsonio.read(self._root.container(container_id).config, Definition)
            state = jsonio.encode(State()).decode()
            self._database.write(
                lambda connection: connection.execute(
                    "INSERT INTO container VALUES (?, ?, ?)", (container_id, definition.name, state)
                )
            ).result()
        except (OSError, EngineError, sqlite3.IntegrityError) as err:
            log.error("container %s cannot be recovered: %s", container_id, err)  # noqa: TRY400
            return None
        return container_id, definition.name, state

    def dir(self, container_id: str) -> ContainerDir:
        """Return where the container's files are."""
        return self._root.container(container_id)

    def write_definition(self, definition: Definition) -> None:
        """Make the directory and config.json durable; blocking.

        Raises:
            OutOfSpace: the disk is full; a part may be there.
        """
        directory = self.dir(definition.id)
        with diskspace.needed_for(f"container {definition.name}"):
            os.mkdir(directory.path, 0o700)
            os.mkdir(directory.etc, 0o755)
            write_atomic(directory.config, jsonio.encode(definition))
            fsync_dir(self._root.containers)

    async def insert(self, definition: Definition, name: str, state: State) -> None:
        """Commit the row of a new container.

        Raises:
            AlreadyExists: the name is taken.
        """
        row = (definition.id, name, jsonio.encode(state).decode())

        def work(connection: sqlite3.Connection) -> None:
            try:
                connection.execute("INSERT INTO container VALUES (?, ?, ?)", row)
            except sqlite3.IntegrityError as err:
                raise AlreadyExists(f"container name taken: {name}") from err

        await asyncio.wrap_future(self._database.write(work))

    def save_state(self, container_id: str, state: State) -> "asyncio.Future[None]":
        """Queue the commit of a new state; states of one container are committed in the order given."""
        text = jsonio.encode(state).decode()

        def work(connection: sqlite3.Connection) -> None:
            connection.execute("UPDATE container SET state = ? WHERE id = ?", (text, container_id))

        return asyncio.wrap_future(self._database.write(work))

    async def rename(self, container_id: str, name: str) -> None:
        """Commit a new name.

        Raises:
            AlreadyExists: it is taken.
        """

        def work(connection: sqlite3.Connection) -> None:
            try:
                connection.execute("UPDATE container SET name = ? WHERE id = ?", (name, container_id))
            except sqlite3.IntegrityError as err:
                raise AlreadyExists(f"container name taken: {name}") from err

        await asyncio.wrap_future(self._database.write(work))

    async def delete(self, container_id: str) -> None:
        """Commit the removal of the row; from then on the container is gone."""

        def work(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM container WHERE id = ?", (container_id,))

        await asyncio.wrap_future(self._database.write(work))

    def remove_files(self, container_id: str) -> None:
        """Remove the directory; blocking."""
        trees.remove(self.dir(container_id).path)
