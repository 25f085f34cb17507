"""The real engine on SQLite, run by hand on one thread, so that a seed decides everything.

Nothing of the engine is replaced but what would make a run different each time: the writer's thread
(its batches are run when told), the clocks, the source of random bytes and the chain.
"""

import contextlib
import os
import queue
import random
import tempfile
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import sqlalchemy as sa
import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from eth_abi.abi import encode
from eth_account import Account
from eth_utils.crypto import keccak

from engine.audit.checkpoint import verifier_key
from engine.audit.evidence import log_salt
from engine.chain import contracts
from engine.clock import ManualClock
from engine.db.keys import ApiKey
from engine.db.sqlite import SqliteDatabase
from engine.db.tables import table
from engine.deployment import Deployment
from engine.engine import Engine
from engine.identifiers import Identifiers
from engine.ledger.batch import Command
from engine.ledger.log import Log
from engine.ledger.seal import SEAL_KEY
from engine.ledger.writer import BATCH_COMMANDS_MAX, Writer
from engine.policy.limits import DAY_MS, Limits
from engine.sessions import refusals
from engine.sessions.session import NewSession, SessionView
from engine.sessions.vault import KEK_BYTES, Vault
from tests.simulation.books import APPROVAL_TTL_MS, HOLD_TTL_MS
from tests.simulation.chain import ANCHORS, CODE_HASH, REGISTRY, ScriptedChain
from tests.simulation.faults import Door, Faults
from tests.world import WORKSPACE, settings_for

START_MS = 1_800_000_000_001
CONFIRMATIONS = 2
_keys = table(ApiKey)


class WatchedClock(ManualClock):
    """Knows the latest that it said to anybody: an engine that fails may not have asked."""

    said_ms = 0

    def __call__(self) -> int:
        self.said_ms = max(self.said_ms, self.now_ms)
        return self.now_ms


class SteppedWriter(Writer):
    """The writer without its thread: a command runs at once, or in the batch that is gathered."""

    gathering = False

    def start(self) -> None:
        """There is no thread."""

    def submit(self, command: Command[Any], *streams: str) -> "Future[Any]":
        future = super().submit(command, *streams)
        if not self.gathering:
            self.run_batch()
        return future

    @contextmanager
    def one_batch(self) -> Iterator[None]:
        """What is submitted inside runs as one batch at the end of the block."""
        self.gathering = True
        try:
            yield
        finally:
            self.gathering = False
        self.run_batch()

    def run_batch(self) -> None:
        """As the thread does with what waits."""
        orders = []
        with contextlib.suppress(queue.Empty):
            while (order := self._queue.get_nowait()) is not None:
                orders.append(order)
        assert len(orders) <= BATCH_COMMANDS_MAX
        if orders:
            self._commit([o for o in orders if o.future.set_running_or_notify_cancel()])


@dataclass(frozen=True)
class Asked:
    """What an operator asks of a new session. Limits are micro-USD, an empty list means any."""

    limits: dict[str, int | None]
    permissions: tuple[str, ...]
    merchants: tuple[str, ...]
    tokens: tuple[str, ...]
    chains: tuple[str, ...]
    conditions: tuple[str, ...]
    days: int
    on_chain: bool
    owner: str
    agent: str
    required: int
    parent: str | None


class Installation:
    """An engine that can be crashed and opened again on what the crash left."""

    def __init__(self, directory: Path, draw: random.Random) -> None:
        self.directory = directory
        self.clock, self.stopwatch = WatchedClock(START_MS), ManualClock(0)
        self._draw = draw
        operator = Account.from_key(draw.randbytes(32))
        log_key = Ed25519PrivateKey.from_private_bytes(draw.randbytes(32))
        origin = f"tallystick/{draw.randbytes(8).hex()}"
        salt = log_salt(verifier_key(origin, log_key.public_key()))
        self.chain = ScriptedChain(operator.address.lower(), grant_hash)
        self.deployment = Deployment(
            chain_id=self.chain.chain_id,
            genesis_hash=self.chain.blocks[0].header.hash,
            registry=REGISTRY,
            anchors=ANCHORS,
            registry_code=CODE_HASH,
            anchors_code=CODE_HASH,
            start_block=0,
            origin=origin,
            log_id=contracts.log_id_of(operator.address, salt),
            log_key=log_key,
            operator=operator,
            tokens=(),
        )
        kek = draw.randbytes(KEK_BYTES)
        self._vault = Vault(kek, random.Random(kek).randbytes)
        self.opened = 0
        self.data_file = self._next_file()
        self.faults = Faults(lambda: self.data_file)
        self.chain.at_call = lambda: self.faults.reached("chain")
        self.open()

    def open(self) -> None:
        """Open what is in the data file, as a start of the process does.

        Raises:
            Crash: a fault that waited struck while it was starting.
            CannotStart: the engine refuses to start on it.
        """
        self.clock.said_ms = 0
        database = SqliteDatabase(self.data_file)
        database.writer = Door(database.writer, self.faults)
        log = Log(self.deployment.origin, self._vault.derive(SEAL_KEY))
        try:
            with database.reading() as connection:
                log.load(connection.execute, self.deployment.log_verifier_key)
        except BaseException:
            database.close()
            raise
        self.log = log
        self.engine = Engine(
            settings_for(
                self.directory,
                confirmations=CONFIRMATIONS,
                hold_ttl_s=HOLD_TTL_MS // 1000,
                approval_ttl_s=APPROVAL_TTL_MS // 1000,
            ),
            release=lambda: None,
            database=database,
            gateway=self.chain,
            deployment=self.deployment,
            vault=self._vault,
            clock=self.clock,
            stopwatch=self.stopwatch,
            identifiers=Identifiers(lambda: self.clock.now_ms, self._draw.randbytes),
            log=log,
        )
        self.engine.writer.__class__ = SteppedWriter
        self.engine.open()

    @property
    def writer(self) -> SteppedWriter:
        return self.engine.writer

    def close(self) -> None:
        """End it in order."""
        self.engine.close()

    def crashed(self) -> None:
        """Drop the engine; what it left is what the next one opens."""
        image = self.faults.image
        assert image is not None
        old = self.data_file
        self.engine.database.close()
        self.data_file = self._next_file()
        for end in ("", "-wal"):
            left = image.with_name(image.name + end)
            if left.exists():
                left.rename(self.data_file.with_name(self.data_file.name + end))
        for end in ("", "-wal", "-shm"):
            old.with_name(old.name + end).unlink(missing_ok=True)
        self.faults.image = None

    def create(self, asked: Asked) -> SessionView:
        """Create a session; it may outlive the longest window, unlike those that people ask for."""
        new = NewSession(
            type="agent",
            label=None,
            agent_id=asked.agent,
            agent_name=None,
            user_wallet=asked.owner,
            owner=asked.owner,
            limits=Limits(**asked.limits),
            permissions=asked.permissions,
            merchants=asked.merchants,
            tokens=asked.tokens,
            chains=asked.chains,
            duration_ms=asked.days * DAY_MS,
            mint_pkp=asked.on_chain,
            await_consent=False,
            metadata_json="{}",
            conditions=asked.conditions,
            parent_id=asked.parent,
            approvals_required=asked.required,
        )
        with patch("engine.sessions.lifecycle.DURATION_MAX_MS", new.duration_ms):
            view, _ = self.engine.sessions.create(WORKSPACE, new)
        return view

    def new_key(self) -> str:
        """The id of one more operator's key."""
        secret = self._draw.randbytes(16).hex()
        access = self.engine.access
        self.writer.call(lambda batch: access._key(batch, WORKSPACE, "operator", secret), WORKSPACE)
        return access.operator(secret).key_id

    def revoke_key(self, key_id: str) -> None:
        """It is no operator's any more."""
        revoked = sa.update(_keys).where(_keys.c.id == key_id)
        self.writer.call(
            lambda batch: batch.update(revoked.values(revoked_ms=batch.now_ms)), WORKSPACE
        )

    def _next_file(self) -> Path:
        self.opened += 1
        return self.directory / f"ledger-{self.opened}.sqlite3"


def grant_hash(grant: tuple[Any, ...]) -> bytes:
    """What the contract hashes a grant to (EIP-712); `grant` is the ABI's tuple."""
    limits = keccak(keccak(text=_LIMITS) + encode(["uint64"] * 5, grant[3]))
    fields = (*grant[:3], limits, *grant[4:])
    types = ["address", "address", *["bytes32"] * 3, "uint64", "uint64", *["bytes32"] * 3]
    return keccak(keccak(text=_GRANT + _LIMITS + _SCOPE) + encode(types, fields))


_GRANT = (
    "Grant(address owner,address sessionKey,string workspace,Limits limits,Scope scope,"
    "uint64 validFrom,uint64 validUntil,bytes32 auditLog,bytes32 parent,bytes32 salt)"
)
_LIMITS = (
    "Limits(uint64 perTransactionMicroUsd,uint64 perDayMicroUsd,uint64 perWeekMicroUsd,"
    "uint64 perMonthMicroUsd,uint64 approvalAboveMicroUsd)"
)
_SCOPE = (
    "Scope(string agentId,string[] permissions,string[] merchants,string[] tokens,"
    "string[] chains,string[] conditions)"
)


@contextmanager
def scratch() -> Iterator[Path]:
    """A directory that is gone afterwards; in memory where it can be, since nothing is to last."""
    memory = Path("/dev/shm")
    parent = memory if os.access(memory, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="tallystick-simulated-", dir=parent) as directory:
        yield Path(directory)


@contextmanager
def simulated() -> Iterator[None]:
    """What is true in every simulation: no log lines, and no wait by the real clock."""

    def drop(*_: Any) -> Any:
        raise structlog.DropEvent

    processors, wait_s = structlog.get_config()["processors"], refusals.REFUSED_WAIT_S
    structlog.configure(processors=[drop])
    refusals.REFUSED_WAIT_S = 0
    try:
        yield
    finally:
        structlog.configure(processors=processors)
        refusals.REFUSED_WAIT_S = wait_s
