"""Signs checkpoints of the log and puts their roots on the chain.

`anchor_state` tells the life of an anchor. No other is sent before it is mined, and while its fate
is unknown it is sent again: the registry takes strictly growing sizes, so the worst that can happen
is that a second copy is refused. What the chain holds of this log counts, whoever sent it.

The first start opens the log. Where a reorganisation took that away the chain refuses every anchor,
and the log is opened again: that is sent, mined and final as anchors are, and is kept as size 0.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
import structlog
from eth_utils.crypto import keccak

from engine.audit.checkpoint import Checkpoint, sign, verifier_key
from engine.audit.evidence import log_salt
from engine.chain import contracts, sender
from engine.chain.account import Account
from engine.chain.gateway import (
    NO_SENDER,
    CallReverted,
    ChainGateway,
    Receipt,
    TransactionRejected,
)
from engine.chain.resend import send_again
from engine.chain.sender import SignedTransaction
from engine.db.database import Database
from engine.db.tables import Anchor, CheckpointRow, table
from engine.evidence.anchor_events import FOLLOWED_MAX, anchored
from engine.evidence.anchor_state import State, is_slow, state_of
from engine.ledger.batch import Batch
from engine.ledger.log import Log
from engine.ledger.writer import Writer

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

PATIENCE_MS = 120_000
"""After so long a time a higher fee is offered, and again after each further one."""

NOT_OPEN = "the log is not open on the chain any more and has to be opened again"
"""Why anchors are refused after a reorganisation that took the opening of the log away."""

_anchors = table(Anchor)
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
        operator: Account,
        confirmations: int,
        patience_ms: int = PATIENCE_MS,
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
        self._patience_ms = patience_ms
        self.refused: str | None = None
        """Why the chain did not take the newest anchor that was tried, if it did not."""

    def checkpoint(self) -> Checkpoint:
        """Sign the tree of all committed records and keep the note."""
        return self._signed(self._log.size)

    def _signed(self, size: int) -> Checkpoint:
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
        newest = self._newest()
        return newest if newest is not None and newest.size else None

    def _newest(self) -> AnchorView | None:
        """The largest anchor, or else the opening of the log that is on its way."""
        query = sa.select(_anchors).order_by(_anchors.c.size.desc()).limit(1)
        with self._database.reading() as connection:
            row = connection.execute(query).first()
        return None if row is None else _view(row)

    def contradiction(self, batch: Batch) -> str | None:
        """What the chain holds of this log that the records here cannot have led to, if anything.

        It is so when an older database was put back, or when the anchorer's key is used elsewhere.
        """
        found = list(anchored(batch.read, self._log_id))
        if any(size > self._log.size for size, _, _ in found):
            self._log.follow(batch.read)  # another process gave records their place and anchored
        for size, root, _ in found:
            if not self._is_ours(size, root):
                return (
                    f"the chain holds an anchor of size {size} that is not of the records here: "
                    "an older database was put back, or another anchors this log"
                )
        return None

    def tick(self, *, new: bool) -> AnchorView | None:
        """Follow the anchors on their way; if all arrived and `new`, anchor what was added since.

        One that was lost is replaced at once, one that waits for long is offered with a higher fee.
        A log that is not open any more is opened, and anchored once that is mined.

        Raises:
            ChainUnavailable: the chain does not answer; what was sent stays `sent`.
            CallReverted: the registry does not say who may anchor.
        """
        lost = self._follow()
        self._adopt()
        newest = self._newest()
        reopened = newest is not None and newest.size == 0
        if reopened:
            self.refused = self.refused or NOT_OPEN
        if newest is not None and newest.state == "sent":
            self._hurry()
        elif (new or lost or (reopened and self.refused == NOT_OPEN)) and (
            self._log.size > (newest.size if newest else 0)
        ):
            self._send(self.checkpoint())
        return self.latest()

    def _send(self, checkpoint: Checkpoint) -> None:
        data = self._call(checkpoint)
        signed = self._signing(
            checkpoint.size,
            lambda: sender.sign(self._gateway, self._operator, to=self._address, data=data),
        )
        if signed is not None:
            self._keep(checkpoint, state="sent", tx_hash=signed.hash, raw_tx=signed.raw)
            self._offer(signed.raw)
            self._follow()
        elif self.refused == NOT_OPEN and checkpoint.size and not self._has_opening():
            _log.error("log_not_open", log_id="0x" + self._log_id.hex())
            self._send(self._signed(0))

    def _has_opening(self) -> bool:
        """Whether an opening of the log is followed already."""
        query = sa.select(_anchors.c.size).where(_anchors.c.size == 0)
        with self._database.reading() as connection:
            return connection.execute(query).first() is not None

    def _call(self, checkpoint: Checkpoint) -> bytes:
        if checkpoint.size == 0:
            salt = log_salt(verifier_key(self._log.origin, self._signing_key.public_key()))
            return contracts.call_data(contracts.ANCHOR_REGISTRY, "openLog", salt)
        return contracts.call_data(
            contracts.ANCHOR_REGISTRY, "anchor", self._log_id, checkpoint.size, checkpoint.root
        )

    def _signing(
        self, size: int, sign: Callable[[], SignedTransaction]
    ) -> SignedTransaction | None:
        """What `sign` makes, or None if the chain would refuse it."""
        try:
            signed = sign()
        except CallReverted as error:
            self.refused = self._reason(error)
        except TransactionRejected as error:
            self.refused = error.message
        else:
            self.refused = None if size else NOT_OPEN
            return signed
        _log.error("anchor_refused", size=size, reason=self.refused)
        return None

    def _reason(self, error: CallReverted) -> str:
        """Why the chain would refuse. Not every node tells what the contract answered."""
        anchorer = str(
            contracts.read(
                self._gateway, contracts.ANCHOR_REGISTRY, self._address, "anchorerOf", self._log_id
            )
        ).lower()
        if anchorer == NO_SENDER:
            return NOT_OPEN
        if anchorer != self._operator.address.lower():
            return f"log_of_another: {anchorer} opened this log on the chain, and not this operator"
        return f"reverted: {contracts.revert_name(error, contracts.ANCHOR_REGISTRY)}"

    def _follow(self) -> bool:
        """Learn what became of the newest anchors; says whether one was lost for good."""
        lost = False
        head = self._gateway.head().number
        for row, receipt in reversed(list(self._unsettled())):
            waits = receipt is None and any(self._offer(raw) for raw in _raw_txs(row))
            state = state_of(receipt, waits=waits, head=head, confirmations=self._confirmations)
            if state is None:
                _log.error("anchor_lost", size=row.size, tx_hash="0x" + row.tx_hash.hex())
                self._change(_forget(row))
                lost = True
            else:
                self._move(row, state, receipt)
        return lost

    def _unsettled(self) -> Iterator[tuple[Any, Receipt | None]]:
        """The anchors, the newest first, back to one that is final and still on the chain.

        A reorganisation can take even a final one away, and the newest ones first.
        """
        query = sa.select(_anchors).order_by(_anchors.c.size.desc())
        with self._database.reading() as connection:
            rows = connection.execute(query.limit(FOLLOWED_MAX)).all()
        for row in rows:
            receipts = (self._gateway.receipt(tx_hash) for tx_hash in _tx_hashes(row))
            receipt = next((found for found in receipts if found is not None), None)
            yield row, receipt
            if row.state == "final" and receipt is not None and receipt.succeeded:
                return

    def _move(self, row: Any, state: State, receipt: Receipt | None) -> None:
        """Write down where an anchor stands, and by which of its transactions."""
        values: dict[str, Any] = {
            "state": state,
            "block_number": None if receipt is None else receipt.block_number,
            "block_hash": None if receipt is None else receipt.block_hash,
        }
        if receipt is not None and receipt.tx_hash != row.tx_hash:
            others = [raw for raw in _raw_txs(row) if keccak(raw) != receipt.tx_hash]
            [mined] = [raw for raw in _raw_txs(row) if keccak(raw) == receipt.tx_hash]
            values |= {
                "tx_hash": receipt.tx_hash,
                "raw_tx": mined,
                "replaced_json": _replaced(others),
            }
        if all(getattr(row, name) == value for name, value in values.items()):
            return

        def command(batch: Batch) -> None:
            again = {"sent_ms": batch.now_ms} if state == "sent" else {}
            batch.update(_update(row, {**values, **again}))

        self._writer.call(command)

    def _hurry(self) -> None:
        """Offer a higher fee for the anchor that is next to be mined, if it has waited for long."""
        waiting = sa.select(_anchors).where(_anchors.c.state == "sent").order_by(_anchors.c.size)
        with self._database.reading() as connection:
            row = connection.execute(waiting.limit(1)).first()
        if row is None or not row.raw_tx:
            return
        replaced = len(_raw_txs(row)) - 1
        now_ms = self._writer.call(lambda batch: batch.now_ms)
        if not is_slow(row.sent_ms, now_ms, replaced=replaced, patience_ms=self._patience_ms):
            return
        operator = self._operator.address.lower()
        if sender.fields_of(row.raw_tx)["nonce"] != self._gateway.transaction_count(operator):
            return  # it waits for another transaction, which no fee of its own changes
        signed = self._signing(
            row.size, lambda: sender.sign_again(self._gateway, self._operator, row.raw_tx)
        )
        if signed is None:
            return
        _log.warning("anchor_slow", size=row.size, tx_hash="0x" + signed.hash.hex())
        values = {
            "tx_hash": signed.hash,
            "raw_tx": signed.raw,
            "replaced_json": _replaced(_raw_txs(row)),
        }
        self._change(_update(row, values))
        self._offer(signed.raw)

    def _adopt(self) -> None:
        """Keep a row of each anchor that the chain holds of the records here, whoever sent it."""
        with self._database.reading() as connection:
            found = {event.size: event for event in anchored(connection.execute, self._log_id)}
            known = sa.select(_anchors.c.size).where(_anchors.c.size.in_(found))
            for size in connection.execute(known).scalars():
                del found[size]
        for size, root, row in found.values():
            if not self._is_ours(size, root):
                continue
            _log.warning("anchor_adopted", size=size, tx_hash="0x" + row.tx_hash.hex())
            self._keep(
                self._signed(size),
                state="mined",
                tx_hash=row.tx_hash,
                raw_tx=b"",
                block_number=row.block_number,
                block_hash=row.block_hash,
            )

    def _is_ours(self, size: int, root: str) -> bool:
        """Whether the records here lead to this root, which is in hexadecimal."""
        return 0 <= size <= self._log.size and "0x" + self._log.tree.root(size).hex() == root

    def _keep(self, checkpoint: Checkpoint, **values: Any) -> None:
        row = {
            "size": checkpoint.size,
            "root": checkpoint.root,
            "replaced_json": "[]",
            "block_number": None,
            "block_hash": None,
            **values,
        }
        self._writer.call(lambda batch: batch.insert(_anchors, {**row, "sent_ms": batch.now_ms}))

    def _change(self, statement: sa.Update | sa.Delete) -> None:
        self._writer.call(lambda batch: batch.update(statement))

    def _offer(self, raw: bytes) -> bool:
        return send_again(self._gateway, self._operator.address.lower(), raw)


def _raw_txs(row: Any) -> list[bytes]:
    """The transactions of an anchor that are known, the one of its row first."""
    own = [row.raw_tx] if row.raw_tx else []
    return own + [bytes.fromhex(raw) for raw in json.loads(row.replaced_json)]


def _tx_hashes(row: Any) -> list[bytes]:
    return list(dict.fromkeys((row.tx_hash, *(bytes(keccak(raw)) for raw in _raw_txs(row)))))


def _replaced(raw_txs: Sequence[bytes]) -> str:
    return json.dumps([raw.hex() for raw in raw_txs])


def _update(row: Any, values: Mapping[str, Any]) -> sa.Update:
    return sa.update(_anchors).where(_anchors.c.size == row.size).values(**values)


def _forget(row: Any) -> sa.Delete:
    return sa.delete(_anchors).where(_anchors.c.size == row.size)


def _view(row: Any) -> AnchorView:
    return AnchorView(
        size=row.size,
        root=row.root,
        state=row.state,
        tx_hash=row.tx_hash,
        block_number=row.block_number,
        block_hash=row.block_hash,
    )
