"""What an operator changes while many pay, on two engines that share a database, counts for all
that is asked after the change was answered, in real time.
"""

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count, pairwise
from typing import NamedTuple, Self

import pytest

from engine.errors import Conflict, Unauthenticated
from engine.ledger.payment import Payment
from engine.policy.budgets import BudgetLimits
from engine.sessions.session import SessionView
from engine.workspaces.agent_keys import NewAgentKey
from tests.anvil_world import wait_until
from tests.ledger.asking import ask
from tests.ledger.intending import confirm, intent, now
from tests.world import USD, WORKSPACE, World

STORES = ("postgresql",)
CLIENTS = 16
ANSWERS_BETWEEN = 100
EXPLAINED = 40
AGENT = "bot"


class Answer(NamedTuple):
    """A payment, when it was asked for and when it was answered (`time.monotonic`)."""

    asked: float
    heard: float
    payment: Payment

    @property
    def rule(self) -> str:
        return str(self.payment.decision["rule"])


class Load:
    """Clients that pay a dollar again and again, each at least once after the block has ended."""

    def __init__(self, worlds: list[World], view: SessionView) -> None:
        self.answers: list[Answer] = []
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=self._pay, args=(worlds[n % len(worlds)], view, n))
            for n in range(CLIENTS)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def change(self, make: Callable[[], object]) -> tuple[float, float]:
        """After some more answers; returns when it was begun and when it was answered."""
        enough = len(self.answers) + ANSWERS_BETWEEN
        wait_until(lambda: len(self.answers) >= enough)
        begun = time.monotonic()
        make()
        return begun, time.monotonic()

    def _pay(self, world: World, view: SessionView, client: int) -> None:
        for number in count():
            over, asked = self._over.is_set(), time.monotonic()
            payment = ask(world, view, USD, key=f"{client}-{number}").result()
            self.answers.append(Answer(asked, time.monotonic(), payment))
            if over:
                return


def test_what_both_are_asked_to_make_under_one_key_is_made_once(pair: tuple[World, World]) -> None:
    def made(caller: int) -> tuple[bool, str, str]:
        """Whether it was a replay, what was made, and its secret."""
        world = pair[caller % 2]
        once = world.engine.once("key_of_an_operator", "order 7", "payment-intents", {"amount": 5})
        found, secret = intent(world, 5, once=once)
        return once.replayed, found.id, secret

    with ThreadPoolExecutor(8) as pool:
        answers = [*pool.map(made, range(16))]
    assert len({(made_id, secret) for _, made_id, secret in answers}) == 1
    assert sorted(replayed for replayed, *_ in answers) == [False] + [True] * 15


def test_an_intent_that_both_are_asked_to_confirm_is_paid_once(pair: tuple[World, World]) -> None:
    sessions = [pair[0].session() for _ in range(2)]
    every = [intent(pair[n % 2], 1, capture=("automatic", "manual")[n % 2]) for n in range(6)]

    def confirmed(caller: int) -> list[str]:
        """The payments that this caller hears of."""
        heard = []
        for made, secret in every:
            with contextlib.suppress(Conflict):
                done = confirm(pair[caller % 2], made, secret, sessions[caller // 2 % 2])
                heard.append(done.payment.id)
        return heard

    with ThreadPoolExecutor(CLIENTS) as threads:
        heard = [payment for each in threads.map(confirmed, range(CLIENTS)) for payment in each]
    paid = [
        pair[1].engine.payments.page(WORKSPACE, session_id=each.id, offset=0, limit=9)
        for each in sessions
    ]
    assert sum(total for _, total in paid) == len(every)
    assert {payment.id for page, _ in paid for payment in page} == set(heard)
    assert {now(pair[1], made).state for made, _ in every} == {"succeeded", "processing"}


def test_a_change_counts_for_all_that_is_asked_after_its_answer(pair: tuple[World, World]) -> None:
    first, second = pair
    view = first.session()
    budgets, sessions = second.engine.budgets, second.engine.sessions
    with Load(pair, view) as load:
        less = BudgetLimits(per_day=USD)
        lowered = load.change(lambda: budgets.set(WORKSPACE, AGENT, less, by="test"))
        cleared = load.change(lambda: first.engine.budgets.clear(WORKSPACE, AGENT, by="test"))
        never = ["never merchant books"]
        narrowed = load.change(lambda: sessions.restrict(WORKSPACE, view.id, never, by="test"))
        lifted = load.change(lambda: sessions.restrict(WORKSPACE, view.id, [], by="test"))
        revoked = load.change(lambda: first.engine.revoke_session(WORKSPACE, view.id, by="test"))
    ended = time.monotonic()
    changes = [(0.0, 0.0), lowered, cleared, narrowed, lifted, revoked, (ended, ended)]
    found = []
    for (_, before), (after, _) in pairwise(changes):
        between = [each for each in load.answers if before <= each.asked and each.heard <= after]
        found.append(Counter(each.rule for each in between))
    assert [list(rules) for rules in found] == [
        ["all"],
        ["agent_budget"],
        ["all"],
        ["never_merchant"],
        ["all"],
        ["revoked"],
    ]
    assert found[-1].total() >= CLIENTS
    allowed = [each for each in load.answers if each.rule == "all"]
    assert max(each.asked for each in allowed) < revoked[1]
    for answer in load.answers[:: len(load.answers) // EXPLAINED]:
        # As the policy was then, whatever it is by now.
        assert second.engine.explanations.explain(answer.payment).differs is None


def test_a_key_that_one_revokes_opens_nothing_at_the_other(pair: tuple[World, World]) -> None:
    first, second = pair
    admin = first.engine.access.operator(str(first.operator_key))
    made, operator = first.engine.keys.operators.create(admin, "Ada", live=False)
    new = NewAgentKey(name="crawler", agent_id="bot")
    agent, secret = first.engine.keys.agents.create(WORKSPACE, new, by=admin.key_id)
    assert second.engine.access.operator(operator).key_id == made.id
    assert second.engine.keys.use.admit(secret, None)[1].result().remaining == 999
    first.engine.keys.operators.revoke(admin, made.id)
    first.engine.keys.agents.revoke(WORKSPACE, agent.id, by=admin.key_id)
    with pytest.raises(Unauthenticated):
        second.engine.access.operator(operator)
    with pytest.raises(Unauthenticated, match="revoked"):
        second.engine.keys.use.admit(secret, None)
