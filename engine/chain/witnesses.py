"""Holds what one endpoint told of the chain against what the others tell, before it is indexed.

Compared are the code at the contracts' addresses, and of each block that has its confirmations the
header and the contracts' events. Blocks without confirmations may differ between honest nodes.
What an endpoint could not be asked, because it failed or lagged, it is asked when it answers again;
what was indexed before this process started, bit by bit. An endpoint that contradicts itself has
said nothing and counts as one that fails.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from engine.chain import contracts
from engine.chain.endpoints import Endpoint, Endpoints, EndpointsDisagree
from engine.chain.events import Source, event_row
from engine.chain.gateway import BlockHeader, ChainChanged, ChainUnavailable
from engine.db.database import Database
from engine.db.tables import ChainBlock, ChainEvent, table

BLOCKS_PER_QUESTION_MAX = 2_000
HISTORY_QUESTIONS_MAX = 5
"""So many times that is compared at once of what was indexed before this process started."""

_blocks = table(ChainBlock)
_events = table(ChainEvent)

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Told:
    """What is to be indexed: the blocks above `ancestor`, None if it is all from the first on.

    `headers` are the blocks that will be kept of them, `events` rows of the index.
    """

    ancestor: int | None
    headers: Sequence[BlockHeader]
    events: Sequence[Row]
    tip: int


@dataclass(slots=True)
class _Compared:
    """The blocks `low..high`, both included, in which an endpoint said the same."""

    low: int
    high: int
    codes_at: bytes | None = field(default=None)
    """The head at which it had the right code."""


class Witnesses:
    """The endpoints that are not asked. One comparison at a time."""

    def __init__(
        self,
        endpoints: Endpoints,
        database: Database,
        sources: Mapping[str, Source],
        *,
        start_block: int,
        confirmations: int,
    ) -> None:
        self.endpoints = endpoints
        self._database = database
        self._sources = sources
        self._start_block = start_block
        self._confirmations = confirmations
        self._compared: dict[int, _Compared] = {}

    def compare(self, told: Told) -> None:
        """Ask everybody else who answers about the same, and who told it about what was before.

        Raises:
            EndpointsDisagree: one says otherwise.
            ChainUnavailable: who told it does not answer any more.
        """
        headers = self._kept(told) | {header.number: header for header in told.headers}
        # While it was silent, others may have told what it would have denied.
        self._compare(self.endpoints.asked, told, headers)
        for endpoint in self.endpoints.others():
            try:
                self._compare(endpoint, told, headers)
            except ChainUnavailable as error:
                self.endpoints.failed(endpoint, error)

    def doubt(self, change: ChainChanged, newest: tuple[int, bytes] | None) -> None:
        """The one that is asked says that the chain changed: see whether another says it did not.

        `newest` is the newest block of the index.

        Raises:
            EndpointsDisagree: to another it is what it was.
        """
        asked = self.endpoints.asked
        for endpoint in self.endpoints.others():
            try:
                self._check_codes(endpoint, _Compared(0, -1))
                block = None if newest is None else endpoint.chain.block(newest[0])
            except ChainUnavailable as error:
                self.endpoints.failed(endpoint, error)
                continue
            except EndpointsDisagree:
                continue  # it says the same
            if newest is None or (block is not None and block.hash == newest[1]):
                said = [(asked.name, change.message), (endpoint.name, "it is what it was")]
                raise EndpointsDisagree("the chain", said) from change

    def _compare(self, endpoint: Endpoint, told: Told, headers: Mapping[int, BlockHeader]) -> None:
        """Code first, then the last block that was compared, then what is new, then history."""
        base = self._start_block - 1 if told.ancestor is None else told.ancestor
        confirmed = told.tip - self._confirmations
        known = self._compared.get(endpoint.number)
        if known is None or told.ancestor is None:
            at = max(min(base, confirmed), self._start_block - 1)
            known = self._compared[endpoint.number] = _Compared(at + 1, at)
        known.high = min(known.high, base)  # what was replaced is compared again
        known.low = min(known.low, known.high + 1)
        self._check_codes(endpoint, known)
        assert endpoint.head is not None, "it answered"
        asked = endpoint is self.endpoints.asked
        last = min(confirmed, base if asked else endpoint.head.number)
        if known.high in headers and known.high <= last:
            self._check_headers(endpoint, told, headers, known.high, known.high)
        while known.high < last:
            end = min(last, known.high + BLOCKS_PER_QUESTION_MAX)
            self._check_blocks(endpoint, told, headers, known.high + 1, end)
            known.high = end
        for _ in range(HISTORY_QUESTIONS_MAX):
            if known.low <= self._start_block:
                break
            first = max(self._start_block, known.low - BLOCKS_PER_QUESTION_MAX)
            self._check_blocks(endpoint, told, headers, first, known.low - 1)
            known.low = first
        if asked:
            known.high = max(known.high, confirmed)  # it told that itself
        endpoint.compared_number = known.high

    def _check_codes(self, endpoint: Endpoint, known: _Compared) -> None:
        """What stands at an address can only change with a block."""
        assert endpoint.head is not None, "it answered"
        if known.codes_at == endpoint.head.hash:
            return
        found = endpoint.chain.code_hashes(list(self._sources))
        for (address, source), code_hash in zip(self._sources.items(), found, strict=True):
            if code_hash != source.code_hash:
                ours = self.endpoints.asked.name, f"0x{source.code_hash.hex()}"
                theirs = endpoint.name, f"0x{code_hash.hex()}"
                what = f"the code of the {source.name} at {address}"
                raise EndpointsDisagree(what, [ours, theirs])
        known.codes_at = endpoint.head.hash

    def _check_blocks(
        self,
        endpoint: Endpoint,
        told: Told,
        headers: Mapping[int, BlockHeader],
        first: int,
        last: int,
    ) -> None:
        kept = [number for number in range(first, last + 1) if number in headers]
        if kept:
            self._check_headers(endpoint, told, headers, kept[0], kept[-1])
        ours = list(self._rows(told, first, last))
        logs = endpoint.chain.logs(from_block=first, to_block=last, addresses=tuple(self._sources))
        theirs = list(self._decoded(logs))
        if ours == theirs:
            return
        # Its index of events may lag behind its blocks, which say whether one is missing.
        differing = [row for row in ours if row not in theirs]
        differing += [row for row in theirs if row not in ours]
        for number in sorted({row["block_number"] for row in differing}):
            here = [row for row in ours if row["block_number"] == number]
            there = self._whole(endpoint, number)
            if here != there:
                what = f"the events of block {number}"
                said = [(self._by_whom(told, number), _shown(here)), (endpoint.name, _shown(there))]
                raise EndpointsDisagree(what, said)

    def _check_headers(
        self,
        endpoint: Endpoint,
        told: Told,
        headers: Mapping[int, BlockHeader],
        first: int,
        last: int,
    ) -> None:
        for block in endpoint.chain.headers(first, last):
            ours, theirs = _identity(headers[block.number]), _identity(block)
            if ours != theirs:
                said = [(self._by_whom(told, block.number), ours), (endpoint.name, theirs)]
                raise EndpointsDisagree(f"block {block.number}", said)

    def _by_whom(self, told: Told, number: int) -> str:
        """Who told of a block: of what is indexed it is not remembered."""
        indexed = told.ancestor is not None and number <= told.ancestor
        return "the index" if indexed else self.endpoints.asked.name

    def _whole(self, endpoint: Endpoint, number: int) -> list[Row]:
        """The events of a block, which together make up its bloom."""
        header = endpoint.chain.block(number)
        if header is None:
            raise ChainUnavailable(f"block {number} disappeared while it was read")
        logs = endpoint.chain.block_logs(header)
        return list(self._decoded(log for log in logs if log.address in self._sources))

    def _decoded(self, logs: Iterable[Any]) -> Iterable[Row]:
        for log in logs:
            event = contracts.decode_log(self._sources[log.address].name, log)
            if event is not None and (row := event_row(event)) is not None:
                yield row

    def _rows(self, told: Told, first: int, last: int) -> Iterable[Row]:
        """What is indexed of these blocks, or about to be."""
        number = _events.c.block_number
        if told.ancestor is not None and first <= told.ancestor:
            query = (
                sa.select(_events)
                .where(number.between(first, min(last, told.ancestor)))
                .order_by(number, _events.c.log_index)
            )
            with self._database.reading() as connection:
                yield from map(dict, connection.execute(query).mappings())
        yield from (row for row in told.events if first <= row["block_number"] <= last)

    def _kept(self, told: Told) -> dict[int, BlockHeader]:
        """The blocks that are remembered and stay, without their blooms."""
        if told.ancestor is None:
            return {}
        query = sa.select(_blocks).where(_blocks.c.number <= told.ancestor)
        with self._database.reading() as connection:
            rows = connection.execute(query).all()
        return {
            row.number: BlockHeader(row.number, row.hash, row.parent_hash, row.timestamp_s, b"")
            for row in rows
        }


def _identity(header: BlockHeader) -> str:
    return (
        f"0x{header.hash.hex()} after 0x{header.parent_hash.hex()}, of second {header.timestamp_s}"
    )


def _shown(rows: Sequence[Row]) -> str:
    named = [
        f"{row['name']} at {row['log_index']} of block 0x{row['block_hash'].hex()}" for row in rows
    ]
    return "; ".join(named[:3] + ["…"] * (len(named) > 3)) or "there are none"
