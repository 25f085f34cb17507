"""The operator that lied from the start: its log holds the lie, and its root is on the chain.

Such an operator holds every key but the owner's. What it wrote must still follow from the grant,
from itself and from what the chain says. `test_limits.py` has what it can do unnoticed.
"""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from engine.audit.chain import CLOCKS_DIFFER_MS, Anchoring, Revocation, Spend
from engine.audit.life import REVOCATION_SEEN_MS
from engine.audit.merkle import Tree
from engine.audit.verify import Verdict, verify
from tests.evidence.story import (
    HOUR_MS,
    Document,
    Snapshot,
    Story,
    another_story,
    failed,
    leaf_of,
    read,
    replaced,
    story,
    told_anchors,
)

Change = Callable[[list[Document]], list[Document] | None]
KINDS = [
    "session.created",
    "session.consented",
    "session.registered",
    "payment.decided",  # $25
    "payment.captured",
    "payment.decided",  # above the limit of one payment
    "payment.decided",  # a merchant that is not listed
    "payment.decided",  # needs an approval
    "approval.requested",
    "payment.decided",  # hold of $20
    "payment.decided",  # hold of $15
    "payment.decided",  # hold of $10
    "payment.captured",  # $19.999999 of the first
    "payment.voided",
    "approval.expired",
    "payment.expired",
    "payment.decided",  # $45 need an approval
    "approval.requested",
    "approval.granted",
    "payment.decided",  # $45
    "payment.captured",
    "payment.decided",  # above what the day has left
    "session.revoked",
    "payment.decided",  # revoked
]


@pytest.fixture(scope="module")
def told() -> Story:
    return story()


def test_the_story_is_this_and_relogged_as_it_is_it_is_verified(
    told: Story,
) -> None:
    kinds: list[str] = []
    file, chain = told.relogged(lambda records: kinds.extend(r["kind"] for r in records))
    assert kinds == KINDS
    assert told.verify(file, chain).verdict is Verdict.VERIFIED


def body(place: int, **changes: Any) -> Change:
    return lambda records: records[place]["body"].update(changes)


def field(place: int, **changes: Any) -> Change:
    return lambda records: records[place].update(changes)


def request(place: int, **changes: Any) -> Change:
    return lambda records: records[place]["body"]["request"].update(changes)


def decision(place: int, **changes: Any) -> Change:
    return lambda records: records[place]["body"]["decision"].update(changes)


def without(*places: int) -> Change:
    return lambda records: [r for place, r in enumerate(records) if place not in places]


def allow_the_denied(records: list[Document]) -> None:
    """The payment that was above the limit of one payment is written down as allowed."""
    allowed = records[3]["body"]
    records[5]["body"].update(
        hold_expires_ms=allowed["hold_expires_ms"],
        decision={
            **allowed["decision"],
            "evidence": {
                "requested": 60_000_000,
                "used": [25_000_000, 25_000_000, 25_000_000],
            },
            "remaining": {
                **allowed["decision"]["remaining"],
                "per_day": 15_000_000,
                "per_week": 415_000_000,
            },
        },
    )


def spend_before_the_registration(records: list[Document]) -> list[Document]:
    records[1]["body"]["state"] = "active"
    registered = records.pop(2)
    return [*records[:3], registered, *records[3:]]


def consent_left_out(records: list[Document]) -> list[Document]:
    records[0]["body"]["state"] = "registering"
    return [records[0], *records[2:]]


def revoked_but_active(records: list[Document]) -> None:
    records[-2]["body"]["state"] = "active"


def twice(place: int) -> Change:
    return lambda records: [*records[: place + 1], *records[place:]]


def move_time(place: int, by_ms: int) -> Change:
    return lambda records: records[place].update(time_ms=records[place]["time_ms"] + by_ms)


LIES: list[tuple[str, Change, str]] = [
    # Money
    ("a denied payment was allowed", allow_the_denied, "replay"),
    ("an allowed payment was denied", decision(3, allowed=False), "replay"),
    ("more was asked for than decided", request(3, amount_micro_usd=26_000_000), "replay"),
    ("the amount is negative", request(3, amount_micro_usd=-25_000_000), "replay"),
    ("the amount is zero", request(3, amount_micro_usd=0), "replay"),
    ("the amount is true", request(3, amount_micro_usd=True), "replay"),
    ("the amount is beyond any", request(3, amount_micro_usd=10**15), "replay"),
    ("the merchant is another", request(3, merchant="casino"), "replay"),
    ("the chain is another", request(3, chain="eip155:1"), "replay"),
    ("the permission is another", request(3, permission="trade"), "replay"),
    ("the token has no price", request(3, token_priced=False), "replay"),
    ("the token is priced 1", request(3, token_priced=1), "replay"),
    ("more is captured than held", body(12, captured_micro_usd=20_000_001), "replay"),
    ("less than nothing is captured", body(12, captured_micro_usd=-1), "replay"),
    ("a captured amount is true", body(12, captured_micro_usd=True), "replay"),
    ("a capture names another hold", body(12, held_micro_usd=19_999_999), "replay"),
    ("a void captures", body(13, captured_micro_usd=1), "replay"),
    ("an expiry captures", body(15, captured_micro_usd=1), "replay"),
    ("a capture is left out", without(4), ""),  # see below: the hold is then simply open
    ("what a void freed is used", without(13), "replay"),
    ("what a capture left is used", without(12), "replay"),
    ("what expired is used", without(15), "replay"),
    ("a capture comes twice", twice(4), "replay"),
    ("a void comes twice", twice(13), "replay"),
    ("a void names a payment that is none", body(13, payment="pay_x_0"), "replay"),
    ("a capture comes after the hold is over", field(15, kind="payment.captured"), "replay"),
    ("a hold expires before its time", field(13, kind="payment.expired"), "replay"),
    (
        "a hold is kept open for ever",
        body(11, hold_expires_ms=4_000_000_000_000),
        "replay",
    ),
    ("a hold is over when it begins", body(11, hold_expires_ms=0), "replay"),
    ("a hold has no end", body(11, hold_expires_ms=None), "replay"),
    ("a denied payment holds", body(5, hold_expires_ms=1_800_000_000_000), "replay"),
    # Which decision, under what
    ("an allowed payment is left out", without(3, 4), "replay"),
    ("an allowed payment comes twice", twice(3), "replay"),
    ("a denial is left out", without(5), ""),  # it moved no money: see what is not proven
    ("a denial comes twice", twice(5), ""),
    ("a decision has another number", body(5, payment="pay_x_1"), "replay"),
    ("a decision is under another grant", body(3, grant_hash="00" * 32), "replay"),
    ("the standing is another", body(3, standing="pending"), "replay"),
    ("the standing is none", body(3, standing="fine"), "replay"),
    ("the chain's time is text", body(3, chain_time_ms="0"), "replay"),
    ("allowed is 1", decision(3, allowed=1), "replay"),
    ("the code is another", decision(5, code="MERCHANT_NOT_ALLOWED"), "replay"),
    ("the rule is another", decision(5, rule="per_day"), "replay"),
    ("the reason is another", decision(5, reason="No."), "replay"),
    ("the facts are others", decision(5, evidence={}), "replay"),
    ("the rest is another", decision(5, remaining={"merchant": None}), "replay"),
    ("nobody approved it", body(19, approval=None), "replay"),
    ("another approval was granted", body(18, approval="apr_x_0"), "replay"),
    ("the approval is left out", without(16, 17, 18), "replay"),
    ("the grant is left out", without(18), "replay"),
    ("the decision is none", body(5, decision=None), "inclusion"),
    ("the request is none", body(5, request=[]), "inclusion"),
    ("the body is empty", field(5, body={}), "inclusion"),
    # The session's life
    ("the session is created twice", twice(0), "replay"),
    ("the session was revoked and goes on", revoked_but_active, "replay"),
    ("the revocation is left out", without(22), "replay"),
    ("a revoked session is resumed", twice(22), "replay"),
    ("consent makes it expired", body(1, state="expired"), "replay"),
    ("a state is none", body(1, state="fine"), "replay"),
    ("a state is a list", body(1, state=["active"]), "replay"),
    ("a record of an unknown kind", field(13, kind="session.resumed"), "replay"),
    ("a payment of an unknown kind", field(13, kind="payment.refunded"), "replay"),
    ("payments come before the registration", spend_before_the_registration, "life"),
    ("the registration is another", body(2, tx_hash="0x" + "00" * 32), "life"),
    ("the registration is of another grant", body(2, grant_hash="0x" + "00" * 32), "replay"),
    ("another than the owner consented", body(1, owner="0x" + "11" * 20), "replay"),
    ("the owner signed otherwise", body(1, owner_signature="0x" + "11" * 65), "life"),
    ("the owner consented otherwise", body(1, consent="passkey"), "life"),
    ("the consent is left out", consent_left_out, "life"),
    # The records themselves
    ("no creation", without(0), "sequence"),
    ("created with another grant", body(0, grant={}), "sequence"),
    ("created with another label", body(0, label="x"), "sequence"),
    ("created with true for one", body(0, label=True), "sequence"),
    ("created with another hash", body(0, grant_hash="00" * 32), "sequence"),
    ("created as signed already", body(0, consent="eip712"), "sequence"),
    ("created as delegated", body(0, consent="delegated"), "sequence"),
    ("created beneath another", body(0, parent_id="sess_x"), "sequence"),
    ("of another session", field(5, stream="sess_x"), "sequence"),
    ("of another workspace", field(5, workspace="x"), "sequence"),
    ("of another log", field(5, log="tallystick/x"), "sequence"),
    ("of another format", field(5, v="tallystick.record/1"), "inclusion"),
    ("time runs backwards", move_time(5, -HOUR_MS), "sequence"),
    ("dated after its anchor", move_time(23, HOUR_MS + CLOCKS_DIFFER_MS), "life"),
]


@pytest.mark.parametrize(("lie", "check"), [a[1:] for a in LIES], ids=[a[0] for a in LIES])
def test_a_lie_in_the_log_is_named_by(told: Story, lie: Change, check: str) -> None:
    file, chain = told.relogged(lie)
    report = told.verify(file, chain)
    assert failed(report) == check
    assert report.verdict is (Verdict.TAMPERED if check else Verdict.VERIFIED)


def test_nothing_is_captured_as_nothing(told: Story) -> None:
    """A void gives a hold back. Nothing was decided after it that could show it."""
    file, chain = told.relogged(body(4, captured_micro_usd=0), told.small)
    report = told.verify(file, chain)
    assert report.reason == (
        "replay: record 4 (payment.captured): its amounts are not those of the hold"
    )


UNCHAINED: list[tuple[str, Change]] = [
    ("a number is skipped", lambda records: records[-1].update(seq=99)),
    ("a number comes twice", lambda records: records[-1].update(seq=records[-2]["seq"])),
    ("a hash is left out", lambda records: records[-1].update(prev=None)),
    ("a hash is another", lambda records: records[-1].update(prev="00" * 32)),
    ("a record is left out", without(4)),
    ("the first record names a hash", lambda records: records[0].update(prev="00" * 32)),
]


@pytest.mark.parametrize("lie", [a[1] for a in UNCHAINED], ids=[a[0] for a in UNCHAINED])
def test_a_broken_chain_of_records_is_named_by_the_sequence(told: Story, lie: Change) -> None:
    file, chain = told.relogged(lie, rechain=False)
    assert failed(told.verify(file, chain)) == "sequence"


# What the chain says against the records


def revoked_at(told: Story, block: int, time_ms: int) -> Snapshot:
    token = bytes.fromhex(told.document["session"]["token_id"])
    revocation = Revocation(block, time_ms // 1000, b"\x07" * 32)
    return replaced(told.chain, revocations={(told.registry, token): revocation})


def allowed_ms(told: Story) -> list[int]:
    times: list[int] = []
    told.relogged(
        lambda records: times.extend(
            record["time_ms"]
            for record in records
            if record["kind"] == "payment.decided" and record["body"]["decision"]["allowed"]
        )
    )
    return times


def test_payments_long_after_the_revocation_are_tampering(told: Story) -> None:
    seen_ms = allowed_ms(told)[-1] - REVOCATION_SEEN_MS - CLOCKS_DIFFER_MS
    report = told.verify(told.full, revoked_at(told, 7, seen_ms - 1000))
    assert (report.verdict, failed(report)) == (Verdict.TAMPERED, "life")
    report = told.verify(told.full, revoked_at(told, 7, seen_ms + 1000))
    assert report.verdict is Verdict.VERIFIED, "an honest server's clock may be ahead of the chain"


def test_payments_just_after_the_revocation_are_counted_openly(told: Story) -> None:
    last = allowed_ms(told)[-1]
    report = told.verify(told.full, revoked_at(told, 7, last - 60_000))
    assert report.verdict is Verdict.VERIFIED
    said = "revoked on the chain in block 7, and in the log"
    assert report.checks[10].reason == (
        f"{said}; 1 payment dated after it, before the server had to know"
    )
    # Blocks are dated to the second, and this one came within the payment's.
    report = told.verify(told.full, revoked_at(told, 7, last // 1000 * 1000))
    assert report.checks[10].reason == said
    report = told.verify(told.full, revoked_at(told, 7, last // 1000 * 1000 - 1000))
    assert report.checks[10].reason != said


def test_a_registration_for_another_grant_is_tampering(told: Story) -> None:
    token = bytes.fromhex(told.document["session"]["token_id"])
    found = told.chain.registrations[told.registry, token]
    assert found is not None
    other = replace(found, grant_hash=b"\x00" * 32)
    chain = replaced(told.chain, registrations={(told.registry, token): other})
    assert failed(told.verify(told.full, chain)) == "registration"
    chain = replaced(told.chain, registrations={(told.registry, token): None})
    assert failed(told.verify(told.full, chain)) == "registration"
    chain = replaced(
        told.chain, registrations={(told.registry, token): replace(found, consent="none")}
    )
    assert failed(told.verify(told.full, chain)) == "consent"


def test_a_registration_of_a_grant_for_another_key_is_tampering(told: Story) -> None:
    """Our registry refuses such a registration; the verifier does not rest on that."""
    document, other = told.document, read(told.small)["session"]
    token = bytes.fromhex(document["session"]["token_id"])
    found = told.chain.registrations[told.registry, token]
    assert found is not None
    document["session"].update(grant=other["grant"], grant_hash=other["grant_hash"])
    wrong = replace(found, grant_hash=bytes.fromhex(other["grant_hash"]))
    chain = replaced(told.chain, registrations={(told.registry, token): wrong})
    report = told.verify(told.seal(document), chain)
    assert report.reason == "registration: the grant is for another session key"


def test_another_anchored_root_or_none_is_tampering(told: Story) -> None:
    """A perfect rewrite: new records, a new tree, a new checkpoint, but the chain has the old."""
    file, _ = told.relogged(body(5, payment="pay_x_1"))
    assert failed(told.verify(file)) == "anchor"
    chain = replaced(told.chain, anchored={(told.anchors, told.log_id): ()})
    report = told.verify(told.full, chain)
    assert (report.verdict, failed(report)) == (Verdict.TAMPERED, "anchor")


@pytest.mark.parametrize("salt", [None, b"\x00" * 32], ids=["not opened", "opened for another key"])
def test_a_log_that_the_chain_does_not_know_is_tampering(told: Story, salt: bytes | None) -> None:
    chain = replaced(told.chain, salts={(told.anchors, told.log_id): salt})
    assert failed(told.verify(told.full, chain)) == "log"


def test_a_registry_without_code_says_nothing_about_the_file(told: Story) -> None:
    chain = replace(told.chain, anchor_registries={})
    for registry in (told.registry, "0x" + "12" * 20):
        report = verify(told.full, chain, registry=registry)
        assert (report.verdict, failed(report)) == (Verdict.UNAVAILABLE, "chain")
        assert f"there is no SessionRegistry at {registry}" in report.reason
        assert "--registry" in report.reason
    document = told.document
    document["records"].pop(6)
    assert told.verify(told.seal(document), chain).verdict is Verdict.TAMPERED


@pytest.mark.parametrize(
    ("ahead_ms", "check"), [(CLOCKS_DIFFER_MS - 1000, ""), (CLOCKS_DIFFER_MS + 1000, "life")]
)
def test_the_first_anchor_over_a_record_dates_it(told: Story, ahead_ms: int, check: str) -> None:
    """Showing a later anchor does not help who dated a record ahead."""
    tree = Tree([leaf_of(raw) for raw in told.log])
    anchorings, times_s, document = [], {}, told.document
    for block, entry in enumerate(told.document["records"][:-1], start=1000):
        size = entry["index"] + 1
        anchorings.append(Anchoring(size, tree.root(size), block))
        times_s[block] = (record_time_ms(entry) - ahead_ms) // 1000
    anchorings.append(told.anchorings[-1])
    sizes = [anchoring.size for anchoring in anchorings]
    document["consistency"] = [
        [node.hex() for node in tree.consistency_proof(older, newer)]
        for older, newer in pairwise(sizes)
    ]
    document["anchors"] = told_anchors(*anchorings)
    chain = replaced(told.anchored(*anchorings), times_s=times_s)
    report = told.verify(told.seal(document), chain)
    assert failed(report) == check


def record_time_ms(entry: Document) -> int:
    return int(read(entry["record"].encode() + b"\n")["time_ms"])


def test_what_anybody_s_token_says_that_the_key_moved_is_unbindable(told: Story) -> None:
    key = told.document["session"]["grant"]["session_key"]
    spend = Spend("transfer", "0xtoken", b"\x09" * 32)
    report = told.verify(told.full, replaced(told.chain, moved={key: (spend, spend)}))
    assert report.verdict is Verdict.UNBINDABLE
    assert report.reason.startswith(
        "spends: 2 on the chain without a record that allows it, the first: "
        f"a transfer of 0xtoken in transaction 0x{'09' * 32}; "
    )


def test_tampering_outweighs_everything_and_silence_outweighs_the_rest(told: Story) -> None:
    key = told.document["session"]["grant"]["session_key"]
    spent = replaced(told.chain, moved={key: (Spend("transfer", "0xtoken"),)})
    pending = told.document
    entry = pending["records"].pop()
    pending["tail"].append({"index": len(told.log), "record": entry["record"]})
    assert told.verify(told.seal(pending)).verdict is Verdict.PENDING
    assert told.verify(told.seal(pending), spent).verdict is Verdict.UNBINDABLE
    assert told.verify(told.full[:-2] + b" \n", spent).verdict is Verdict.TAMPERED


def test_another_installation_s_log_cannot_lend_its_records(told: Story) -> None:
    other = another_story()
    assert failed(told.verify(other.full)) == "chain"
    assert failed(other.verify(told.full)) == "chain"
