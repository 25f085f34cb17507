"""Each payment on a chain is bound to one record, and whatever is not is one incident."""

import random
from dataclasses import replace
from itertools import chain
from typing import Any

import pytest

from engine.audit.chain import ChainSilent, Spend
from engine.audit.report import Verdict
from engine.audit.statement import statement
from engine.audit.verify import examine
from tests.audit import make_vectors as vectors
from tests.audit import vector_sessions as whose
from tests.evidence.signing import (
    ANCHORED,
    HOME,
    KEY,
    OTHER_SHOP,
    SHOP,
    USDC,
    Payment,
    SignedRecords,
    Told,
    events,
    row,
    settling,
)
from tests.evidence.story import Snapshot
from tests.evidence.test_html_report import missing

STRANGER = "0x" + "99" * 20
BASE = "eip155:8453"
BASE_USDC = "0x" + "88" * 20
ON_BASE = {"network": BASE, "asset": f"{BASE}/erc20:{BASE_USDC}"}


def signed(count: int = 3) -> tuple[SignedRecords, list[Payment]]:
    records = SignedRecords()
    return records, [records.sign(1_000 + number) for number in range(count)]


def all_settled(payments: list[Payment]) -> list[Spend]:
    return [
        event for place, payment in enumerate(payments) for event in settling(payment, place=place)
    ]


def test_payments_that_settled_as_they_were_signed_are_verified() -> None:
    records, payments = signed()
    spends = all_settled(payments)
    for place, payment in enumerate(payments[:2]):
        records.capture(payment, spends[2 * place :])
    told = Told(records, spends)
    check = told.check()
    assert check.verdict is Verdict.VERIFIED, check.reason
    assert check.reason == f"3 payments on {HOME}, each by its record's nonce"
    assert [each.state for each in told.examine().found.spends.settlements] == ["settled"] * 3


def test_several_payments_in_one_transaction_are_told_apart() -> None:
    """Even of one amount to one payee, and if a token tells the transfer first."""
    records = SignedRecords()
    payments = [records.sign(amount) for amount in (1_000, 1_000, 2_000)]
    together = [
        replace(event, tx_hash=b"\x07" * 32, log_index=place)
        for place, event in enumerate(all_settled(payments))
    ]
    for spends in (together, together[::-1], [*together[1::2], *together[::2]]):
        assert Told(records, spends).check().verdict is Verdict.VERIFIED
    stray = events(USDC, b"\x07" * 32, SHOP, 1_000)
    mixed = [
        replace(event, tx_hash=b"\x07" * 32, log_index=place)
        for place, event in enumerate([*stray, *together, *events(USDC, None, SHOP, 9)])
    ]
    found = Told(records, mixed).examine().found.spends.incidents
    assert [(each.kind, each.spend.amount) for each in found] == [
        ("orphan", 1_000),
        ("transfer", 9),
    ]
    check = Told(records, [*together, replace(together[-1], log_index=9)]).check()
    assert check.verdict is Verdict.TAMPERED
    assert check.reason.startswith("1 on the chain without a record that allows it, the first: a ")


def stray(kind: str, payments: list[Payment], place: int) -> list[Spend]:
    """Events of one payment that no record allows."""
    nonce = place.to_bytes(32)
    return {
        "orphan": events(USDC, nonce, SHOP, 5, place=place),
        "transfer": events(USDC, None, SHOP, 5, place=place),
        "other token": events(STRANGER, None, SHOP, 5, place=place),
        "other token's": events(STRANGER, nonce, SHOP, 5, place=place),
        "nonce of nothing": events(USDC, nonce, SHOP, 5, place=place)[:1],
        "second use": settling(payments[0], place=place),
        "elsewhere": events(STRANGER, payments[0].nonce, SHOP, 1_000, place=place),
        "transactions": [Spend("transactions", count=place)],
    }[kind]


STRAYS = {
    "orphan": ("orphan", Verdict.TAMPERED),
    "transfer": ("transfer", Verdict.TAMPERED),
    "other token": ("transfer", Verdict.UNBINDABLE),
    "other token's": ("orphan", Verdict.UNBINDABLE),
    "nonce of nothing": ("orphan", Verdict.TAMPERED),
    "second use": ("reused", Verdict.TAMPERED),
    "elsewhere": ("reused", Verdict.UNBINDABLE),
    "transactions": ("transactions", Verdict.TAMPERED),
}


@pytest.mark.parametrize("name", STRAYS)
def test_one_stray_is_one_incident(name: str) -> None:
    records, payments = signed()
    told = Told(records, [*all_settled(payments), *stray(name, payments, 20)])
    [incident] = told.examine().found.spends.incidents
    assert (incident.kind, incident.verdict) == STRAYS[name]
    check = told.check()
    assert check.verdict is incident.verdict
    assert incident.what in check.reason


def test_so_many_strays_are_so_many_incidents_whatever_they_are() -> None:
    """However they lie among honest payments, and in whatever order an endpoint tells them."""
    drawn = random.Random(6)
    records, payments = signed(12)
    for _ in range(20):
        kinds = drawn.choices([name for name in STRAYS if name != "transactions"], k=5)
        told = [all_settled(payments)]
        told += [stray(kind, payments, 20 + place) for place, kind in enumerate(kinds)]
        drawn.shuffle(told)
        found = Told(records, list(chain.from_iterable(told))).examine().found.spends
        # Of two uses of one nonce, whichever comes first is the payment's.
        assert sorted(each.kind for each in found.incidents) == sorted(STRAYS[k][0] for k in kinds)
        assert {each.state for each in found.settlements} == {"settled"}


def test_a_record_that_is_left_out_leaves_an_orphan_that_is_named() -> None:
    records, payments = signed()
    spends = all_settled(payments)
    lost = SignedRecords()
    lost.sign(1_000)  # the second and third are left out
    told = Told(lost, spends)
    check = told.check()
    assert check.verdict is Verdict.TAMPERED
    assert f"with nonce 0x{payments[1].nonce.hex()}" in check.reason
    nonces = [each.spend.nonce for each in told.examine().found.spends.incidents]
    assert nonces == [payment.nonce for payment in payments[1:]]
    assert Told(records, spends).check().verdict is Verdict.VERIFIED


@pytest.mark.parametrize(
    ("changes", "kind"),
    [({"amount": 999}, "other_amount"), ({"to": OTHER_SHOP}, "other_payee"), (None, "no_transfer")],
)
def test_money_that_went_elsewhere_than_signed_names_the_payment(
    changes: dict[str, Any] | None, kind: str
) -> None:
    records, [payment] = signed(1)
    spends = settling(payment, **changes) if changes else settling(payment)[:1]
    told = Told(records, spends)
    found = told.examine().found.spends
    [incident] = found.incidents
    assert (incident.kind, incident.payment) == (kind, payment.id)
    assert [each.state for each in found.settlements] == ["differs"]
    check = told.check()
    assert check.verdict is Verdict.TAMPERED
    assert check.reason.endswith(f" than {payment.id}" if changes else f" for {payment.id}")


def test_a_signed_payment_that_did_not_settle_is_named_until_it_cannot_any_more() -> None:
    records, payments = signed(5)
    spends = all_settled(payments[:1])
    check = Told(records, spends).check()
    assert check.verdict is Verdict.PENDING
    first = ", ".join(payment.id for payment in payments[1:4])
    assert check.reason == f"signed and not settled yet (4): {first}, …"
    last_s = max(payment.body["valid_before_s"] for payment in payments)
    told = Told(records, spends, times_s={10: last_s - 1})
    assert told.check().verdict is Verdict.PENDING
    told = Told(records, spends, times_s={10: last_s})
    assert told.check().verdict is Verdict.VERIFIED
    assert told.check().reason.endswith("; 4 can not settle any more")


def test_what_is_captured_must_be_on_the_chain() -> None:
    records, [first, second] = signed(2)
    spends = all_settled([first, second])
    records.capture(first, spends)
    records.capture(second, spends[2:])
    assert Told(records, spends).check().verdict is Verdict.VERIFIED
    check = Told(records, spends[2:]).check()
    assert check.verdict is Verdict.TAMPERED
    assert check.reason == f"captured in the records and not on the chain (1): {first.id}"


@pytest.mark.parametrize(
    ("changes", "verdict", "said"),
    [
        ({"amount": "1"}, Verdict.TAMPERED, "settled with another amount or payee than told"),
        ({"to": OTHER_SHOP}, Verdict.TAMPERED, "settled with another amount or payee than told"),
        ({"tx_hash": "0x" + "00" * 32}, Verdict.PENDING, "settled elsewhere than the file says"),
        ({"block_number": 5}, Verdict.PENDING, "settled elsewhere than the file says"),
        ({"log_index": None}, Verdict.TAMPERED, "record 5, of a payment: "),
    ],
)
def test_what_is_told_of_a_settlement_is_held_against_the_chain(
    changes: dict[str, Any], verdict: Verdict, said: str
) -> None:
    records, [payment] = signed(1)
    spends = settling(payment)
    records.capture(payment, spends, **changes)
    check = Told(records, spends).check()
    assert check.verdict is verdict
    assert check.reason.startswith(said)


def test_a_settlement_above_the_endpoint_s_head_is_not_held_against_the_file() -> None:
    records, [payment] = signed(1)
    spends = settling(payment, block=ANCHORED + 1)
    records.capture(payment, spends)
    check = Told(records).check()
    assert check.verdict is Verdict.PENDING
    assert check.reason.startswith("captured in a later block than the endpoint has (1): ")


@pytest.mark.parametrize("how", ["expired", "voided"])
def test_what_was_given_back_must_not_settle(how: str) -> None:
    records, [payment] = signed(1)
    records.end(payment, how)
    late = {10: payment.body["valid_before_s"]}
    assert Told(records, times_s=late).check().verdict is Verdict.VERIFIED
    check = Told(records, settling(payment)).check()
    assert check.verdict is Verdict.TAMPERED
    assert check.reason == f"given back in the records and settled on the chain (1): {payment.id}"


LIES: dict[str, tuple[dict[str, Any], str]] = {
    "more": ({"amount": "2000"}, "it was signed otherwise than it was decided"),
    "to another": ({"to": OTHER_SHOP}, "it was signed otherwise than it was decided"),
    "of another token": (
        {"asset": f"{HOME}/erc20:{STRANGER}"},
        "it was signed otherwise than it was decided",
    ),
    "by another": ({"from": STRANGER}, "it was signed otherwise than it was decided"),
    "another nonce": ({"nonce": "07" * 32}, "its nonce is not that of its record"),
    "another salt": ({"salt": "07" * 32}, "its nonce is not that of its record"),
    "a short salt": ({"salt": "07"}, "expected 32 bytes in lower-case hexadecimal"),
    "of nothing": ({"payment": "pay_x_1"}, "it was signed twice, or never decided"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_signature_that_its_decision_does_not_bear_out_explains_nothing(lie: str) -> None:
    changes, said = LIES[lie]
    records = SignedRecords()
    payment = records.sign(1_000, changes)
    told = Told(records, settling(payment))
    check = told.check()
    assert check.verdict is Verdict.TAMPERED
    assert check.reason.startswith(f"{changes.get('payment', payment.id)}: {said}")
    assert len(told.examine().found.spends.incidents) == 1


def test_one_decision_bears_out_one_signature() -> None:
    records = SignedRecords()
    payment = records.sign(1_000)
    again = records.sign(1_000, {"payment": payment.id})
    check = Told(records, settling(payment)).check()
    assert check.reason == f"{again.body['payment']}: it was signed twice, or never decided"


# When a file need not know


def test_a_payment_since_the_anchor_asks_for_a_newer_file_and_all_else_accuses() -> None:
    records, payments = signed()
    nonce, after = b"\x07" * 32, ANCHORED + 1
    soon = {after: whose.START_S + 3600}
    orphan = events(USDC, nonce, SHOP, 5, block=after)
    told = Told(records, [*all_settled(payments), *orphan], times_s=soon)
    check = told.check()
    assert check.verdict is Verdict.PENDING
    assert check.reason.startswith("1 on the chain since this file was anchored: ask for a newer ")
    assert f"0x{nonce.hex()}" in check.reason
    early = {after: whose.START_S + 3600 - 15 * 60}
    for worse in (
        Told(records, [*all_settled(payments), *orphan], times_s=early),  # made long afterwards
        Told(records, [*all_settled(payments), *orphan], times_s=soon, anchored=after),
        Told(records, [*all_settled(payments), *orphan[1:]], times_s=soon),  # never signed so
    ):
        assert worse.check().verdict is Verdict.TAMPERED


def test_what_is_older_than_the_session_is_unbindable() -> None:
    records, payments = signed()
    for old in (events(USDC, b"\x07" * 32, SHOP, 5, block=4), events(USDC, None, SHOP, 5, block=4)):
        check = Told(records, [*old, *all_settled(payments)]).check()
        assert check.verdict is Verdict.UNBINDABLE


def test_a_record_that_names_a_transaction_without_a_signature_explains_nothing() -> None:
    """It could be written for any transaction; nor does it replay."""
    records = SignedRecords()
    payment, _ = records.decide(1_000)
    spends = events(USDC, b"\x07" * 32, SHOP, 1_000)
    body = {"asset": whose.USDC, "network": HOME, "amount": "1000", "to": SHOP, "nonce": ""}
    records.capture(Payment(payment, body), spends)
    examined = Told(records, spends).examine()
    assert row(examined).verdict is Verdict.TAMPERED
    assert examined.report.reason.endswith("what was not signed cannot be settled")


# The account's own transactions


def test_a_transaction_that_moved_a_token_is_one_incident_and_any_beside_it_another() -> None:
    records, payments = signed()
    honest = all_settled(payments)
    bare = events(USDC, None, SHOP, 5, place=20)
    mine = [replace(bare[0], sent_by_key=True)]
    strange = events(STRANGER, None, SHOP, 5, place=21)
    called = [replace(strange[0], sent_by_key=True)]

    def kinds(*spends: Spend, sent: int) -> list[str]:
        told = Told(records, [*honest, *spends, Spend("transactions", count=sent)])
        found = told.examine().found.spends.incidents
        return [each.kind for each in found]

    assert kinds(*mine, sent=1) == ["transfer"]
    assert kinds(*bare, sent=1) == ["transfer"]  # somebody used an allowance that the key gave
    assert kinds(*called, sent=1) == ["transfer"]
    assert kinds(*mine, *called, sent=3) == ["transfer", "transfer", "transactions"]
    # A stranger's contract hides no transaction.
    assert kinds(*strange, sent=1) == ["transactions", "transfer"]


def test_a_token_that_nobody_named_accuses_if_the_key_itself_called_it() -> None:
    records, payments = signed()
    strange = [replace(each, sent_by_key=True) for each in events(STRANGER, None, SHOP, 5)]
    check = Told(records, [*all_settled(payments), *strange]).check()
    assert check.verdict is Verdict.TAMPERED
    assert "; 1 told by contracts that neither the grant nor an allowed payment names" in (
        check.reason
    )


# Further chains


def base(spends: list[Spend], **changes: Any) -> Snapshot:
    fields: dict[str, Any] = {
        "chain_id": 8453,
        "anchor_registries": {},
        "registrations": {},
        "revocations": {},
        "salts": {},
        "anchored": {},
        "times_s": {number: whose.START_S + 60 * (number - 100) for number in range(95, 120)},
        "moved": {KEY: spends},
        **changes,
    }
    return Snapshot(**fields)


def abroad() -> tuple[SignedRecords, list[Spend], list[Spend]]:
    """A payment at home and one elsewhere, and what shows them."""
    records = SignedRecords()
    here, there = records.sign(1_000), records.sign(2_000, **ON_BASE)
    return records, settling(here), settling(there, block=108)


def test_a_chain_that_nobody_asks_leaves_the_file_pending() -> None:
    records, here, there = abroad()
    check = Told(records, here).check()
    assert check.verdict is Verdict.PENDING
    assert check.reason == f"not checked: {BASE} (--network {BASE}=URL)"
    assert Told(records, here, {BASE: base(there)}).check().verdict is Verdict.VERIFIED
    young = base([], times_s={101: whose.START_S + 60})
    check = Told(records, here, {BASE: young}).check()
    assert check.reason.startswith("signed and not settled yet (1): ")


def test_a_stray_on_a_further_chain_is_found_and_dated_by_its_time() -> None:
    """Registered at minute 5, anchored at minute 9, made an hour after: as blocks 105 and 109."""
    records, here, there = abroad()

    def verdict(block: int, nonce: bytes | None = b"\x07" * 32) -> Verdict:
        spends = [*there, *events(BASE_USDC, nonce, SHOP, 5, block=block, place=1)]
        return Told(records, here, {BASE: base(spends, times_s=times_s)}).check().verdict

    times_s = {number: whose.START_S + 60 * (number - 100) for number in range(95, 250)}
    assert verdict(104) is Verdict.UNBINDABLE
    assert verdict(105) is Verdict.TAMPERED
    assert verdict(109) is Verdict.TAMPERED
    assert verdict(145) is Verdict.TAMPERED
    assert verdict(146) is Verdict.PENDING
    assert verdict(146, None) is Verdict.TAMPERED


class Silent:
    """A chain that does not answer."""

    def __getattr__(self, name: str) -> Any:
        raise ChainSilent("connection refused")


def test_a_further_chain_that_is_silent_or_another_is_said_so() -> None:
    records, here, there = abroad()
    cases: list[tuple[dict[str, Any], str]] = [
        ({BASE: Silent()}, "connection refused"),
        ({BASE: base(there, chain_id=10)}, f"the endpoint for {BASE} serves eip155:10"),
        ({HOME: base(there), BASE: base(there)}, f"{HOME} is the file's own chain: ask it by "),
    ]
    for networks, said in cases:
        check = Told(records, here, networks).check()
        assert check.verdict is Verdict.UNAVAILABLE
        assert check.reason.startswith(said)
    stray = events(USDC, None, SHOP, 5, place=3)
    check = Told(records, [*here, *stray], {BASE: Silent()}).check()
    assert check.verdict is Verdict.TAMPERED
    assert check.reason.endswith("; connection refused")


# What is retold of it


def test_the_statement_and_the_page_tell_incidents_and_settlements() -> None:
    records, here, there = abroad()
    strays = [
        *events(USDC, b"\x07" * 32, OTHER_SHOP, 5, place=4),
        *events(STRANGER, None, SHOP, 7, place=5),
        Spend("transactions", count=2),
    ]
    examined = Told(records, [*here, *strays], {BASE: base(there)}).examine()
    said = statement(examined)
    assert said["networks"] == [
        {"network": HOME, "as_of_block": 9},
        {"network": BASE, "as_of_block": 119},
    ]
    assert [each["kind"] for each in said["incidents"]] == ["orphan", "transactions", "transfer"]
    orphan = said["incidents"][0]
    assert orphan == {
        "kind": "orphan",
        "verdict": "tampered",
        "network": HOME,
        "tx_hash": "0x06" + (4).to_bytes(31).hex(),
        "block_number": 6,
        "contract": USDC,
        "nonce": "0x" + "07" * 32,
        "amount": "5",
        "to": OTHER_SHOP,
        "count": 1,
        "payment": None,
    }
    assert missing(said) == []
    silent = Told(records, here, {BASE: Silent()}).examine()
    assert row(silent).verdict is Verdict.UNAVAILABLE
    assert missing(statement(silent)) == []


def test_incidents_are_told_of_a_file_whose_records_do_not_hold() -> None:
    """The chain vouches for them; what became of the payments rests on the records."""
    records, payments = signed()
    told = Told(records, [*all_settled(payments), *events(USDC, None, SHOP, 5, place=20)])
    log = told.log
    document = log.document()
    document["records"].pop(4)
    found = examine(vectors.sealed(document), told.chain, registry=whose.REGISTRY)
    said = statement(found)
    assert (said["history"], said["settlements"]) == (None, None)
    assert [each["kind"] for each in said["incidents"]].count("transfer") == 1
