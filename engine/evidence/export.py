"""Write the evidence file of one session."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import sqlalchemy as sa

from engine.audit.evidence import FORMAT, NOT_PROVEN, render_evidence, seal_message
from engine.db.database import Database
from engine.db.tables import (
    BATCH_RECORDS_MAX,
    Anchor,
    ChainBlock,
    ChainEvent,
    CheckpointRow,
    LogBatch,
    Record,
    table,
)
from engine.deployment import Deployment
from engine.errors import Conflict
from engine.ledger.log import Log
from engine.sessions.delegation import ancestors
from engine.sessions.on_chain import chain_facts
from engine.sessions.session import SessionView

_anchors = table(Anchor)
_batches = table(LogBatch)
_blocks = table(ChainBlock)
_checkpoints = table(CheckpointRow)
_events = table(ChainEvent)
_records = table(Record)
_position = _records.c.id % BATCH_RECORDS_MAX
_leaf = _batches.c.first_leaf + _position


@dataclass(frozen=True, slots=True)
class Exporter:
    """Makes evidence files from what is committed."""

    database: Database
    log: Log
    deployment: Deployment

    def export(self, view: SessionView, made_ms: int) -> bytes:
        """The evidence of a session: proofs under the newest final anchor, and the tail after it.

        Every anchor from the registration's block on is proven to be the beginning of the next.
        An anchor that a reorganisation can still undo would make the file look forged.

        Raises:
            Conflict: the session has no on-chain identity, so there is nothing to verify against.
        """
        with self.database.reading() as connection:
            registration, _ = chain_facts(connection, view.token_id)
            if registration is None:
                raise Conflict(
                    "the session is not registered on the chain, so it has no evidence",
                    code="session_not_registered",
                )
            anchor: Any = connection.execute(
                sa.select(_anchors, _checkpoints.c.note)
                .join(_checkpoints, _checkpoints.c.size == _anchors.c.size)
                .where(_anchors.c.state == "final")
                .order_by(_anchors.c.size.desc())
                .limit(1)
            ).first()
            size = anchor.size if anchor is not None else 0
            sizes = self._anchored_sizes(connection, registration["block_number"], size)
            rows = _records_of(connection, view)
            self.log.follow(connection.execute)
            line = ancestors(connection.execute, view)
        deployment = self.deployment
        content = {
            "format": FORMAT,
            "made_ms": made_ms,
            "chain": {
                "chain_id": str(deployment.chain_id),
                "registry": deployment.registry,
                "anchors": deployment.anchors,
            },
            "log": {
                "id": deployment.log_id.hex(),
                "origin": deployment.origin,
                "verifier_key": deployment.log_verifier_key,
            },
            "session": _session(view, line),
            "checkpoint": anchor.note if anchor is not None else None,
            "consistency": [
                [node.hex() for node in self.log.tree.consistency_proof(older, newer)]
                for older, newer in pairwise(sizes)
            ],
            "records": [
                {
                    "index": row.leaf_index,
                    "record": row.body.decode(),
                    "proof": [
                        node.hex() for node in self.log.tree.inclusion_proof(row.leaf_index, size)
                    ],
                }
                for row in rows
                if row.leaf_index < size
            ],
            "tail": [
                {"index": row.leaf_index, "record": row.body.decode()}
                for row in rows
                if row.leaf_index >= size
            ],
            "not_proven": list(NOT_PROVEN),
        }
        return render_evidence(content, deployment.log_key.sign(seal_message(content)))

    def _anchored_sizes(
        self, connection: sa.Connection, from_block: int, size_max: int
    ) -> list[int]:
        """The sizes, up to `size_max`, that the chain holds of this log from a block on.

        The chain is the truth and not what was sent, but the index can be behind the anchorer.
        """
        events = sa.select(_events.c.args_json).where(
            _events.c.subject == self.deployment.log_id,
            _events.c.name == "Anchored",
            _events.c.block_number >= from_block,
        )
        indexed = sa.select(sa.func.coalesce(sa.func.max(_blocks.c.number), -1)).scalar_subquery()
        mined = sa.select(_anchors.c.size).where(
            _anchors.c.block_number > indexed, _anchors.c.block_number >= from_block
        )
        sizes = {int(json.loads(args)["size"]) for args in connection.execute(events).scalars()}
        sizes.update(connection.execute(mined).scalars())
        return sorted(size for size in sizes if size <= size_max)


def _records_of(connection: sa.Connection, view: SessionView) -> Sequence[Any]:
    """The records of a session that have their place in the log, each with it."""
    query = (
        sa.select(_leaf.label("leaf_index"), _records.c.body)
        .join(_batches, _batches.c.id == _records.c.id - _position)
        .where(_records.c.stream == view.id, _batches.c.first_leaf.is_not(None))
        .order_by(_records.c.seq)
    )
    return connection.execute(query).all()


def _session(view: SessionView, line: Sequence[SessionView]) -> dict[str, Any]:
    """The session, and those that it is delegated from: the parent first."""
    return {
        "id": view.id,
        "workspace": view.workspace_id,
        "type": view.type,
        "label": view.label,
        "grant": view.grant.to_json(),
        "grant_hash": view.grant_hash.hex(),
        "consent": view.consent,
        "ancestors": [
            {
                "grant": above.grant.to_json(),
                "token_id": above.token_id.hex(),
                "consent": above.consent,
                "owner_signature": _hex(above.owner_signature),
            }
            for above in line
        ],
        "owner_signature": _hex(view.owner_signature),
        "public_key": view.public_key.hex(),
        "token_id": view.token_id.hex(),
    }


def _hex(signature: bytes | None) -> str | None:
    return None if signature is None else signature.hex()
