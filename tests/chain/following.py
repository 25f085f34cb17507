"""An indexer with a database of its own, on any gateway, and what it stored."""

import functools
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from engine.chain import contracts
from engine.chain.events import Source
from engine.chain.gateway import ChainGateway
from engine.chain.indexer import Indexer
from engine.clock import system_clock
from engine.db.database import Database
from engine.db.sqlite import SqliteDatabase
from engine.db.tables import ChainBlock, ChainEvent, table
from engine.deployment import Deployment
from engine.identifiers import Identifiers
from engine.ledger.scribe import Scribe
from engine.ledger.writer import Writer

Indexed = tuple[list[Any], list[Any]]
"""All rows of events, and all rows of the blocks that are kept."""


def indexed(database: Database) -> Indexed:
    """What a database holds of the chain, in chain order."""
    events, blocks = table(ChainEvent), table(ChainBlock)
    with database.reading() as connection:
        found = connection.execute(
            sa.select(events).order_by(events.c.block_number, events.c.log_index)
        ).all()
        kept = connection.execute(sa.select(blocks).order_by(blocks.c.number)).all()
    return [tuple(row) for row in found], [tuple(row) for row in kept]


def sources_at(gateway: ChainGateway, registry: str, anchors: str) -> dict[str, Source]:
    """The contracts that stand there."""
    codes = gateway.code_hashes([registry, anchors])
    return {
        registry: Source(contracts.SESSION_REGISTRY, codes[0]),
        anchors: Source(contracts.ANCHOR_REGISTRY, codes[1]),
    }


def sources_of(deployment: Deployment) -> dict[str, Source]:
    """The contracts of an installation."""
    return {
        deployment.registry: Source(contracts.SESSION_REGISTRY, deployment.registry_code),
        deployment.anchors: Source(contracts.ANCHOR_REGISTRY, deployment.anchors_code),
    }


@functools.cache
def nothing_read() -> bytes:
    """A data file with our schema, which takes longer to make than most chains here to read."""
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "ledger.sqlite3"
        SqliteDatabase(file).close()
        return file.read_bytes()


class Follower:
    """Reads a chain into a database that nobody else uses. `close` it."""

    def __init__(
        self,
        file: Path,
        gateway: ChainGateway,
        sources: Mapping[str, Source],
        *,
        genesis_hash: bytes,
        start_block: int,
    ) -> None:
        self.gateway = gateway
        if not file.exists():
            file.write_bytes(nothing_read())
        self.database = SqliteDatabase(file)
        self._writer = Writer(
            self.database, Scribe("follower", Identifiers(system_clock), bytes(32)), system_clock
        )
        self._writer.start()
        self._begin = lambda: Indexer(
            gateway,
            self.database,
            self._writer,
            sources,
            genesis_hash=genesis_hash,
            start_block=start_block,
            on_change=lambda batch, tip, subjects: None,
        )
        self.indexer = self._begin()

    def read(self) -> Indexed:
        """Read to the head; returns what is stored then."""
        while self.indexer.tick().number < self.gateway.head().number:
            pass
        return self.stored()

    def stored(self) -> Indexed:
        """What is stored now."""
        return indexed(self.database)

    def read_anew(self) -> Indexed:
        """Forget everything, and read from the first block on."""
        self.forget()
        return self.read()

    def forget(self) -> None:
        """Know nothing of the chain, like one that begins."""
        self.indexer = self._begin()
        for rows in (ChainEvent, ChainBlock):
            self._writer.call(lambda batch, rows=rows: batch.update(sa.delete(table(rows))))

    def close(self) -> None:
        """Release the file."""
        self._writer.stop()
        self.database.close()
