import json
from itertools import combinations
from typing import Any, get_args

import pytest

from engine.policy.budgets import Budget, BudgetLimits
from engine.policy.decide import decide
from engine.policy.decision import Code, Decision, PaymentRequest, Policy, Remaining, Standing
from engine.policy.identifiers import IdentifierError
from engine.policy.limits import DAY_MS, MONTH_MS, WEEK_MS
from engine.policy.rules import RULES
from engine.policy.spending import Spending
from tests.policy.samples import CHAIN, NOW_MS, USD, USDC, conditions, limits, policy, request


def run(
    policy_: Policy | None = None,
    request_: PaymentRequest | None = None,
    standing: Standing = Standing.ACTIVE,
    used: int = 0,
    now_ms: int = NOW_MS,
) -> Decision:
    in_force = policy_ or policy()
    spending = Spending(in_force)
    if used:
        spending.add(NOW_MS - 10, request(amount=used))
    return decide(in_force, standing, spending, request_ or request(), now_ms)


# Each failing condition on its own, in the order in which the table must report them.
CONDITIONS: list[tuple[str, str, str, dict[str, Any]]] = [
    ("SESSION_REVOKED", "revoked", "standing", {"standing": Standing.REVOKED}),
    ("SESSION_EXPIRED", "valid_until", "clock", {"policy": {"valid_until_ms": NOW_MS}}),
    ("SESSION_PAUSED", "paused", "standing", {"standing": Standing.PAUSED}),
    ("SESSION_NOT_ANCHORED", "anchored", "standing", {"standing": Standing.PENDING}),
    ("SESSION_NOT_STARTED", "valid_from", "clock", {"policy": {"valid_from_ms": NOW_MS + 1}}),
    ("OUTSIDE_ACTIVE_HOURS", "active_hours", "hours", {"says": "only 08:01-24:00 UTC on Fri"}),
    ("PARAMETERS_MISMATCH", "parameters", "standing", {"standing": Standing.MISMATCH}),
    ("PERMISSION_NOT_ALLOWED", "permissions", "permission", {"request": {"permission": "swap"}}),
    ("CHAIN_NOT_ALLOWED", "chains", "chain", {"policy": {"chains": frozenset({"eip155:1"})}}),
    ("CHAIN_NOT_ALLOWED", "never_chain", "not chain", {"says": f"never chain {CHAIN}"}),
    ("TOKEN_NOT_ALLOWED", "tokens", "token", {"policy": {"tokens": frozenset()}}),
    ("TOKEN_NOT_ALLOWED", "never_token", "not token", {"says": f"never token {USDC}"}),
    ("TOKEN_NOT_ALLOWED", "token_price", "price", {"request": {"token_priced": False}}),
    ("MERCHANT_NOT_ALLOWED", "merchants", "merchant", {"request": {"merchant": "other"}}),
    (
        "MERCHANT_NOT_ALLOWED",
        "never_merchant",
        "not merchant",
        {"says": "never merchant books.example"},
    ),
    ("LIMIT_EXCEEDED", "per_transaction", "one", {"limits": {"per_transaction": 10 * USD - 1}}),
    ("LIMIT_EXCEEDED", "payments", "payments", {"says": "at most 1 payment per hour"}),
    ("LIMIT_EXCEEDED", "per_day", "day", {"limits": {"per_day": 20 * USD - 1}}),
    ("LIMIT_EXCEEDED", "per_week", "week", {"limits": {"per_week": 20 * USD - 1}}),
    ("LIMIT_EXCEEDED", "per_month", "month", {"limits": {"per_month": 20 * USD - 1}}),
    ("LIMIT_EXCEEDED", "lifetime", "life", {"says": "lifetime at most 19.999999 USD"}),
    ("LIMIT_EXCEEDED", "token_cap", "t", {"says": f"token {USDC} at most 19.999999 USD per hour"}),
    (
        "LIMIT_EXCEEDED",
        "merchant_cap",
        "m",
        {"says": "merchant books.example at most 19.999999 USD per month"},
    ),
    ("LIMIT_EXCEEDED", "ancestor_budget", "ancestor", {"budget": "session:sess_1"}),
    ("LIMIT_EXCEEDED", "agent_budget", "agent", {"budget": "agent:bot"}),
    ("LIMIT_EXCEEDED", "workspace_budget", "workspace", {"budget": "workspace"}),
    ("APPROVAL_REQUIRED", "approval_above", "above", {"limits": {"approval_above": 10 * USD - 1}}),
]


RULE_NAMES = [row[1] for row in CONDITIONS]


def decide_under(*changes: dict[str, Any], approved: bool = False) -> Decision:
    """Decide $10 after $10, under changes to what allows it."""
    merged: dict[str, Any] = {"policy": {}, "request": {}, "limits": {}}
    standing, budgets = Standing.ACTIVE, []
    for change in changes:
        standing = change.get("standing", standing)
        for part, fields in merged.items():
            fields.update(change.get(part, {}))
        if "budget" in change:
            budgets.append(Budget(change["budget"], BudgetLimits(per_day=20 * USD - 1)))
    says = conditions(*(change["says"] for change in changes if "says" in change))
    changed = policy(limits=limits(**merged["limits"]), conditions=says, **merged["policy"])
    asked = request(**merged["request"])
    spending = Spending(changed)
    for counts in (spending, *budgets):
        counts.add(NOW_MS - 10, asked)
    return decide(
        changed, standing, spending, asked, NOW_MS, budgets=tuple(budgets), approved=approved
    )


def test_with_nothing_failing_the_payment_is_allowed() -> None:
    decision = decide_under()
    assert (decision.allowed, decision.code, decision.rule) == (True, "ALLOWED", "all")
    assert decision.evidence == {"requested": 10 * USD, "used": [10 * USD] * 3}
    assert decision.reason == "Every rule allows the payment."


@pytest.mark.parametrize(("code", "rule", "_", "change"), CONDITIONS, ids=RULE_NAMES)
def test_each_condition_denies(code: str, rule: str, _: str, change: dict[str, Any]) -> None:
    decision = decide_under(change)
    assert (decision.allowed, decision.code, decision.rule) == (False, code, rule)


@pytest.mark.parametrize(
    ("denied", "asked", "allowed"),
    [
        ("shop.test", "shop.test", False),
        ("shop.test", "shop.test:8080", False),
        ("shop.test", "shop.test:443", False),
        ("[::1]", "[::1]:8402", False),
        ("casino", "casino:1", False),
        ("shop.test:8080", "shop.test:8080", False),
        ("shop.test:8080", "shop.test", True),
        ("shop.test:8080", "shop.test:8081", True),
        ("shop.test", "api.shop.test:8080", True),
        ("shop.test", "shop.test:", True),
        ("shop.test", "shop.test:8080x", True),
        ("shop.test", "shop.test:\u0668", True),
        ("shop.test", "shop.test:1:2", True),
        ("[:", "[::1", False),
        ("1", ":1", True),
    ],
)
def test_a_denied_host_is_denied_on_every_port(denied: str, asked: str, allowed: bool) -> None:
    wide = {"policy": {"merchants": None}, "request": {"merchant": asked}}
    decision = decide_under(wide, {"says": f"never merchant {denied}"})
    assert decision.allowed is allowed
    if not allowed:
        assert decision.rule == "never_merchant"
        assert decision.evidence == {"merchant": denied}
        assert decision.reason == f"The session may never pay merchant {denied}."


def test_lists_and_caps_are_of_one_port() -> None:
    wide = {"policy": {"merchants": None}, "request": {"merchant": "shop.test:8080"}}
    assert decide_under({"request": {"merchant": "books.example:8080"}}).rule == "merchants"
    for per in ("transaction", "day"):
        says = f"merchant shop.test{{port}} at most 9 USD per {per}"
        assert decide_under(wide, {"says": says.format(port="")}).allowed
        assert not decide_under(wide, {"says": says.format(port=":8080")}).allowed


PAIRS = [
    (earlier, later)
    for earlier, later in combinations(CONDITIONS, 2)
    if earlier[2] != later[2]  # a session has one standing and starts before it ends
]


@pytest.mark.parametrize(
    ("earlier", "later"), PAIRS, ids=[f"{earlier[1]}-{later[1]}" for earlier, later in PAIRS]
)
def test_of_two_failing_conditions_the_earlier_is_reported(earlier: Any, later: Any) -> None:
    code, rule, _, change = earlier
    for decision in (decide_under(change, later[3]), decide_under(later[3], change)):
        assert (decision.allowed, decision.code, decision.rule) == (False, code, rule)


@pytest.mark.parametrize(("code", "rule", "_", "change"), CONDITIONS, ids=RULE_NAMES)
def test_an_approval_waives_the_last_rule_and_no_other(
    code: str, rule: str, _: str, change: dict[str, Any]
) -> None:
    above = {"limits": {"approval_above": 0}}
    assert decide_under(above, approved=True).allowed
    expected = ("ALLOWED", "all") if rule == "approval_above" else (code, rule)
    decision = decide_under(change, above, approved=True)
    assert (decision.code, decision.rule) == expected


def test_the_table_of_rules_and_the_codes_agree_on_the_order() -> None:
    assert [(rule.code, rule.name) for rule in RULES] == [row[:2] for row in CONDITIONS]
    assert list(get_args(Code)) == [*dict.fromkeys(rule.code for rule in RULES), "ALLOWED"]
    assert all(rule.meaning.endswith(".") for rule in RULES)


@pytest.mark.parametrize("standing", [each for each in Standing if each is not Standing.ACTIVE])
def test_only_an_active_session_pays(standing: Standing) -> None:
    decision = run(standing=standing)
    assert not decision.allowed
    assert decision.evidence == {"standing": standing.value}


@pytest.mark.parametrize(
    ("now_ms", "code"),
    [
        (NOW_MS - 1001, "SESSION_NOT_STARTED"),
        (NOW_MS - 1000, "ALLOWED"),
        (NOW_MS + 999, "ALLOWED"),
        (NOW_MS + 1000, "SESSION_EXPIRED"),
    ],
)
def test_a_session_holds_from_its_start_until_just_before_its_end(now_ms: int, code: str) -> None:
    assert run(now_ms=now_ms).code == code


@pytest.mark.parametrize(
    ("changes", "reason", "evidence"),
    [
        ({"permission": "swap"}, "The session has no permission swap.", {"permission": "swap"}),
        (
            {"chain": "eip155:1", "token": "eip155:1/slip44:60"},
            "The session may not pay on chain eip155:1.",
            {"chain": "eip155:1"},
        ),
        (
            {"token": f"{CHAIN}/slip44:60"},
            f"The session may not pay with token {CHAIN}/slip44:60.",
            {"token": f"{CHAIN}/slip44:60"},
        ),
        (
            {"merchant": "Books.example"},
            "The session may not pay merchant Books.example.",
            {"merchant": "Books.example"},
        ),
        (
            {"merchant": None},
            "The session may only pay listed merchants and the payment names none.",
            {"merchant": None},
        ),
    ],
)
def test_what_is_not_on_a_list_is_denied(
    changes: dict[str, Any], reason: str, evidence: dict[str, Any]
) -> None:
    decision = run(request_=request(**changes))
    assert not decision.allowed
    assert decision.reason == reason
    assert decision.evidence == {**evidence, "allowed_count": 1}


@pytest.mark.parametrize("field", ["permissions", "chains", "tokens", "merchants"])
def test_no_list_allows_anything_and_an_empty_list_nothing(field: str) -> None:
    assert run(policy(**{field: None})).allowed
    assert not run(policy(**{field: frozenset()})).allowed


def test_without_a_merchant_list_a_payment_may_name_no_merchant() -> None:
    assert run(policy(merchants=None), request(merchant=None)).allowed


def test_a_token_without_a_price_is_denied_even_when_any_token_is_allowed() -> None:
    decision = run(policy(tokens=None), request(token_priced=False))
    assert (decision.code, decision.rule) == ("TOKEN_NOT_ALLOWED", "token_price")
    assert decision.reason == f"No price in US dollars is configured for token {USDC}."
    assert decision.evidence == {"token": USDC}


@pytest.mark.parametrize("field", ["per_transaction", "approval_above"])
@pytest.mark.parametrize(("limit", "allowed"), [(9_999_999, False), (10_000_000, True)])
def test_an_amount_equal_to_its_limit_is_within_it(field: str, limit: int, allowed: bool) -> None:
    assert run(policy(limits=limits(**{field: limit}))).allowed is allowed


def test_reasons_and_evidence_of_one_payment() -> None:
    decision = run(policy(limits=limits(per_transaction=5 * USD)))
    assert decision.reason == "$10.00 is above the limit of $5.00 per payment."
    assert decision.evidence == {"limit": 5 * USD, "requested": 10 * USD}
    decision = run(policy(limits=limits(approval_above=5 * USD)))
    assert decision.reason == "$10.00 is above $5.00 and needs an approval."
    assert decision.evidence == {"approval_above": 5 * USD, "requested": 10 * USD}


@pytest.mark.parametrize(
    ("field", "length_ms", "span"),
    [
        ("per_day", DAY_MS, "24 hours"),
        ("per_week", WEEK_MS, "7 days"),
        ("per_month", MONTH_MS, "30 days"),
    ],
)
def test_reason_and_evidence_of_a_window(field: str, length_ms: int, span: str) -> None:
    decision = run(policy(limits=limits(**{field: 1_019_500_000})), used=1_010 * USD)
    assert decision.rule == field
    assert decision.reason == (
        f"$10.00 on top of $1,010.00 already used is above the limit of $1,019.50 in {span}."
    )
    assert decision.evidence == {
        "limit": 1_019_500_000,
        "used": 1_010 * USD,
        "requested": 10 * USD,
        "window_ms": length_ms,
        "retry_at_ms": NOW_MS - 10 + length_ms,
    }
    assert getattr(decision.remaining, field) == 9_500_000


@pytest.mark.parametrize("field", ["per_day", "per_week", "per_month"])
def test_an_amount_above_the_whole_limit_never_fits(field: str) -> None:
    decision = run(policy(limits=limits(**{field: 10 * USD - 1})), used=5 * USD)
    assert decision.evidence["retry_at_ms"] is None


def test_what_remains_counts_the_payment_only_if_it_is_allowed() -> None:
    capped = limits(per_day=50 * USD, per_week=70 * USD)
    assert run(policy(limits=capped), used=5 * USD).remaining == Remaining(
        per_day=35 * USD, per_week=55 * USD, per_month=None
    )
    denied = run(policy(limits=capped), used=5 * USD, standing=Standing.PAUSED)
    assert denied.remaining == Remaining(per_day=45 * USD, per_week=65 * USD, per_month=None)


def test_lowering_a_limit_below_what_was_used_leaves_nothing_and_raising_refills_nothing() -> None:
    spending = Spending(policy())
    spending.add(NOW_MS, request(amount=40 * USD))
    for cap, code, left in [
        (100, "ALLOWED", 50),
        (30, "LIMIT_EXCEEDED", 0),
        (49, "LIMIT_EXCEEDED", 9),
        (50, "ALLOWED", 0),
    ]:
        capped = policy(limits=limits(per_day=cap * USD))
        decision = decide(capped, Standing.ACTIVE, spending, request(), NOW_MS)
        assert (decision.code, decision.remaining.per_day) == (code, left * USD)


def test_deciding_spends_nothing() -> None:
    capped = policy(limits=limits(per_day=10 * USD))
    spending = Spending(capped)
    first = decide(capped, Standing.ACTIVE, spending, request(), NOW_MS)
    for amount in (10 * USD, 11 * USD) * 500:
        decide(capped, Standing.ACTIVE, spending, request(amount=amount), NOW_MS)
    assert spending.windows.used(NOW_MS) == (0, 0, 0)
    assert decide(capped, Standing.ACTIVE, spending, request(), NOW_MS) == first


def test_a_decision_goes_into_json_as_it_is() -> None:
    for _, _, _, change in CONDITIONS:
        decision = decide_under(change)
        assert json.loads(json.dumps(decision.evidence)) == decision.evidence
        assert decision.reason.endswith(".")


@pytest.mark.parametrize("amount", [0, -1, 10**15, True, 1.0])
def test_a_request_has_an_amount_in_range(amount: int) -> None:
    with pytest.raises(AssertionError):
        request(amount=amount)


@pytest.mark.parametrize("chain", ["eip155:1", "eip155:845", "eip155:84530", ""])
def test_a_token_of_another_chain_is_refused(chain: str) -> None:
    with pytest.raises(IdentifierError):
        request(chain=chain)


@pytest.mark.parametrize(
    "changes",
    [
        {"valid_from_ms": NOW_MS, "valid_until_ms": NOW_MS},
        {"merchants": frozenset({"0X" + "A" * 40})},
        {"tokens": frozenset({USDC.upper().replace("EIP155", "eip155").replace("ERC", "erc")})},
        {"chains": frozenset({"eip155:01"})},
    ],
)
def test_a_policy_that_could_never_match_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises((AssertionError, IdentifierError)):
        policy(**changes)
