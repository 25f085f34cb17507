"""The keys of operators: more of them are made, listed, rotated, and revoked.

An approval counts keys as people, so nobody but the admin can make one more: whoever could would
grant twice. An operator can exchange the own key for another, of which one at a time is valid, and
can give it up.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import sqlalchemy as sa

from engine.db.database import Database, Read
from engine.db.keys import ApiKey
from engine.db.tables import Workspace, table
from engine.errors import Conflict, Forbidden, NotFound, Unauthenticated
from engine.ledger.batch import Batch
from engine.ledger.once import Once, made_once
from engine.ledger.stream import workspace_stream
from engine.ledger.writer import Writer
from engine.workspaces.access import (
    LIVE_OPERATOR_KEY_PREFIX,
    OPERATOR_KEY_PREFIX,
    SETUP_TOKEN_PREFIX,
    Operator,
    write_operator_key,
)

Answer = TypeVar("Answer")

_keys = table(ApiKey)
_workspaces = table(Workspace)


@dataclass(frozen=True, slots=True)
class OperatorKey:
    """An operator's key, without its secret. `prefix` are its first characters; `role` is `admin`
    or `operator`. Times are milliseconds."""

    workspace_id: str
    id: str
    role: str
    name: str | None
    prefix: str
    created_ms: int
    revoked_ms: int | None

    @property
    def live(self) -> bool:
        """Whether its prefix says so."""
        return self.prefix.startswith(LIVE_OPERATOR_KEY_PREFIX)


class OperatorKeys:
    """Every change is a record of the key's workspace."""

    def __init__(self, database: Database, writer: Writer) -> None:
        self._database = database
        self._writer = writer

    def create(
        self,
        caller: Operator,
        name: str,
        *,
        live: bool,
        workspace_id: str | None = None,
        once: Once | None = None,
    ) -> tuple[OperatorKey, str]:
        """Make a key for an operator of a workspace, the caller's unless one is named; returns it
        and its secret, which is not shown again but to `once`.

        Raises:
            NotFound: there is no such workspace.
            Forbidden: the caller is not the admin.
            Conflict: the idempotency key was used for another request.
        """
        _check_admin(caller)
        where = workspace_id or caller.workspace_id

        def make(batch: Batch) -> tuple[OperatorKey, str]:
            _check_valid(batch, caller)
            known = sa.select(_workspaces.c.id).where(_workspaces.c.id == where)
            if batch.read(known).first() is None:
                raise NotFound("no such workspace", code="workspace_not_found")
            secret = _new_secret(batch, live=live)
            by = caller.key_id
            key_id = write_operator_key(batch, where, "operator", secret, name=name, by=by)
            return _found(batch.read, caller, key_id), secret

        def find(batch: Batch, made: str) -> OperatorKey:
            return _found(batch.read, caller, made)

        return self._writer.call(made_once(once, make, find), where)

    def list(self, workspace_id: str) -> list[OperatorKey]:
        """The keys of a workspace, revoked ones too, the oldest first."""
        ours = _select().where(_keys.c.workspace_id == workspace_id)
        query = ours.order_by(_keys.c.created_ms, _keys.c.id)
        with self._database.reading() as connection:
            return [OperatorKey(**row) for row in connection.execute(query).mappings()]

    def revoke(self, caller: Operator, key_id: str) -> None:
        """Make a key invalid at once and for good; again changes nothing.

        Raises:
            NotFound: the caller sees no such key.
            Forbidden: it is another operator's, and the caller is not the admin.
            Conflict: it is the admin's, without which nobody could make another.
        """
        self._change(caller, key_id, lambda batch, key: self._revoke(batch, caller, key))

    def rotate(self, caller: Operator, key_id: str) -> tuple[OperatorKey, str]:
        """Put a new key in the place of one, which is invalid at once; returns it and its secret.

        Raises:
            NotFound, Forbidden: as `revoke`.
            Conflict: it is revoked.
        """
        return self._change(caller, key_id, lambda batch, key: self._rotate(batch, caller, key))

    def _change(
        self, caller: Operator, key_id: str, act: Callable[[Batch, OperatorKey], Answer]
    ) -> Answer:
        with self._database.reading() as connection:
            stream = _found(connection.execute, caller, key_id).workspace_id

        def command(batch: Batch) -> Answer:
            _check_valid(batch, caller)
            key = _found(batch.read, caller, key_id)
            if key_id != caller.key_id:
                _check_admin(caller)
            return act(batch, key)

        return self._writer.call(command, stream)

    def _revoke(self, batch: Batch, caller: Operator, key: OperatorKey) -> None:
        if key.role == "admin":
            raise Conflict("the admin's key can be rotated, not revoked", code="admin_key")
        if key.revoked_ms is None:
            _end(batch, caller, key)

    def _rotate(self, batch: Batch, caller: Operator, key: OperatorKey) -> tuple[OperatorKey, str]:
        if key.revoked_ms is not None:
            raise Conflict("the key is revoked", code="key_revoked")
        if key.prefix.startswith(SETUP_TOKEN_PREFIX):
            raise Conflict("it is a person's, who signs in by passkey", code="no_api_key")
        secret = _new_secret(batch, live=key.live)
        _end(batch, caller, key)
        where, role = key.workspace_id, key.role
        by, rotates = caller.key_id, key.id
        made = write_operator_key(batch, where, role, secret, name=key.name, by=by, rotates=rotates)
        return _found(batch.read, caller, made), secret


def _select() -> sa.Select[Any]:
    return sa.select(*(_keys.c[name] for name in OperatorKey.__dataclass_fields__))


def _found(read: Read, caller: Operator, key_id: str) -> OperatorKey:
    query = _select().where(_keys.c.id == key_id)
    if not caller.admin:
        query = query.where(_keys.c.workspace_id == caller.workspace_id)
    row = read(query).mappings().first()
    if row is None:
        raise NotFound("no such key", code="key_not_found")
    return OperatorKey(**row)


def _check_admin(caller: Operator) -> None:
    if not caller.admin:
        raise Forbidden("only the admin changes keys of others", code="admin_key_required")


def _check_valid(batch: Batch, caller: Operator) -> None:
    """Whoever was revoked meanwhile makes no key any more."""
    query = sa.select(_keys.c.id).where(_keys.c.id == caller.key_id, _keys.c.revoked_ms.is_(None))
    if batch.read(query).first() is None:
        raise Unauthenticated("the API key is not valid")


def _new_secret(batch: Batch, *, live: bool) -> str:
    return batch.identifiers.secret(LIVE_OPERATOR_KEY_PREFIX if live else OPERATOR_KEY_PREFIX)


def _end(batch: Batch, caller: Operator, key: OperatorKey) -> None:
    batch.update(sa.update(_keys).where(_keys.c.id == key.id).values(revoked_ms=batch.now_ms))
    told = {"key": key.id, "role": key.role, "by": caller.key_id}
    batch.record(workspace_stream(key.workspace_id), "key.revoked", told)
