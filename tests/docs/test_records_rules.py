"""docs/records.md tells how a decision is made again, and the grammar of conditions, as the policy
has them."""

import random
import re
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from engine.audit import approvals, consent, delegation, replay, restricting, signing
from engine.policy.active_hours import DAY_MINUTES
from engine.policy.budgets import LIMIT_NAMES, Budget, BudgetLimits
from engine.policy.conditions import (
    CONDITIONS_MAX,
    PAYMENTS_MAX,
    Cap,
    ConditionError,
    parse_condition,
    parse_conditions,
)
from engine.policy.decide import decide
from engine.policy.decision import STANDING_OF_STATE, Decision, Standing
from engine.policy.money import AMOUNT_MAX_MICRO_USD, SUM_MAX_MICRO_USD
from engine.policy.rules import RULES
from engine.policy.spending import Spending
from tests.policy.samples import CHAIN, NOW_MS, USD, USDC, conditions, limits, policy, request

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "records.md").read_text()
SAID = " ".join(PAGE.split())
HOUR_MS = 3_600_000
MINUS = "\u2212"
FIVE = ["limit", "used", "requested", "window_ms", "retry_at_ms"]
ACCOUNT = "0x" + "5b" * 20
QUOTED = 'merchant "the \\"old\\" books"'


class Row(NamedTuple):
    """One row of the table of rules."""

    code: str
    rule: str
    templates: tuple[str, ...]
    evidence: frozenset[str]


def rows() -> list[Row]:
    """The table of rules."""
    section = PAGE.partition("## The rules\n")[2].partition("### What is left")[0]
    found: list[Row] = []
    before: dict[str, str] = {}
    for line in re.findall(r"^\| (`[A-Z_]+` .*) \|$", section, re.MULTILINE):
        code, rule, _, reason, told = (cell.strip() for cell in line.split(" | "))
        templates: tuple[str, ...]
        if reason.startswith("`"):
            before["the same"] = before[rule] = reason.strip("`")
            templates = (reason.strip("`"),)
        else:
            named = [before["the same"], before["`payments`"]]
            assert reason in ("the same", "the same, or that of `payments`")
            templates = tuple(named if "payments" in reason else named[:1])
        names = re.findall(r"`(\w+)`", re.sub(r"\(.*?\)", "", told))
        five = FIVE if "the five" in told else []
        found.append(Row(code.strip("`"), rule.strip("`"), templates, frozenset(names + five)))
    return found


TABLE = rows()


def decided(
    *payments: Any, standing: Standing = Standing.ACTIVE, asked: Any = None, **changes: Any
) -> Decision:
    """What is decided after these payments, of each its request and how long ago it was."""
    budget: Budget | None = changes.pop("budget", None)
    in_force = policy(**{"merchants": None, **changes})
    spending = Spending(in_force)
    for ago_ms, paid in payments:
        spending.add(NOW_MS - ago_ms, paid)
        if budget is not None:
            budget.add(NOW_MS - ago_ms, paid)
    budgets = [] if budget is None else [budget]
    return decide(
        in_force, standing, spending, asked or request(), NOW_MS, chain_time_ms=7, budgets=budgets
    )


PAID = [(HOUR_MS // 2, request(amount=95 * USD + 1)), (60, request(amount=3))]


def capping(sentence: str, *payments: Any) -> Decision:
    return decided(*(payments or PAID), conditions=conditions(sentence))


def over_budget(budget_id: str, **most: int) -> Decision:
    return decided(*PAID, budget=Budget(budget_id, BudgetLimits(**most)))


def delegator(sentence: str) -> Budget:
    return Budget("session:sess_1", policy(conditions=conditions(sentence)))


SAMPLES = [
    decided(standing=Standing.REVOKED),
    decided(valid_until_ms=NOW_MS),
    decided(standing=Standing.PAUSED),
    decided(standing=Standing.PENDING),
    decided(valid_from_ms=NOW_MS + 1, valid_until_ms=NOW_MS + 9),
    decided(conditions=conditions("only 09:00-10:00 UTC on Mon")),
    decided(standing=Standing.MISMATCH),
    decided(asked=request(permission="refund")),
    decided(chains=frozenset({"eip155:1"})),
    decided(conditions=conditions(f"never chain {CHAIN}")),
    decided(tokens=frozenset()),
    decided(conditions=conditions(f"never token {USDC}")),
    decided(asked=request(token_priced=False)),
    decided(merchants=frozenset({"others"}), asked=request(merchant=None)),
    decided(merchants=frozenset({"others"})),
    decided(conditions=conditions(f"never merchant {ACCOUNT}"), asked=request(pay_to=ACCOUNT)),
    decided(limits=limits(per_transaction=9_999_999)),
    decided(conditions=conditions("merchant books.example at most 0.5 USD per transaction")),
    decided(conditions=conditions(f"token {USDC} at most 9 USD per transaction")),
    capping("at most 2 payments per hour"),
    capping("at most 2 payments per lifetime"),
    decided(*PAID, limits=limits(per_day=100 * USD)),
    decided(*PAID, limits=limits(per_week=100 * USD)),
    decided(*PAID, limits=limits(per_month=9 * USD)),
    decided((1, request(amount=AMOUNT_MAX_MICRO_USD)), limits=limits(per_day=0)),
    capping("lifetime at most 100 USD"),
    capping(f"token {USDC} at most 100 USD per hour"),
    capping("merchant books.example at most 100 USD per lifetime"),
    decided(
        (1, request(merchant='the "old" books')),
        conditions=conditions(f"{QUOTED} at most 19 USD per day"),
        asked=request(merchant='the "old" books'),
    ),
    over_budget("session:sess_1", payments_per_day=2),
    decided(*PAID, budget=delegator("merchant books.example at most 99 USD per week")),
    over_budget("agent:bot", payments_per_hour=1),
    over_budget("agent:bot", per_month=90 * USD),
    over_budget("workspace", payments_per_day=1),
    over_budget("workspace", per_week=99 * USD),
    over_budget("workspace", lifetime=99 * USD),
    decided(limits=limits(approval_above=1_234_567)),
    decided(*PAID),
]


def test_the_rules_are_those_of_the_policy_in_their_order() -> None:
    told = [(row.code, row.rule) for row in TABLE]
    expected = [(rule.code, rule.name) for rule in RULES] + [("ALLOWED", "all")]
    assert list(dict.fromkeys(told)) == expected


def test_every_reason_and_every_evidence_is_as_the_page_has_it() -> None:
    used = set()
    for sample in SAMPLES:
        told = sample.to_json()
        fitting = [
            (place, template)
            for place, row in enumerate(TABLE)
            for template in row.templates
            if (row.code, row.rule, row.evidence)
            == (told["code"], told["rule"], told["evidence"].keys())
            and written(template, told["evidence"]) == told["reason"]
        ]
        assert fitting, told
        used.update(fitting)
    assert used == {(place, each) for place, row in enumerate(TABLE) for each in row.templates}


def written(template: str, told: dict[str, Any]) -> str | None:
    """The reason by what the page says of the names in it."""
    spans = {HOUR_MS: "1 hour", 24 * HOUR_MS: "24 hours", 168 * HOUR_MS: "7 days"}
    length = told.get("window_ms")
    span = "all" if length is None else spans.get(length, "30 days")
    cap = parse_condition(told["condition"]) if "condition" in told else None
    named = isinstance(cap, Cap) and cap.name is not None
    whose = f" for {cap.of} {cap.name}" if named else ""  # type: ignore[union-attr]
    after = f" of budget {told['budget']}" if "budget" in told else whose

    def value(match: re.Match[str]) -> str:
        name, _, dollars = match[1].partition(" ")
        if name in ("span", "whose"):
            return span + after if name == "span" else whose
        return in_dollars(told[name]) if dollars else str(told[name])

    try:
        return re.sub(r"\{(.*?)\}", value, template)
    except KeyError:
        return None


def in_dollars(amount: int) -> str:
    whole, digits = f"{amount // USD:,}", f"{amount % USD:06}"
    return f"${whole}.{digits[:2]}{digits[2:].rstrip('0')}"


def test_when_it_fits_again_is_as_the_page_says() -> None:
    """The end of the time of the first payment with which enough has left."""
    section = SAID.partition("`retry_at_ms`: ")[2]
    assert section.startswith("when the payment would fit if nothing else happened.")
    draw = random.Random(7)
    for _ in range(200):
        ago = sorted((draw.randint(1, HOUR_MS - 1) for _ in range(4)), reverse=True)
        paid = [(at, request(amount=draw.randint(1, 9))) for at in ago]
        found = decided(*paid, limits=limits(per_day=12), asked=request(amount=draw.randint(1, 15)))
        if found.allowed:
            continue
        told, freed, expected = found.evidence, 0, None
        for at, each in paid:
            freed += each.amount
            if freed >= told["used"] + told["requested"] - told["limit"]:  # type: ignore[operator]
                expected = NOW_MS - at + 24 * HOUR_MS
                break
        assert told["retry_at_ms"] == expected


def test_a_payment_leaves_a_window_at_its_end_and_counts_from_its_beginning() -> None:
    assert f"holds at time t what was decided at d with t {MINUS} W < d ≤ t" in SAID
    for ago_ms, allowed in ((0, False), (24 * HOUR_MS - 1, False), (24 * HOUR_MS, True)):
        spent = ago_ms, request(amount=100 * USD)
        assert decided(spent, limits=limits(per_day=100 * USD)).allowed is allowed


def test_the_standings_and_the_limits_that_budgets_have_are_on_the_page() -> None:
    told = PAGE.partition("`standing` follows")[2].partition("\n\n")[0]
    states = {
        state: standing.value
        for state, standing in STANDING_OF_STATE.items()
        if state not in ("paused", "revoked", "mismatch")
    }
    assert states == {
        "active": "active",
        "expired": "active",
        "awaiting_consent": "pending",
        "registering": "pending",
    }
    assert set(re.findall(r"`(\w+)`", told)) >= {*STANDING_OF_STATE, "pending"}
    names = PAGE.partition("- `name` is one of ")[2].partition(", or the sentence")[0]
    assert set(re.findall(r"`(\w+)`", names)) == set(LIMIT_NAMES)


NUMBERS = {
    "at most 7 days": replay.HOLD_TTL_MAX_MS == approvals.TTL_MAX_MS == 7 * 24 * HOUR_MS,
    "| 1 to 10 |": approvals.REQUIRED_MAX == 10,
    "at most 1,000 |": restricting.POLICY_VERSION_MAX == 1_000,
    "at most 2,997 with": restricting.CHANGES_ABOVE_MAX == 2_997,
    "at most 16 0x hashes": signing.ACCEPTED_TRANSACTIONS_MAX == 16,
    "| at most 32 |": signing.REASONS_MAX == 32,
    "| 1 to 3,600 |": signing.TIMEOUT_MAX_S == 3_600,
    "1 to 8,192 bytes": consent.SIGNATURE_BYTES_MAX == 8_192,
    "At most three. Each": delegation.DEPTH_MAX == 4,
    f"1 to 10^15 {MINUS} 1 |": AMOUNT_MAX_MICRO_USD == 10**15 - 1,
    f"told as 2^53 {MINUS} 1 at most": SUM_MAX_MICRO_USD == 2**53 - 1,
    "at most 64 sentences": CONDITIONS_MAX == 64,
    "2 to 999,999,999.": PAYMENTS_MAX == 999_999_999,
    "00:00 to 24:00": DAY_MINUTES == 24 * 60,
}


@pytest.mark.parametrize("said", NUMBERS)
def test_the_bounds_are_those_of_the_code(said: str) -> None:
    assert said in SAID
    assert NUMBERS[said]


# Conditions


def grammar() -> re.Pattern[str]:
    """The grammar of the page as an expression."""
    [text] = re.findall(r"```ebnf\n(.*?)```", PAGE, re.DOTALL)
    special = {"any character": r'[^"\\]', "one or more characters": r'[^\s"\\]+'}
    parts = {"|": "|", ",": "", "(": "(?:", ")": ")", "[": "(?:", "]": ")?", "{": "(?:", "}": ")*"}
    token = re.compile(r'"([^"]*)"|\'([^\']*)\'|\?\s*(.*?)\s*\?|([a-z]+)|([|,()\[\]{}])')
    rules = dict(re.findall(r"^(\w+) += (.*) ;$", text, re.MULTILINE))
    assert len(rules) == len(text.splitlines())

    def expression(rule: str) -> str:
        written = ""
        for quoted, single, said, name, mark in token.findall(rules[rule]):
            if said:
                [written_as] = [each for begin, each in special.items() if said.startswith(begin)]
                written += written_as
            elif name:
                written += expression(name)
            else:
                written += parts[mark] if mark else re.escape(quoted or single)
        return f"(?:{written})"

    return re.compile(expression("condition"))


GOOD = (
    "lifetime at most 5000 USD",
    "lifetime at most 0.000001 USD",
    "at most 1 payment per hour",
    "at most 999999999 payments per lifetime",
    f"token {USDC} at most 100.5 USD per transaction",
    "merchant books at most 20 USD per week",
    f"{QUOTED} at most 20 USD per month",
    'never merchant "a \\\\ b"',
    "never merchant bücher.example",
    f"never token {USDC}",
    "never chain eip155:56",
    "only 09:00-17:00 UTC on Mon Tue Wed Thu Fri",
    "only 00:00-24:00 UTC on Sun",
)
BAD = (
    "only 11:00-12:00 UTC",
    "at most 1 payments per day",
    "at most 2 payment per day",
    "at most 10 payments per week",
    "at most 01 payments per day",
    "lifetime at most 1.50 USD",
    "lifetime at most 1. USD",
    "lifetime at most 0 USD",
    'never merchant "books"',
    "never merchant a b",
    "only 12:00-11:00 UTC on Mon",
    "only 11:00-12:00 UTC on Tue Mon",
    "only 11:60-12:00 UTC on Mon",
    "never wallet x",
)


def test_every_condition_is_one_by_the_grammar() -> None:
    pattern, draw = grammar(), random.Random(1)
    pieces = sorted({word for each in (*GOOD, *BAD) for word in each.split(" ")} | {" ", '"', "\\"})
    accepted = refused = 0
    for sentence in (*GOOD, *BAD) * 400:
        words = sentence.split(" ")
        for _ in range(draw.randint(0, 2)):
            words[draw.randrange(len(words))] = draw.choice(pieces)
        text = " ".join(words)
        wrong = fault(text)
        if wrong is None:
            accepted += 1
            assert pattern.fullmatch(text), text
        else:
            refused += 1
            by_syntax = wrong == "is none of the sentences that a condition can be"
            assert not (by_syntax and pattern.fullmatch(text)), text
    assert accepted > 1000 < refused
    assert [each for each in (*GOOD, *BAD) if fault(each) is None] == list(GOOD)


def fault(sentence: str) -> str | None:
    """Why it is no condition; None if it is one."""
    try:
        parse_condition(sentence)
    except ValueError as error:
        return str(error)
    return None


UNSORTED = {
    "ascending order": ("never merchant b", "never merchant a"),
    "each once": ("never merchant a", "never merchant a"),
    "caps each thing over each time once": (
        "merchant a at most 1 USD per day",
        "merchant a at most 2 USD per day",
    ),
    "what touches or overlaps made one": (
        "only 09:00-10:00 UTC on Mon",
        "only 10:00-11:00 UTC on Mon",
    ),
    "with\n  all days that have it": ("only 09:00-10:00 UTC on Mon", "only 09:00-10:00 UTC on Tue"),
    "whole week are left out": ("only 00:00-24:00 UTC on Mon Tue Wed Thu Fri Sat Sun",),
}


@pytest.mark.parametrize("said", UNSORTED)
def test_a_list_has_one_form(said: str) -> None:
    assert " ".join(said.split()) in SAID
    with pytest.raises(ConditionError):
        parse_conditions(UNSORTED[said])
