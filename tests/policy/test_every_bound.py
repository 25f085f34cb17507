"""All that can bound a session, together, against an oracle that re-sums all of history."""

from dataclasses import dataclass, field, replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.policy.budgets import Budget, BudgetLimits
from engine.policy.conditions import parse_conditions
from engine.policy.decide import decide
from engine.policy.decision import PaymentRequest, Policy, Standing
from engine.policy.explain import explain
from engine.policy.limits import Limits
from engine.policy.rules import WINDOW_RULES
from engine.policy.spending import Spending
from engine.policy.windows import Entry
from tests.policy.conditions_oracle import HOUR_MS, LENGTHS_MS, Paid, Terms
from tests.policy.samples import NOW_MS, USDC

TOKENS = (USDC, "eip155:56/slip44:714")
MERCHANTS = ("books", "books:8080", "casino", "casino:8080", None)
DAY_MS = 24 * HOUR_MS
START_MS = NOW_MS - 5 * DAY_MS


@dataclass
class Session:
    """One session, run by the engine and by the oracle."""

    terms: Terms
    history: list[Paid] = field(default_factory=list)
    entries: list[Entry | None] = field(default_factory=list)
    spending: Spending = field(init=False)

    def __post_init__(self) -> None:
        self.spending = Spending(self.policy())

    def policy(self) -> Policy:
        return Policy(
            limits=Limits(**self.terms.limits),
            permissions=None,
            merchants=None,
            tokens=None,
            chains=None,
            valid_from_ms=self.terms.valid_ms[0],
            valid_until_ms=self.terms.valid_ms[1],
            conditions=parse_conditions(self.terms.sentences),
            restrictions=parse_conditions(self.terms.restrictions, "restrictions"),
        )


class World:
    """A workspace with two sessions, of which the first is under the budget of an agent, too."""

    def __init__(self, sessions: list[Session], budgets: list[dict[str, int]]) -> None:
        self.sessions = sessions
        self.now_ms = START_MS
        self.budget_histories: list[list[Paid]] = [[], []]
        self.budget_entries: list[list[Entry]] = [[], []]
        self.budgets: list[Budget] = []
        self.edit_budgets(budgets)

    def edit_budgets(self, limits: list[dict[str, int]]) -> None:
        """Set both budgets' limits: they are made again from what was paid."""
        self.budgets = [
            Budget(name, BudgetLimits(**each))
            for name, each in zip(("agent:bot", "workspace"), limits, strict=True)
        ]
        for place, budget in enumerate(self.budgets):
            self.budget_entries[place] = [
                budget.add(paid.decided_ms, asking(paid.amount or 1, paid.merchant, paid.token))
                for paid in self.budget_histories[place]
            ]
            for entry, paid in zip(
                self.budget_entries[place], self.budget_histories[place], strict=True
            ):
                budget.reduce(entry, paid.amount)
        first, second = self.sessions
        agent, workspace = (
            (budget.rule, history, each)
            for budget, history, each in zip(
                self.budgets, self.budget_histories, limits, strict=True
            )
        )
        first.terms.budgets, second.terms.budgets = [agent, workspace], [workspace]

    def above(self, which: int) -> list[int]:
        return [0, 1] if which == 0 else [1]

    def wait(self, gap_ms: int) -> None:
        self.now_ms += gap_ms

    def pay(self, which: int, amount: int, merchant: str | None, token: str) -> None:
        session, now_ms = self.sessions[which], self.now_ms
        asked, paid = asking(amount, merchant, token), Paid(now_ms, amount, merchant, token)
        policy, budgets = session.policy(), [self.budgets[place] for place in self.above(which)]
        broken = session.terms.broken(session.history, paid, now_ms)
        rule = session.terms.verdict(session.history, paid, now_ms)

        told = explain(policy, Standing.ACTIVE, session.spending, asked, now_ms, budgets=budgets)
        assert {verdict.rule.name for verdict in told.verdicts if verdict.finding} == broken
        assert told.allowed_at_ms == session.terms.allowed_at(session.history, paid, now_ms)
        for limit in told.limits:
            assert limit.left == max(0, limit.limit - limit.used)
        for _ in range(2):  # the second decision remembers which rules matter
            decision = decide(
                policy, Standing.ACTIVE, session.spending, asked, now_ms, budgets=budgets
            )
            assert decision == told.decision
        assert decision.rule == rule
        assert decision.allowed == (rule == "all")
        if rule in WINDOW_RULES:
            self.check_evidence(session, paid, decision.evidence, rule)
        if decision.allowed:
            self.spend(which, asked, paid)
        left = session.terms.left(session.history, paid, now_ms)
        assert decision.to_json()["remaining"] == left

    def check_evidence(self, session: Session, paid: Paid, evidence: Any, rule: str) -> None:
        over = [
            (bound, session.history if other is None else other)
            for bound, other in session.terms.bounds()
            if bound.rule == rule and bound.most == evidence["limit"]
        ]
        claims = [
            (bound, history)
            for bound, history in over
            if bound.length_ms == evidence["window_ms"] and bound.bursts(history, paid, self.now_ms)
        ]
        assert claims
        bound, history = claims[0]
        assert evidence["used"] == bound.used(history, self.now_ms)
        assert evidence["requested"] == bound.of(paid)
        retry_at_ms = evidence["retry_at_ms"]
        if retry_at_ms is None:
            assert bound.length_ms is None or bound.of(paid) > bound.most
        else:
            assert not bound.bursts(history, paid, retry_at_ms)
            assert bound.bursts(history, paid, retry_at_ms - 1)

    def spend(self, which: int, asked: PaymentRequest, paid: Paid) -> None:
        session = self.sessions[which]
        session.history.append(paid)
        session.entries.append(session.spending.add(self.now_ms, asked))
        for place in self.above(which):
            self.budget_histories[place].append(paid)
            self.budget_entries[place].append(self.budgets[place].add(self.now_ms, asked))

    def settle(self, which: int, index: int, share: int) -> None:
        """Capture (part), void or expire any payment so far, in any order and again."""
        session = self.sessions[which]
        if not session.history:
            return
        paid = session.history[index % len(session.history)]
        entry = session.entries[index % len(session.history)]
        to_amount = paid.amount * share // 3
        for _ in range(2):
            if entry is not None:
                session.spending.reduce(entry, to_amount)
            for place in self.above(which):
                (found,) = (
                    place_entry
                    for place_entry, other in zip(
                        self.budget_entries[place], self.budget_histories[place], strict=True
                    )
                    if other is paid
                )
                self.budgets[place].reduce(found, to_amount)
        paid.amount = to_amount

    def restrict(self, which: int, restrictions: list[str]) -> None:
        """Edit the operator's restrictions: the spending is made again from what was paid."""
        session = self.sessions[which]
        session.terms.restrictions = restrictions
        session.spending = Spending(session.policy())
        for place, paid in enumerate(session.history):
            asked = asking(paid.amount or 1, paid.merchant, paid.token)
            entry = session.spending.add(paid.decided_ms, asked)
            session.spending.reduce(entry, paid.amount)
            session.entries[place] = entry


def asking(amount: int, merchant: str | None, token: str) -> PaymentRequest:
    return PaymentRequest(amount, merchant, token, token.split("/", maxsplit=1)[0], True)


def sentence(kind: str, most: int) -> str:
    noun = "payment" if most == 1 else "payments"
    return kind.format(usd=f"{most / 1_000_000:.6f}".rstrip("0"), most=most, noun=noun)


PERS = ("hour", "day", "week", "month", "lifetime")
KINDS = [
    "lifetime at most {usd} USD",
    *(f"at most {{most}} {{noun}} per {per}" for per in ("hour", "day", "lifetime")),
    *(f"token {token} at most {{usd}} USD per {per}" for token in TOKENS for per in PERS),
    *(f"merchant books at most {{usd}} USD per {per}" for per in ("transaction", *PERS)),
    f"token {USDC} at most {{usd}} USD per transaction",
]
FLAT = [
    "never merchant casino",
    "never merchant casino:8080",
    "never token eip155:56/slip44:714",
    "never chain eip155:56",
]
HOURS = [
    *([[]] * 24),
    ["only 00:00-24:00 UTC on Sat Sun", "only 06:00-09:00 UTC on Mon Tue Wed Thu Fri"],
    ["only 00:00-06:00 UTC on Tue", "only 22:00-24:00 UTC on Mon"],
    ["only 07:59-08:01 UTC on Mon Fri Sun"],
]
amounts = st.sampled_from([1, 1, 1, 2, 2, 3, 5])
capped = st.lists(
    st.tuples(st.sampled_from(KINDS), st.integers(1, 12)),
    max_size=4,
    unique_by=lambda pair: pair[0],
)
sentences = st.builds(
    lambda caps, flat, hours: sorted([sentence(*cap) for cap in caps] + flat + hours),
    capped,
    st.sampled_from([*([[]] * 12), *([each] for each in FLAT)]),
    st.sampled_from(HOURS),
)
limit = st.sampled_from([None, None, None, None, *range(3, 15)])
limits = st.fixed_dictionaries(
    dict.fromkeys(("per_transaction", "per_day", "per_week", "per_month", "approval_above"), limit)
)
valid = st.sampled_from(
    [
        *([(0, 10**14)] * 12),
        (START_MS + HOUR_MS, START_MS + 9 * DAY_MS),
        (0, START_MS + 40 * DAY_MS),
    ]
)
budget = st.dictionaries(
    st.sampled_from(
        ["payments_per_hour", "payments_per_day", "per_day", "per_week", "per_month", "lifetime"]
    ),
    st.integers(3, 12),
    min_size=1,
    max_size=2,
)
budgets = st.lists(budget, min_size=2, max_size=2)
terms = st.builds(Terms, sentences, sentences, limits, valid)
gaps = st.sampled_from(
    [0, 1, HOUR_MS - 1, HOUR_MS, 6 * HOUR_MS]
    + [length_ms + off_ms for length_ms in LENGTHS_MS.values() for off_ms in (-1, 0, 1)]
) | st.integers(0, 3 * DAY_MS)
which = st.sampled_from([0, 0, 1])
pays = st.tuples(
    st.just("pay"), st.tuples(which, amounts, st.sampled_from(MERCHANTS), st.sampled_from(TOKENS))
)
waits = st.tuples(st.just("wait"), st.tuples(gaps))
settles = st.tuples(st.just("settle"), st.tuples(which, st.integers(0, 30), st.integers(0, 3)))
edits = st.tuples(st.just("restrict"), st.tuples(which, sentences)) | st.tuples(
    st.just("edit_budgets"), st.tuples(budgets)
)
scripts = st.lists(st.one_of(pays, waits, pays, settles, pays, edits), min_size=12, max_size=30)


@settings(max_examples=120, deadline=None)
@given(first=terms, second=terms, above=budgets, script=scripts)
def test_every_bound_matches_the_oracle(
    first: Terms, second: Terms, above: list[dict[str, int]], script: list[tuple[str, Any]]
) -> None:
    world = World([Session(replace(first)), Session(replace(second))], above)
    for action, arguments in script:
        getattr(world, action)(*arguments)
