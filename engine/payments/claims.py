"""What the facilitator has broadcast, so that no authorization is ever broadcast twice.

A token refuses a used nonce itself, if it is honest and its chain is asked in time; a claim is what
holds when it is not. There is one per network, token, payer and nonce, written down durably before
its transaction is sent (`docs/decisions/0024-claims-of-the-facilitator.md`):

    nothing ──open──> sent ──close──> settled | refused | expired
       ^                │                │
       └──────free──────┴──────free──────┘   the transaction reverted, or another took its number

What is settled keeps its transaction until that is final: a reorganisation may undo it.

One process has the file, through the lock on its directory; one connection reads and writes it.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import sqlalchemy as sa

from engine.db.claim import APPLICATION_ID
from engine.db.sqlite import lasting_fault, writing_engine
from engine.errors import CannotStart, Unavailable

State = Literal["sent", "settled", "refused", "expired"]

FORMAT = 1
"""Kept in the file's header (`user_version`); another one is not read."""

_metadata = sa.MetaData()
_claims = sa.Table(
    "facilitator_claims",
    _metadata,
    sa.Column("network", sa.String, primary_key=True),
    sa.Column("token", sa.String, primary_key=True),
    sa.Column("payer", sa.String, primary_key=True),
    sa.Column("nonce", sa.LargeBinary, primary_key=True),
    sa.Column("digest", sa.LargeBinary, nullable=False),
    sa.Column("tx_hash", sa.LargeBinary, nullable=False),
    sa.Column("raw", sa.LargeBinary, nullable=False),
    sa.Column("sender", sa.String, nullable=False),
    sa.Column("sender_nonce", sa.Integer, nullable=False),
    sa.Column("state", sa.String, nullable=False),
    sa.Column("opened_ms", sa.Integer, nullable=False),
    sa.Index("facilitator_claims_by_number", "network", "sender", "sender_nonce"),
    sa.Index(
        "facilitator_claims_not_final",
        "network",
        sqlite_where=sa.text("state = 'settled' AND raw != x''"),
    ),
    sqlite_with_rowid=False,
)


@dataclass(frozen=True, slots=True)
class Key:
    """What a token lets happen once: CAIP-2 network, token and payer in lower case, 32 bytes."""

    network: str
    token: str
    payer: str
    nonce: bytes


@dataclass(frozen=True, slots=True)
class Claim:
    """A broadcast transaction, or one that was about to be.

    `digest` is that of the whole request that it answers. `raw` is the signed transaction, which
    `sender` may have mined as its number `sender_nonce` and never again.
    """

    key: Key
    digest: bytes
    tx_hash: bytes
    raw: bytes
    sender: str
    sender_nonce: int
    state: State
    opened_ms: int


class Claims:
    """The claims in a file. Every method may be called from any thread, and is durable.

    Raises:
        CannotStart: the file is damaged, of another program, or of another release.
        Unavailable: (every method) the file cannot be read or written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._fault: str | None = None
        self._engine = writing_engine(path)
        try:
            self._connection = self._engine.connect()
            self._prepare()
        except (sa.exc.DatabaseError, CannotStart) as error:
            self._engine.dispose()
            cause = getattr(error, "orig", error)
            raise CannotStart(
                f"claims of the facilitator {path} cannot be used: {cause}"
            ) from error

    def _prepare(self) -> None:
        with self._connection.begin():

            def pragma(name: str) -> Any:
                return self._connection.exec_driver_sql(f"PRAGMA {name}").scalar()

            found = (pragma("application_id"), pragma("user_version"))
            if found == (0, 0) and not sa.inspect(self._connection).get_table_names():
                self._connection.exec_driver_sql(f"PRAGMA application_id = {APPLICATION_ID}")
                self._connection.exec_driver_sql(f"PRAGMA user_version = {FORMAT}")
                _metadata.create_all(self._connection)
            elif found != (APPLICATION_ID, FORMAT):
                raise CannotStart("it is of another program or release")
            elif (finding := pragma("quick_check(1)")) != "ok":
                raise CannotStart(f"it is corrupt: {finding}")

    def find(self, key: Key) -> Claim | None:
        """The claim of a key, in whatever state."""
        with self._transaction() as connection:
            row = connection.execute(sa.select(_claims).where(*_is(key))).first()
        return None if row is None else _claim(row)

    def not_final(self, network: str) -> list[Claim]:
        """What is settled on a network, as far as its transaction is still known."""
        wanted = _claims.c.network == network, sa.text("state = 'settled' AND raw != x''")
        with self._transaction() as connection:
            rows = connection.execute(sa.select(_claims).where(*wanted)).all()
        return [_claim(row) for row in rows]

    def rivals(self, claim: Claim) -> list[bytes]:
        """The hashes of other transactions with the same number, of which only one can be mined."""
        with self._transaction() as connection:
            found = connection.execute(
                sa.select(_claims.c.tx_hash).where(
                    _claims.c.network == claim.key.network,
                    _claims.c.sender == claim.sender,
                    _claims.c.sender_nonce == claim.sender_nonce,
                    _claims.c.tx_hash != claim.tx_hash,
                )
            )
            return [row.tx_hash for row in found]

    def open(self, claim: Claim) -> None:
        """Write a claim down; when this returns, its transaction may be sent."""
        with self._transaction() as connection:
            connection.execute(
                _claims.insert().values(
                    network=claim.key.network,
                    token=claim.key.token,
                    payer=claim.key.payer,
                    nonce=claim.key.nonce,
                    digest=claim.digest,
                    tx_hash=claim.tx_hash,
                    raw=claim.raw,
                    sender=claim.sender,
                    sender_nonce=claim.sender_nonce,
                    state=claim.state,
                    opened_ms=claim.opened_ms,
                )
            )

    def close(self, key: Key, state: State, *, final: bool = True) -> None:
        """Note the end of a claim; what is not final yet may have to be sent again."""
        # The transaction is the greater part of the row.
        forgotten = {"raw": b""} if final else {}
        with self._transaction() as connection:
            connection.execute(_claims.update().where(*_is(key)).values(state=state, **forgotten))

    def forget(self, claim: Claim) -> None:
        """Forget the transaction of what is settled and final: it need not be sent again."""
        ours = *_is(claim.key), _claims.c.tx_hash == claim.tx_hash, _claims.c.state == "settled"
        with self._transaction() as connection:
            connection.execute(_claims.update().where(*ours).values(raw=b""))

    def free(self, key: Key, tx_hash: bytes | None = None) -> None:
        """Forget a claim whose transaction moved nothing and never will; with a hash that one's."""
        wanted = _is(key) if tx_hash is None else (*_is(key), _claims.c.tx_hash == tx_hash)
        with self._transaction() as connection:
            connection.execute(_claims.delete().where(*wanted))

    def dispose(self) -> None:
        """Close the file; whoever still wants something of it is refused."""
        with self._lock:
            self._fault = self._fault or "closed"
            self._connection.close()
            self._engine.dispose()

    @contextmanager
    def _transaction(self) -> Iterator[sa.Connection]:
        with self._lock:
            if self._fault is not None:
                raise Unavailable(f"the claims failed: {self._fault}; start the facilitator again")
            if not self._path.exists():  # what is written to a removed file is lost
                raise Unavailable("the file of claims is gone")
            try:
                with self._connection.begin():
                    yield self._connection
            except sa.exc.DBAPIError as error:
                self._fault = lasting_fault(error)
                raise Unavailable("the claims cannot be read or written") from error


def _claim(row: Any) -> Claim:
    return Claim(
        Key(row.network, row.token, row.payer, row.nonce),
        row.digest,
        row.tx_hash,
        row.raw,
        row.sender,
        row.sender_nonce,
        row.state,
        row.opened_ms,
    )


def _is(key: Key) -> tuple[sa.ColumnElement[bool], ...]:
    return (
        _claims.c.network == key.network,
        _claims.c.token == key.token,
        _claims.c.payer == key.payer,
        _claims.c.nonce == key.nonce,
    )
