"""The engine: opens everything a data directory needs, in order, and closes it again.

The only place that chooses an implementation.
"""

import contextlib
import threading
import time
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
import structlog

from engine.audit.canonical import CanonicalError
from engine.chain import contracts
from engine.chain.embedded import EmbeddedChain
from engine.chain.embedded_rpc import EmbeddedRpc
from engine.chain.gateway import BlockHeader, ChainError, ChainGateway
from engine.chain.indexer import DeepReorg, Indexer
from engine.chain.json_rpc import JsonRpcChain
from engine.clock import Clock, system_clock
from engine.clock import stopwatch as system_stopwatch
from engine.db.database import Database
from engine.db.sqlite import DirectoryLock, SqliteDatabase
from engine.deployment import Deployment, establish, stored_deployment
from engine.errors import CannotStart, TallystickError, Unavailable
from engine.evidence.anchorer import Anchorer, AnchorView
from engine.evidence.export import Exporter
from engine.grant import Domain
from engine.identifiers import Identifiers
from engine.ledger.chain_watch import ChainWatch
from engine.ledger.ledger import Ledger
from engine.ledger.log import Log, committed, sequence
from engine.ledger.payments import Payments
from engine.ledger.writer import Batch, Scribe, Writer
from engine.policy.decision import Remaining
from engine.sessions.lifecycle import Sessions
from engine.sessions.on_chain import Listener, Registrar
from engine.sessions.session import NewSession, SessionView
from engine.sessions.vault import Vault
from engine.settings import Settings, Token
from engine.workspaces.access import Access
from engine.workspaces.agents import Agents

CHAIN_SILENCE_MAX_MS = 300_000
"""After this long without reading the chain, sessions that live on it are not decided any more."""

_log = structlog.get_logger(__name__)


class Engine:
    """An open data directory. Use `open_engine`; `close` it in the end."""

    def __init__(
        self,
        settings: Settings,
        *,
        lock: DirectoryLock,
        database: Database,
        gateway: ChainGateway,
        deployment: Deployment,
        vault: Vault,
        clock: Clock,
        stopwatch: Clock,
        identifiers: Identifiers,
        log: Log,
    ) -> None:
        self.settings = settings
        self.clock = clock
        self.database = database
        self.gateway = gateway
        self.deployment = deployment
        self._lock = lock
        self._log = log
        self._ticking = threading.Lock()
        self._wake = threading.Event()
        self._stopping = False
        self.ticked = threading.Condition()
        """Notified after every tick."""
        self._anchored_at = time.monotonic()
        self._background: threading.Thread | None = None
        self.chain_fault: str | None = None
        self.writer = Writer(database, Scribe(deployment.origin, identifiers), clock)
        self.chain_watch = ChainWatch(stopwatch, silence_max_ms=CHAIN_SILENCE_MAX_MS)
        self.ledger = Ledger(self.writer, self.chain_watch, hold_ttl_ms=settings.hold_ttl_s * 1000)
        self.payments = Payments(database)
        self.access = Access(database, self.writer)
        self.agents = Agents(database, self.writer)
        self.sessions = Sessions(
            database,
            self.writer,
            vault,
            identifiers,
            domain=Domain(deployment.chain_id, deployment.registry),
            audit_log=deployment.log_id,
        )
        self._follow(gateway, log)
        self._exporter = Exporter(database, log, deployment)

    def _follow(self, gateway: ChainGateway, log: Log) -> None:
        """Set up what listens to the chain and what speaks to it."""
        settings, database, deployment = self.settings, self.database, self.deployment
        self._listener = Listener(self.sessions, confirmations=settings.confirmations)
        self._indexer = Indexer(
            gateway,
            database,
            self.writer,
            {
                deployment.registry: contracts.SESSION_REGISTRY,
                deployment.anchors: contracts.ANCHOR_REGISTRY,
            },
            start_block=deployment.start_block,
            on_change=self._chain_changed,
        )
        self._registrar = Registrar(
            gateway,
            database,
            self.writer,
            self.sessions,
            registry=deployment.registry,
            operator=deployment.operator,
        )
        self._anchorer = Anchorer(
            gateway,
            database,
            self.writer,
            log,
            address=deployment.anchors,
            log_id=deployment.log_id,
            signing_key=deployment.log_key,
            operator=deployment.operator,
            confirmations=settings.confirmations,
        )

    def open(self) -> None:
        """Take commands and read the chain once.

        Raises:
            CannotStart: the chain holds what the log here did not lead to.
        """
        # The chain's clock may have been further when a session expired than it is after a restart.
        self.chain_watch.reached(self.sessions.latest_expiry_ms())
        self.writer.start()
        self.tick()
        if contradiction := self.writer.call(self._anchorer.contradiction):
            raise CannotStart(contradiction)

    def start(self) -> None:
        """Follow the chain, expire what is over and anchor the log, on a thread of its own."""
        self._background = threading.Thread(target=self._run, name="engine", daemon=True)
        self._background.start()

    def close(self) -> None:
        """Answer what waits, stop, and release the directory."""
        self._stopping = True
        self._wake.set()
        if self._background is not None:
            self._background.join()
        self.writer.stop()
        self.gateway.close()
        self.database.close()
        self._lock.release()

    def tick(self, *, anchor: bool = False) -> None:
        """Do once what the background thread does again and again. A silent chain is noted."""
        with self._ticking:
            if not self.database.present():
                self.writer.fault = "the data directory was removed under the running engine"
            self._sequence()
            self._note_chain(self._follow_chain(anchor=anchor))
            while self.ledger.expire_holds() or self._expire_sessions():
                pass
        with self.ticked:
            self.ticked.notify_all()

    def create_session(
        self, workspace_id: str, new: NewSession, *, wait_s: float = 0.0
    ) -> tuple[SessionView, str]:
        """Create a session and wait up to `wait_s` for its registration on the chain."""
        view, token = self.sessions.create(workspace_id, new)
        return self._settled(view, wait_s), token

    def consent(
        self, workspace_id: str, session_id: str, signature: bytes, *, wait_s: float = 0.0
    ) -> SessionView:
        """Accept the owner's signature and wait up to `wait_s` for the registration."""
        return self._settled(self.sessions.consent(workspace_id, session_id, signature), wait_s)

    def revoke_session(self, workspace_id: str, session_id: str, *, by: str) -> SessionView:
        """Revoke now; the chain is told in the background."""
        view = self.sessions.revoke(workspace_id, session_id, by=by)
        self._wake.set()
        return view

    def remaining(self, view: SessionView) -> Remaining:
        """What each window still allows at this moment, in micro-USD."""
        return self.ledger.remaining(view.id).result()

    def token(self, symbol: str, chain: str | None) -> Token | None:
        """The configured token that a request means by a symbol, on the main chain by default."""
        wanted = (symbol, chain or self.deployment.chain)
        for token in self.deployment.tokens:
            if (token.symbol, token.chain) == wanted:
                return token
        return None

    def anchor(self) -> AnchorView | None:
        """Sign a checkpoint of everything committed and anchor it now.

        The anchor is still on its way (`sent`) if its fate is unknown.

        Raises:
            Unavailable: the chain refused it, or does not answer, so nothing new was sent.
        """
        wanted = self._sequence()
        self.tick(anchor=True)
        latest = self._anchorer.latest()
        if self.chain_fault is not None and (latest is None or latest.size < wanted):
            raise Unavailable(f"nothing was anchored: {self.chain_fault}", code="chain_unavailable")
        if self._anchorer.refused is not None:
            raise Unavailable(
                f"the chain refused the anchor: {self._anchorer.refused}", code="anchor_refused"
            )
        return latest

    def evidence(self, workspace_id: str, session_id: str) -> bytes:
        """The evidence file of a session."""
        view = self.sessions.get(workspace_id, session_id)
        self._sequence()
        return self._exporter.export(view, self.clock())

    def ready(self) -> dict[str, Any]:
        """Whether decisions can be made, and what is in doubt if not."""
        faults = [fault for fault in (self.writer.fault, self.chain_fault) if fault]
        if not faults and self.chain_watch.silent:
            faults.append("the chain has not been read lately")
        latest = self._anchorer.latest()
        refused = self._anchorer.refused
        with self.database.reading() as connection:
            records = committed(connection.execute)
        return {
            "ready": not faults,
            "faults": faults,
            "warnings": [] if refused is None else [f"the chain refused the anchor: {refused}"],
            "records": records,
            "anchored": latest.size if latest and latest.state != "sent" else 0,
        }

    def serve_embedded_chain(self) -> EmbeddedRpc | None:
        """Let other processes read the embedded chain; None if the chain is elsewhere."""
        if not isinstance(self.gateway, EmbeddedChain):
            return None
        rpc = EmbeddedRpc(self.gateway, port=self.settings.rpc_port)
        rpc.start()
        return rpc

    def _sequence(self) -> int:
        """Give everything committed its place in the log; returns how many records have one."""

        def command(batch: Batch) -> None:
            batch.sequencing()
            sequence(batch.read, batch.update)

        self.writer.call(command)
        with self.database.reading() as connection:
            self._log.follow(connection.execute)
        return self._log.size

    def _follow_chain(self, *, anchor: bool) -> str | None:
        """Listen, then speak; returns what is wrong with the chain, if anything is."""
        try:
            self._read_chain()
            if self._registrar.tick():
                self._read_chain()
            self._anchorer.tick(new=anchor)
        except DeepReorg as error:
            self.chain_watch.lost()
            return error.message
        except ChainError as error:
            return error.message
        return None

    def _note_chain(self, fault: str | None) -> None:
        """Log what is wrong with the chain when that changes, not every second while it lasts."""
        if fault is not None and fault != self.chain_fault:
            _log.warning("chain_silent", reason=fault)
        elif fault is None and self.chain_fault is not None:
            _log.warning("chain_heard")
        self.chain_fault = fault

    def _chain_changed(self, batch: Batch, tip: BlockHeader, subjects: set[bytes]) -> None:
        # Before the commit: a payment of a session that this makes active must see this time.
        self.chain_watch.reached(tip.timestamp_s * 1000)
        self._listener(batch, tip, subjects)
        if self.deployment.log_id in subjects and (fault := self._anchorer.contradiction(batch)):
            self.writer.fault = fault

    def _expire_sessions(self) -> int:
        return self.sessions.expire_due(self.chain_watch.time_ms)

    def _read_chain(self) -> None:
        while True:
            tip: BlockHeader = self._indexer.tick()
            head = self.gateway.head()
            self.chain_watch.reached(tip.timestamp_s * 1000)
            if tip.number >= head.number:
                self.chain_watch.seen(tip.timestamp_s * 1000)
                return

    def _settled(self, view: SessionView, wait_s: float) -> SessionView:
        if view.state != "registering":
            return view
        poll_s = self.settings.poll_interval_ms / 1000
        deadline = time.monotonic() + wait_s
        self._wake.set()
        while (
            view.state == "registering"
            and self.chain_fault is None
            and (left := deadline - time.monotonic()) > 0
        ):
            if self._background is None:
                self.tick()
            with self.ticked:
                view = self.sessions.get(view.workspace_id, view.id)
                if view.state == "registering":
                    self.ticked.wait(min(left, poll_s))
        return view

    def _run(self) -> None:
        while not self._stopping:
            interval_s = self.settings.anchor_interval_s
            due = 0 < interval_s <= time.monotonic() - self._anchored_at
            if due:
                self._anchored_at = time.monotonic()
            # One bad tick must not end all later ones, and the line may not fit on a full disk.
            with contextlib.suppress(Exception):
                self._tick_noting_defects(anchor=due)
            self._wake.wait(self.settings.poll_interval_ms / 1000)
            self._wake.clear()

    def _tick_noting_defects(self, *, anchor: bool) -> None:
        try:
            self.tick(anchor=anchor)
        except Exception as error:  # noqa: BLE001 (whatever it was, it is a doubt)
            reason = error.message if isinstance(error, TallystickError) else repr(error)
            self.chain_fault = f"the chain could not be followed: {reason}"
            _log.exception("tick_failed")


def open_engine(
    settings: Settings, *, clock: Clock = system_clock, stopwatch: Clock = system_stopwatch
) -> Engine:
    """Open the data directory that `settings` names, making it at the first start.

    Raises:
        CannotStart: another process has it, it is damaged, or it belongs to another chain.
    """
    identifiers = Identifiers(clock)
    lock = DirectoryLock(settings.data_dir)
    opened: list[Any] = [lock.release]
    try:
        database = SqliteDatabase(settings.data_dir / "ledger.sqlite3")
        opened.append(database.close)
        vault = _vault(settings)
        gateway = _gateway(settings, stored_deployment(database))
        opened.append(gateway.close)
        deployment = establish(settings, database, gateway, vault, identifiers.random_bytes)
        log = Log(deployment.origin)
        with database.reading() as connection:
            log.load(connection.execute, deployment.log_verifier_key)
        engine = Engine(
            settings,
            lock=lock,
            database=database,
            gateway=gateway,
            deployment=deployment,
            vault=vault,
            clock=clock,
            stopwatch=stopwatch,
            identifiers=identifiers,
            log=log,
        )
        opened.append(engine.writer.stop)
        engine.open()
    except BaseException as error:
        for release in reversed(opened):
            release()
        if isinstance(error, (Unavailable, ChainError, CanonicalError, sa.exc.DatabaseError)):
            raise CannotStart(str(error)) from error
        raise
    return engine


def _vault(settings: Settings) -> Vault:
    if settings.kek is None:
        return Vault.from_file(settings.data_dir / "kek")
    return Vault.from_passphrase(settings.kek.get_secret_value(), settings.data_dir / "kek.salt")


def _gateway(settings: Settings, stored: Mapping[str, str]) -> ChainGateway:
    if settings.chain != "embedded":
        return JsonRpcChain(settings.chain)
    path = settings.data_dir / "chain.sqlite3"
    if stored and not path.exists():
        # A new and empty chain in its place would only hide what happened.
        raise CannotStart(
            f"{path} is missing: this data directory belongs to the chain with id "
            f"{stored['chain_id']}, which is not embedded here or was removed: "
            "put it back, or choose another TALLYSTICK_DATA_DIR"
        )
    return EmbeddedChain(path)
