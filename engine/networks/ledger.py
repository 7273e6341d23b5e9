"""What the network service keeps in the engine's database: its networks, sandboxes and leases."""

import logging
import sqlite3
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from ipaddress import IPv4Interface
from pathlib import Path
from typing import Any

from engine.base import jsonio
from engine.base.database import Database
from engine.base.errors import InvalidArgument
from engine.networks.model import Endpoint, PortBinding, Sandbox

log = logging.getLogger(__name__)

_MIGRATIONS = (
    """
    CREATE TABLE network (
        name TEXT PRIMARY KEY, id TEXT NOT NULL UNIQUE, bridge TEXT NOT NULL,
        address TEXT NOT NULL, created_ns INT NOT NULL
    ) STRICT;
    CREATE TABLE network_sandbox (
        container_id TEXT PRIMARY KEY, record TEXT NOT NULL
    ) STRICT;
    CREATE TABLE network_lease (
        network_id TEXT NOT NULL, address TEXT NOT NULL,
        container_id TEXT NOT NULL REFERENCES network_sandbox ON DELETE CASCADE,
        PRIMARY KEY (network_id, address)
    ) STRICT
    """,
)


@dataclass(frozen=True, slots=True)
class NetworkRow:
    """One of the three networks, as it was last time."""

    network_id: str
    bridge: str
    address: IPv4Interface | None  # of the bridge; host and none have none
    created_ns: int


@dataclass(frozen=True, slots=True)
class Record:
    """A sandbox and what else its container's name is needed for."""

    container_name: str
    mode: str
    netns: str  # "" for the host's
    endpoints: tuple[Endpoint, ...]
    ports: tuple[PortBinding, ...]
    guest_ports: tuple[PortBinding, ...]  # inside a machine: what is bound here, where `ports` are the host's

    def sandbox(self, container_id: str) -> Sandbox:
        """Return it as the service's callers see it."""
        path = Path(self.netns) if self.netns else None
        return Sandbox(container_id, self.mode, path, self.endpoints, self.ports)


class Ledger:
    """The tables of the network service."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def open(self) -> None:
        """Bring the tables to this version."""
        self._database.migrate("networks", _MIGRATIONS)

    def network(self, name: str) -> NetworkRow | None:
        """Return how the network was set up last time."""
        rows = self._database.read(
            "SELECT id, bridge, address, created_ns FROM network WHERE name = ?", (name,)
        )
        for network_id, bridge, address, created_ns in rows:
            return NetworkRow(network_id, bridge, IPv4Interface(address) if address else None, created_ns)
        return None

    def save_network(self, name: str, row: NetworkRow) -> Future[Any]:
        """Remember the network; the future resolves when it is durable."""
        values = (name, row.network_id, row.bridge, str(row.address or ""), row.created_ns)
        return self._database.write(
            lambda db: db.execute("INSERT OR REPLACE INTO network VALUES (?, ?, ?, ?, ?)", values)
        )

    def records(self) -> dict[str, Record]:
        """Return the records of all sandboxes by container id; one that cannot be read is left out."""
        found: dict[str, Record] = {}
        for container_id, text in self._database.read("SELECT container_id, record FROM network_sandbox"):
            try:
                found[container_id] = jsonio.decode(text, Record, noun=f"network record of {container_id}")
            except InvalidArgument as err:
                log.warning("left out: %s", err)
        return found

    def save(self, container_id: str, record: Record) -> Future[None]:
        """Queue the record and its leases; the future resolves when they are durable."""
        text = jsonio.encode(asdict(record)).decode()
        leases = [(item.network_id, item.ipv4, container_id) for item in record.endpoints if item.ipv4]

        def work(db: sqlite3.Connection) -> None:
            db.execute("DELETE FROM network_sandbox WHERE container_id = ?", (container_id,))
            db.execute("INSERT INTO network_sandbox VALUES (?, ?)", (container_id, text))
            db.executemany("INSERT INTO network_lease VALUES (?, ?, ?)", leases)

        return self._database.write(work)

    def forget(self, container_id: str) -> None:
        """Queue the removal of the record and its leases; if it is lost, `recover` does it again."""
        done = self._database.write(
            lambda db: db.execute("DELETE FROM network_sandbox WHERE container_id = ?", (container_id,))
        )
        done.add_done_callback(_log_failure)


def _log_failure(done: Future[Any]) -> None:
    err = done.exception()
    if err is not None:
        log.warning("network state of a container that ended is still on record: %s", err)
