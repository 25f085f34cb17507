"""Signs checkpoints of the log and puts their roots on the chain.

An anchor is sent, then mined, then final. Only one is on its way at a time, and one whose fate is
unknown is sent again as it is, never replaced: the registry takes strictly growing sizes, so the
worst that can happen is that a second copy is refused.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
import structlog

from engine.audit.checkpoint import Checkpoint, sign
from engine.chain import contracts, sender
from engine.chain.gateway import CallReverted, ChainGateway, TransactionRejected
from engine.db.sqlite import Database
from engine.db.tables import Anchor, CheckpointRow, table
from engine.ledger.log import Log
from engine.ledger.writer import Batch, Writer

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from eth_account.signers.local import LocalAccount

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

    def checkpoint(self) -> Checkpoint:
        """Sign the tree of all committed records and keep the note."""
        size = self._log.committed
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

    def tick(self, *, new: bool) -> AnchorView | None:
        """Follow the anchor that is on its way; if none is and `new`, anchor what was added.

        Raises:
            ChainUnavailable: the chain does not answer; what was sent stays `sent`.
        """
        latest = self.latest()
        if latest is not None and latest.state != "final":
            latest = self._follow(latest)
        unfinished = latest is not None and latest.state == "sent"
        if unfinished or not new or self._log.committed == (latest.size if latest else 0):
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
            return self.latest()
        self._writer.call(
            lambda batch: batch.insert(
                _anchors,
                {
                    "size": checkpoint.size,
                    "root": checkpoint.root,
                    "state": "sent",
                    "tx_hash": signed.hash,
                    "raw_tx": signed.raw,
                    "block_number": None,
                    "block_hash": None,
                    "sent_ms": batch.now_ms,
                },
            )
        )
        self._gateway.send_raw(signed.raw)
        view = self.latest()
        return None if view is None else self._follow(view)

    def _follow(self, view: AnchorView) -> AnchorView | None:
        receipt = self._gateway.receipt(view.tx_hash)
        if receipt is None:
            try:
                self._gateway.send_raw(self._raw(view.size))
            except TransactionRejected as error:
                _log.warning("anchor_lost", size=view.size, reason=error.reason)
                return self._forget(view)
            return view
        if not receipt.succeeded:
            _log.error("anchor_reverted", size=view.size, tx_hash="0x" + view.tx_hash.hex())
            return self._forget(view)
        final = self._gateway.head().number >= receipt.block_number + self._confirmations
        values = {
            "state": "final" if final else "mined",
            "block_number": receipt.block_number,
            "block_hash": receipt.block_hash,
        }
        self._writer.call(
            lambda batch: batch.update(
                sa.update(_anchors).where(_anchors.c.size == view.size).values(**values)
            )
        )
        return self.latest()

    def _forget(self, view: AnchorView) -> AnchorView | None:
        """A transaction that can no longer succeed makes room for another."""
        self._writer.call(
            lambda batch: batch.update(sa.delete(_anchors).where(_anchors.c.size == view.size))
        )
        return self.latest()

    def _raw(self, size: int) -> bytes:
        query = sa.select(_anchors.c.raw_tx).where(_anchors.c.size == size)
        with self._database.reading() as connection:
            return bytes(connection.execute(query).scalar_one())


def _view(row: Any) -> AnchorView:
    return AnchorView(
        size=row.size,
        root=row.root,
        state=row.state,
        tx_hash=row.tx_hash,
        block_number=row.block_number,
        block_hash=row.block_hash,
    )
