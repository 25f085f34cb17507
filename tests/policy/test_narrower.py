"""A child session gets no more than its parent has."""

from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from engine.policy.conditions import parse_conditions
from engine.policy.decide import decide
from engine.policy.decision import Policy, Standing
from engine.policy.narrower import narrower
from engine.policy.spending import Spending
from tests.policy.samples import CHAIN, NOW_MS, USDC, conditions, limits, policy, request
from tests.policy.test_every_bound import asking, sentences

PARENT: dict[str, Any] = {
    "limits": limits(per_transaction=10, per_day=20, per_week=30, per_month=40, approval_above=5),
    "permissions": frozenset({"pay", "trade"}),
    "merchants": frozenset({"a", "b"}),
    "tokens": frozenset({USDC, "eip155:1/slip44:60"}),
    "chains": frozenset({CHAIN, "eip155:1"}),
}
SAID = (
    "at most 10 payments per hour",
    "merchant a at most 5 USD per day",
    "never merchant casino",
    "only 09:00-17:00 UTC on Mon Tue",
)


def test_a_policy_is_not_wider_than_itself() -> None:
    assert narrower(policy(), policy()) is None
    same = policy(**PARENT, conditions=conditions(*SAID))
    assert narrower(same, same) is None
    assert narrower(same, policy()) is not None  # the samples' merchants are others


@pytest.mark.parametrize(
    "field", ["per_transaction", "per_day", "per_week", "per_month", "approval_above"]
)
def test_a_limit_is_at_most_the_parent_s(field: str) -> None:
    parent = policy(limits=limits(**{field: 10}))
    for value, expected in [(None, False), (11, False), (10, True), (9, True), (0, True)]:
        child = policy(limits=limits(**{field: value}))
        said = narrower(child, parent)
        assert said == (None if expected else f"limits.{field}: is above the parent's")
    assert narrower(parent, policy()) is None


@pytest.mark.parametrize(
    ("field", "wider"),
    [
        ("permissions", "swap"),
        ("merchants", "c"),
        ("tokens", "eip155:1/slip44:61"),
        ("chains", "eip155:56"),
    ],
)
def test_a_list_has_nothing_that_is_not_on_the_parent_s(field: str, wider: str) -> None:
    parent = policy(**PARENT)
    theirs = PARENT[field]
    said = f"{field}: has what the parent's has not"
    for value, expected in [
        (None, said),
        (theirs | {wider}, said),
        (frozenset({wider}), said),
        (frozenset(list(theirs)[:1]), None),
        (frozenset(), None),
    ]:
        assert narrower(policy(**{**PARENT, field: value}), parent) == expected
    assert narrower(parent, policy(**{**PARENT, field: None})) is None


@pytest.mark.parametrize(
    ("sentences", "missing"),
    [
        (SAID, None),
        ((*SAID, "lifetime at most 5 USD"), None),
        (("at most 9 payments per hour", *SAID[1:]), None),
        ((*SAID[:1], "merchant a at most 4.999999 USD per day", *SAID[2:]), None),
        ((*SAID[:3], "only 10:00-11:00 UTC on Tue"), None),
        (SAID[1:], "the parent's 'at most 10 payments per hour' does not hold"),
        (("at most 11 payments per hour", *SAID[1:]), "10 payments per hour"),
        (("at most 10 payments per day", *SAID[1:]), "10 payments per hour"),
        ((*SAID[:1], "merchant a at most 5.000001 USD per day", *SAID[2:]), "merchant a"),
        ((*SAID[:1], "merchant b at most 5 USD per day", *SAID[2:]), "merchant a"),
        ((*SAID[:2], "never merchant other", *SAID[3:]), "'never merchant casino' does not hold"),
        (SAID[:3], "active hours"),
        ((*SAID[:3], "only 09:00-17:01 UTC on Mon"), "active hours"),
        # The parent's own sentence, and another beside it that opens more.
        ((*SAID, "only 00:00-24:00 UTC on Sun"), "active hours"),
    ],
)
def test_every_condition_of_the_parent_holds(
    sentences: tuple[str, ...], missing: str | None
) -> None:
    parent = policy(conditions=conditions(*SAID))
    said = narrower(policy(conditions=conditions(*sentences)), parent)
    if missing is None:
        assert said is None
    else:
        assert said is not None
        assert said.startswith("conditions: ")
        assert missing in said


def test_restrictions_of_the_parent_bind_and_those_of_the_child_do_not_help() -> None:
    cap = conditions("lifetime at most 5 USD")
    parent = policy(restrictions=cap)
    assert narrower(policy(), parent) is not None
    assert narrower(policy(restrictions=cap), parent) is not None
    assert narrower(policy(conditions=cap), parent) is None


def test_a_host_that_the_parent_denies_cannot_be_passed_on_with_a_port() -> None:
    never = conditions("never merchant shop.test")
    parent = policy(merchants=None, conditions=never)
    listed = frozenset({"shop.test:8080"})
    assert narrower(policy(merchants=listed), parent) is not None
    child = policy(merchants=listed, conditions=never)
    assert narrower(child, parent) is None
    asked = request(merchant="shop.test:8080")
    assert not decide(child, Standing.ACTIVE, Spending(child), asked, NOW_MS).allowed


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"valid_from_ms": NOW_MS - 1001}, "valid_from: is before the parent's"),
        ({"valid_until_ms": NOW_MS + 1001}, "valid_until: is after the parent's"),
        ({"valid_from_ms": NOW_MS, "valid_until_ms": NOW_MS + 1}, None),
    ],
)
def test_it_is_valid_within_the_parent_s_time(change: dict[str, int], said: str | None) -> None:
    assert narrower(policy(**change), policy()) == said


def test_the_first_field_is_named() -> None:
    parent = policy(limits=limits(per_day=1, per_week=1))
    wide = policy(valid_until_ms=NOW_MS + 5000)
    assert narrower(wide, parent) == "limits.per_day: is above the parent's"


limit = st.sampled_from([None, None, 3, 5])
lists = st.sampled_from(
    [None, frozenset({"books"}), frozenset({"books", "casino"}), frozenset({"casino:8080"})]
)


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    names = ("per_transaction", "per_day", "per_week", "per_month", "approval_above")
    return policy(
        limits=limits(**{name: draw(limit) for name in names}),
        merchants=draw(lists),
        tokens=None,
        chains=None,
        conditions=parse_conditions(draw(sentences)),
    )


@settings(max_examples=150)
@given(policies(), policies(), st.data())
def test_what_a_narrower_policy_allows_its_parent_allows(
    child: Policy, parent: Policy, data: st.DataObject
) -> None:
    if narrower(child, parent) is not None:
        # Make it narrower, where that is simple to say.
        child = policy(
            limits=parent.limits,
            merchants=parent.merchants,
            tokens=None,
            chains=None,
            conditions=data.draw(st.sampled_from([parent.conditions, child.conditions])),
        )
    assume(narrower(child, parent) is None)
    mine, theirs = Spending(child), Spending(parent)
    for _ in range(6):
        asked = asking(
            data.draw(st.integers(1, 4)),
            data.draw(st.sampled_from(["books", "casino", "casino:8080"])),
            USDC,
        )
        now_ms = NOW_MS
        if decide(child, Standing.ACTIVE, mine, asked, now_ms).allowed:
            assert decide(parent, Standing.ACTIVE, theirs, asked, now_ms).allowed
            mine.add(now_ms, asked)
            theirs.add(now_ms, asked)
