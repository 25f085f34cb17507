"""The engine: opens everything a data directory needs, in order, and closes it again.

It chooses the database, as `deployment.py` does the chain and `storage/keeper.py` the store.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Collection
from functools import partial
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from engine.audit.canonical import CanonicalError
from engine.background import repeating
from engine.chain.gateway import ChainError, ChainGateway, ChainUnavailable
from engine.clock import Clock, system_clock
from engine.clock import stopwatch as system_stopwatch
from engine.db.claim import Claim
from engine.db.database import Database
from engine.deployment import Deployment, establish, open_database, open_gateway
from engine.errors import CannotStart, Unavailable
from engine.evidence.anchorer import AnchorView
from engine.evidence.export import Exporter
from engine.evidence.published import PublishedLog
from engine.grant import Domain
from engine.identifiers import Identifiers
from engine.lead import Lead
from engine.ledger.acts import Acts
from engine.ledger.analytics import Analytics
from engine.ledger.approvals import Approvals
from engine.ledger.chain_watch import ChainWatch
from engine.ledger.decision_counts import DecisionCounts
from engine.ledger.explanations import Explanations
from engine.ledger.intents import Intents
from engine.ledger.ledger import Ledger
from engine.ledger.log import Log
from engine.ledger.once import Once, forget_answers
from engine.ledger.paying import Paying
from engine.ledger.payments import Payments
from engine.ledger.scribe import Scribe
from engine.ledger.seal import SEAL_KEY
from engine.ledger.settlements import Settlements
from engine.ledger.writer import Writer
from engine.payments.gate import Gate
from engine.payments.networks import Networks
from engine.payments.signer import Signer
from engine.policy.decision import Remaining
from engine.reconcile.reconciler import Reconciler
from engine.sessions.expiry import Expiry
from engine.sessions.kek import open_vault
from engine.sessions.lifecycle import Sessions
from engine.sessions.session import NewSession, SessionView
from engine.sessions.vault import Vault
from engine.settings import Settings, Token
from engine.storage.keeper import SWEEP_INTERVAL_S, Keeper
from engine.storage.session import Storage
from engine.ticker import Ticker
from engine.webhooks.delivery import Delivery
from engine.webhooks.egress import Egress
from engine.webhooks.endpoints import Webhooks
from engine.webhooks.feed import Feed
from engine.workspaces.access import Access
from engine.workspaces.agents import Agents
from engine.workspaces.budgets import Budgets
from engine.workspaces.keys import Keys

if TYPE_CHECKING:
    from engine.chain.embedded_rpc import EmbeddedRpc


class Engine:
    """An open data directory. Use `open_engine`; `close` it in the end."""

    def __init__(
        self,
        settings: Settings,
        *,
        release: Callable[[], None],
        database: Database,
        gateway: ChainGateway,
        deployment: Deployment,
        vault: Vault,
        clock: Clock | None,
        stopwatch: Clock,
        identifiers: Identifiers,
        log: Log,
    ) -> None:
        self.settings, self.clock = settings, clock or system_clock
        self.database, self.gateway, self.deployment = database, gateway, deployment
        self._release, self._log = release, log
        self._stopping, self._repeating = threading.Event(), list[threading.Thread]()
        scribe = Scribe(deployment.origin, identifiers, vault.derive(SEAL_KEY))
        self.writer, self.chain_watch = Writer(database, scribe, clock), ChainWatch(stopwatch)
        self.ledger = Ledger(
            self.writer,
            self.chain_watch,
            hold_ttl_ms=settings.hold_ttl_s * 1000,
            approval_ttl_ms=settings.approval_ttl_s * 1000,
        )
        deciding, tokens = (database, self.writer, self.ledger), deployment.tokens
        self.approvals, self.intents = Approvals(*deciding), Intents(*deciding, tokens)
        self.payments, self.settlements = Payments(database), Settlements(database)
        self.paying, self.derive = Paying(self.writer, self.ledger), vault.derive
        signer = Signer(database, vault)
        book = database, self.writer, self.paying, signer, self.clock
        networks = self.networks = Networks(settings, deployment, gateway, *book)
        self.gate = Gate(self.paying, self.settlements, signer, tokens, networks.gateways)
        self.explanations, self.decision_counts = Explanations(database), DecisionCounts(database)
        self.analytics, self.acts = Analytics(database, self.clock), Acts(database)
        self.access, self.agents = Access(database, self.writer), Agents(database, self.writer)
        self.budgets, self.once = Budgets(database, self.writer), partial(Once, vault)
        self.keys = Keys(database, self.writer, stopwatch)
        self.sessions = Sessions(
            database,
            self.writer,
            vault,
            identifiers,
            domain=Domain(deployment.chain_id, deployment.registry),
            audit_log=deployment.log_id,
            confirmations=settings.confirmations,
        )
        self._look_after()
        self.keeper, self.published_log = Keeper(settings), PublishedLog(database, log)
        self._exporter = Exporter(database, log, deployment)
        egress = Egress(settings.webhook_ip_networks)
        self.webhooks = Webhooks(database, self.writer, vault, identifiers, self.clock, egress)
        self.delivery, self.feed = Delivery(self.webhooks), Feed(database, stopwatch)

    def _look_after(self) -> None:
        """What goes on by itself: the end of what is over, the chain, what is compared with it."""
        due = self.ledger, self.approvals, self.intents, self.sessions
        self.expiry = Expiry(self.writer, self.chain_watch, *due)
        self.lead = Lead(
            self.gateway,
            self.database,
            self.writer,
            self.deployment,
            self.sessions,
            self.ledger,
            self.expiry,
            self._log,
            self.chain_watch,
            confirmations=self.settings.confirmations,
            transfers=self.networks.transfers,
        )
        self._poll_s = self.settings.poll_interval_ms / 1000
        self._ticker = Ticker(
            self._tick,
            self.lead,
            self._stopping,
            poll_s=self._poll_s,
            anchor_s=self.settings.anchor_interval_s,
        )
        self.reconciler = Reconciler(
            self.gateway,
            self.database,
            self.writer,
            self._log,
            self.sessions,
            self.deployment,
            self.clock,
            confirmations=self.settings.confirmations,
            go_on=self._ticker.catch_up,
            watches=self.networks.watches,
        )

    def open(self) -> None:
        """Take commands, read the chain once, and end a little of what is over.

        Raises:
            CannotStart: the chain holds what the log here did not lead to.
        """
        # The chain's clock may have been further when a session expired than it is after a restart.
        self.chain_watch.reached(self.sessions.latest_expiry_ms())
        self.writer.start()
        self.lead.tick(rounds=1)
        if contradiction := self.lead.contradiction():
            raise CannotStart(contradiction)

    def start(self) -> None:
        """Follow the chain, expire what is over and anchor the log, reconcile, and sweep the store.

        Raises:
            CannotStart: the store cannot be opened.
        """
        self.keeper.storage()
        self._ticker.start()
        stopping, begun = self._stopping, self._repeating  # each is joined, if it comes that far
        again = partial(repeating, stopping=stopping)
        begun.append(again("sweep", self._sweep, interval_s=SWEEP_INTERVAL_S))
        if every_s := self.settings.reconcile_interval_s:
            begun.append(again("reconcile", self._reconcile, interval_s=every_s))
        poll_s = self._poll_s
        begun += self.networks.start(lambda: self.lead.leads, interval_s=poll_s, stopping=stopping)
        begun += self.delivery.start(lambda: self.lead.leads, stopping=stopping)

    def close(self) -> None:
        """Answer what waits, stop, and release the directory."""
        self._stopping.set()
        self._ticker.join()
        for thread in self._repeating:
            thread.join()
        self.keeper.close_now()
        self.writer.stop()
        self.networks.close()
        self.gateway.close()
        self.database.close()
        self._release()

    def tick(self, *, anchor: bool = False) -> bool:
        """Do once what the background threads do again and again: see `Lead.tick`."""
        return self._tick(anchor)

    def create_session(
        self, workspace_id: str, new: NewSession, *, wait_s: float = 0.0, once: Once | None = None
    ) -> tuple[SessionView, str]:
        """Create a session and wait up to `wait_s` for its registration on the chain."""
        view, token = self.sessions.create(workspace_id, new, once=once)
        return self._settled(view, wait_s), token

    def consent(
        self,
        workspace_id: str,
        session_id: str,
        signature: bytes,
        *,
        kind: str = "eip712",
        wait_s: float = 0.0,
        by: str | None = None,
    ) -> SessionView:
        """Accept the owner's signature and wait up to `wait_s` for the registration."""
        sessions, gateway = self.sessions, self.gateway
        view = sessions.consent(workspace_id, session_id, signature, kind, gateway, by=by)
        return self._settled(view, wait_s)

    def revoke_session(self, workspace_id: str, session_id: str, *, by: str) -> SessionView:
        """Revoke now; the chain is told in the background."""
        view = self.sessions.revoke(workspace_id, session_id, by=by)
        self._ticker.wake()
        return view

    def remaining(self, view: SessionView) -> Remaining:
        """What each window still allows at this moment, in micro-USD."""
        return self.ledger.remaining(view.id).result()

    def token(self, symbol: str, chain: str | None) -> Token | None:
        """The configured token that a request means by a symbol, on the main chain by default."""
        return self.deployment.tokens_by_name.get((symbol, chain or self.deployment.chain))

    def anchor(self) -> AnchorView | None:
        """Sign a checkpoint of everything committed and anchor it now.

        The anchor is still on its way (`sent`) if its fate is unknown.

        Raises:
            Unavailable: the chain refused it, or does not answer, so nothing new was sent.
        """
        return self.lead.anchor()

    def resume_chain(self, *, by: str) -> tuple[int, bytes]:
        """Have all of the chain read again after a reorganisation that was too deep; see `Lead`."""
        newest = self.lead.resume_chain(by=by)
        if not self._ticker.running:
            self.tick()
        self._ticker.wake()
        return newest

    def evidence(
        self, workspace_id: str, session_id: str, *, withhold: Collection[str] = ()
    ) -> bytes:
        """The evidence file of a session, without the groups to `withhold`: see `Exporter`."""
        view = self.sessions.get(workspace_id, session_id)
        self.lead.sequence()
        return self._exporter.export(view, self.clock(), withhold=withhold)

    def ready(self) -> dict[str, Any]:
        """Whether decisions can be made, and what is in doubt if not."""
        return {**self.lead.ready(), "networks": self.networks.ready() if self.lead.leads else []}

    def serve_embedded_chain(self) -> "EmbeddedRpc | None":
        """Let other processes read the embedded chain; None if the chain is elsewhere."""
        if self.settings.chain != "embedded":
            return None
        from engine.chain.embedded import EmbeddedChain
        from engine.chain.embedded_rpc import EmbeddedRpc

        assert isinstance(self.gateway, EmbeddedChain)
        return EmbeddedRpc(self.gateway, port=self.settings.rpc_port).start()

    @property
    def store(self) -> Storage:
        """What payers stored, opened when first asked for; raises `CannotStart`."""
        return self.keeper.storage()

    def _settled(self, view: SessionView, wait_s: float) -> SessionView:
        if view.state != "registering":
            return view
        deadline = time.monotonic() + wait_s
        self._ticker.wake()
        while (
            view.state == "registering"
            and self.lead.chain_fault is None
            and (left := deadline - time.monotonic()) > 0
        ):
            if not self._ticker.running:
                self.tick()
            with self.lead.ticked:
                view = self.sessions.get(view.workspace_id, view.id)
                if view.state == "registering":
                    self.lead.ticked.wait(min(left, self._poll_s))
        return view

    def _tick(self, anchor: bool) -> bool:
        behind = self.lead.tick(anchor=anchor)
        if self.lead.leads and not self._ticker.running:  # else each has a thread
            self.networks.tick()
            self.delivery.tick()
        return behind

    def _reconcile(self) -> None:
        if self.lead.leads:
            self.reconciler.run()

    def _sweep(self) -> None:
        if self.lead.leads:
            forget_answers(self.writer)
        while self.lead.leads and not self._stopping.is_set() and self.keeper.sweep():
            pass


def open_engine(
    settings: Settings,
    *,
    clock: Clock | None = None,
    stopwatch: Clock = system_stopwatch,
    claim: Claim | None = None,
) -> Engine:
    """Open what `settings` name, making it at the first start.

    `claim` is theirs, if it was made already. `clock` replaces the time that decisions go by: the
    system's, or the database's if it is shared.

    Raises:
        CannotStart: another process has it, it is damaged, or it belongs to another chain.
    """
    identifiers = Identifiers(clock or system_clock)
    with contextlib.ExitStack() as opened:
        claim = claim or Claim(settings)
        opened.callback(claim.release)
        try:
            database = open_database(settings, claim)
            opened.callback(database.close)
            if clock is None and not database.shared:
                clock = system_clock
            with database.starting():
                vault = open_vault(settings, database, identifiers.random_bytes)
                gateway = open_gateway(settings, database)
                opened.callback(gateway.close)
                deployment = establish(settings, database, gateway, vault, identifiers.random_bytes)
            log = Log(deployment.origin, vault.derive(SEAL_KEY))
            with database.reading() as connection:
                log.load(connection.execute, deployment.log_verifier_key)
            engine = Engine(
                settings,
                release=claim.release,
                database=database,
                gateway=gateway,
                deployment=deployment,
                vault=vault,
                clock=clock,
                stopwatch=stopwatch,
                identifiers=identifiers,
                log=log,
            )
            opened.callback(engine.writer.stop)
            engine.open()
        except ChainUnavailable as error:
            raise CannotStart(f"TALLYSTICK_CHAIN: {error}") from error
        except (Unavailable, ChainError, CanonicalError, sa.exc.DatabaseError) as error:
            raise CannotStart(str(error)) from error
        opened.pop_all()
    return engine
