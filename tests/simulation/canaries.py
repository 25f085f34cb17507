"""Faults that are planted in the engine, or under it, to see whether the auditor names them.

An auditor that has never found anything proves nothing. Each canary is one plausible mistake, and
`named` is the promise that the auditor has to say is broken.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Any

from engine.audit.approvals import REQUIRED_MAX
from engine.audit.merkle import HASH_BYTES, Tree
from engine.db.tables import OutboxEvent, Record, table
from engine.ledger import account, account_loading, approval, approvals, ledger
from engine.ledger.account import Account
from engine.ledger.ask import Ask
from engine.ledger.batch import Batch
from engine.ledger.budgets import Budgets, Known
from engine.ledger.keeping import keep_decided
from engine.ledger.writer import Writer
from engine.policy import decision
from engine.policy.conditions import Never
from engine.policy.limits import Limits
from engine.policy.windows import RollingWindows
from engine.sessions import life, lifecycle
from engine.sessions.lifecycle import Sessions
from engine.sessions.on_chain import Listener
from tests.simulation.faults import Door, Faults

EVERY = 40
"""Of the mistakes that are made now and then: how often."""


Plant = Callable[[], AbstractContextManager[None]]


@dataclass(frozen=True)
class Canary:
    """A fault to plant, the promise that it breaks, and a seed with which that shows soon: within
    the first so many decisions."""

    named: str
    plant: Plant
    seed: int
    decisions: int


CANARIES: dict[str, Canary] = {}


def canary(named: str, *, seed: int = 1, decisions: int = 600) -> Callable[[Plant], Plant]:
    """Register a canary under the name of its function."""

    def register(plant: Plant) -> Plant:
        CANARIES[plant.__name__.replace("_", "-")] = Canary(named, plant, seed, decisions)
        return plant

    return register


@contextmanager
def replaced(owner: Any, **changes: Any) -> Iterator[None]:
    """Put other things in the place of an owner's attributes, for as long as the block lasts."""
    before = {name: getattr(owner, name) for name in changes}
    for name, value in changes.items():
        setattr(owner, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(owner, name, value)


@canary("limits")
def window_edge() -> AbstractContextManager[None]:
    """Everything leaves its window a millisecond too early."""
    genuine = RollingWindows.advance
    return replaced(RollingWindows, advance=lambda self, now_ms: genuine(self, now_ms + 1))


@canary("limits")
def lost_hold() -> AbstractContextManager[None]:
    """Now and then a hold takes nothing from the budget."""
    decided = Account.decided

    def forget(self: Account, number: int, *arguments: Any, **more: Any) -> None:
        decided(self, number, *arguments, **more)
        if number % EVERY == 3 and number in self.holds:
            self.spending.reduce(self.holds[number].entry, 0)

    def ended(self: Account, number: int, captured: int) -> None:
        hold = self.holds.pop(number)
        self.spending.reduce(hold.entry, min(captured, hold.entry.amount))
        self.captured += captured
        self.limit_reached = False

    return replaced(Account, decided=forget, ended=ended)


@canary("limits")
def partial_capture() -> AbstractContextManager[None]:
    """A capture below its hold leaves the whole hold in the budget."""

    def ended(self: Account, number: int, captured: int) -> None:
        hold = self.holds.pop(number)
        self.spending.reduce(hold.entry, hold.entry.amount if captured else 0)
        self.captured += captured
        self.limit_reached = False

    return replaced(Account, ended=ended)


@canary("key")
def double_answer() -> AbstractContextManager[None]:
    """Now and then an idempotency key is forgotten."""
    genuine = keep_decided

    def keep(batch: Any, kept: Account, payment: Any, asked: Ask, row: Any) -> None:
        genuine(batch, kept, payment, asked, row)
        if payment.number % 3 == 0:
            kept.keys.pop(asked.key or "", None)

    return replaced(ledger, keep_decided=keep)


@canary("key")
def key_of_another_question() -> AbstractContextManager[None]:
    """A key that was used answers any question."""
    return replaced(Ask, same_as=lambda _self, _earlier: None)


@canary("revocation", seed=2)
def forgotten_revocation() -> AbstractContextManager[None]:
    """What the chain revokes stays as it is."""
    genuine = Sessions.revoked

    def revoked(self: Sessions, batch: Any, view: Any, evidence: Any) -> Any:
        return view if evidence["by"] == "chain" else genuine(self, batch, view, evidence)

    return replaced(Sessions, revoked=revoked)


@canary("revocation", seed=2)
@contextmanager
def revoked_session_that_pays() -> Iterator[None]:
    """A revocation is recorded and not followed."""
    states = account.STANDING_OF_STATE | {"revoked": decision.Standing.ACTIVE}
    with (
        replaced(account, STANDING_OF_STATE=states),
        replaced(account_loading, STANDING_OF_STATE=states),
    ):
        yield


@canary("registration")
def unconfirmed_registration() -> AbstractContextManager[None]:
    """A registration counts at first sight."""
    genuine = Listener.__init__

    def init(self: Listener, sessions: Sessions, *, confirmations: int) -> None:
        genuine(self, sessions, confirmations=0)

    return replaced(Listener, __init__=init)


@canary("registration")
def forgotten_reorganisation() -> AbstractContextManager[None]:
    """A registration that left the chain counts on."""
    return replaced(Sessions, unregistered=lambda *_: None)


@canary("lowering", seed=2)
def forgotten_lowering() -> AbstractContextManager[None]:
    """Limits that are lowered on the chain stay as they were."""
    return replaced(Sessions, lowered=lambda _self, _batch, view, _event: view)


@canary("lowering")
def hasty_undoing() -> AbstractContextManager[None]:
    """Lower limits whose event is not on the chain are undone at once."""
    genuine = Listener._follow_limits

    def follow_limits(self: Listener, *args: Any) -> Any:
        confirmations, self._confirmations = self._confirmations, 0
        try:
            return genuine(self, *args)
        finally:
            self._confirmations = confirmations

    return replaced(Listener, _follow_limits=follow_limits)


@canary("rules", seed=3)
def ignored_condition() -> AbstractContextManager[None]:
    """Nothing is ever ruled out by a condition."""
    genuine = decision.in_force

    def in_force(*lists: Any) -> Any:
        return genuine(*([c for c in each if not isinstance(c, Never)] for each in lists))

    return replaced(decision, in_force=in_force)


@canary("holds", seed=3)
def early_expiry() -> AbstractContextManager[None]:
    """Holds are over a millisecond too early."""
    genuine = Account.due
    return replaced(Account, due=lambda self, now_ms: genuine(self, now_ms + 1))


@canary("time")
def clock_in_seconds() -> AbstractContextManager[None]:
    """The decision time is a whole second."""
    genuine = Writer._time
    return replaced(Writer, _time=lambda self, turn: genuine(self, turn) // 1000 * 1000)


def _every(inserted: Any) -> Callable[[Batch, Any, dict[str, Any]], None]:
    """An `insert` that loses a row of a table now and then."""
    genuine, count = Batch.insert, [0]

    def insert(self: Batch, into: Any, row: dict[str, Any]) -> None:
        if into is inserted:
            count[0] += 1
            if count[0] % EVERY == 0:
                return
        genuine(self, into, row)

    return insert


@canary("log")
def dropped_record() -> AbstractContextManager[None]:
    """Now and then a record is not stored."""
    return replaced(Batch, insert=_every(table(Record)))


@canary("events", seed=2, decisions=150)
def dropped_event() -> AbstractContextManager[None]:
    """Now and then nobody is told."""
    return replaced(Batch, insert=_every(table(OutboxEvent)))


@canary("roots")
def forked_log() -> AbstractContextManager[None]:
    """The tree that is anchored is not that of the records."""
    genuine = Tree.extend_packed

    def backwards(tree: Tree, hashes: bytes) -> None:
        leaves = [hashes[at : at + HASH_BYTES] for at in range(0, len(hashes), HASH_BYTES)]
        genuine(tree, b"".join(leaves[::-1]))

    return replaced(Tree, extend_packed=backwards)


@canary("approvals")
def one_grant_is_enough() -> AbstractContextManager[None]:
    """A payment is made with the first grant, however many are required."""
    return replaced(approvals, _valid=lambda *_: REQUIRED_MAX)


@canary("approvals", seed=3)
def grant_of_a_revoked_key() -> AbstractContextManager[None]:
    """A key goes on to count after it was revoked."""
    return replaced(approvals, _valid=lambda _batch, _workspace, keys: len(keys))


@canary("approvals", seed=6)
def late_approval() -> AbstractContextManager[None]:
    """An approval can be granted when it is over."""
    read = approval.approval_from_row

    @contextmanager
    def both() -> Iterator[None]:
        with (
            replaced(approvals, approval_from_row=lambda row, _now_ms: read(row, 0)),
            replaced(ledger, end_approvals=lambda *_: 0),
        ):
            yield

    return both()


@canary("limits")
def approval_beyond_the_limits() -> AbstractContextManager[None]:
    """What operators let pass is not held against the limits again."""
    genuine = ledger.decide

    def decide(policy: Any, *arguments: Any, approved: bool, **more: Any) -> Any:
        if approved:
            policy = replace(policy, limits=Limits(None, None, None, None, None))
        return genuine(policy, *arguments, approved=approved, **more)

    return replaced(ledger, decide=decide)


@canary("limits", seed=2)
def forgotten_budget() -> AbstractContextManager[None]:
    """Nobody looks at the budget of the workspace."""
    genuine = Budgets._bounds

    def bounds(self: Budgets, *arguments: Any) -> dict[str, Any]:
        found = genuine(self, *arguments)
        found.pop("workspace", None)
        return found

    return replaced(Budgets, _bounds=bounds)


@canary("limits", seed=4)
def budget_that_keeps_holds() -> AbstractContextManager[None]:
    """A hold that ended below its amount goes on to count in the budgets above."""
    genuine = Known.enter

    def enter(self: Known, seq: int, row: Any) -> None:
        if (row["session_id"], row["number"]) in self.open:
            self.seq = seq + 1
        else:
            genuine(self, seq, row)

    return replaced(Known, enter=enter, expire=lambda *_: None)


@canary("delegation")
def wider_child() -> AbstractContextManager[None]:
    """A session delegates more than it has."""
    return replaced(lifecycle, check_narrower=lambda *_: None)


@canary("limits", seed=4)
def child_beside_its_parent() -> AbstractContextManager[None]:
    """What a session pays is not held against those that it descends from."""
    genuine = Budgets._bounds

    def bounds(self: Budgets, *arguments: Any) -> dict[str, Any]:
        found = genuine(self, *arguments)
        return {name: limits for name, limits in found.items() if not name.startswith("session:")}

    return replaced(Budgets, _bounds=bounds)


@canary("revocation", seed=12)
def surviving_child() -> AbstractContextManager[None]:
    """Who descends from a session that is revoked pays on."""
    return replaced(life, descendants=lambda *_: [])


@canary("durability")
def lost_decisions() -> AbstractContextManager[None]:
    """Now and then what was acknowledged is rolled back."""
    decisions = [0]

    @contextmanager
    def begin(self: Door) -> Iterator[Any]:
        with self._connection.begin() as transaction:
            before = decisions[0]
            yield transaction
            if decisions[0] > before and decisions[0] % 5 == 0:
                transaction.rollback()

    def exec_driver_sql(self: Door, statement: str, *more: Any) -> Any:
        decisions[0] += statement.startswith("INSERT INTO decisions")
        return self._connection.exec_driver_sql(statement, *more)

    return replaced(Door, begin=begin, exec_driver_sql=exec_driver_sql)


@canary("durability")
def disk_that_lies() -> AbstractContextManager[None]:
    """A crash takes commits with it that the disk had reported as written."""
    begin, take_image = Door.begin, Faults.take_image
    sizes = [0]

    @contextmanager
    def remember(self: Door) -> Iterator[Any]:
        wal = self._faults._wal()
        sizes.append(wal.stat().st_size if wal.exists() else 0)
        with begin(self) as transaction:
            yield transaction

    def image(self: Faults, torn: float | None = None) -> None:
        take_image(self, torn)
        assert self.image is not None
        wal = self.image.with_name(self.image.name + "-wal")
        kept = sizes[-min(len(sizes), 12)]
        if wal.exists() and wal.stat().st_size > kept:
            with wal.open("r+b") as file:
                file.truncate(kept)

    @contextmanager
    def both() -> Iterator[None]:
        with replaced(Door, begin=remember), replaced(Faults, take_image=image):
            yield

    return both()
