"""Limits that were lowered on the chain, as records tell of them and as they are stored."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.audit.lowering import (
    LOWERED,
    UNLOWERED,
    Lowering,
    follow_lowering,
    lowered_from_json,
    lowered_to_json,
)
from engine.grant import UNLIMITED, limits_for_chain, limits_from_chain
from engine.policy.limits import Limits, lowest
from engine.policy.money import AMOUNT_MAX_MICRO_USD

TX = "0x" + "ab" * 32

limit = st.none() | st.integers(0, AMOUNT_MAX_MICRO_USD)
limits = st.builds(Limits, limit, limit, limit, limit, limit)
lowerings = st.builds(
    Lowering, st.binary(min_size=32, max_size=32).map(lambda b: "0x" + b.hex()), limits
)


def body(lowering: Lowering) -> dict[str, Any]:
    return {"tx_hash": lowering.tx_hash, "limits_micro_usd": lowering.limits.to_json()}


@given(st.lists(limits, min_size=1, max_size=4))
def test_of_each_limit_the_smallest_is_in_force_and_none_is_unlimited(
    several: list[Limits],
) -> None:
    found = lowest(*several)
    for name, value in found.to_json().items():
        values = [getattr(each, name) for each in several]
        bounded = [each for each in values if each is not None]
        assert value == (min(bounded) if bounded else None)


@given(limits, st.lists(lowerings, max_size=4))
def test_nothing_that_is_told_raises_a_limit(granted: Limits, told: list[Lowering]) -> None:
    lowered: tuple[Lowering, ...] = ()
    before = granted
    for each in dict.fromkeys(told):
        lowered = follow_lowering(lowered, LOWERED, body(each))
        after = lowest(granted, *(one.limits for one in lowered))
        assert lowest(before, after) == after
        before = after


@given(st.lists(lowerings, max_size=4, unique=True))
def test_what_is_stored_is_read_back(told: list[Lowering]) -> None:
    assert lowered_from_json(lowered_to_json(told)) == tuple(told)


def test_the_same_event_counts_once_and_is_undone_once() -> None:
    event = Lowering(TX, Limits(1, None, None, None, None))
    lowered = follow_lowering((), LOWERED, body(event))
    with pytest.raises(ValueError, match="count already"):
        follow_lowering(lowered, LOWERED, body(event))
    assert follow_lowering(lowered, UNLOWERED, body(event)) == ()
    with pytest.raises(ValueError, match="do not count"):
        follow_lowering((), UNLOWERED, body(event))


LIMITS = Limits(1, 2, 3, 4, None).to_json()


@pytest.mark.parametrize(
    "told",
    [
        {},
        {"tx_hash": TX},
        {"tx_hash": "ab" * 32, "limits_micro_usd": LIMITS},
        {"tx_hash": TX.upper(), "limits_micro_usd": LIMITS},
        {"tx_hash": TX + "ab", "limits_micro_usd": LIMITS},
        {"tx_hash": None, "limits_micro_usd": LIMITS},
        {"tx_hash": TX, "limits_micro_usd": None},
        {"tx_hash": TX, "limits_micro_usd": []},
        {"tx_hash": TX, "limits_micro_usd": {**LIMITS, "per_year": 1}},
        {"tx_hash": TX, "limits_micro_usd": {"per_day": 1}},
        {"tx_hash": TX, "limits_micro_usd": {**LIMITS, "per_day": -1}},
        {"tx_hash": TX, "limits_micro_usd": {**LIMITS, "per_day": True}},
        {"tx_hash": TX, "limits_micro_usd": {**LIMITS, "per_day": "1"}},
        {"tx_hash": TX, "limits_micro_usd": {**LIMITS, "per_day": AMOUNT_MAX_MICRO_USD + 1}},
    ],
)
def test_what_tells_of_no_lowering_is_refused(told: dict[str, Any]) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        follow_lowering((), LOWERED, told)


@pytest.mark.parametrize(
    "stored",
    [
        *("", "x", "5", "null", "{}", "[1]", "[{}]", "[null]", " []"),
        '[{"limits_micro_usd":{},"tx_hash":""}]',
        lowered_to_json([Lowering(TX, Limits(1, 2, 3, 4, 5))])[:-2] + ',"more":1}]',
    ],
)
def test_what_is_not_stored_so_is_refused(stored: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 (what is wrong is of many kinds)
        lowered_from_json(stored)


@given(limits)
def test_limits_go_to_the_chain_and_come_back(ours: Limits) -> None:
    assert limits_from_chain(limits_for_chain(ours)) == ours
    as_indexed = {name: str(value) for name, value in limits_for_chain(ours).items()}
    assert limits_from_chain(as_indexed) == ours


def test_a_limit_that_is_above_every_amount_is_the_highest_and_not_none() -> None:
    told = limits_for_chain(Limits(None, None, None, None, None))
    told["perDayMicroUsd"] = UNLIMITED - 1
    assert limits_from_chain(told) == Limits(None, AMOUNT_MAX_MICRO_USD, None, None, None)
