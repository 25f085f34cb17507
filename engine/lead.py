"""What one process does for all that share a database: it reads the chain and speaks to it, gives
records their place in the log, anchors, and expires what is over.

The others learn from a row of the database what it read and whether that is in doubt.
"""

import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import sqlalchemy as sa
import structlog

from engine.chain import contracts
from engine.chain.depth import ChainPosition
from engine.chain.endpoints import Endpoint, Endpoints, EndpointsDisagree
from engine.chain.events import Source
from engine.chain.gateway import BlockHeader, ChainChanged, ChainError, ChainGateway
from engine.chain.indexer import DeepReorg, Indexer
from engine.chain.witnesses import Witnesses
from engine.db.database import Database, Turn
from engine.db.tables import ChainBlock, Shared, table
from engine.deployment import Deployment
from engine.errors import Conflict, TallystickError, Unavailable
from engine.evidence.anchorer import Anchorer, AnchorView
from engine.ledger.batch import Batch
from engine.ledger.chain_watch import ChainWatch
from engine.ledger.discrepancies import ENDPOINTS_DISAGREE, note, resolve
from engine.ledger.ledger import Ledger
from engine.ledger.log import Log, committed, sequence
from engine.ledger.stream import workspace_stream
from engine.ledger.writer import Writer
from engine.payments.transfers import Transfers
from engine.sessions.expiry import ROUNDS_MAX, Expiry
from engine.sessions.lifecycle import Sessions
from engine.sessions.on_chain import Listener, Registrar
from engine.workspaces.access import DEFAULT_WORKSPACE

ANCHOR_WAIT_S = 30
"""So long a process that does not lead waits for an anchor of the one that does."""

_blocks = table(ChainBlock)
_shared = table(Shared)
_log = structlog.get_logger(__name__)


class Lead:
    """The work of the process that leads. In one that does not, `tick` does nothing."""

    def __init__(
        self,
        gateway: ChainGateway,
        database: Database,
        writer: Writer,
        deployment: Deployment,
        sessions: Sessions,
        ledger: Ledger,
        expiry: Expiry,
        log: Log,
        chain_watch: ChainWatch,
        *,
        confirmations: int,
        transfers: Transfers,
    ) -> None:
        self._gateway, self._database, self._writer = gateway, database, writer
        self._log_id = deployment.log_id
        self._ledger = ledger
        self._expiry = expiry
        self._log = log
        self._chain_watch = chain_watch
        self._transfers = transfers
        self._leads = False
        self._ticking = threading.Lock()
        self.ticked = threading.Condition()
        """Notified after every tick."""
        self.chain_fault: str | None = None
        """What is wrong with the chain, if anything is."""
        self._disagreed = True
        """Whether a disagreement of endpoints may be open; one of before the start may be."""
        self.head_number: int | None = None
        """The chain's newest block when this process last asked."""
        self._listener = Listener(sessions, confirmations=confirmations)
        sources = {
            deployment.registry: Source(contracts.SESSION_REGISTRY, deployment.registry_code),
            deployment.anchors: Source(contracts.ANCHOR_REGISTRY, deployment.anchors_code),
        }
        witnesses = None
        if isinstance(gateway, Endpoints):
            witnesses = Witnesses(
                gateway,
                database,
                sources,
                start_block=deployment.start_block,
                confirmations=confirmations,
            )
        self.indexer = Indexer(
            gateway,
            database,
            writer,
            sources,
            genesis_hash=deployment.genesis_hash,
            start_block=deployment.start_block,
            on_change=self._chain_changed,
            witnesses=witnesses,
        )
        self.registrar = Registrar(
            gateway,
            database,
            writer,
            sessions,
            registry=deployment.registry,
            operator=deployment.operator,
        )
        self.anchorer = Anchorer(
            gateway,
            database,
            writer,
            log,
            address=deployment.anchors,
            log_id=deployment.log_id,
            signing_key=deployment.log_key,
            operator=deployment.operator,
            confirmations=confirmations,
        )
        if database.shared:
            writer.on_turn(self._learn)

    @property
    def leads(self) -> bool:
        """Whether this process did the work when it last looked whose it is."""
        return self._leads

    @property
    def database_silent(self) -> bool:
        """Whether the database did not answer when it was last written to."""
        return self._writer.silent

    def tick(self, *, anchor: bool = False, rounds: int = ROUNDS_MAX) -> bool:
        """Do once what has to be done again and again. A silent chain is noted.

        In so many `rounds` what is over is ended, and the chain has to wait; answers whether some
        of it is left to the next tick. What fails keeps nothing that comes after it from its turn.
        """
        with self._ticking:
            try:
                self._follow(anchor=anchor)
            finally:
                behind = self._leads and self._expiry.run(rounds)
                if self._writer.fault is None:
                    self._ledger.memory.recheck()
        with self.ticked:
            self.ticked.notify_all()
        return behind

    def anchor(self) -> AnchorView | None:
        """Anchor everything committed, or wait until the process that leads has.

        Raises:
            Unavailable: the chain refused it or does not answer, or nobody leads.
        """
        wanted = self.sequence()
        if self._database.leads():
            self.tick(anchor=True)
        else:
            self._wait_for_anchor(wanted)
        latest = self.anchorer.latest()
        if self.chain_fault is not None and (latest is None or latest.size < wanted):
            raise Unavailable(f"nothing was anchored: {self.chain_fault}", code="chain_unavailable")
        if self.anchorer.refused is not None:
            raise Unavailable(
                f"the chain refused the anchor: {self.anchorer.refused}", code="anchor_refused"
            )
        return latest

    def position(self) -> ChainPosition:
        """How far the index has followed the chain."""
        with self._database.reading() as connection:
            indexed = connection.execute(sa.select(sa.func.max(_blocks.c.number))).scalar_one()
        return ChainPosition(self.head_number if self._leads else None, indexed)

    def ready(self) -> dict[str, Any]:
        """Whether decisions can be made, and what is in doubt if not."""
        faults = [fault for fault in (self._writer.fault, self.chain_fault) if fault]
        refused = self.anchorer.refused
        warnings = [] if refused is None else [f"the chain refused the anchor: {refused}"]
        warnings += [each.trouble for each in self.endpoints() if each.trouble is not None]
        sizes: dict[str, int | None] = {"records": None, "anchored": None}
        try:
            latest = self.anchorer.latest()
            with self._database.reading() as connection:
                sizes["records"] = committed(connection.execute)
            sizes["anchored"] = latest.size if latest and latest.state != "sent" else 0
        except Unavailable as silent:
            faults.append(silent.message)
        if not faults and self._chain_watch.silent:
            doubt = self._chain_watch.doubt
            faults.append("the chain has not been read lately" if doubt is None else doubt.message)
        return {"ready": not faults, "faults": faults, "warnings": warnings, **sizes}

    def sequence(self) -> int:
        """Give everything committed its place in the log; returns how many records have one."""

        def command(batch: Batch) -> None:
            batch.sequencing()
            sequence(batch.read, batch.update)

        self._writer.call(command)
        with self._database.reading() as connection:
            self._log.follow(connection.execute)
        return self._log.size

    def endpoints(self) -> list[Endpoint]:
        """The endpoints of the chain, if there are several and this process asks them."""
        if not self._leads or not isinstance(self._gateway, Endpoints):
            return []
        return self._gateway.all

    def contradiction(self) -> str | None:
        """What the chain holds that the log here did not lead to, if anything."""
        return self._writer.call(self.anchorer.contradiction)

    def resume_chain(self, *, by: str) -> tuple[int, bytes]:
        """Give up what is remembered of the chain, after a reorganisation that is too deep for it.

        All of the chain is read again by the next tick, and sessions follow. Returns the newest
        block that was given up; that it was, and by whom, is a record of the default workspace.

        Raises:
            Conflict: there was no such reorganisation.
            ChainUnavailable, ChainChanged: the chain does not answer, or it is another.
        """

        def command(batch: Batch) -> tuple[int, bytes]:
            batch.head(DEFAULT_WORKSPACE)
            if (newest := self.indexer.forget(batch)) is None:
                raise _not_stopped()
            number, block_hash = newest
            batch.record(
                workspace_stream(DEFAULT_WORKSPACE),
                "chain.resumed",
                {"by": by, "block_number": number, "block_hash": "0x" + block_hash.hex()},
            )
            return newest

        with self._ticking:
            try:
                self.indexer.common_ancestor()
            except DeepReorg:
                newest = self._writer.call(command, DEFAULT_WORKSPACE)
            else:
                raise _not_stopped()
            if self._leads:
                doubt = Unavailable("the chain is being read again", code=DeepReorg.code)
                self._chain_watch.lost(doubt)
                self.chain_fault = doubt.message
        return newest

    def _follow(self, *, anchor: bool) -> None:
        if not self._database.present():
            self._writer.fault = "the data directory was removed under the running engine"
        if not self._database.leads():
            self._leads = False
            self._note_chain(None)  # what was wrong with the last tick; the chain's doubts are told
            return
        self.sequence()
        if not self._leads and self._database.shared:
            self._take_over()
        self._leads = True
        self._note_chain(self._follow_chain(anchor=anchor or self._anchor_wanted()))
        if self._database.shared:
            self._writer.call(self._tell)

    def _take_over(self) -> None:
        """Whoever led before may have anchored what an older database knows nothing of."""
        # Only who leads can say to all what is in doubt, and resume a chain that was reorganised
        # too deep. What is read once it is not is looked at then.
        try:
            self._read_chain()
        except ChainChanged as doubt:
            self._chain_watch.lost(doubt)
        if fault := self.contradiction():
            self._writer.call(lambda batch: self._stop_all(batch, fault))

    def _follow_chain(self, *, anchor: bool) -> str | None:
        """Listen, then speak; returns what is wrong with the chain, if anything is."""
        # All here, since it is sent from the operator's account.
        work = self._register, partial(self.anchorer.tick, new=anchor), self._transfers.tick
        try:
            self._read_chain()
            return next(filter(None, [self._fault_of(each) for each in work]), None)
        except ChainChanged as error:
            self._chain_watch.lost(error)
            if isinstance(error, EndpointsDisagree):
                evidence = error.evidence
                self._writer.call(
                    lambda batch: note(batch, ENDPOINTS_DISAGREE, "chain", "critical", evidence)
                )
                self._disagreed = True
            return error.message
        except ChainError as error:
            return error.message

    def _register(self) -> None:
        if self.registrar.tick():
            self._read_chain()

    def _fault_of(self, work: Callable[[], object]) -> str | None:
        """Do it; whatever rows it stumbles over, the others have their turn."""
        try:
            work()
        except (ChainError, TallystickError, sa.exc.DBAPIError):
            raise
        except Exception as error:  # noqa: BLE001 (whatever it was, it is a doubt)
            return f"something in the database cannot be acted on: {error!r}"
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
        self._chain_watch.reached(tip.timestamp_s * 1000)
        self._listener(batch, tip, subjects)
        if self._log_id in subjects and (fault := self.anchorer.contradiction(batch)):
            self._stop_all(batch, fault)

    def _stop_all(self, batch: Batch, fault: str) -> None:
        self._writer.fault = fault
        if self._database.shared:
            batch.update(sa.update(_shared).values(fault=fault))

    def _read_chain(self) -> None:
        while True:
            tip: BlockHeader = self.indexer.tick()
            head = self._gateway.head()
            self.head_number = head.number
            self._chain_watch.reached(tip.timestamp_s * 1000)
            if tip.number >= head.number:
                self._chain_watch.seen(tip.timestamp_s * 1000)
                if self._disagreed:
                    self._writer.call(lambda batch: resolve(batch, ENDPOINTS_DISAGREE, "chain"))
                    self._disagreed = False
                return

    # What follows is between processes.

    def _tell(self, batch: Batch) -> None:
        ago_ms, doubt = self._chain_watch.read_ago_ms, self._chain_watch.doubt
        batch.update(
            sa.update(_shared).values(
                time_ms=self._chain_watch.time_ms,
                read_ms=None if ago_ms is None else batch.now_ms - ago_ms,
                doubt=None if doubt is None else doubt.message,
                doubt_code=None if doubt is None else doubt.code,
            )
        )

    def _learn(self, turn: Turn, now_ms: int) -> None:
        told = turn.chain
        assert told is not None, "who shares a database tells and is told"
        if told.fault is not None:
            self._writer.fault = told.fault
        if self._leads:
            self._chain_watch.reached(told.time_ms)
        else:
            ago_ms = None if told.read_ms is None else max(0, now_ms - told.read_ms)
            self._chain_watch.told(told.time_ms, ago_ms, told.doubt)

    def _anchor_wanted(self) -> bool:
        if not self._database.shared:
            return False
        latest = self.anchorer.latest()
        with self._database.reading() as connection:
            wanted: int = connection.execute(sa.select(_shared.c.wanted_size)).scalar_one()
        return wanted > (latest.size if latest else 0)

    def _wait_for_anchor(self, wanted: int) -> None:
        higher = sa.update(_shared).where(_shared.c.wanted_size < wanted).values(wanted_size=wanted)
        self._writer.call(lambda batch: batch.update(higher))
        deadline = time.monotonic() + ANCHOR_WAIT_S
        while time.monotonic() < deadline:
            latest = self.anchorer.latest()
            if latest is not None and latest.size >= wanted and latest.state != "sent":
                return
            time.sleep(0.05)
        raise Unavailable("no process that leads has anchored it", code="anchor_pending")


def _not_stopped() -> Conflict:
    return Conflict(
        "the chain was not reorganised deeper than it is followed", code="chain_not_reorganised"
    )
