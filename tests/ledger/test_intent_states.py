"""Payment intents, whatever is asked of them in whatever order and through crashes, are at every
moment what a plain model says, and `fsck` makes the same of the records.
"""

import random
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)

from engine.audit.record import decode_record
from engine.db.tables import Record, table
from engine.errors import TallystickError
from engine.fsck.finding import Findings
from engine.fsck.intents import IntentRows
from engine.ledger.intent import Intent
from engine.ledger.intents import Confirming, NewIntent
from engine.policy.decision import PaymentRequest
from tests.simulation.books import APPROVAL_TTL_MS, HOLD_TTL_MS
from tests.simulation.faults import Crash, Fault
from tests.simulation.installation import START_MS, Asked, Installation, scratch, simulated
from tests.world import WORKSPACE

TOKEN = "eip155:31337/erc20:0x" + "11" * 20
LIFE_MS = 9_000_000
MOST, ALONE = 60, 40
AMOUNTS = (1, ALONE, ALONE + 1, MOST, MOST + 1)
EDGES_MS = [at + by for at in (HOLD_TTL_MS, LIFE_MS, APPROVAL_TTL_MS) for by in (-1, 0, 1)]
_records = table(Record)
OF_WORKSPACE = (
    sa.select(_records.c.body).where(_records.c.stream == WORKSPACE).order_by(_records.c.seq)
)


@dataclass
class Modelled:
    """One intent. What it waits for is over at `until_ms`, and it is `then` (state and code)."""

    amount: int
    manual: bool
    until_ms: int
    then: tuple[str, str] = ("canceled", "expired")
    state: str = "requires_payment"
    code: str | None = None
    payer: int | None = None
    waits: bool = False
    captured: int = 0

    def end(self, state: str, code: str | None, captured: int = 0) -> None:
        self.state, self.code, self.captured, self.waits = state, code, captured, False


@dataclass
class Model:
    """All intents, in the order in which they were made."""

    now_ms: int = START_MS
    intents: list[Modelled] = field(default_factory=list)

    def pass_time(self, by_ms: int) -> None:
        self.now_ms += by_ms
        for each in self.intents:
            if each.state in ("requires_payment", "processing") and self.now_ms >= each.until_ms:
                each.end(*each.then)

    def hold(self, each: Modelled) -> None:
        each.state, each.waits = "processing", False
        each.until_ms, each.then = self.now_ms + HOLD_TTL_MS, ("failed", "payment_expired")
        if not each.manual:
            each.end("succeeded", None, each.amount)

    def confirm(self, each: Modelled, payer: int) -> str | None:
        """The code of the refusal, if it is one."""
        if each.state != "requires_payment":
            return None if each.payer == payer else f"intent_{each.state}"
        each.payer = payer
        if each.amount > MOST:
            each.end("failed", "LIMIT_EXCEEDED")
        elif each.amount > ALONE:
            each.state, each.waits = "processing", True
            each.until_ms = self.now_ms + APPROVAL_TTL_MS
            each.then = ("failed", "approval_expired")
        else:
            self.hold(each)
        return None


def refusal_of(asked: Callable[[], Any]) -> tuple[Any, str | None]:
    """The answer, or the code of the refusal."""
    try:
        return asked(), None
    except TallystickError as refusal:
        return None, refusal.code


class Intents(RuleBasedStateMachine):
    """The engine and the model, asked the same."""

    made = Bundle("made")

    @initialize(target=made, seed=st.integers(0, 2**32))
    def opens(self, seed: int) -> Any:
        """With some intents, so that there is something to do from the first step on."""
        self.closing = ExitStack()
        self.closing.enter_context(simulated())
        directory = self.closing.enter_context(scratch())
        self.here = Installation(directory, random.Random(seed))
        self.closing.callback(lambda: self.here.close())
        asked = Asked(
            {"per_transaction": MOST, "per_day": None, "per_week": None, "per_month": None,
             "approval_above": ALONE},
            (), (), (), (), (), 9999, False, "0x" + "22" * 20, "bot", 1, None,
        )  # fmt: skip
        self.access()
        self.sessions = [self.here.create(asked) for _ in range(2)]
        self.operator = self.here.new_key()
        self.model = Model()
        self.known: list[tuple[str, str]] = []
        every = [(amount, m) for amount in (1, MOST) for m in (True, False, True)]
        return multiple(*(self.create(*each) for each in every))

    def access(self) -> None:
        """Tokens have prices, in each engine that is opened."""
        self.engine.intents._priced = {TOKEN}

    @property
    def engine(self) -> Any:
        return self.here.engine

    @rule(target=made, amount=st.sampled_from(AMOUNTS), m=st.booleans())
    def another(self, amount: int, m: bool) -> int:
        return self.create(amount, m)

    def create(self, amount: int, m: bool) -> int:
        request = PaymentRequest(amount, "books", TOKEN, "eip155:31337", True)
        memo = {"description": None, "metadata_json": "{}", "agent_name": None}
        method: Any = "manual" if m else "automatic"
        new = NewIntent(request, method, None, None, LIFE_MS // 1000, memo)
        intent, secret = self.engine.intents.create(WORKSPACE, new, by=self.operator)
        self.known.append((intent.id, secret))
        self.model.intents.append(Modelled(amount, m, self.model.now_ms + LIFE_MS))
        return len(self.known) - 1

    @rule(number=made, payer=st.integers(0, 1))
    def confirm(self, number: int, payer: int) -> None:
        before = self.model.intents[number].payer
        expected = self.model.confirm(self.model.intents[number], payer)
        done, code = refusal_of(lambda: self.ask(number, payer))
        assert code == expected
        assert done is None or done.payment.replayed == (before == payer)

    @rule(
        number=made,
        payer=st.integers(0, 1),
        point=st.sampled_from(("statement", "before commit", "after commit")),
        after=st.integers(0, 12),
    )
    def confirm_and_crash(self, number: int, payer: int, point: Any, after: int) -> None:
        """It happened if and only if it was durable; to confirm again finds out, and pays once."""
        fault = Fault("crash", point, after if point == "statement" else 0)
        self.here.faults.armed = fault
        with suppress(Crash, TallystickError):
            self.ask(number, payer)
        struck, self.here.faults.armed = self.here.faults.armed is None, None
        if struck:
            self.here.crashed()
            self.reopen()
        if point == "after commit" or not struck:
            self.model.confirm(self.model.intents[number], payer)

    @precondition(lambda self: self.held())
    @rule(which=st.integers(0, 99), part=st.booleans())
    def capture(self, which: int, part: bool) -> None:
        each, intent = self.one_of(self.held(), which)
        amount = max(1, each.amount // 2) if part else each.amount
        self.engine.ledger.capture(WORKSPACE, intent.payment_id, amount).result()
        each.end("succeeded", None, amount)

    @precondition(lambda self: self.held())
    @rule(which=st.integers(0, 99))
    def void(self, which: int) -> None:
        each, intent = self.one_of(self.held(), which)
        self.engine.ledger.void(WORKSPACE, intent.payment_id).result()
        each.end("canceled", "payment_voided")

    @precondition(lambda self: self.waiting())
    @rule(which=st.integers(0, 99), granted=st.booleans())
    def decide(self, which: int, granted: bool) -> None:
        each, intent = self.one_of(self.waiting(), which)
        if granted:
            self.engine.approvals.grant(WORKSPACE, intent.approval_id, by=self.operator)
            self.model.hold(each)
        else:
            self.engine.approvals.deny(WORKSPACE, intent.approval_id, by=self.operator)
            each.end("failed", "approval_denied")

    @rule(number=made)
    def cancel(self, number: int) -> None:
        each = self.model.intents[number]
        may = each.state in ("requires_payment", "canceled")
        cancel, intent_id = self.engine.intents.cancel, self.known[number][0]
        _, code = refusal_of(lambda: cancel(WORKSPACE, intent_id, by=self.operator))
        assert code == (None if may else f"intent_{each.state}")
        if each.state == "requires_payment":
            each.end("canceled", None)

    @rule(by_ms=st.sampled_from([1, HOLD_TTL_MS - 1, 1, *EDGES_MS]))
    def wait(self, by_ms: int) -> None:
        self.here.clock.advance(by_ms)
        self.model.pass_time(by_ms)

    @rule(seldom=st.integers(0, 4))
    def restart(self, seldom: int) -> None:
        if seldom == 0:
            self.here.close()
            self.reopen()

    @invariant()
    def all_is_as_the_model_says(self) -> None:
        if not hasattr(self, "known"):
            return
        expiry = self.engine.expiry
        for sweep in (expiry.holds, expiry.approvals, expiry.intents):
            sweep.run()
        for number, each in enumerate(self.model.intents):
            intent = self.now(number)
            payer = None if each.payer is None else self.sessions[each.payer].id
            found = intent.state, intent.code, intent.captured, intent.session_id
            assert found == (each.state, each.code, each.captured, payer)
            events = [event.name for event in self.engine.intents.events(intent)]
            assert events[0] == "intent.created"
            assert len(set(events)) == len(events)
            if each.state not in ("requires_payment", "processing"):
                assert events[-1] == f"intent.{each.state}"
        _, paid = self.engine.payments.page(WORKSPACE, session_id=None, offset=0, limit=1)
        asked = [each for each in self.model.intents if each.payer is not None]
        granted = sum(ALONE < each.amount <= MOST and self.granted(each) for each in asked)
        assert paid == len(asked) + granted

    def teardown(self) -> None:
        if hasattr(self, "known"):
            with self.engine.database.reading() as connection:
                findings = Findings()
                rows = IntentRows(connection, findings, WORKSPACE)
                for body in connection.execute(OF_WORKSPACE).scalars():
                    record = decode_record(body)
                    what, _, happened = record.kind.partition(".")
                    if what == "intent":
                        rows.follow(record, happened)
                rows.finish()
            assert list(findings) == []
        if hasattr(self, "closing"):
            self.closing.close()

    def held(self) -> list[int]:
        """The numbers of the intents whose payments are held."""
        every = enumerate(self.model.intents)
        return [number for number, each in every if each.state == "processing" and not each.waits]

    def waiting(self) -> list[int]:
        """The numbers of those that wait for an approval."""
        return [number for number, each in enumerate(self.model.intents) if each.waits]

    def one_of(self, numbers: list[int], which: int) -> tuple[Modelled, Intent]:
        """One of them, as the model has it and the engine."""
        number = numbers[which % len(numbers)]
        return self.model.intents[number], self.now(number)

    @staticmethod
    def granted(each: Modelled) -> bool:
        """Whether the payment was made that waited for operators."""
        return not each.waits and each.code not in ("approval_denied", "approval_expired")

    def reopen(self) -> None:
        self.here.open()
        self.access()

    def ask(self, number: int, payer: int) -> Any:
        session, (intent_id, secret) = self.sessions[payer], self.known[number]
        by = Confirming(session.id, session.agent_id, secret, {"customer_wallet": ""})
        return self.engine.intents.confirm(WORKSPACE, intent_id, by)

    def now(self, number: int) -> Intent:
        intent: Intent = self.engine.intents.get(
            WORKSPACE, self.known[number][0], self.here.clock()
        )
        return intent


def test_any_life_of_intents_through_crashes_is_as_a_plain_model_says() -> None:
    run_state_machine_as_test(Intents, settings=settings(max_examples=6, stateful_step_count=30))
