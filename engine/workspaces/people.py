"""People: operators who sign in to the Studio by passkey, and what each role may do there.

A person is made with a token that is shown once and sets up the first passkey, within
`SETUP_TTL_MS`. Like a key of an operator, a person has an id (`key_…`) that records name as the
actor, and ends when that is revoked. What a browser proves (WebAuthn) is checked by the Studio;
here it is written down, once.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import sqlalchemy as sa

from engine.audit.rest import rest_hash
from engine.db.database import Database, Read
from engine.db.keys import ApiKey
from engine.db.passkeys import Passkey, SignIn, SpentChallenge
from engine.db.tables import table
from engine.errors import Conflict, InvalidInput, NotFound, Unauthenticated
from engine.identifiers import secret_hash
from engine.ledger.batch import Batch
from engine.ledger.stream import workspace_stream
from engine.ledger.writer import Writer
from engine.workspaces.access import (
    DEFAULT_WORKSPACE,
    SETUP_TOKEN_PREFIX,
    write_operator_key,
)

Role = Literal["admin", "operator", "approver", "auditor", "viewer"]
Act = Literal["look", "examine", "try", "approve", "tighten", "loosen", "connect", "invite"]
"""`examine` is evidence, the log, keys and reconciliation; `loosen` raises authority; `connect` is
webhooks, which tell others what happens here."""

ACTS: tuple[Act, ...] = get_args(Act)
MAY: Mapping[Role, frozenset[Act]] = {
    "admin": frozenset(ACTS),
    "operator": frozenset(ACTS) - {"invite"},
    "approver": frozenset(("look", "try", "approve")),
    "auditor": frozenset(("look", "examine", "try")),
    "viewer": frozenset(("look",)),
}
"""The one table of what roles may do in the Studio."""

ROLES: tuple[Role, ...] = tuple(MAY)
"""Who may most comes first, who may least comes last."""
SETUP_TTL_MS = 24 * 3_600_000
_FIRST = "First operator"
"""Whom nobody in the Studio invited, but whoever started the server."""
IDLE_MS = 30 * 60_000
SIGNED_IN_MAX_MS = 12 * 3_600_000
"""A browser is signed out after so long without a request, and after so long in any case."""
SEEN_EVERY_MS = 60_000

_keys = table(ApiKey)
_passkeys = table(Passkey)
_sign_ins = table(SignIn)
_spent = table(SpentChallenge)


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who is signed in, or sets up a passkey."""

    workspace_id: str
    key_id: str
    role: Role
    name: str | None

    def may(self, act: Act) -> bool:
        """Whether the role allows it."""
        return act in MAY[self.role]


@dataclass(frozen=True, slots=True)
class Credential:
    """A passkey as it is stored; see `Passkey`."""

    id: str
    key_id: str
    public_key: bytes
    backup_eligible: bool
    sign_count: int


@dataclass(frozen=True, slots=True)
class Assertion:
    """What a passkey answered: WebAuthn's `clientDataJSON`, `authenticatorData`, and the signature
    over the one and the hash of the other."""

    client_data: str
    authenticator_data: bytes
    signature: bytes


class People:
    """Every passkey, every person and every act that a passkey answered for is a record of the
    workspace; who is signed in is not."""

    def __init__(self, database: Database, writer: Writer) -> None:
        self._database = database
        self._writer = writer

    def first(self, *, another: bool = False) -> str | None:
        """A token that sets up the first person of the installation, an admin; None if somebody
        has a passkey, unless `another` is wanted: passkeys get lost. A token from an earlier start
        is invalid from then on."""

        def command(batch: Batch) -> str | None:
            if not another and batch.read(sa.select(_passkeys.c.id).limit(1)).first() is not None:
                return None
            waiting = sa.and_(
                *(_is_person(), _is_in_setup(), _keys.c.revoked_ms.is_(None)),
                *(_keys.c.role == "admin", _keys.c.name == _FIRST),
            )
            stream = workspace_stream(DEFAULT_WORKSPACE)
            query = sa.select(_keys.c.id).where(waiting, _keys.c.workspace_id == DEFAULT_WORKSPACE)
            for key_id in batch.read(query).scalars().all():
                batch.update(
                    sa.update(_keys).where(_keys.c.id == key_id).values(revoked_ms=batch.now_ms)
                )
                batch.record(stream, "key.revoked", {"key": key_id, "role": "admin", "by": None})
            return _write_person(batch, DEFAULT_WORKSPACE, "admin", _FIRST, by=None)

        return self._writer.call(command, DEFAULT_WORKSPACE)

    def invite(self, by: Person, role: str, name: str) -> str:
        """Make a person in the workspace of `by`; returns the token that sets up the passkey.

        Raises:
            InvalidInput: there is no such role, or the name is empty or too long.
        """
        if role not in ROLES:
            raise InvalidInput("role", f"takes one of {', '.join(ROLES)}")
        if not 0 < len(name) <= 100 or not name.isprintable():
            raise InvalidInput("name", "takes 1 to 100 printable characters")
        where = by.workspace_id
        return self._writer.call(
            lambda batch: _write_person(batch, where, role, name, by=by.key_id), where
        )

    def in_setup(self, token: str, now_ms: int) -> Person:
        """Whose set-up token this is.

        Raises:
            Unauthenticated: nobody's, or it is over or was used.
        """
        with self._database.reading() as connection:
            return _in_setup(connection.execute, token, now_ms)

    def set_up(self, token: str, credential: Credential) -> Person:
        """Give the person whose token it is a first passkey, which uses the token up.

        Raises:
            Unauthenticated: see `in_setup`.
            Conflict: somebody has this passkey.
        """
        with self._database.reading() as connection:
            found = connection.execute(sa.select(_keys.c.workspace_id).where(_token(token)))
            workspace_id = found.scalar_one_or_none() or DEFAULT_WORKSPACE

        def command(batch: Batch) -> Person:
            person = _in_setup(batch.read, token, batch.now_ms)
            if _credential(batch.read, credential.id) is not None:
                raise Conflict("this passkey is set up already", code="passkey_exists")
            row = {
                "workspace_id": person.workspace_id,
                "id": credential.id,
                "key_id": person.key_id,
                "public_key": credential.public_key,
                "backup_eligible": credential.backup_eligible,
                "sign_count": credential.sign_count,
                "created_ms": batch.now_ms,
            }
            told = {
                "key": person.key_id,
                "passkey": credential.id,
                "backup_eligible": credential.backup_eligible,
                "rest_hash": rest_hash(public_key=credential.public_key),
                "by": person.key_id,
            }
            batch.insert(_passkeys, row)
            batch.record(workspace_stream(person.workspace_id), "passkey.added", told)
            return person

        return self._writer.call(command, workspace_id)

    def credential(self, credential_id: str) -> Credential | None:
        """A passkey by the id of its credential."""
        with self._database.reading() as connection:
            return _credential(connection.execute, credential_id)

    def sign_in(
        self, used: Credential, sign_count: int, challenge: str, expires_ms: int
    ) -> tuple[Person, str]:
        """Sign a browser in that answered a challenge with a passkey; returns the secret of its
        cookie.

        Raises:
            Unauthenticated: the challenge was answered before, or the person is revoked.
        """

        def command(batch: Batch) -> tuple[Person, str]:
            person = _person(batch.read, _keys.c.id == used.key_id)
            _spend(batch, used, sign_count, challenge, expires_ms)
            batch.update(
                sa.delete(_sign_ins).where(
                    _sign_ins.c.created_ms <= batch.now_ms - SIGNED_IN_MAX_MS
                )
            )
            secret = batch.identifiers.secret("")
            now_ms = batch.now_ms
            values = {"secret_hash": secret_hash(secret), "created_ms": now_ms, "seen_ms": now_ms}
            batch.insert(_sign_ins, {"key_id": person.key_id, **values})
            return person, secret

        return self._writer.call(command)

    def passkeys(self, key_id: str) -> list[Credential]:
        """The passkeys of a person."""
        with self._database.reading() as connection:
            return _credentials(connection.execute, _passkeys.c.key_id == key_id)

    def prove(
        self,
        person: Person,
        used: Credential,
        sign_count: int,
        challenge: str,
        expires_ms: int,
        *,
        asked: Mapping[str, Any] | None = None,
        assertion: Assertion | None = None,
    ) -> None:
        """Note that a challenge was answered with a passkey, which is possible once.

        With `asked`, of which the challenge is made, that and the `assertion` go on the record, so
        that others can check it as well.

        Raises:
            Unauthenticated: it was before, the authenticator's counter went on meanwhile, or the
                person is revoked.
        """

        def command(batch: Batch) -> None:
            _person(batch.read, _keys.c.id == person.key_id)
            _spend(batch, used, sign_count, challenge, expires_ms)
            if asked is None or assertion is None:
                return
            told = {
                "key": person.key_id,
                "passkey": used.id,
                "public_key": used.public_key.hex(),
                "asked": dict(asked),
                "client_data": assertion.client_data,
                "authenticator_data": assertion.authenticator_data.hex(),
                "signature": assertion.signature.hex(),
                "by": person.key_id,
            }
            batch.record(workspace_stream(person.workspace_id), "passkey.answered", told)

        self._writer.call(command, person.workspace_id)

    def revoke(self, by: Person, key_id: str) -> None:
        """End what a person may do, at once and for good; again changes nothing.

        Raises:
            NotFound: there is no such person in the workspace.
            Conflict: nobody would be left who can invite others.
        """

        def command(batch: Batch) -> None:
            ours = sa.and_(_is_person(), _keys.c.workspace_id == by.workspace_id)
            columns = (_keys.c[name] for name in ("id", "role", "revoked_ms"))
            query = sa.select(*columns).where(ours, _keys.c.id == key_id)
            row = batch.read(query).first()
            if row is None:
                raise NotFound("no such person", code="person_not_found")
            if row.revoked_ms is not None:
                return
            if row.role == "admin" and not _another_admin(batch.read, ours, key_id):
                raise Conflict(
                    "nobody else who has a passkey is an admin; invite somebody first",
                    code="last_admin",
                )
            batch.update(
                sa.update(_keys).where(_keys.c.id == key_id).values(revoked_ms=batch.now_ms)
            )
            batch.update(sa.delete(_sign_ins).where(_sign_ins.c.key_id == key_id))
            told = {"key": key_id, "role": row.role, "by": by.key_id}
            batch.record(workspace_stream(by.workspace_id), "key.revoked", told)

        self._writer.call(command, by.workspace_id)

    def signed_in(self, secret: str, now_ms: int, *, seen: bool = True) -> Person:
        """Who is signed in with this cookie; without `seen` that is no sign of life.

        Raises:
            Unauthenticated: nobody, or not any more.
        """
        ours = _sign_ins.c.secret_hash == secret_hash(secret)
        with self._database.reading() as connection:
            row = connection.execute(sa.select(_sign_ins).where(ours)).first()
            if (
                row is None
                or now_ms - row.seen_ms >= IDLE_MS
                or now_ms - row.created_ms >= SIGNED_IN_MAX_MS
            ):
                raise Unauthenticated("sign in first", code="not_signed_in")
            person = _person(connection.execute, _keys.c.id == row.key_id)
        if seen and now_ms - row.seen_ms >= SEEN_EVERY_MS:
            rows = sa.update(_sign_ins).where(ours)
            self._writer.submit(lambda batch: batch.update(rows.values(seen_ms=batch.now_ms)))
        return person

    def sign_out(self, secret: str) -> None:
        """End it; the cookie is worth nothing from then on."""
        ours = _sign_ins.c.secret_hash == secret_hash(secret)
        self._writer.call(lambda batch: batch.update(sa.delete(_sign_ins).where(ours)))


def _is_person() -> sa.ColumnElement[bool]:
    return _keys.c.prefix.startswith(SETUP_TOKEN_PREFIX)


def _is_in_setup() -> sa.ColumnElement[bool]:
    return ~sa.exists().where(_passkeys.c.key_id == _keys.c.id)


def _token(token: str) -> sa.ColumnElement[bool]:
    return sa.and_(_is_person(), _keys.c.secret_hash == secret_hash(token))


def _write_person(batch: Batch, workspace_id: str, role: str, name: str, *, by: str | None) -> str:
    token = batch.identifiers.secret(SETUP_TOKEN_PREFIX)
    write_operator_key(batch, workspace_id, role, token, name=name, by=by)
    return token


def _in_setup(read: Read, token: str, now_ms: int) -> Person:
    return _person(read, _token(token), _is_in_setup(), _keys.c.created_ms > now_ms - SETUP_TTL_MS)


def _person(read: Read, *where: sa.ColumnElement[bool]) -> Person:
    columns = (_keys.c[name] for name in ("workspace_id", "id", "role", "name"))
    row = read(
        sa.select(*columns).where(_is_person(), _keys.c.revoked_ms.is_(None), *where)
    ).first()
    if row is None or row.role not in ROLES:
        raise Unauthenticated("it is not valid, or not any more", code="not_signed_in")
    return Person(row.workspace_id, row.id, row.role, row.name)


def _credential(read: Read, credential_id: str) -> Credential | None:
    return next(iter(_credentials(read, _passkeys.c.id == credential_id)), None)


def _credentials(read: Read, which: sa.ColumnElement[bool]) -> list[Credential]:
    columns = (_passkeys.c[name] for name in Credential.__dataclass_fields__)
    return [Credential(**row) for row in read(sa.select(*columns).where(which)).mappings()]


def _another_admin(read: Read, ours: sa.ColumnElement[bool], key_id: str) -> bool:
    """Whether another admin has a passkey, and not only a token to set one up."""
    has_passkey = sa.exists().where(_passkeys.c.key_id == _keys.c.id)
    valid = _keys.c.role == "admin", _keys.c.revoked_ms.is_(None), _keys.c.id != key_id
    return read(sa.select(_keys.c.id).where(ours, has_passkey, *valid)).first() is not None


def _spend(
    batch: Batch, used: Credential, sign_count: int, challenge: str, expires_ms: int
) -> None:
    spent = sa.select(_spent.c.challenge).where(_spent.c.challenge == challenge)
    if batch.read(spent).first() is not None:
        raise Unauthenticated("it was answered before", code="challenge_spent")
    if _credential(batch.read, used.id) != used:
        raise Unauthenticated("the passkey was used meanwhile", code="challenge_spent")
    batch.update(sa.delete(_spent).where(_spent.c.expires_ms <= batch.now_ms))
    batch.insert(_spent, {"key_id": used.key_id, "challenge": challenge, "expires_ms": expires_ms})
    batch.update(
        sa.update(_passkeys).where(_passkeys.c.id == used.id).values(sign_count=sign_count)
    )
