"""Signs checkpoints of the log and puts their roots on the chain.

An anchor is sent, then mined, then final; a reorganisation makes it sent again. No other is sent
before it is mined, and while its fate is unknown it is sent again as it is: the registry takes
strictly growing sizes, so the worst that can happen is that a second copy is refused.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
import structlog

from engine.audit.checkpoint import Checkpoint, sign
from engine.chain import contracts, sender
from engine.chain.gateway import CallReverted, ChainGateway, Receipt, TransactionRejected
from engine.chain.resend import send_again
from engine.db.database import Database
from engine.db.tables import Anchor, ChainEvent, CheckpointRow, table
from engine.ledger.log import Log
from engine.ledger.writer import Batch, Writer

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from eth_account.signers.local import LocalAccount

FOLLOWED_MAX = 64
"""So many of the newest anchors are looked after."""

_SENT = {"state": "sent", "block_number": None, "block_hash": None}

_anchors = table(Anchor)
_events = table(ChainEvent)
_checkpoints = table(CheckpointRow)
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class AnchorView:
    """An anchor and how far it has come: `sent`, `mined` or `final`."""

    size: int
    root: bytes
    state: str
    tx_hash: bytes
    block_number: int | None
    block_hash: bytes | None


class Anchorer:
    """Publishes the state of one log."""

    def __init__(
        self,
        gateway: ChainGateway,
        database: Database,
        writer: Writer,
        log: Log,
        *,
        address: str,
        log_id: bytes,
        signing_key: "Ed25519PrivateKey",
        operator: "LocalAccount",
        confirmations: int,
    ) -> None:
        self._gateway = gateway
        self._database = database
        self._writer = writer
        self._log = log
        self._address = address
        self._log_id = log_id
        self._signing_key = signing_key
        self._operator = operator
        self._confirmations = confirmations
        self.refused: str | None = None
        """Why the chain did not take the newest anchor that was tried, if it did not."""

    def checkpoint(self) -> Checkpoint:
        """Sign the tree of all committed records and keep the note."""
        size = self._log.size
        checkpoint = Checkpoint(self._log.origin, size, self._log.tree.root(size))
        note = sign(checkpoint, self._log.origin, self._signing_key)

        def command(batch: Batch) -> None:
            known = sa.select(_checkpoints.c.size).where(_checkpoints.c.size == size)
            if batch.read(known).first() is None:
                batch.insert(
                    _checkpoints,
                    {
                        "size": size,
                        "root": checkpoint.root,
                        "note": note,
                        "created_ms": batch.now_ms,
                    },
                )

        self._writer.call(command)
        return checkpoint

    def latest(self) -> AnchorView | None:
        """The largest anchor, whatever its state."""
        query = sa.select(_anchors).order_by(_anchors.c.size.desc()).limit(1)
        with self._database.reading() as connection:
            row = connection.execute(query).first()
        return None if row is None else _view(row)

    def contradiction(self, batch: Batch) -> str | None:
        """What the chain holds of this log that the records here cannot have led to, if anything.

        It is so when an older database was put back, or when the anchorer's key is used elsewhere.
        """
        query = (
            sa.select(_events.c.args_json)
            .where(_events.c.subject == self._log_id, _events.c.name == "Anchored")
            .order_by(_events.c.block_number.desc())
            .limit(FOLLOWED_MAX)
        )
        for args in map(json.loads, batch.read(query).scalars()):
            size = int(args["size"])
            if size > self._log.size or "0x" + self._log.tree.root(size).hex() != args["root"]:
                return (
                    f"the chain holds an anchor of size {size} that is not of the records here: "
                    "an older database was put back, or another anchors this log"
                )
        return None

    def tick(self, *, new: bool) -> AnchorView | None:
        """Follow the anchors on their way; if all arrived and `new`, anchor what was added since.

        One that was lost is replaced at once.

        Raises:
            ChainUnavailable: the chain does not answer; what was sent stays `sent`.
        """
        lost = self._follow()
        latest = self.latest()
        if latest is not None and latest.state == "sent":
            return latest
        if not (new or lost) or self._log.size == (latest.size if latest else 0):
            return latest
        return self._send(self.checkpoint())

    def _send(self, checkpoint: Checkpoint) -> AnchorView | None:
        data = contracts.call_data(
            contracts.ANCHOR_REGISTRY, "anchor", self._log_id, checkpoint.size, checkpoint.root
        )
        try:
            signed = sender.sign(self._gateway, self._operator, to=self._address, data=data)
        except (CallReverted, TransactionRejected) as error:
            _log.error("anchor_refused", size=checkpoint.size, reason=str(error))
            self.refused = str(error)
            return self.latest()
        self.refused = None
        row = {
            "size": checkpoint.size,
            "root": checkpoint.root,
            "tx_hash": signed.hash,
            "raw_tx": signed.raw,
            **_SENT,
        }
        self._writer.call(lambda batch: batch.insert(_anchors, {**row, "sent_ms": batch.now_ms}))
        self._offer(signed.raw)
        self._follow()
        return self.latest()

    def _follow(self) -> bool:
        """Learn what became of the newest anchors; says whether one was lost for good."""
        lost = False
        head = self._gateway.head().number
        for row, receipt in reversed(list(self._unsettled())):
            if receipt is None and self._offer(row.raw_tx):
                self._change(row, _SENT)
            elif receipt is not None and receipt.succeeded:
                final = head >= receipt.block_number + self._confirmations
                self._change(
                    row,
                    {
                        "state": "final" if final else "mined",
                        "block_number": receipt.block_number,
                        "block_hash": receipt.block_hash,
                    },
                )
            else:
                _log.error("anchor_lost", size=row.size, tx_hash="0x" + row.tx_hash.hex())
                self._change(row, None)
                lost = True
        return lost

    def _unsettled(self) -> Iterator[tuple[Any, Receipt | None]]:
        """The anchors, the newest first, back to one that is final and still on the chain.

        A reorganisation can take even a final one away, and the newest ones first.
        """
        query = sa.select(_anchors).order_by(_anchors.c.size.desc())
        with self._database.reading() as connection:
            rows = connection.execute(query.limit(FOLLOWED_MAX)).all()
        for row in rows:
            receipt = self._gateway.receipt(row.tx_hash)
            yield row, receipt
            if row.state == "final" and receipt is not None and receipt.succeeded:
                return

    def _offer(self, raw: bytes) -> bool:
        return send_again(self._gateway, self._operator.address.lower(), raw)

    def _change(self, row: Any, values: dict[str, Any] | None) -> None:
        """Change an anchor; None forgets it, to make room for another."""
        if values is not None and all(getattr(row, name) == values[name] for name in values):
            return
        change = sa.delete(_anchors) if values is None else sa.update(_anchors).values(**values)
        self._writer.call(lambda batch: batch.update(change.where(_anchors.c.size == row.size)))


def _view(row: Any) -> AnchorView:
    return AnchorView(
        size=row.size,
        root=row.root,
        state=row.state,
        tx_hash=row.tx_hash,
        block_number=row.block_number,
        block_hash=row.block_hash,
    )
