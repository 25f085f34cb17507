"""Reads the events of our contracts into the database, so that they can be taken back.

The blocks at the tip are kept with their hashes. When the chain no longer has the newest of them,
the indexer goes back to the last block both know, removes what came after and reads on from there.
What is stored is therefore a function of the canonical chain alone.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from engine.chain import contracts
from engine.chain.gateway import BlockHeader, ChainGateway, ChainUnavailable, Log
from engine.db.database import Database
from engine.db.tables import ChainBlock, ChainEvent, table
from engine.errors import Unavailable
from engine.ledger.writer import Batch, Writer

REORG_DEPTH_MAX = 64
BLOCKS_PER_READ_MAX = 2_000

_SUBJECTS = {
    "SessionRegistered": "tokenId",
    "SessionRevoked": "tokenId",
    "LogOpened": "logId",
    "Anchored": "logId",
}
"""The events that are kept, and the argument that says whom each is about."""

_blocks = table(ChainBlock)
_events = table(ChainEvent)

OnChange = Callable[[Batch, BlockHeader, set[bytes]], None]


class DeepReorg(Unavailable):
    """The chain left everything behind that is remembered of it; an operator must look."""

    code = "chain_reorganised"


class Indexer:
    """Follows one chain for the contracts at `sources` (address to contract name)."""

    def __init__(
        self,
        gateway: ChainGateway,
        database: Database,
        writer: Writer,
        sources: dict[str, str],
        *,
        start_block: int,
        on_change: OnChange,
    ) -> None:
        self._gateway = gateway
        self._database = database
        self._writer = writer
        self._sources = sources
        self._start_block = start_block
        self._on_change = on_change

    def tick(self) -> BlockHeader:
        """Read what is new, at most `BLOCKS_PER_READ_MAX` blocks; returns the last block read.

        Raises:
            ChainUnavailable: the chain did not answer, or changed while it was read; ask again.
            DeepReorg: more than `REORG_DEPTH_MAX` blocks were replaced.
        """
        head = self._gateway.head()
        ancestor = self._common_ancestor()
        first = self._start_block if ancestor is None else ancestor.number + 1
        last = min(head.number, first + BLOCKS_PER_READ_MAX - 1)
        if last < first:
            tip = ancestor or head
            self._writer.call(lambda batch: self._store(batch, ancestor, [], [], tip))
            return tip
        logs = self._gateway.logs(from_block=first, to_block=last, addresses=tuple(self._sources))
        headers = self._headers(ancestor, first, last, logs)
        decoded = (event_row(self._sources[log.address], log) for log in logs)
        events = [event for event in decoded if event is not None]
        self._writer.call(lambda batch: self._store(batch, ancestor, headers, events, headers[-1]))
        return headers[-1]

    def _common_ancestor(self) -> BlockHeader | None:
        with self._database.reading() as connection:
            rows = connection.execute(
                sa.select(_blocks).order_by(_blocks.c.number.desc()).limit(REORG_DEPTH_MAX + 1)
            ).all()
        if not rows:
            return None
        for row in rows:
            header = self._gateway.block(row.number)
            if header is not None and header.hash == row.hash:
                return header
        if rows[-1].number <= self._start_block:
            return None  # everything we ever read was replaced, from the first block on
        raise DeepReorg(
            f"the chain replaced more than {REORG_DEPTH_MAX} blocks below {rows[0].number}"
        )

    def _headers(
        self, ancestor: BlockHeader | None, first: int, last: int, logs: Sequence[Log]
    ) -> list[BlockHeader]:
        """The headers at the tip and of every block with an event, checked against each other."""
        wanted = {log.block_number for log in logs}
        wanted.update(range(max(first, last - REORG_DEPTH_MAX), last + 1))
        headers: dict[int, BlockHeader] = {}
        for number in sorted(wanted):
            header = self._gateway.block(number)
            if header is None:
                raise ChainUnavailable(f"block {number} disappeared while it was read")
            before = ancestor if ancestor and number == first else headers.get(number - 1)
            if before is not None and header.parent_hash != before.hash:
                raise ChainUnavailable(f"block {number} does not follow the one before it")
            headers[number] = header
        for log in logs:
            if headers[log.block_number].hash != log.block_hash:
                raise ChainUnavailable(f"an event of block {log.block_number} is of another block")
        return list(headers.values())

    def _store(
        self,
        batch: Batch,
        ancestor: BlockHeader | None,
        headers: Sequence[BlockHeader],
        events: Sequence[dict[str, Any]],
        tip: BlockHeader,
    ) -> None:
        kept = -1 if ancestor is None else ancestor.number
        orphaned = sa.select(_events.c.subject).where(_events.c.block_number > kept)
        subjects = set(batch.read(orphaned).scalars())
        if (
            subjects
            or batch.read(
                sa.select(_blocks.c.number).where(_blocks.c.number > kept).limit(1)
            ).first()
        ):
            batch.update(sa.delete(_events).where(_events.c.block_number > kept))
            batch.update(sa.delete(_blocks).where(_blocks.c.number > kept))
        for header in headers:
            batch.insert(
                _blocks,
                {
                    "number": header.number,
                    "hash": header.hash,
                    "parent_hash": header.parent_hash,
                    "timestamp_s": header.timestamp_s,
                },
            )
        for event in events:
            batch.insert(_events, event)
            subjects.add(event["subject"])
        if headers:
            batch.update(sa.delete(_blocks).where(_blocks.c.number < tip.number - REORG_DEPTH_MAX))
        self._on_change(batch, tip, subjects)


def event_row(contract: str, log: Log) -> dict[str, Any] | None:
    """The row that is kept of an event of one of our contracts; None if it is not kept."""
    event = contracts.decode_log(contract, log)
    if event is None or event.name not in _SUBJECTS:
        return None
    return {
        "block_number": log.block_number,
        "log_index": log.log_index,
        "block_hash": log.block_hash,
        "tx_hash": log.tx_hash,
        "name": event.name,
        "subject": subject_of(event.name, event.args),
        "args_json": json.dumps(_plain(event.args), sort_keys=True),
    }


def subject_of(name: str, args: Mapping[str, Any]) -> bytes:
    """Whom an event is about, 32 bytes, by its arguments as they are decoded or kept in a row.

    Raises:
        KeyError, TypeError, ValueError, OverflowError: it is no such event.
    """
    subject = args[_SUBJECTS[name]]
    if isinstance(subject, str) and subject.startswith("0x"):
        subject = bytes.fromhex(subject[2:])
    return subject if isinstance(subject, bytes) else int(subject).to_bytes(32)


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return "0x" + value.hex()
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 2**53:
        return str(value)
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if hasattr(value, "items"):
        return {name: _plain(item) for name, item in value.items()}
    return value
