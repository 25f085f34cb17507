"""What an operator changes while many pay, on two engines that share a database, counts for all
that is asked after the change was answered, in real time.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import count, pairwise
from pathlib import Path
from typing import NamedTuple, Self

import pytest

from engine.ledger.payment import Payment
from engine.policy.budgets import BudgetLimits
from engine.sessions.session import SessionView
from tests.anvil_world import anvil_with_contracts, wait_until
from tests.ledger.asking import ask
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


@pytest.fixture
def pair(database_url: str, tmp_path: Path) -> Iterator[list[World]]:
    """Two engines on one database."""
    with anvil_with_contracts() as anvil:
        given = {"database": database_url, "kek": "the same for every server"}
        with (
            anvil.world(tmp_path / "0", **given) as first,
            anvil.world(tmp_path / "1", **given) as second,
        ):
            yield [first, second]


def test_a_change_counts_for_all_that_is_asked_after_its_answer(pair: list[World]) -> None:
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
