"""One session, whatever is asked of it in whatever order, is at every moment what a plain model is.

The model sums everything each time it is asked, and shares no code with the engine.
"""

import random
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import Phase, seed, settings
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

from engine.errors import Conflict, InvalidInput
from engine.policy.decision import PaymentRequest
from tests.simulation.canaries import CANARIES
from tests.simulation.faults import Crash, Fault
from tests.simulation.installation import (
    HOLD_TTL_MS,
    START_MS,
    Asked,
    Installation,
    scratch,
    simulated,
)
from tests.world import WORKSPACE

HOUR_MS = 3_600_000
TOKEN = "eip155:31337/erc20:0x" + "11" * 20
LIMITS = {"per_transaction": 60, "per_day": 100, "per_week": 250, "per_month": 300}
CONDITIONS = ("at most 4 payments per hour", "lifetime at most 0.0004 USD")
LENGTHS_MS = {"per_day": 24 * HOUR_MS, "per_week": 168 * HOUR_MS, "per_month": 720 * HOUR_MS}
EDGES_MS = [at + by for at in (HOLD_TTL_MS, HOUR_MS, *LENGTHS_MS.values()) for by in (-1, 0, 1)]


@dataclass
class Model:
    """All that was ever allowed: `[decided_ms, amount, state]` by number; -1 stands for denied."""

    clock_ms: int = START_MS
    latest_ms: int = START_MS
    recorded_ms: int = START_MS
    revoked: bool = False
    count: int = 0
    spends: dict[int, list[Any]] = field(default_factory=dict)
    keys: dict[str, tuple[int, int, bool]] = field(default_factory=dict)

    def now(self) -> int:
        """The time never runs backwards, whatever the clock does."""
        self.latest_ms = max(self.latest_ms, self.clock_ms)
        return self.latest_ms

    def reopen(self) -> None:
        """After a restart the time is the clock's, or that of the last record."""
        self.latest_ms = self.recorded_ms
        self.now()

    def expire(self) -> None:
        for spend in self.spends.values():
            if spend[2] == "held" and spend[0] + HOLD_TTL_MS <= self.now():
                spend[1:], self.recorded_ms = (0, "expired"), self.now()

    def used(self, length_ms: int) -> list[int]:
        after_ms = self.now() - length_ms
        return [amount for decided_ms, amount, _ in self.spends.values() if decided_ms > after_ms]

    def rule(self, amount: int) -> str:
        """The rule that decides a payment now."""
        self.expire()
        if self.revoked:
            return "revoked"
        if amount > LIMITS["per_transaction"]:
            return "per_transaction"
        if sum(part > 0 for part in self.used(HOUR_MS)) >= 4:
            return "payments"
        for name, length_ms in LENGTHS_MS.items():
            if sum(self.used(length_ms)) + amount > LIMITS[name]:
                return name
        return "lifetime" if sum(self.used(self.now() + 1)) + amount > 400 else "all"

    def pay(self, amount: int, key: str, capture: bool) -> tuple[int, str]:
        """The number of the decision and the rule behind it."""
        decided = self.rule(amount)
        number, self.count, self.recorded_ms = self.count, self.count + 1, self.now()
        self.keys[key] = number, amount, capture
        if decided == "all":
            self.spends[number] = [self.now(), amount, "captured" if capture else "held"]
        return number, decided

    def end(self, number: int, state: str, amount: int) -> str:
        """The state that a payment is in afterwards, or why it may not be ended so."""
        spend = self.spends.get(number, [0, 0, "denied"])
        if spend[2] == "held":
            if spend[0] + HOLD_TTL_MS <= self.now() or amount > spend[1]:
                return "expired" if spend[0] + HOLD_TTL_MS <= self.now() else "too much"
            spend[1:], self.recorded_ms = (amount, state), self.now()
        return state if spend[1:] == [amount, state] else str(spend[2])


class Session(RuleBasedStateMachine):
    """The engine and the model, asked the same."""

    payments = Bundle("payments")

    @initialize(seed=st.integers(0, 2**32))
    def opens(self, seed: int) -> None:
        self.closing = ExitStack()
        self.closing.enter_context(simulated())
        directory = self.closing.enter_context(scratch())
        self.engine = Installation(directory, random.Random(seed))
        self.closing.callback(lambda: self.engine.close())
        asked = Asked(
            {**LIMITS, "approval_above": None}, (), (), (), (), CONDITIONS, 9999, False,
            "0x" + "22" * 20, "bot", 1, None,
        )  # fmt: skip
        self.session = self.engine.create(asked).id
        self.model = Model()
        self.ids: list[str] = []
        """Of the payments, by their numbers in the model."""

    @rule(
        target=payments,
        amount=st.integers(1, 70),
        key=st.sampled_from("abcdefghijklmnop"),
        capture=st.booleans(),
    )
    def pay(self, amount: int, key: str, capture: bool) -> Any:
        first = self.model.keys.get(key)
        if first is not None and first[1:] != (amount, capture):
            assert isinstance(self.ask(amount, key, capture).exception(), Conflict)
            return multiple()
        if first is not None:
            return self.replayed(key)
        return self.decided(amount, key, capture)

    @rule(
        target=payments,
        amount=st.integers(1, 70),
        key=st.sampled_from("qrstuvw"),
        point=st.sampled_from(("statement", "before commit", "after commit")),
        after=st.integers(0, 4),
    )
    def pay_and_crash(self, amount: int, key: str, point: Any, after: int) -> Any:
        """Nobody hears the answer; asked again, it is there if and only if it was durable."""
        if key in self.model.keys:
            return self.replayed(key)
        self.engine.faults.armed = Fault("crash", point, after if point == "statement" else 0)
        with suppress(Crash):
            self.ask(amount, key, False)
        struck, self.engine.faults.armed = self.engine.faults.armed is None, None
        if struck:
            self.engine.crashed()
            self.engine.open()
        happened = point == "after commit" or not struck
        if happened:
            self.model.pay(amount, key, False)
        if struck:
            self.model.reopen()
        return self.replayed(key) if happened else self.decided(amount, key, False)

    @rule(payment=payments, amount=st.integers(1, 70))
    def capture(self, payment: int, amount: int) -> None:
        self.ends(payment, "captured", amount)

    @rule(payment=payments)
    def void(self, payment: int) -> None:
        self.ends(payment, "voided", 0)

    @rule(by_ms=st.sampled_from([0, 1, -HOUR_MS, *EDGES_MS]))
    def wait(self, by_ms: int) -> None:
        self.engine.clock.advance(by_ms)
        self.model.clock_ms += by_ms

    @precondition(lambda self: self.model.count > 12)
    @rule()
    def revoke(self) -> None:
        view = self.engine.engine.sessions.revoke(WORKSPACE, self.session, by="operator")
        assert view.state == "revoked"
        if not self.model.revoked:
            self.model.recorded_ms = self.model.now()
        self.model.revoked = True

    @rule()
    def restart(self) -> None:
        self.engine.close()
        self.engine.open()
        self.model.reopen()

    @invariant()
    def the_same_is_left(self) -> None:
        if not hasattr(self, "session"):
            return
        self.model.expire()
        left = self.engine.engine.ledger.remaining(self.session).result()
        for name, length_ms in LENGTHS_MS.items():
            assert getattr(left, name) == LIMITS[name] - sum(self.model.used(length_ms)), name
        assert left.payments == 4 - sum(part > 0 for part in self.model.used(HOUR_MS))

    def teardown(self) -> None:
        if hasattr(self, "closing"):
            self.closing.close()

    def ask(self, amount: int, key: str, capture: bool) -> Any:
        request = PaymentRequest(amount, "books", TOKEN, "eip155:31337", True)
        ledger = self.engine.engine.ledger
        return ledger.authorise(self.session, request, memo={}, key=key, capture=capture)

    def decided(self, amount: int, key: str, capture: bool) -> int:
        number, decided = self.model.pay(amount, key, capture)
        answer = self.ask(amount, key, capture).result()
        assert not answer.replayed
        assert answer.decided_ms == self.model.now()
        self.same(answer, number)
        assert answer.decision["rule"] == decided
        return number

    def replayed(self, key: str) -> int:
        number, amount, capture = self.model.keys[key]
        answer = self.ask(amount, key, capture).result()
        assert answer.replayed
        self.same(answer, number)
        return number

    def same(self, answer: Any, number: int) -> None:
        spend = self.model.spends.get(number)
        if number == len(self.ids):
            assert answer.id not in self.ids
            self.ids.append(answer.id)
        assert answer.id == self.ids[number]
        assert answer.decision["allowed"] == (spend is not None)
        assert answer.state == ("denied" if spend is None else spend[2])

    def ends(self, number: int, state: str, amount: int) -> None:
        expected = self.model.end(number, state, amount)
        payment = self.ids[number]
        ledger = self.engine.engine.ledger
        future = (
            ledger.capture(WORKSPACE, payment, amount)
            if state == "captured"
            else ledger.void(WORKSPACE, payment)
        )
        refusal = future.exception()
        if expected == "too much":
            assert isinstance(refusal, InvalidInput)
        elif refusal is not None:
            assert refusal.code == f"payment_{expected}"
        else:
            assert (future.result().state, future.result().captured) == (state, amount)
            assert expected == state


def test_any_life_of_a_session_through_crashes_is_as_a_plain_model_says() -> None:
    run_state_machine_as_test(Session, settings=settings(max_examples=4, stateful_step_count=30))


@pytest.mark.parametrize("name", ["window-edge", "lost-hold"])
def test_a_planted_fault_is_seen(name: str) -> None:
    """Without making what shows it as short as can be, and with a seed that soon shows it."""
    found = settings(
        max_examples=400, stateful_step_count=40, phases=[Phase.generate], database=None
    )
    seeded = seed(4)(type("Seeded", (Session,), {}))
    with CANARIES[name].plant(), pytest.raises(AssertionError):
        run_state_machine_as_test(seeded, settings=found)
