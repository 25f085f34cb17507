"""Offers of a 402 answer, from servers that are honest, careless or hostile."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.payments.offers import (
    AMOUNT_MAX,
    OFFERS_MAX,
    TIMEOUT_MAX_S,
    TIMEOUT_MIN_S,
    Offer,
    read_offers,
)

TOKEN = "0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913"
PAYEE = "0x209693Bc6afc0C5328bA36FaF03C514EF312287C"
GOOD: dict[str, Any] = {
    "scheme": "exact",
    "network": "eip155:8453",
    "asset": TOKEN,
    "amount": "10000",
    "payTo": PAYEE,
    "maxTimeoutSeconds": 300,
    "extra": {"name": "USD Coin", "version": "2"},
}

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


def only(offer: Any) -> Offer:
    """The one offer, which must be usable."""
    [read], unusable = read_offers([offer])
    assert unusable == []
    return read


def reason(offer: Any) -> str:
    """Why the one offer is unusable."""
    offers, [unusable] = read_offers([offer])
    assert offers == []
    return unusable.reason


def test_an_honest_offer_is_read() -> None:
    assert only(GOOD) == Offer(
        position=0,
        network="eip155:8453",
        asset=f"eip155:8453/erc20:{TOKEN.lower()}",
        amount=10000,
        pay_to=PAYEE.lower(),
        timeout_s=300,
        accepted=GOOD,
    )
    assert only(GOOD).token == TOKEN.lower()


@given(st.integers(1, AMOUNT_MAX))
def test_an_amount_has_one_spelling(amount: int) -> None:
    assert only(GOOD | {"amount": str(amount)}).amount == amount
    for other in (f"0{amount}", f"+{amount}", f" {amount}", f"{amount}\n", f"{amount}.0", amount):
        assert "amount" in reason(GOOD | {"amount": other})


@given(st.text(st.characters(categories=["Nd"], exclude_characters="0123456789"), min_size=1))
def test_digits_of_other_scripts_are_no_amount(amount: str) -> None:
    assert amount.isdigit()
    assert "amount" in reason(GOOD | {"amount": amount})


@pytest.mark.parametrize(
    "amount", ["0", "", "-1", "1e6", "0x10", "1_000", "1,000", str(AMOUNT_MAX + 1), "9" * 100_000]
)
def test_what_is_no_amount_above_zero_in_256_bits_is_not_paid(amount: str) -> None:
    assert "amount" in reason(GOOD | {"amount": amount})


@given(st.integers())
def test_a_timeout_is_neither_too_short_to_settle_nor_ten_years(timeout_s: int) -> None:
    offer = GOOD | {"maxTimeoutSeconds": timeout_s}
    if TIMEOUT_MIN_S <= timeout_s <= TIMEOUT_MAX_S:
        assert only(offer).timeout_s == timeout_s
    else:
        assert "maxTimeoutSeconds" in reason(offer)


@pytest.mark.parametrize("timeout", [315_360_000, 10**30, "300", 300.0, True, None, [300]])
def test_what_is_no_sensible_timeout_is_not_paid(timeout: Any) -> None:
    assert "maxTimeoutSeconds" in reason(GOOD | {"maxTimeoutSeconds": timeout})


@given(st.lists(st.booleans(), min_size=40, max_size=40))
def test_the_case_of_an_address_means_nothing(upper: list[bool]) -> None:
    def mixed(address: str) -> str:
        pairs = zip(address[2:].lower(), upper, strict=True)
        return "0x" + "".join(digit.upper() if up else digit for digit, up in pairs)

    offer = only(GOOD | {"asset": mixed(TOKEN), "payTo": mixed(PAYEE)})
    assert (offer.token, offer.pay_to) == (TOKEN.lower(), PAYEE.lower())


@pytest.mark.parametrize(
    "network",
    [
        "eip155:08453",
        "eip155:8453 ",
        "eip155:8453\n",
        "eip155: 8453",
        "EIP155:8453",
        "eip155:0",
        "eip155:",
        "eip155:8453:1",
        "eip155:\uff18453",
        "\u0435ip155:8453",  # a Cyrillic e
        "base",
        "solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp",
        "eip155:*",
        8453,
        None,
    ],
)
def test_a_network_that_only_looks_like_one_is_none(network: Any) -> None:
    assert "network" in reason(GOOD | {"network": network})


@pytest.mark.parametrize("name", ["asset", "payTo"])
@pytest.mark.parametrize(
    "address",
    ["", "0x", TOKEN[:-1], TOKEN + "0", TOKEN[2:], "0x" + "g" * 40, TOKEN + "\n", 1, None],
)
def test_what_is_no_address_is_not_paid(name: str, address: Any) -> None:
    assert name in reason(GOOD | {name: address})


def test_nobody_is_not_paid() -> None:
    assert "payTo" in reason(GOOD | {"payTo": "0x" + "0" * 40})


@pytest.mark.parametrize("extra", [[], "", 0, False, "eip3009", ["eip3009"], 1])
def test_an_extra_of_another_type_is_not_believed(extra: Any) -> None:
    assert reason(GOOD | {"extra": extra}) == "extra is no object"


@pytest.mark.parametrize("method", ["permit2", "", None, 1, ["eip3009"], {"eip3009": 1}])
def test_other_ways_to_transfer_are_not_ours(method: Any) -> None:
    assert "asset transfer method" in reason(GOOD | {"extra": {"assetTransferMethod": method}})


def test_an_offer_needs_no_extra() -> None:
    for extra in ({}, {"assetTransferMethod": "eip3009"}, None):
        assert only(GOOD | {"extra": extra}).amount == 10000
    assert only({name: GOOD[name] for name in GOOD if name != "extra"}).amount == 10000


@pytest.mark.parametrize("name", [name for name in GOOD if name != "extra"])
def test_what_is_missing_is_named(name: str) -> None:
    assert name in reason({kept: GOOD[kept] for kept in GOOD if kept != name})


@pytest.mark.parametrize("scheme", ["upto", "Exact", "exact ", "", 1, ["exact"]])
def test_another_scheme_is_not_ours(scheme: Any) -> None:
    assert "scheme" in reason(GOOD | {"scheme": scheme})


@given(st.lists(anything | st.fixed_dictionaries({}, optional=dict.fromkeys(GOOD, anything))))
def test_whatever_is_sent_is_sorted_and_told_in_printable_words(
    accepts: list[Any],
) -> None:
    offers, unusable = read_offers(accepts)
    positions = sorted([offer.position for offer in offers] + [each.position for each in unusable])
    assert positions == list(range(min(len(accepts), OFFERS_MAX + 1)))
    assert all(each.reason.isprintable() and len(each.reason) < 800 for each in unusable)


def test_of_a_thousand_offers_only_the_first_are_looked_at() -> None:
    looked_at = 0

    def accepts() -> Iterator[dict[str, Any]]:
        nonlocal looked_at
        for _ in range(1000):
            looked_at += 1
            yield GOOD

    offers, unusable = read_offers(accepts())
    assert len(offers) == OFFERS_MAX
    assert [(each.position, each.reason) for each in unusable] == [
        (OFFERS_MAX, f"only the first {OFFERS_MAX} offers are read")
    ]
    assert looked_at == OFFERS_MAX + 1


def test_words_of_others_are_short_and_cannot_write_over_a_terminal() -> None:
    told = reason(GOOD | {"network": "\x1b[2Jeip155:1\r" + "x" * 1000})
    assert told.isprintable()
    assert len(told) < 200


def test_what_is_as_deep_as_its_sender_likes_is_not_shown() -> None:
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    assert reason(GOOD | {"amount": deep}) == "amount of type list is no text"
