"""Which of the offers of a 402 is taken, and why none is."""

from collections.abc import Iterator
from typing import Any

import pytest

from engine.errors import Conflict, InvalidInput
from engine.payments.gate import NoUsableOffer
from engine.payments.offers import OFFERS_MAX
from engine.policy.limits import Limits
from tests.ledger.paying import (
    CENT,
    OTHER_SHOP,
    SHOP,
    URL,
    ask_gate,
    expect_consistent,
    kinds,
    offer,
    signed,
)
from tests.world import World, records_of

STORES = ("sqlite",)


@pytest.fixture(autouse=True, scope="module")
def _consistent(world: World) -> Iterator[None]:
    yield
    expect_consistent(world)


@pytest.mark.parametrize(
    ("changes", "how", "field"),
    [
        ({"amount": str(2 * CENT)}, {}, "terms.amount"),
        ({"amount": "1"}, {}, "terms.amount"),
        ({"payTo": OTHER_SHOP}, {}, "terms.pay_to"),
        ({"maxTimeoutSeconds": 301}, {}, "terms.timeout_s"),
        ({}, {"resource": URL + "1"}, "terms.resource"),
        ({}, {"method": "POST"}, "terms.method"),
        ({}, {"body_sha256": "ab" * 32}, "terms.body_sha256"),
        ({}, {"metadata_json": '{"other":1}'}, "metadata_json"),
    ],
)
def test_terms_that_changed_under_a_key_are_named_and_not_signed(
    world: World, changes: dict[str, Any], how: dict[str, Any], field: str
) -> None:
    view = world.session()
    signed(world, view, key="once")
    with pytest.raises(Conflict) as refused:
        ask_gate(world, view, offer(world, **changes), key="once", **how)
    assert (refused.value.code, refused.value.details["field"]) == ("idempotency_key_reused", field)
    assert kinds(world, view).count("payment.signed") == 1


@pytest.mark.parametrize(
    ("decimals", "units", "counted"),
    [
        (0, 1, 1_000_000),
        (2, 1, CENT),
        (8, 1_000_001, CENT + 1),  # what is less than a millionth of a dollar counts as one
        (18, 10**16, CENT),
        (18, 1, 1),
    ],
)
def test_an_offer_counts_what_the_decimals_of_its_token_make_of_it(
    world: World, monkeypatch: pytest.MonkeyPatch, decimals: int, units: int, counted: int
) -> None:
    usdc = world.engine.token("USDC", None)
    assert usdc is not None
    of_others = usdc.model_copy(update={"decimals": decimals})
    monkeypatch.setitem(world.engine.gate._tokens, usdc.asset, of_others)
    found = signed(
        world, world.session(Limits(counted, None, None, None, None)), offer(world, units)
    )
    assert found.payment.amount == counted
    less = world.session(Limits(counted - 1, None, None, None, None))
    denied = ask_gate(world, less, offer(world, units))
    assert (denied.state, denied.decision["rule"]) == ("denied", "per_transaction")


def test_the_cheapest_offer_that_the_policy_allows_is_taken(world: World) -> None:
    view = world.session(Limits(5 * CENT, None, None, None, None))
    cheap, dear = offer(world, CENT, payTo=OTHER_SHOP), offer(world, 4 * CENT)
    for offers in ((cheap, dear), (dear, cheap)):
        assert signed(world, view, *offers).payload["accepted"] == cheap
    never = world.session(conditions=(f"never merchant {OTHER_SHOP}",))
    for offers in ((cheap, dear), (dear, cheap)):
        assert signed(world, never, *offers).payload["accepted"] == dear


def test_what_no_offer_is_allowed_is_denied_and_not_signed(world: World) -> None:
    view = world.session(Limits(CENT, None, None, None, None))
    denied = ask_gate(world, view, offer(world, 3 * CENT), offer(world, 2 * CENT), key="dear")
    assert (denied.state, denied.decision["code"]) == ("denied", "LIMIT_EXCEEDED")
    assert denied.amount == 2 * CENT
    again = ask_gate(world, view, offer(world, 2 * CENT), key="dear")
    assert (again.id, again.replayed) == (denied.id, True)
    assert kinds(world, view) == ["payment.decided"]


@pytest.mark.parametrize(
    ("bounds", "rule"),
    [
        ({"merchants": ("elsewhere.test",)}, "merchants"),
        ({"merchants": (OTHER_SHOP,)}, "merchants"),
        ({"conditions": (f"never merchant {SHOP}",)}, "never_merchant"),
        ({"conditions": ("never merchant api.shop.test",)}, "never_merchant"),
        ({"conditions": (f"merchant {SHOP} at most 0.009 USD per day",)}, "merchant_cap"),
        (
            {"conditions": (f"merchant {SHOP} at most 0.009 USD per transaction",)},
            "per_transaction",
        ),
        ({"merchants": ("api.shop.test",)}, None),
        ({"merchants": (SHOP,)}, None),
        ({"conditions": (f"merchant {SHOP} at most 0.01 USD per day",)}, None),
    ],
)
def test_rules_on_merchants_know_the_host_and_the_account(
    world: World, bounds: dict[str, Any], rule: str | None
) -> None:
    view = world.session(**bounds)
    if rule is None:
        signed(world, view, key="first")
        if "conditions" in bounds:
            assert (
                ask_gate(world, view, offer(world, 1), key="2").decision["rule"] == "merchant_cap"
            )
    else:
        assert ask_gate(world, view, offer(world)).decision["rule"] == rule


def test_a_denied_host_is_not_paid_on_another_port(world: World) -> None:
    view = world.session(conditions=("never merchant api.shop.test",))
    elsewhere = "http://api.shop.test:8080/report"
    denied = ask_gate(world, view, offer(world), resource=elsewhere)
    assert denied.decision["rule"] == "never_merchant"
    one_port = world.session(conditions=("never merchant api.shop.test:8080",))
    signed(world, one_port)
    denied = ask_gate(world, one_port, offer(world), resource=elsewhere)
    assert denied.decision["rule"] == "never_merchant"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"maxTimeoutSeconds": 315_360_000}, "maxTimeoutSeconds"),
        ({"network": "eip155:1"}, "network eip155:1 is not configured"),
        ({"asset": "0x" + "77" * 20}, "is not configured"),
        ({"scheme": "upto"}, "scheme"),
        ({"amount": "1e6"}, "amount"),
        ({"amount": 10000}, "amount"),
        ({"amount": "٣"}, "amount"),
        ({"amount": str(10**40)}, "above what can be paid"),
        ({"extra": {"assetTransferMethod": "permit2"}}, "transfer method"),
    ],
)
def test_an_offer_that_cannot_be_paid_is_refused_on_record(
    world: World, changes: dict[str, Any], reason: str
) -> None:
    view = world.session()
    with pytest.raises(NoUsableOffer) as refused:
        ask_gate(world, view, offer(world, **changes), key="k")
    (told,) = refused.value.details["reasons"]
    assert reason in told["reason"]
    (record,) = [each for each in records_of(world, view) if each.kind == "payment.refused"]
    assert record.body == {
        "resource": URL,
        "method": "GET",
        "body_sha256": None,
        "offers": 1,
        "reasons": [told],
        "idempotency_key": "k",
    }
    signed(world, view, key="k")
    with pytest.raises(Conflict, match="terms differs"):
        ask_gate(world, view, offer(world, **changes), key="k")


def test_of_a_thousand_offers_the_first_are_read_and_the_log_stays_small(world: World) -> None:
    view = world.session()
    with pytest.raises(NoUsableOffer):
        ask_gate(world, view, *[offer(world, amount="x" * 900)] * 1000)
    (record,) = [each for each in records_of(world, view) if each.kind == "payment.refused"]
    assert (record.body["offers"], len(record.body["reasons"])) == (1000, OFFERS_MAX)
    assert len(record.raw) < 10_000
    many = [offer(world, CENT + n) for n in range(1000)]
    assert signed(world, view, *reversed(many)).authorization.amount == CENT + 1000 - OFFERS_MAX


@pytest.mark.parametrize("resource", ["", "shop.test", "ftp://shop.test", "https://u@shop.test/"])
def test_what_is_no_resource_is_named(world: World, resource: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        ask_gate(world, world.session(), offer(world), resource=resource)
    assert refused.value.field == "resource"
