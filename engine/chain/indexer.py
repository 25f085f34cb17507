"""Reads the events of our contracts into the database, so that they can be taken back.

The blocks at the tip are kept with their hashes. When the chain no longer has the newest of them,
the indexer goes back to the last block both know, removes what came after and reads on from there.
What is stored is therefore a function of the canonical chain alone.

An endpoint may leave events out. So every block's bloom is looked at, and a block that may have
logged an event of ours is read whole: all its events together must make up its bloom.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import sqlalchemy as sa

from engine.chain import contracts
from engine.chain.bloom import admits, mask_of
from engine.chain.endpoints import EndpointsDisagree
from engine.chain.events import SUBJECTS, Source, event_row
from engine.chain.gateway import (
    BlockHeader,
    ChainChanged,
    ChainGateway,
    ChainUnavailable,
    Log,
)
from engine.chain.witnesses import Told, Witnesses
from engine.db.database import Database
from engine.db.tables import ChainBlock, ChainEvent, table
from engine.ledger.batch import Batch
from engine.ledger.writer import Writer

REORG_DEPTH_MAX = 64
BLOCKS_PER_READ_MAX = 2_000

_blocks = table(ChainBlock)
_events = table(ChainEvent)

Answer = TypeVar("Answer")
OnChange = Callable[[Batch, BlockHeader, set[bytes]], None]


class DeepReorg(ChainChanged):
    """The chain left everything behind that is remembered of it; an operator must look."""

    code = "chain_reorganised"


@dataclass(slots=True)
class _Reading:
    """What was read from the first block on and is not stored before all of it is."""

    headers: list[BlockHeader] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)


class Indexer:
    """Follows one chain, which begins with `genesis_hash`, for the contracts at `sources`.

    These are addresses in lower case and what stands there.
    """

    def __init__(
        self,
        gateway: ChainGateway,
        database: Database,
        writer: Writer,
        sources: Mapping[str, Source],
        *,
        genesis_hash: bytes,
        start_block: int,
        on_change: OnChange,
        witnesses: Witnesses | None = None,
    ) -> None:
        """`witnesses` are asked about everything before it is stored."""
        self._gateway = gateway
        self._witnesses = witnesses
        self._database = database
        self._writer = writer
        self._sources = sources
        self._genesis_hash = genesis_hash
        self._start_block = start_block
        self._on_change = on_change
        self._masks = [
            mask_of(bytes.fromhex(address[2:]), contracts.event_topic(source.name, event))
            for address, source in sources.items()
            for event in SUBJECTS
            if contracts.has_event(source.name, event)
        ]
        self._checked: bytes | None = None
        self._reading = _Reading()

    def tick(self) -> BlockHeader:
        """Read what is new, at most `BLOCKS_PER_READ_MAX` blocks; returns the last block read.

        Where nothing is known of the chain, all of it is read, and stored when it is.

        Raises:
            ChainUnavailable: the chain did not answer, or contradicted itself, or changed while it
                was read; ask again.
            DeepReorg: more than `REORG_DEPTH_MAX` blocks were replaced.
            ChainChanged: it is another chain, or has other contracts.
            EndpointsDisagree: there are several endpoints, and they do not say the same.
        """
        if self._witnesses is None:
            return self._tick()
        endpoints = self._witnesses.endpoints
        for _ in endpoints.all[1:]:
            endpoints.look()
            try:
                return self._unless_doubted(self._tick)
            except ChainUnavailable as error:
                # What it told does not fit together, though each answer was one.
                endpoints.failed(endpoints.asked, error)
        endpoints.look()
        return self._unless_doubted(self._tick)

    def _tick(self) -> BlockHeader:
        head = self._gateway.head()
        self._check_contracts(head)
        ancestor = self._ancestor()
        if ancestor is None:
            return self._read_from_the_start(head)
        last = min(head.number, ancestor.number + BLOCKS_PER_READ_MAX)
        headers, events = self._read(ancestor, ancestor.number + 1, last)
        tip = headers[-1] if headers else ancestor
        headers = self._below(tip) + headers
        self._compare(Told(ancestor.number, headers, events, tip.number))
        self._writer.call(lambda batch: self._store(batch, ancestor, headers, events, tip))
        return tip

    def common_ancestor(self) -> BlockHeader | None:
        """The newest block that is stored and still on the chain; None where all are to be read.

        Raises:
            DeepReorg, ChainChanged, EndpointsDisagree: as `tick`.
        """
        if self._witnesses is not None:
            self._witnesses.endpoints.look()
        return self._unless_doubted(self._ancestor)

    def _unless_doubted(self, question: Callable[[], Answer]) -> Answer:
        """What only one endpoint says of a change is a disagreement."""
        try:
            return question()
        except EndpointsDisagree:
            raise
        except ChainChanged as change:
            if self._witnesses is not None:
                newest = next(iter(self._remembered(1)), None)
                self._witnesses.doubt(change, newest and (newest.number, newest.hash))
            raise

    def _ancestor(self) -> BlockHeader | None:
        rows = self._remembered(REORG_DEPTH_MAX + 1)
        if not rows:
            return None
        header = None
        for row in rows:
            header = self._gateway.block(row.number)
            if header is not None and header.hash == row.hash:
                return header
        genesis = self._gateway.block(0)
        if genesis is None or genesis.hash != self._genesis_hash:
            raise ChainChanged(
                "the endpoint serves another chain: its first block is not "
                f"0x{self._genesis_hash.hex()}"
            )
        if rows[-1].number <= self._start_block:
            return None  # everything we ever read was replaced, from the first block on
        what = (
            f"replaced more than {REORG_DEPTH_MAX} blocks below {rows[0].number}"
            if header is not None
            else f"ends more than {REORG_DEPTH_MAX} blocks below {rows[0].number}, so the endpoint "
            "lags or was put back"
        )
        raise DeepReorg(
            f"the chain {what}: look what happened, then `tallystick resume-chain` reads all of it "
            "again"
        )

    def _remembered(self, count: int) -> Sequence[sa.Row[Any]]:
        """The newest blocks that are stored, the newest first."""
        query = sa.select(_blocks).order_by(_blocks.c.number.desc()).limit(count)
        with self._database.reading() as connection:
            return connection.execute(query).all()

    def _compare(self, told: Told) -> None:
        if self._witnesses is None:
            return
        try:
            self._witnesses.compare(told)
        except EndpointsDisagree:
            self._reading = _Reading()  # what was false in it must not stay
            raise

    def forget(self, batch: Batch) -> tuple[int, bytes] | None:
        """Have all of the chain read again; returns the newest block that was remembered, if any.

        What is stored stays until it was read.
        """
        query = sa.select(_blocks.c.number, _blocks.c.hash).order_by(_blocks.c.number.desc())
        newest = batch.read(query.limit(1)).first()
        if newest is None:
            return None
        batch.update(sa.delete(_blocks))
        return newest.number, newest.hash

    def _check_contracts(self, head: BlockHeader) -> None:
        """What stands at an address can only change with a block."""
        if head.hash == self._checked:
            return
        found = self._gateway.code_hashes(list(self._sources))
        for (address, source), code_hash in zip(self._sources.items(), found, strict=True):
            if code_hash != source.code_hash:
                what = "other code than before" if any(code_hash) else "no code"
                raise ChainChanged(f"the {source.name} at {address} has {what}")
        self._checked = head.hash

    def _read_from_the_start(self, head: BlockHeader) -> BlockHeader:
        """A failure in the middle does not lose what was read, as long as it is on the chain."""
        reading = self._reading
        newest = reading.headers[-1] if reading.headers else None
        if newest is not None and self._gateway.block(newest.number) != newest:
            reading = self._reading = _Reading()
        while True:
            before = reading.headers[-1] if reading.headers else None
            first = self._start_block if before is None else before.number + 1
            if first > head.number:
                break
            last = min(head.number, first + BLOCKS_PER_READ_MAX - 1)
            headers, events = self._read(before, first, last)
            reading.headers = (reading.headers + headers)[-REORG_DEPTH_MAX - 1 :]
            reading.events += events
        tip = reading.headers[-1] if reading.headers else head
        self._compare(Told(None, reading.headers, reading.events, tip.number))
        self._writer.call(
            lambda batch: self._store(batch, None, reading.headers, reading.events, tip)
        )
        self._reading = _Reading()
        return tip

    def _read(
        self, before: BlockHeader | None, first: int, last: int
    ) -> tuple[list[BlockHeader], list[dict[str, Any]]]:
        """The blocks of a range and the events in them that are kept, checked against each other.

        Raises:
            ChainUnavailable: they do not fit together, or to the block before.
        """
        if first > last:
            return [], []
        given = self._gateway.logs(from_block=first, to_block=last, addresses=tuple(self._sources))
        headers = (
            self._following_anything(first, last)
            if before is None
            else self._gateway.headers(first, last)
        )
        logs: dict[int, list[Log]] = {}
        for log in given:
            if log.block_hash != headers[log.block_number - first].hash:
                raise ChainUnavailable(f"an event of block {log.block_number} is of another block")
            logs.setdefault(log.block_number, []).append(log)
        if before is not None and headers[0].parent_hash != before.hash:
            raise ChainUnavailable(f"block {first} does not follow the one before it")
        found = (
            log
            for header in headers
            if header.number in logs or any(admits(header.logs_bloom, m) for m in self._masks)
            for log in self._ours(header, logs.get(header.number, ()))
        )
        return headers, [event for log in found if (event := self._decode(log)) is not None]

    def _following_anything(self, first: int, last: int) -> list[BlockHeader]:
        """The blocks of a range before which none is known: the first one's parent is asked for,
        too, since nothing else would show that it is another."""
        if first == 0:
            return self._gateway.headers(first, last)
        return self._gateway.headers(first - 1, last)[1:]

    def _ours(self, header: BlockHeader, given: Sequence[Log]) -> list[Log]:
        """The events of our contracts in a block that is read whole."""
        whole = self._gateway.block_logs(header)
        if not set(given) <= set(whole):
            raise ChainUnavailable(f"block {header.number} does not have an event that was given")
        return [log for log in whole if log.address in self._sources]

    def _below(self, tip: BlockHeader) -> list[BlockHeader]:
        """The blocks that are to be kept below those that are: after a way back there are too few.

        Raises:
            ChainUnavailable: they are not below those.
        """
        with self._database.reading() as connection:
            lowest = connection.execute(
                sa.select(_blocks).order_by(_blocks.c.number).limit(1)
            ).one()
        first = max(self._start_block, tip.number - REORG_DEPTH_MAX)
        if lowest.number <= first:
            return []
        headers = self._following_anything(first, lowest.number - 1)
        if headers[-1].hash != lowest.parent_hash:
            raise ChainUnavailable(f"block {lowest.number} does not follow the one before it")
        return headers

    def _decode(self, log: Log) -> dict[str, Any] | None:
        event = contracts.decode_log(self._sources[log.address].name, log)
        return None if event is None else event_row(event)

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
        for header in headers[-REORG_DEPTH_MAX - 1 :]:
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
