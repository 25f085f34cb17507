"""A small real installation for tests: an engine on an embedded chain in a temporary directory."""

import atexit
import secrets
import shutil
import sqlite3
import tempfile
from pathlib import Path
from typing import Any

import psycopg
import sqlalchemy as sa
from eth_account import Account
from eth_account.signers.local import LocalAccount

from engine.audit.record import Record, decode_record
from engine.clock import Clock, ManualClock, system_clock
from engine.clock import stopwatch as system_stopwatch
from engine.engine import Engine, open_engine
from engine.ledger.payment import Payment
from engine.policy.decision import PaymentRequest
from engine.policy.limits import Limits
from engine.sessions.session import NewSession, SessionView
from engine.settings import Settings
from tests.ledger.oracle import query

USD = 1_000_000
WORKSPACE = "default"
NO_LIMITS = Limits(None, None, None, None, None)
NOT_AT_FIRST = {"anchor_interval_s", "hold_ttl_s", "poll_interval_ms", "reconcile_interval_s"}
"""Settings that a first start does not look at."""

_begun: dict[tuple[int | None, str | None, str], Path] = {}
"""Data directories after a first start and no more, by where a clock that is moved stood, what
encrypts the keys, and the server that has the database."""


def settings_for(directory: Path, **changes: Any) -> Settings:
    """Settings that share nothing with the machine: free ports, no timers."""
    return Settings(
        **{
            "data_dir": directory,
            "port": 0,
            "rpc_port": 0,
            "anchor_interval_s": 0,
            "reconcile_interval_s": 0,
            "poll_interval_ms": 20,
            **changes,
        }
    )


def begin(
    directory: Path, clock: Clock, database: str | None = None, kek: str | None = None
) -> None:
    """Have a data directory, and an empty database, as a first start leaves them: copies.

    Most tests begin with one, and to deploy the contracts each time would take most of their time.
    A database that is not empty was begun by another process: it and the directory are left alone.
    """
    instant = clock.now_ms if isinstance(clock, ManualClock) else None
    server = sa.make_url(database).set(database="postgres") if database else None
    if database is not None and not _empty(database):
        return
    kind = (instant, kek, str(server))
    if kind not in _begun:
        made = Path(tempfile.mkdtemp(prefix="tallystick-begun-"))
        atexit.register(shutil.rmtree, made, ignore_errors=True)
        at = system_clock if instant is None else ManualClock(instant)
        changes: dict[str, Any] = {"kek": kek}
        if server:
            _administer(server, f"CREATE DATABASE {_template(made)}")
            changes["database"] = _plain(server.set(database=_template(made)))
        open_engine(settings_for(made, **changes), clock=at).close()
        _begun[kind] = made
    shutil.copytree(_begun[kind], directory, dirs_exist_ok=True)
    if server:
        name = sa.make_url(str(database)).database
        from tests.servers import SPARE

        # Put aside for the next test: to drop it and make another takes a seventh of a second each.
        _administer(server, f"ALTER DATABASE {name} RENAME TO {SPARE}{secrets.token_hex(8)}")
        _administer(server, f"CREATE DATABASE {name} TEMPLATE {_template(_begun[kind])}")


def _template(made: Path) -> str:
    """The database that goes with a directory, by a name that needs no quotes."""
    return "begun_" + made.name.encode().hex()


def _plain(url: sa.URL) -> str:
    return url.render_as_string(hide_password=False)


def _empty(database: str) -> bool:
    with psycopg.connect(database) as connection:
        tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"
        return connection.execute(tables).fetchone() == (0,)


def _administer(server: sa.URL, statement: str) -> None:
    with psycopg.connect(_plain(server), autocommit=True) as connection:
        connection.execute(statement.encode())


class World:
    """An open engine and shorthands for what tests do with it.

    With `own` the first start is its own, so that key, log and contracts are no other world's.
    """

    def __init__(
        self, directory: Path, clock: Clock = system_clock, *, own: bool = False, **changes: Any
    ) -> None:
        self.settings = settings_for(directory, **changes)
        self.clock = clock
        begun = own or (directory.exists() and any(directory.iterdir()))
        if not begun and changes.keys() <= {"database", "kek", *NOT_AT_FIRST}:
            begin(directory, clock, changes.get("database"), changes.get("kek"))
        self.owner: LocalAccount = Account.create()
        self.engine: Engine = self._open()
        self.operator_key = self.engine.access.ensure_admin(None)

    @property
    def store(self) -> Path | str:
        """Where the ledger is: a file of SQLite, or the URL of a database of PostgreSQL."""
        if self.settings.database is not None:
            return self.settings.database.get_secret_value()
        return self.settings.data_dir / "ledger.sqlite3"

    @property
    def raw(self) -> sqlite3.Connection:
        """The one connection that writes to SQLite."""
        connection = self.engine.database.writer.connection.driver_connection
        assert isinstance(connection, sqlite3.Connection)
        return connection

    def reopen(self) -> None:
        """Close the engine and open the same directory again."""
        self.engine.close()
        self.engine = self._open()

    def _open(self) -> Engine:
        # Where the clock is moved by hand, time also passes by hand.
        stopwatch = self.clock if isinstance(self.clock, ManualClock) else system_stopwatch
        return open_engine(self.settings, clock=self.clock, stopwatch=stopwatch)

    def session(
        self, limits: Limits = NO_LIMITS, *, mint_pkp: bool = False, **changes: Any
    ) -> SessionView:
        """A session; with `mint_pkp` the owner signs and it is registered on the chain."""
        view = self.create(limits, mint_pkp=mint_pkp, **changes)
        return self.consent(view) if view.state == "awaiting_consent" else view

    def create(
        self,
        limits: Limits = NO_LIMITS,
        *,
        mint_pkp: bool = True,
        workspace: str = WORKSPACE,
        wait_s: float = 10,
        **changes: Any,
    ) -> SessionView:
        """A session that nobody has signed yet; by default a child ends before its parent."""
        hours = 24 if changes.get("parent_id") is None else 23
        fields: dict[str, Any] = {
            "type": "agent",
            "label": None,
            "agent_id": "bot",
            "agent_name": None,
            "user_wallet": self.owner.address,
            "owner": self.owner.address.lower(),
            "limits": limits,
            "permissions": (),
            "merchants": (),
            "tokens": (),
            "chains": (),
            "duration_ms": hours * 3_600_000,
            "mint_pkp": mint_pkp,
            "await_consent": mint_pkp,
            "metadata_json": "{}",
            **changes,
        }
        view, self.token = self.engine.create_session(
            workspace, NewSession(**fields), wait_s=wait_s
        )
        return view

    def consent(self, view: SessionView, *, wait_s: float = 10) -> SessionView:
        """The owner signs the grant."""
        typed_data = view.grant.typed_data(self.engine.sessions.domain)
        signature = self.owner.sign_typed_data(full_message=typed_data).signature
        return self.engine.consent(WORKSPACE, view.id, bytes(signature), wait_s=wait_s)

    def request(self, dollars: int | None = None, **changes: Any) -> PaymentRequest:
        """A request in test USDC."""
        usdc = self.engine.token("USDC", None)
        assert usdc is not None
        fields: dict[str, Any] = {
            "amount": (dollars or 0) * USD,
            "merchant": "books",
            "token": usdc.asset,
            "chain": usdc.chain,
            "token_priced": True,
            **changes,
        }
        return PaymentRequest(**fields)

    def pay(
        self,
        view: SessionView,
        dollars: int,
        *,
        key: str | None = None,
        hold: bool = False,
        **changes: Any,
    ) -> Payment:
        """Ask the ledger for a payment and wait for its commit."""
        return self.engine.ledger.authorise(
            view.id,
            self.request(dollars, **changes),
            memo={"description": None, "metadata_json": "{}"},
            key=key,
            capture=not hold,
        ).result()


def records_of(world: World, stream: SessionView | str) -> list[Record]:
    """The records of a session, or of the stream of this id, read apart from the engine."""
    of = stream if isinstance(stream, str) else stream.id
    rows = query(world.store, "SELECT body FROM records WHERE stream = ? ORDER BY seq", of)
    return [decode_record(bytes(body)) for (body,) in rows]
