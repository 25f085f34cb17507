"""What a dry run, an explanation and a backtest answer."""

from typing import Any, Literal

from typing_extensions import TypedDict

from api.rest.answers import DecisionAnswer, Dollars, built_late


class RuleAnswer(TypedDict):
    """What one rule says to a payment, whatever the others say.

    Amounts in `evidence` are micro-USD.
    """

    rule: str
    code: str
    meaning: str
    passes: bool
    reason: str | None
    evidence: dict[str, Any] | None


class LimitAnswer(TypedDict):
    """A limit over time that the payment would use, without it: dollars, or a number of payments.

    `name` is a limit's, or the sentence of a condition; `budget` is above the session or null.
    `window_ms` is null for what never frees.
    """

    name: str
    budget: str | None
    unit: Literal["USD", "payments"]
    limit: Dollars
    used: Dollars
    remaining: Dollars
    window_ms: int | None


class SimulatedPayment(TypedDict):
    """What would be decided now. Nothing was held, logged or remembered.

    `allowed_at` is the first instant at which the same would be allowed if nothing else happened
    until then and nobody captured the open holds; null: never.
    """

    session_id: str
    decision: DecisionAnswer
    rules: list[RuleAnswer]
    limits: list[LimitAnswer]
    allowed_at: str | None


class ExplainedPayment(TypedDict):
    """Why a payment was decided as it was, on the account as the records before it make it.

    `decision` is what they lead to and `recorded` what the log says. Both are the same byte for
    byte if `matches`; if not, `differs` says why, and `decision` is null if they lead nowhere.
    `allowed_at` is as in a simulation, but with all holds kept that were open then; it is null too
    where a budget above the session denied.
    """

    payment_id: str
    session_id: str
    created_at: str
    amount_usd: Dollars
    merchant_id: str | None
    payment_token: str
    matches: bool
    differs: str | None
    recorded: DecisionAnswer
    decision: DecisionAnswer | None
    rules: list[RuleAnswer]
    limits: list[LimitAnswer]
    allowed_at: str | None


class OutcomeAnswer(TypedDict):
    """What a decision came to."""

    code: str
    rule: str


class DifferenceAnswer(TypedDict):
    """A payment that the draft decides otherwise."""

    payment_id: str
    created_at: str
    amount_usd: Dollars
    recorded: OutcomeAnswer
    drafted: OutcomeAnswer


class TotalAnswer(TypedDict):
    """How many payments were allowed, and the dollars of them that were captured or are held."""

    allowed: int
    amount_usd: Dollars


class BacktestAnswer(TypedDict):
    """How a draft compares with the log of a session; the differences are in order.

    What only the draft allows counts as captured in full; what it denies counts for nothing.
    `budgets_above_unknown`: there is something that only the draft allows, and no record of the
    session says whether a budget above it would have denied that.
    """

    session_id: str
    decisions: int
    recorded: TotalAnswer
    drafted: TotalAnswer
    budgets_above_unknown: bool
    first_difference: DifferenceAnswer | None
    differences: list[DifferenceAnswer]


built_late(list(globals().values()))
