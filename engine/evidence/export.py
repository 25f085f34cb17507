"""Write the evidence file of one session."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import msgspec
import sqlalchemy as sa

from engine.audit import canonical
from engine.audit.chain import Anchoring
from engine.audit.disclosure import WITHHOLDABLE, Opening
from engine.audit.evidence import FORMAT, NOT_PROVEN, render_evidence, seal_message
from engine.audit.record import committed_form
from engine.db.database import Database
from engine.db.tables import (
    BATCH_RECORDS_MAX,
    Anchor,
    ChainBlock,
    ChainEvent,
    CheckpointRow,
    DiscrepancyRow,
    LogBatch,
    Record,
    table,
)
from engine.deployment import Deployment
from engine.errors import Conflict, InvalidInput
from engine.ledger.log import Log
from engine.sessions.chain_facts import chain_facts
from engine.sessions.delegation import ancestors
from engine.sessions.session import SessionView

_anchors = table(Anchor)
_batches = table(LogBatch)
_blocks = table(ChainBlock)
_checkpoints = table(CheckpointRow)
_events = table(ChainEvent)
_noted = table(DiscrepancyRow)
_records = table(Record)
_position = _records.c.id % BATCH_RECORDS_MAX
_leaf = _batches.c.first_leaf + _position


@dataclass(frozen=True, slots=True)
class Exporter:
    """Makes evidence files from what is committed."""

    database: Database
    log: Log
    deployment: Deployment

    def export(self, view: SessionView, made_ms: int, *, withhold: Collection[str] = ()) -> bytes:
        """The evidence of a session: proofs under the newest final anchor, and the tail after it.

        `withhold` are names of `WITHHOLDABLE`: the records that tell them are in committed form.
        Every anchor from the registration's block on is proven to be the beginning of the next.
        An anchor that a reorganisation can still undo would make the file look forged.

        Raises:
            InvalidInput: `withhold` has another name.
            Conflict: the session has no on-chain identity, so there is nothing to verify against.
        """
        withheld = [name for name in WITHHOLDABLE if name in withhold]
        if unknown := sorted({*withhold}.difference(withheld)):
            names = ", ".join(WITHHOLDABLE)
            raise InvalidInput("withhold", f"{unknown[0]!r} is none of: {names}")
        with self.database.reading() as connection:
            registration = chain_facts(connection.execute, view.token_id).registration
            if registration is None:
                raise Conflict(
                    "the session is not registered on the chain, so it has no evidence",
                    code="session_not_registered",
                )
            newest: Any = connection.execute(
                sa.select(_anchors, _checkpoints.c.note)
                .join(_checkpoints, _checkpoints.c.size == _anchors.c.size)
                .where(_anchors.c.state == "final", _anchors.c.size > 0)
                .order_by(_anchors.c.size.desc())
                .limit(1)
            ).first()
            size = newest.size if newest is not None else 0
            anchors = self._anchors(connection, registration["block_number"], newest)
            rows = _records_of(connection, view)
            self.log.follow(connection.execute)
            line = ancestors(connection.execute, view)
            discrepancies = _discrepancies(connection, view, withheld)
        deployment, tree = self.deployment, self.log.tree
        anchored = sum(row.leaf_index < size for row in rows)
        entries = [
            _entry(row, withheld, tree.inclusion_proof(row.leaf_index, size))
            for row in rows[:anchored]
        ]
        tail = [_entry(row, withheld) for row in rows[anchored:]]
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
            "session": _session(view, line, withheld),
            "registration": {
                "block_number": registration["block_number"],
                "log_index": registration["log_index"],
                "tx_hash": registration["tx_hash"].removeprefix("0x"),
            },
            "checkpoint": newest.note if newest is not None else None,
            "anchors": [_anchor(anchoring) for anchoring in anchors],
            "consistency": [
                _hexes(tree.consistency_proof(older.size, newer.size))
                for older, newer in pairwise(anchors)
            ],
            "records": entries,
            "tail": tail,
            "withheld": withheld,
            "discrepancies": discrepancies,
            "not_proven": list(NOT_PROVEN),
        }
        return render_evidence(content, deployment.log_key.sign(seal_message(content)))

    def _anchors(
        self, connection: sa.Connection, from_block: int, newest: Any
    ) -> Sequence[Anchoring]:
        """What the chain holds of this log from a block on, up to the `newest` and with it.

        The chain is the truth and not what was sent, but the index can be behind the anchorer.
        """
        if newest is None:
            return ()
        events = sa.select(_events).where(
            _events.c.subject == self.deployment.log_id,
            _events.c.name == "Anchored",
            _events.c.block_number >= from_block,
        )
        indexed = sa.select(sa.func.coalesce(sa.func.max(_blocks.c.number), -1)).scalar_subquery()
        mined = sa.select(_anchors).where(
            _anchors.c.block_number > indexed,
            _anchors.c.block_number >= from_block,
            _anchors.c.size > 0,
        )
        found = {
            row.size: Anchoring(row.size, row.root, row.block_number, row.tx_hash)
            for row in (newest, *connection.execute(mined))
        }
        for row in connection.execute(events):
            args = json.loads(row.args_json)
            size, root = int(args["size"]), bytes.fromhex(args["root"].removeprefix("0x"))
            found[size] = Anchoring(size, root, row.block_number, row.tx_hash)
        return [found[size] for size in sorted(found) if size <= newest.size]


def _anchor(anchoring: Anchoring) -> dict[str, Any]:
    assert anchoring.tx_hash is not None
    return {
        "size": anchoring.size,
        "root": anchoring.root.hex(),
        "block_number": anchoring.block_number,
        "tx_hash": anchoring.tx_hash.hex(),
    }


def _entry(
    row: Any, withheld: Collection[str], proof: Sequence[bytes] | None = None
) -> msgspec.Raw:
    """A record, whole or in committed form, with its index in the log and its proof.

    Written at once: a file can have a million, and as objects they would take three times as much.
    """
    shown, openings = committed_form(row.body, withheld) if withheld else (row.body, None)
    entry = {"index": row.leaf_index, "record": shown.decode()}
    if proof is not None:
        entry["proof"] = _hexes(proof)
    if openings is not None:
        entry["openings"] = _openings(openings)
    return msgspec.Raw(canonical.encode_own(entry))


def _openings(openings: Mapping[str, Opening]) -> dict[str, Any]:
    return {
        name: {"salt": opening.salt.hex(), "value": opening.value}
        for name, opening in openings.items()
    }


def _records_of(connection: sa.Connection, view: SessionView) -> Sequence[Any]:
    """The records of a session that have their place in the log, each with it."""
    query = (
        sa.select(_leaf.label("leaf_index"), _records.c.body)
        .join(_batches, _batches.c.id == _records.c.id - _position)
        .where(_records.c.stream == view.id, _batches.c.first_leaf.is_not(None))
        .order_by(_records.c.seq)
    )
    return connection.execute(query).all()


def _discrepancies(
    connection: sa.Connection, view: SessionView, withheld: Collection[str]
) -> list[dict[str, Any]]:
    """Every discrepancy that was noted of the session, open or resolved.

    Its evidence is free in form. It could tell what is withheld, so then it is withheld, too.
    """
    columns = _noted.c
    query = (
        sa.select(_noted)
        .where(columns.session_id == view.id)
        .order_by(columns.first_seen_ms, columns.id)
    )
    return [
        {
            "kind": row.kind,
            "severity": row.severity,
            "evidence": None if withheld else canonical.decode_object(row.evidence_json.encode()),
            "first_seen_ms": row.first_seen_ms,
            "last_seen_ms": row.last_seen_ms,
            "resolved_ms": row.resolved_ms,
        }
        for row in connection.execute(query)
    ]


def _session(
    view: SessionView, line: Sequence[SessionView], withheld: Collection[str]
) -> dict[str, Any]:
    """The session, and those that it is delegated from: the parent first."""
    return {
        "id": view.id,
        "workspace": view.workspace_id,
        "type": view.type,
        "label": None if "label" in withheld else view.label,
        "grant": view.grant.to_json(),
        "grant_hash": view.grant_hash.hex(),
        "consent": view.consent,
        "ancestors": [
            {
                "grant": above.grant.to_json(),
                "public_key": above.public_key.hex(),
                "consent": above.consent,
                "owner_signature": _hex(above.owner_signature),
            }
            for above in line
        ],
        "owner_signature": _hex(view.owner_signature),
        "public_key": view.public_key.hex(),
        "token_id": view.token_id.hex(),
    }


def _hexes(proof: Sequence[bytes]) -> list[str]:
    return [node.hex() for node in proof]


def _hex(signature: bytes | None) -> str | None:
    return None if signature is None else signature.hex()
