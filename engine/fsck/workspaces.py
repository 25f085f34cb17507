"""What the records of a workspace make of it, of keys, agents, budgets and intents."""

from typing import Any

import sqlalchemy as sa

from engine.audit.canonical import encode
from engine.audit.record import Record
from engine.audit.rest import rest_hash
from engine.db.keys import Agent, AgentKey, AgentKeyUse, ApiKey
from engine.db.once import IdempotencyKey
from engine.db.passkeys import Passkey, SignIn, SpentChallenge
from engine.db.tables import BudgetRow, Session, Workspace, table
from engine.fsck.budgets import Founding, Foundings
from engine.fsck.events import Event, compare_event
from engine.fsck.finding import UNSAID, Findings, Row, stored
from engine.fsck.intents import IntentRows
from engine.fsck.streams import Entry
from engine.fsck.webhooks import WebhookRows
from engine.ledger.stream import budget_stream, workspace_stream
from engine.workspaces.agent_keys import key_row

_agents = table(Agent)
_agent_keys = table(AgentKey)
_budgets = table(BudgetRow)
_keys = table(ApiKey)
_passkeys = table(Passkey)
_uses = table(AgentKeyUse)
_workspaces = table(Workspace)

_MAKE_NO_ROW = ("workspace.closed", "chain.resumed", "passkey.answered")
"""Kinds of records of which nothing follows, or what does is in other records."""
_SECRET = ("prefix", "secret_hash")
_SECRET_OF_AGENTS = ("agent_name", "metadata_json", *_SECRET)
"""Columns of keys of which the record has one hash."""
_TOLD_OF_A_KEY = ("key", "agent_id", "name")

_Rows = dict[str, dict[str, Any]]


class WorkspaceFold:
    """Follows one workspace, and notes since when each budget counts."""

    session_type: str | None = None
    label: str | None = None

    def __init__(
        self, connection: sa.Connection, findings: Findings, foundings: Foundings, first: Record
    ) -> None:
        self._connection = connection
        self._findings = findings
        self._foundings = foundings
        self._id = first.stream
        self._workspaces: _Rows = {}
        self._keys: _Rows = {}
        self._agents: _Rows = {}
        self._agent_keys: _Rows = {}
        self._budgets: _Rows = {}
        self._passkeys: _Rows = {}
        self._rest: dict[str, str] = {}
        self._webhooks = WebhookRows(connection, findings, self._id)
        self._intents = IntentRows(connection, findings, self._id)

    def feed(self, entry: Entry) -> None:
        """See `Fold`."""
        record = entry.record
        event: Event | None = None
        if entry.decision is not None:
            self._findings.unexpected("decisions", entry.id, f"record {entry.id} decides nothing")
        what, _, happened = record.kind.partition(".")
        if record.kind in _MAKE_NO_ROW:
            pass
        elif record.kind == "workspace.created":
            self._workspaces[self._id] = {
                "id": self._id,
                "name": record.body["name"],
                "created_ms": record.time_ms,
            }
        elif what == "key":
            self._key(record, happened)
        elif record.kind.startswith("agent.key."):
            self._agent_key(record, happened)
            event = record.kind, {name: record.body[name] for name in _TOLD_OF_A_KEY}
        elif record.kind == "agent.registered":
            agent_id = record.body["agent_id"]
            self._agents[agent_id] = {
                "workspace_id": self._id,
                "id": agent_id,
                "name": record.body["name"],
                "created_ms": record.time_ms,
            }
        elif record.kind == "passkey.added":
            self._passkey(record)
        elif what == "budget":
            self._budget(entry, happened)
        elif what == "webhook":
            event = self._webhooks.follow(record, happened)
        elif what == "intent":
            event = self._intents.follow(record, happened)
        else:
            raise ValueError("no such kind of record")
        compare_event(self._findings, workspace_stream(self._id), entry, event)

    def finish(self) -> None:
        """See `Fold`."""
        self._compare("workspaces", _workspaces, _workspaces.c.id, self._workspaces)
        self._compare("agents", _agents, _agents.c.workspace_id, self._agents)
        self._compare("budgets", _budgets, _budgets.c.workspace_id, self._budgets)
        for row in self._compare("api_keys", _keys, _keys.c.workspace_id, self._keys):
            self._compare_secret("api_keys", row, _SECRET)
        for row in self._compare("passkeys", _passkeys, _passkeys.c.workspace_id, self._passkeys):
            self._compare_secret("passkeys", row, ("public_key",))
        owner = _agent_keys.c.workspace_id
        for row in self._compare("agent_keys", _agent_keys, owner, self._agent_keys):
            self._compare_secret("agent_keys", row, _SECRET_OF_AGENTS)
        self._webhooks.finish()
        self._intents.finish()

    def _key(self, record: Record, happened: str) -> None:
        body = record.body
        if happened == "created":
            self._rest[body["key"]] = body["rest_hash"]
            self._keys[body["key"]] = {
                "workspace_id": self._id,
                "id": body["key"],
                "role": body["role"],
                "name": body["name"],
                "prefix": UNSAID,
                "secret_hash": UNSAID,
                "created_ms": record.time_ms,
                "revoked_ms": None,
            }
        elif happened in ("revoked", "restored"):
            revoked_ms = record.time_ms if happened == "revoked" else None
            self._keys[body["key"]]["revoked_ms"] = revoked_ms
        else:
            raise ValueError("no such kind of record")

    def _passkey(self, record: Record) -> None:
        body = record.body
        self._rest[body["passkey"]] = body["rest_hash"]
        self._passkeys[body["passkey"]] = {
            "workspace_id": self._id,
            "id": body["passkey"],
            "key_id": body["key"],
            "public_key": UNSAID,
            "backup_eligible": body["backup_eligible"],
            "sign_count": UNSAID,
            "created_ms": record.time_ms,
        }

    def _agent_key(self, record: Record, happened: str) -> None:
        told = dict(record.body)
        if happened == "key.created":
            self._rest[told["key"]] = told["rest_hash"]
            self._agent_keys[told["key"]] = {
                **key_row(self._id, told, record.time_ms),
                **dict.fromkeys(_SECRET_OF_AGENTS, UNSAID),
            }
        elif happened == "key.revoked":
            self._agent_keys[told["key"]]["revoked_ms"] = record.time_ms
        else:
            raise ValueError("no such kind of record")

    def _budget(self, entry: Entry, happened: str) -> None:
        body = entry.record.body
        budget, in_force = body["budget"], happened == "set"
        self._budgets[budget] = {
            "workspace_id": self._id,
            "id": budget,
            "limits_json": encode(body["limits"]).decode() if in_force else None,
            "version": body["version"],
            "updated_ms": entry.record.time_ms,
        }
        stream = budget_stream(self._id, budget)
        self._foundings.note(
            Founding(stream, self._id, budget, entry.id, entry.record.time_ms, in_force)
        )

    def _compare(
        self, name: str, of: sa.Table, owner: sa.ColumnElement[Any], expected: _Rows
    ) -> list[Row]:
        """Compare all rows of the workspace; returns those that should be there and are."""
        rows = self._connection.execute(sa.select(*stored(of)).where(owner == self._id)).mappings()
        found = {row["id"]: row for row in rows}
        known: list[Row] = []
        for key, wanted in expected.items():
            row = found.pop(key, None)
            where = key if key == self._id else f"{self._id}/{key}"
            self._findings.compare(name, where, wanted, row, by=f"the records of {self._id}")
            if row is not None:
                known.append(row)
        for key in found:
            where = f"{self._id}/{key}"
            self._findings.unexpected(name, where, f"no record of {self._id} tells of it")
        return known

    def _compare_secret(self, table_name: str, row: Row, columns: tuple[str, ...]) -> None:
        try:
            found = rest_hash(**{name: row[name] for name in columns})
        except ValueError:
            found = ""
        if found != self._rest[row["id"]]:
            self._findings.add(
                table_name,
                f"{self._id}/{row['id']}",
                ", ".join(columns),
                found=found,
                expected=self._rest[row["id"]],
                says="one of them was changed: their hash is not the one in the key's record",
            )


def check_uses(connection: sa.Connection, findings: Findings) -> None:
    """What was counted is counted for a key that there is, who is signed in is somebody, and what
    was made once was made for somebody."""
    for rows, name, those in (
        (_uses, "key_id", (_agent_keys,)),
        (table(SignIn), "key_id", (_keys,)),
        (table(SpentChallenge), "key_id", (_keys,)),
        (table(IdempotencyKey), "caller", (_keys, table(Session))),
    ):
        known = sa.or_(*(sa.exists().where(each.c.id == rows.c[name]) for each in those))
        strange = sa.select(*rows.primary_key.columns).where(~known)
        for row in connection.execute(strange).all():
            where = "/".join(part.hex() if isinstance(part, bytes) else str(part) for part in row)
            findings.unexpected(rows.name, where, f"there is no such {name.removesuffix('_id')}")
