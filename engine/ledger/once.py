"""What is made once under an idempotency key: asked for again, it is answered again.

A payment needs none of this: its record has the key. Of a session, an intent, a key or a webhook a
row keeps, for a day, what was made and its secret, sealed, and of what was asked for a hash of each
field, so that another request under the same key hears which one differs.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar

import sqlalchemy as sa

from engine.audit.canonical import encode
from engine.db.once import IdempotencyKey
from engine.db.tables import table
from engine.errors import CannotStart, Conflict, Unavailable
from engine.ledger.batch import Batch, Command
from engine.ledger.writer import Writer

KEPT_MS = 24 * 3_600_000
"""So long at least the same request is answered again."""

_kept = table(IdempotencyKey)
_DIGITS = 16


class Named(Protocol):
    """What is made: it has an id."""

    @property
    def id(self) -> str:
        """By which it is found again."""


class Seals(Protocol):
    """What keeps secrets; see `engine.sessions.vault`."""

    def seal(self, secret: bytes, context: str) -> bytes:
        """Encrypt."""

    def open(self, sealed: bytes, context: str) -> bytes:
        """Decrypt, or raise `CannotStart`."""


Made = TypeVar("Made", bound=Named)
Make = Callable[[Batch], tuple[Made, str]]
"""Makes something, and its secret."""
Find = Callable[[Batch, str], Made]
"""Reads by its id what was made."""


class Once:
    """A request under an idempotency key of its caller, which is a key or a session.

    `asked` is what was asked for at `path`, by the caller's names. Once it is answered, `replayed`
    says whether it was before.
    """

    def __init__(
        self, seals: Seals, caller: str, key: str, path: str, asked: Mapping[str, Any]
    ) -> None:
        self._seals = seals
        self._caller = caller
        self._key = key
        self._fields = {
            name: hashlib.sha256(encode(value)).hexdigest()[:_DIGITS]
            for name, value in {"path": path, **asked}.items()
        }
        self.replayed = False

    def answer(self, batch: Batch, make: Make[Made], find: Find[Made]) -> tuple[Made, str]:
        """What `make` makes, and its secret; or what it made before, which `find` reads.

        Raises:
            Conflict: the key was used for another request; `field` differs.
            Unavailable: what is kept was sealed by another key-encryption key.
        """
        ours = _kept.c.caller == self._caller, _kept.c.key == self._key
        row = batch.read(sa.select(_kept).where(*ours)).first()
        self.replayed = row is not None
        if row is not None:
            self._check_same(row.fields_json)
            return find(batch, row.made), self._opened(row.made, row.sealed)
        made, secret = make(batch)
        batch.insert(
            _kept,
            {
                "caller": self._caller,
                "key": self._key,
                "fields_json": encode(self._fields).decode(),
                "made": made.id,
                "sealed": self._seals.seal(secret.encode(), self._context(made.id)),
                "created_ms": batch.now_ms,
            },
        )
        return made, secret

    def _check_same(self, fields_json: str) -> None:
        before: Mapping[str, str] = json.loads(fields_json)
        for field in ["path", *sorted(before.keys() | self._fields.keys())]:
            if before.get(field) != self._fields.get(field):
                raise Conflict(
                    f"this idempotency key was used for another request: {field} differs",
                    code="idempotency_key_reused",
                    field=field,
                )

    def _opened(self, made: str, sealed: bytes) -> str:
        try:
            return self._seals.open(sealed, self._context(made)).decode()
        except CannotStart as error:
            raise Unavailable(error.message) from error

    def _context(self, made: str) -> str:
        return f"idempotency {self._caller} {self._key} {made}"


def made_once(once: Once | None, make: Make[Made], find: Find[Made]) -> Command[tuple[Made, str]]:
    """The command that makes something and its secret: each time, or once under a key."""
    return make if once is None else lambda batch: once.answer(batch, make, find)


def forget_answers(writer: Writer) -> None:
    """Drop what was kept for `KEPT_MS`."""

    def command(batch: Batch) -> None:
        batch.update(sa.delete(_kept).where(_kept.c.created_ms <= batch.now_ms - KEPT_MS))

    writer.call(command)
