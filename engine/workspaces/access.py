"""Who is asking: operator keys and session tokens, by their hashes; and workspaces are made."""

import hmac
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from engine.audit.rest import rest_hash
from engine.db.database import Database
from engine.db.keys import ApiKey
from engine.db.tables import Meta, Session, Workspace, table
from engine.errors import CannotStart, Conflict, InvalidInput, Unauthenticated
from engine.identifiers import secret_hash
from engine.ledger.batch import Batch
from engine.ledger.stream import workspace_stream
from engine.ledger.writer import Writer

DEFAULT_WORKSPACE = "default"
OPERATOR_KEY_PREFIX = "zfi_test_"
LIVE_OPERATOR_KEY_PREFIX = "zfi_live_"
"""What a key is for; it may do the same."""
SETUP_TOKEN_PREFIX = "zfi_setup_"  # noqa: S105 (the public prefix of a secret)
"""A person's, who sets up a passkey with it; it opens nothing else (`engine.workspaces.people`)."""
SESSION_TOKEN_PREFIX = "zai_session_"  # noqa: S105 (the public prefix of a secret)
SHOWN_PREFIX_CHARACTERS = 12

_keys = table(ApiKey)
_meta = table(Meta)
_sessions = table(Session)
_workspaces = table(Workspace)


@dataclass(frozen=True, slots=True)
class Operator:
    """A caller who administers one workspace; `admin` may also make workspaces."""

    workspace_id: str
    key_id: str
    admin: bool
    live: bool = False
    """Whether the key's prefix says so: keys that are made with it say the same."""


@dataclass(frozen=True, slots=True)
class SessionHolder:
    """A caller who presented a session's token. `agent_id` is the session's agent."""

    workspace_id: str
    session_id: str
    agent_id: str


class Access:
    """Makes workspaces and operator keys, and recognises the secrets that callers present."""

    def __init__(self, database: Database, writer: Writer) -> None:
        self._database = database
        self._writer = writer

    def operator(self, secret: str) -> Operator:
        """The operator whose key this is.

        Raises:
            Unauthenticated: nobody's, or revoked.
        """
        if secret.startswith(SETUP_TOKEN_PREFIX):
            raise Unauthenticated("this token sets up a passkey in the Studio, and is no API key")
        wanted = secret_hash(secret)
        with self._database.reading() as connection:
            row = connection.execute(sa.select(_keys).where(_keys.c.secret_hash == wanted)).first()
        if (
            row is None
            or row.revoked_ms is not None
            or not hmac.compare_digest(row.secret_hash, wanted)
        ):
            raise Unauthenticated("the API key is not valid")
        live = row.prefix.startswith(LIVE_OPERATOR_KEY_PREFIX)
        return Operator(row.workspace_id, row.id, row.role == "admin", live)

    def session_holder(self, secret: str) -> SessionHolder:
        """The session whose token this is, whatever its state.

        Raises:
            Unauthenticated: no session's.
        """
        wanted = secret_hash(secret)
        columns = (_sessions.c[name] for name in ("workspace_id", "id", "agent_id", "secret_hash"))
        with self._database.reading() as connection:
            row = connection.execute(
                sa.select(*columns).where(_sessions.c.secret_hash == wanted)
            ).first()
        if row is None or not hmac.compare_digest(row.secret_hash, wanted):
            raise Unauthenticated("the session token is not valid", code="invalid_session_token")
        return SessionHolder(row.workspace_id, row.id, row.agent_id)

    def ensure_admin(self, secret: str | None) -> str | None:
        """Make the default workspace and its first key, once.

        With a `secret`, that is the admin key from now on and any other is revoked; without, a key
        is made if there is none, and returned: the only time it can be seen.

        Raises:
            CannotStart: `secret` is the key of an operator who is no admin.
        """
        return self._writer.call(lambda batch: self._ensure_admin(batch, secret), DEFAULT_WORKSPACE)

    def create_workspace(self, workspace_id: str, name: str, *, by: str | None = None) -> str:
        """Make a workspace and return its first operator key, which is not shown again.

        `by` is the admin's key, None where nobody asked with one.

        Raises:
            Conflict: the id is taken.
        """
        if not (0 < len(workspace_id) <= 64) or not all(
            character.isascii() and (character.isalnum() or character in "-_")
            for character in workspace_id
        ):
            raise InvalidInput("id", "must have 1 to 64 letters, digits, hyphens or underscores")
        return self._writer.call(
            lambda batch: self._create(batch, workspace_id, name, "operator", by=by), workspace_id
        )

    def _ensure_admin(self, batch: Batch, secret: str | None) -> str | None:
        exists = batch.read(
            sa.select(_workspaces.c.id).where(_workspaces.c.id == DEFAULT_WORKSPACE)
        ).first()
        if not exists:
            made = self._create(batch, DEFAULT_WORKSPACE, "Default workspace", "admin", secret)
            return None if secret else made
        if secret is None:
            return None
        known = batch.read(sa.select(_keys).where(_keys.c.secret_hash == secret_hash(secret)))
        if (key := known.first()) is not None and key.role != "admin":
            raise CannotStart(
                f"TALLYSTICK_ADMIN_KEY: this key belongs to an operator of workspace "
                f"{key.workspace_id}; choose another"
            )
        if key is not None and key.revoked_ms is None:
            return None
        stream = workspace_stream(DEFAULT_WORKSPACE)
        admins = (
            _keys.c.role == "admin",
            _keys.c.revoked_ms.is_(None),
            sa.not_(_keys.c.prefix.startswith(SETUP_TOKEN_PREFIX)),  # people sign in by passkey
        )
        for replaced in batch.read(sa.select(_keys.c.id).where(*admins)).scalars().all():
            batch.record(stream, "key.revoked", {"key": replaced, "role": "admin"})
        batch.update(sa.update(_keys).where(*admins).values(revoked_ms=batch.now_ms))
        if key is None:
            self._key(batch, DEFAULT_WORKSPACE, "admin", secret)
        else:  # an earlier one is in force again
            batch.update(sa.update(_keys).where(_keys.c.id == key.id).values(revoked_ms=None))
            batch.record(stream, "key.restored", {"key": key.id, "role": "admin"})
        return None

    def _create(
        self,
        batch: Batch,
        workspace_id: str,
        name: str,
        role: str,
        secret: str | None = None,
        by: str | None = None,
    ) -> str:
        if batch.read(sa.select(_workspaces.c.id).where(_workspaces.c.id == workspace_id)).first():
            raise Conflict(f"workspace {workspace_id} exists", code="workspace_exists")
        row = {"id": workspace_id, "name": name, "created_ms": batch.now_ms}
        batch.insert(_workspaces, {**row, "budgets_version": 0})
        told: dict[str, Any] = {"name": name, "by": by}
        if workspace_id == DEFAULT_WORKSPACE:  # made at the first start, when nothing of it changes
            rows = batch.read(sa.select(_meta.c.key, _meta.c.value)).all()
            told["installation"] = {row.key: rest_hash(**{row.key: row.value}) for row in rows}
        batch.record(workspace_stream(workspace_id), "workspace.created", told)
        secret = secret or batch.identifiers.secret(OPERATOR_KEY_PREFIX)
        self._key(batch, workspace_id, role, secret, by=by)
        return secret

    def _key(
        self, batch: Batch, workspace_id: str, role: str, secret: str, *, by: str | None = None
    ) -> None:
        write_operator_key(batch, workspace_id, role, secret, name=None, by=by)


def write_operator_key(
    batch: Batch,
    workspace_id: str,
    role: str,
    secret: str,
    *,
    name: str | None,
    by: str | None,
    rotates: str | None = None,
) -> str:
    """Write an operator's key and its record; returns its id.

    `by` is the key that asked for it, and `rotates` the one whose place it takes.
    """
    key_id = batch.identifiers.new("key")
    prefix, stored = secret[:SHOWN_PREFIX_CHARACTERS], secret_hash(secret)
    batch.insert(
        _keys,
        {
            "workspace_id": workspace_id,
            "id": key_id,
            "role": role,
            "name": name,
            "prefix": prefix,
            "secret_hash": stored,
            "created_ms": batch.now_ms,
            "revoked_ms": None,
        },
    )
    told = {"key": key_id, "role": role, "name": name, "by": by}
    if rotates is not None:
        told["rotates"] = rotates
    rest = rest_hash(prefix=prefix, secret_hash=stored)
    batch.record(workspace_stream(workspace_id), "key.created", {**told, "rest_hash": rest})
    return key_id
