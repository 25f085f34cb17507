"""What the records of a session make of its rows, and whether they replay under its policy."""

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from eth_utils.crypto import keccak

from engine.audit import consent
from engine.audit.canonical import encode
from engine.audit.lowering import LOWERED, UNLOWERED, Lowering, follow_lowering, lowered_to_json
from engine.audit.record import Record
from engine.audit.replay import Replay, ReplayError
from engine.audit.rest import rest_hash
from engine.audit.restricting import RESTRICTED, Above, above_to_json, follow_above
from engine.db.settlements import Settlement
from engine.db.tables import Approval, Session, SessionKey, table
from engine.fsck.chain import check_session
from engine.fsck.finding import UNSAID, Findings, Row, stored
from engine.fsck.installation import Installation
from engine.fsck.payments import Approvals, Payments
from engine.fsck.settlements import Settlements
from engine.fsck.streams import Entry
from engine.grant import NO_PARENT, Grant
from engine.ledger.stream import Stream

_approvals = table(Approval)
_keys = table(SessionKey)
_sessions = table(Session)
_settlements = table(Settlement)

_TOLD = {
    "session.created": "agent.session.created",
    "session.revoked": "agent.session.revoked",
    "session.expired": "agent.session.expired",
}
"""The events that stand beside records of a session's life."""


class SessionFold:
    """Follows one session; its first record says whose it is and what it may do."""

    def __init__(
        self,
        connection: sa.Connection,
        findings: Findings,
        installation: Installation,
        first: Record,
    ) -> None:
        self._connection = connection
        self._findings = findings
        self._installation = installation
        told = first.body
        self.created = first
        self.grant = Grant.from_json(told["grant"])
        self.session_type: str | None = told["type"]
        self.label: str | None = told["label"]
        self.parent_id: str | None = told["parent_id"]
        self._lowered: tuple[Lowering, ...] = ()
        self._above: Above = {}
        stream = Stream(first.workspace, first.stream, self.session_type, self.label)
        self._grant_hash = self.grant.hash()
        self._replay: Replay | None = Replay(self.grant, self._grant_hash)
        self._approvals = Approvals(stream, told["approvals_required"])
        self._settlements = Settlements(stream)
        self._payments = Payments(findings, stream, self._approvals, self._settlements)
        self._row = self._first_row(first)

    def feed(self, entry: Entry) -> None:
        """See `Fold`."""
        record = entry.record
        self._follow_policy(entry)
        if record.kind.startswith("session."):
            self._live(record)
            self._payments.lives(record)
            self._payments.compare_event(entry, self._told(record))
            self._payments.expect_no_decision(entry)
        elif record.kind.startswith("approval."):
            self._payments.compare_event(entry, self._approvals.follow(record))
            self._payments.expect_no_decision(entry)
        else:
            self._payments.follow(entry)

    def finish(self) -> None:
        """See `Fold`."""
        self._payments.finish()
        session_id = self.created.stream
        row = self._one(_sessions, _sessions.c.id)
        self._findings.compare("sessions", session_id, self._row, row, by="its records")
        key = self._one(_keys, _keys.c.session_id)
        wanted = {
            "workspace_id": self.created.workspace,
            "session_id": session_id,
            "session_type": self.session_type,
            "label": self.label,
            "address": self.grant.session_key,
            "sealed": UNSAID,
        }
        self._findings.compare("session_keys", session_id, wanted, key, by="its grant")
        if row is not None:
            self._compare_identity(row)
            self._compare_rest("sessions", "rest_hash", row, "agent_name", "metadata_json")
            self._compare_parent(row)
            if self._replay is not None:
                registration = self._replay.registration
                check_session(self._connection, self._findings, row, registration, self._lowered)
        if key is not None:
            self._compare_rest("session_keys", "sealed_key_hash", key)
        query = sa.select(*stored(_approvals)).where(_approvals.c.session_id == session_id)
        self._approvals.compare(self._findings, self._connection.execute(query).mappings())
        query = sa.select(*stored(_settlements)).where(_settlements.c.session_id == session_id)
        self._settlements.compare(self._findings, self._connection.execute(query).mappings())

    def _follow_policy(self, entry: Entry) -> None:
        """Every decision must come out of the policy again."""
        if self._replay is None:
            return
        try:
            self._replay.feed((entry.record,))
        except ReplayError as error:
            self._findings.add(
                "records", entry.id, "body", says=f"it does not replay in its session: {error}"
            )
            self._replay = None

    def _first_row(self, first: Record) -> dict[str, Any]:
        told, grant = first.body, self.grant
        if told["grant_hash"] != self._grant_hash.hex():
            raise ValueError("its grant does not have the hash that it names")
        if grant.audit_log != self._installation.log_id:
            self._findings.add(
                "meta",
                "log_id",
                "value",
                found=self._installation.log_id,
                expected=grant.audit_log,
                says=f"the grant of {first.stream} names another log",
            )
        return {
            "workspace_id": first.workspace,
            "id": first.stream,
            "parent_id": told["parent_id"],
            "rotates_id": told.get("rotates"),
            "type": told["type"],
            "label": told["label"],
            "agent_id": grant.agent_id,
            "agent_name": UNSAID,
            "user_wallet": told["user_wallet"],
            "metadata_json": UNSAID,
            "state": told["state"],
            "paused_by": None,
            "consent": told["consent"],
            "grant_json": encode(grant.to_json()).decode(),
            "grant_hash": self._grant_hash,
            "restrictions_json": "[]",
            "restrictions_above_json": "{}",
            "lowered_json": "[]",
            "policy_version": 1,
            "approvals_required": told["approvals_required"],
            "owner_signature": None,
            "public_key": UNSAID,
            "token_id": UNSAID,
            "mint_pkp": told["mint_pkp"],
            "secret_hash": UNSAID,
            "created_ms": first.time_ms,
            "expires_ms": grant.valid_until_s * 1000,
            "ended_ms": None,
        }

    def _live(self, record: Record) -> None:
        """Follow one record of the session's life."""
        kind, body, row = record.kind, record.body, self._row
        row["state"] = body["state"]
        if kind == "session.paused":
            row["paused_by"] = body["by"]
        elif body["state"] != "paused":
            row["paused_by"] = None
        if kind in ("session.revoked", "session.expired"):
            row["ended_ms"] = record.time_ms
        elif kind == RESTRICTED and "ancestor_id" in body:
            self._above = follow_above(self._above, body)
            row["restrictions_above_json"] = above_to_json(self._above)
        elif kind == RESTRICTED:
            row["restrictions_json"] = encode(body["restrictions"]).decode()
            row["policy_version"] = body["policy_version"]
        elif kind in (LOWERED, UNLOWERED):
            self._lowered = follow_lowering(self._lowered, kind, body)
            row["lowered_json"] = lowered_to_json(self._lowered)
        elif kind == "session.consented":
            row["consent"] = body["consent"]
            row["owner_signature"] = bytes.fromhex(body["owner_signature"].removeprefix("0x"))
            self._check_signer(row["consent"], row["owner_signature"])

    def _check_signer(self, kind: str, signature: bytes) -> None:
        if kind == "erc1271":
            return  # only the owner's contract can tell, and the registry asked it
        try:
            signer = consent.signer(kind, signature, self.grant, self._installation.domain)
        except ValueError as error:
            signer = f"nobody: {error}"
        if signer != self.grant.owner:
            self._findings.add(
                "sessions",
                self.created.stream,
                "owner_signature",
                found=signer,
                expected=self.grant.owner,
                says="the owner did not sign this grant for the chain and registry in meta",
            )

    def _told(self, record: Record) -> tuple[str, Mapping[str, Any]] | None:
        name = _TOLD.get(record.kind)
        if name is None:
            return None
        return name, {
            "session_id": record.stream,
            "type": self.session_type,
            "label": self.label,
            "agent_id": self.grant.agent_id,
            "expires_ms": self.grant.valid_until_s * 1000,
        }

    def _one(self, of: sa.Table, key: sa.ColumnElement[Any]) -> Row | None:
        query = sa.select(*stored(of)).where(key == self.created.stream)
        return self._connection.execute(query).mappings().first()

    def _compare_identity(self, row: Row) -> None:
        """The key pair of the grant: its address is the end of the hash of the public key."""
        public_key = row["public_key"]
        hashed = keccak(public_key[1:]) if isinstance(public_key, bytes) else b""
        whole = public_key[:1] == b"\x04" and "0x" + hashed[-20:].hex() == self.grant.session_key
        if not whole:
            self._findings.add(
                "sessions",
                row["id"],
                "public_key",
                found=public_key,
                expected=f"the key of {self.grant.session_key}",
                says="it is not the key of the session's grant",
            )
        elif row["token_id"] != hashed:
            self._findings.add(
                "sessions",
                row["id"],
                "token_id",
                found=row["token_id"],
                expected=hashed,
                says="it is not the hash of the public key",
            )

    def _compare_rest(self, of: str, told: str, row: Row, *columns: str) -> None:
        """What the first record tells of these columns, and of the one with the secret, a hash."""
        secret = "secret_hash" if of == "sessions" else "sealed"
        columns = (*columns, secret)
        try:
            found = rest_hash(**{name: row[name] for name in columns})
        except ValueError:
            found = ""
        if found != self.created.body[told]:
            self._findings.add(
                of,
                self.created.stream,
                ", ".join(columns),
                found=found,
                expected=self.created.body[told],
                says=f"one of them was changed: their hash is not the {told} of record 0",
            )

    def _compare_parent(self, row: Row) -> None:
        above = sa.select(_sessions.c.grant_hash).where(_sessions.c.id == row["parent_id"])
        found = self._connection.execute(above).scalar_one_or_none() or NO_PARENT
        if found != self.grant.parent:
            self._findings.add(
                "sessions",
                row["id"],
                "parent_id",
                found=row["parent_id"],
                expected=f"the session with the grant {self.grant.parent.hex()}",
                says="the grant names another session as the one that delegates",
            )
