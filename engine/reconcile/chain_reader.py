"""Reads the chain for reconciliation, past the index.

What was read is remembered while its blocks stand on the chain, so that reading again costs only
what is new. Each reading is as of one block, by its hash: an endpoint that contradicts itself
meanwhile has said nothing.
"""

import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.chain import contracts
from engine.chain.events import event_row
from engine.chain.gateway import BlockHeader, CallReverted, ChainGateway, ChainUnavailable, Log
from engine.chain.indexer import BLOCKS_PER_READ_MAX, REORG_DEPTH_MAX
from engine.grant import limits_from_chain
from engine.reconcile.sides import (
    Anchoring,
    ChainSide,
    Ending,
    Event,
    EventPlace,
    Lowering,
    Place,
    Registration,
)

Progress = Callable[[int, int, int], None]
"""Called with the first block of a reading, the last, and how far it has come."""


@dataclass(frozen=True, slots=True)
class Tip:
    """The last block that a reading is to reach."""

    number: int
    hash: bytes


@dataclass(frozen=True, slots=True)
class Doubts:
    """What to ask an endpoint in another way, because something was found by its events.

    `registered` and `unregistered` are token ids, `told` and `untold` events that it did and did
    not tell of, `unmined` transactions of anchors that it did not tell of.
    """

    registered: Collection[bytes]
    unregistered: Collection[bytes]
    told: Mapping[EventPlace, Event]
    untold: Mapping[EventPlace, Event]
    unmined: Collection[bytes]


class ChainReader:
    """The events of both contracts. One reading at a time."""

    def __init__(
        self,
        gateway: ChainGateway,
        *,
        registry: str,
        anchors: str,
        log_id: bytes,
        start_block: int,
        blocks_per_read: int = BLOCKS_PER_READ_MAX,
    ) -> None:
        self._gateway = gateway
        self._registry = registry
        self._anchors = anchors
        self._log_id = log_id
        self._start_block = start_block
        self._blocks_per_read = blocks_per_read
        self._sources = {
            registry: contracts.SESSION_REGISTRY,
            anchors: contracts.ANCHOR_REGISTRY,
        }
        self._events: list[contracts.Event] = []
        self._marks: list[BlockHeader] = []
        """Blocks up to which everything is known, the newest last."""

    def read(
        self, tip: Tip, *, from_block: int | None = None, progress: Progress | None = None
    ) -> ChainSide:
        """What the chain holds up to `tip`; with `from_block`, of what is in that block and later.

        Raises:
            ChainUnavailable: no answer, a contradiction, or the chain changed meanwhile.
        """
        block = self._header(tip.number)
        if block.hash != tip.hash:
            raise ChainUnavailable("the chain changed since it was indexed")
        if from_block is None or from_block <= self._start_block:
            events = self._known_up_to(block, progress)
            return self._side(events, block, from_block=0)
        parts = self._between(from_block, block, progress)
        events = [event for _, part in parts for event in part]
        return self._side(events, block, from_block=from_block)

    def _known_up_to(
        self, block: BlockHeader, progress: Progress | None
    ) -> Sequence[contracts.Event]:
        while self._marks and not self._stands(self._marks[-1], block):
            self._marks.pop()
        known = self._marks[-1].number if self._marks else self._start_block - 1
        self._events = [event for event in self._events if event.log.block_number <= known]
        if known < block.number:
            for end, events in self._between(known + 1, block, progress):
                self._events += events
                self._marks.append(end)
        settled = [mark for mark in self._marks if mark.number <= block.number - REORG_DEPTH_MAX]
        self._marks = settled[-1:] + self._marks[len(settled) :]
        return self._events

    def _stands(self, mark: BlockHeader, block: BlockHeader) -> bool:
        if mark.number > block.number:
            return False
        now = self._gateway.block(mark.number)
        return now is not None and now.hash == mark.hash

    def _between(
        self, first: int, block: BlockHeader, progress: Progress | None
    ) -> Iterator[tuple[BlockHeader, list[contracts.Event]]]:
        """The events of blocks `first` to `block` in parts, each with the last block of it."""
        for start in range(first, block.number + 1, self._blocks_per_read):
            end = self._header(min(start + self._blocks_per_read - 1, block.number))
            logs = self._gateway.logs(
                from_block=start, to_block=end.number, addresses=tuple(self._sources)
            )
            self._check_blocks(logs)
            if self._header(end.number).hash != end.hash:
                raise ChainUnavailable("the chain changed while it was read")
            decoded = (contracts.decode_log(self._sources[log.address], log) for log in logs)
            yield end, [event for event in decoded if event is not None]
            if progress is not None:
                progress(first, block.number, end.number)
        if self._header(block.number).hash != block.hash:
            raise ChainUnavailable("the chain changed while it was read")

    def _header(self, number: int) -> BlockHeader:
        header = self._gateway.block(number)
        if header is None:
            raise ChainUnavailable(f"block {number} disappeared while it was read")
        return header

    def _check_blocks(self, logs: Sequence[Log]) -> None:
        hashes = {log.block_number: log.block_hash for log in logs}
        for number, block_hash in hashes.items():
            if self._header(number).hash != block_hash:
                raise ChainUnavailable(f"an event of block {number} is of another block")

    def _side(
        self, events: Sequence[contracts.Event], block: BlockHeader, *, from_block: int
    ) -> ChainSide:
        head = self._gateway.head().number
        if head < block.number:
            raise ChainUnavailable(f"the endpoint is behind: {head} is its newest block")
        side = ChainSide(block, head, from_block)
        for event in events:
            place = _place(event.log)
            if (row := event_row(event)) is not None:
                side.events[place.order] = indexed(row)
            fold = _FOLD.get(event.name)
            if fold is not None and event.args.get("logId", self._log_id) == self._log_id:
                fold(side, event.args, place)
        return side

    # What an endpoint says in another way of the same, to hold its events against

    def check(self, side: ChainSide, doubts: Doubts) -> None:
        """Hold what its events say against the contracts' state, and against receipts.

        Raises:
            ChainUnavailable: the endpoint contradicts itself, or the chain went on meanwhile.
        """
        size, root, _ = self._ask(contracts.ANCHOR_REGISTRY, self._anchors, "latest", self._log_id)
        newest = max(side.anchors, default=0)
        told = (newest, side.anchors[newest].root if newest else bytes(32))
        if side.whole and (size, root) != told and self._gateway.head().hash == side.block.hash:
            raise _contradiction("what is anchored")
        for token_ids, expected in ((doubts.registered, True), (doubts.unregistered, False)):
            for token_id in token_ids:
                if self._registered(token_id) is not expected:
                    raise _contradiction("a registration")
        for events, expected in ((doubts.told, True), (doubts.untold, False)):
            for place, event in events.items():
                if self._in_receipt(place, event) is not expected:
                    raise _contradiction(f"event {place[1]} of block {place[0]}")
        for tx_hash in doubts.unmined:
            receipt = self._gateway.receipt(tx_hash)
            if receipt is not None and receipt.succeeded:
                raise _contradiction("an anchor")

    def _in_receipt(self, place: EventPlace, event: Event) -> bool:
        """Whether the receipt of an event's transaction has it at this place of this block."""
        receipt = self._gateway.receipt(event.tx_hash)
        return receipt is not None and any(
            (log.block_number, log.log_index) == place and log.block_hash == event.block_hash
            for log in receipt.logs
        )

    def _registered(self, token_id: bytes) -> bool:
        session = self._ask(
            contracts.SESSION_REGISTRY, self._registry, "session", int.from_bytes(token_id)
        )
        return bool(session[3])  # endsAt: zero only for an unknown session

    def _ask(self, contract: str, address: str, function: str, *args: Any) -> Any:
        try:
            return contracts.read(self._gateway, contract, address, function, *args)
        except CallReverted as error:
            raise ChainUnavailable(f"{contract} at {address} refuses {function}") from error


def _contradiction(what: str) -> ChainUnavailable:
    return ChainUnavailable(f"the endpoint contradicts itself on {what}")


def indexed(row: Mapping[str, Any]) -> Event:
    """An event of a row of the index."""
    parts = (row["block_hash"], row["tx_hash"], row["name"], row["subject"], row["args_json"])
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return Event(row["name"], row["tx_hash"], row["block_hash"], digest)


def order_of(row: Mapping[str, Any]) -> EventPlace:
    """Where a row of the index stands."""
    return (row["block_number"], row["log_index"])


def _place(log: Log) -> Place:
    return Place(log.block_number, log.block_hash, log.tx_hash, log.log_index)


_Fold = Callable[[ChainSide, Mapping[str, Any], Place], None]


def _registered(side: ChainSide, args: Mapping[str, Any], place: Place) -> None:
    token_id, grant = args["tokenId"].to_bytes(32), args["grant"]
    registration = Registration(
        token_id,
        args["grantHash"],
        grant["workspace"],
        grant["auditLog"],
        grant["validUntil"],
        place,
    )
    side.registrations.setdefault(token_id, registration)


def _revoked(side: ChainSide, args: Mapping[str, Any], place: Place) -> None:
    token_id = args["tokenId"].to_bytes(32)
    side.revocations.setdefault(token_id, Ending("SessionRevoked", args["by"].lower(), place))


def _closed(side: ChainSide, args: Mapping[str, Any], place: Place) -> None:
    ending = Ending("WorkspaceClosed", args["by"].lower(), place)
    side.closings.setdefault(args["workspace"], []).append(ending)


def _lowered(side: ChainSide, args: Mapping[str, Any], place: Place) -> None:
    side.lowerings[args["tokenId"].to_bytes(32)] = Lowering(
        args["grantHash"], args["by"].lower(), limits_from_chain(args["limits"]), place
    )


def _anchored(side: ChainSide, args: Mapping[str, Any], place: Place) -> None:
    side.anchors[args["size"]] = Anchoring(args["size"], args["root"], place)


_FOLD: Mapping[str, _Fold] = {
    "SessionRegistered": _registered,
    "SessionRevoked": _revoked,
    "WorkspaceClosed": _closed,
    "LimitsLowered": _lowered,
    "Anchored": _anchored,
}
