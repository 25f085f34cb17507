"""What follows from the blocks: a table of states, and which Transfer belongs to which use."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from engine.chain.gateway import BlockHeader, ChainUnavailable, Log
from engine.errors import Conflict, Unavailable
from engine.ledger.discrepancies import SETTLEMENT_CONTRADICTED
from engine.payments.authorization import Authorization
from engine.payments.settlement_states import Shown, Signed, Use, is_said_out, standing, uses_of
from engine.sessions.session import SessionView
from tests.ledger.paying import expect_consistent
from tests.payments.scripted_chain import TOKEN, ScriptedChain, Transaction, moved, paying, used
from tests.payments.settling_any_way import FINALITY, Paid, check_any_way, shopper
from tests.world import World, records_of

PAYER, SHOP, OTHER = ("0x" + pair * 20 for pair in ("a1", "5b", "07"))
NONCE = b"\x11" * 32
OVER_S = 1_000
SIGNED = Signed("sess_x", 1, TOKEN, PAYER, SHOP, 500, NONCE, OVER_S, 10)
USE = Use(b"\x7a" * 32, 20, b"\xb2" * 32, 3, SHOP, 500)


@pytest.mark.parametrize(
    ("state", "shown", "expected"),
    [
        # Nothing is seen: what was reported stays.
        ("signed", {}, "signed"),
        ("unknown", {}, "unknown"),
        ("submitted", {"reverted": False}, "submitted"),
        ("submitted", {"reverted": True}, "failed"),
        ("failed", {"reverted": True}, "failed"),
        ("failed", {"reverted": False}, "submitted"),
        # Seen, with so many blocks on top.
        ("signed", {"uses": [USE], "head_number": 20}, "pending"),
        ("failed", {"uses": [USE], "head_number": 21}, "pending"),
        ("unknown", {"uses": [USE], "head_number": 22}, "confirmed"),
        ("pending", {"uses": [USE], "head_number": 24}, "confirmed"),
        ("orphaned", {"uses": [USE], "head_number": 25}, "final"),
        # Sent by ourselves, and in no block yet; or seen again after that was gone.
        ("pending", {"sent": True}, "pending"),
        ("pending", {"sent": True, "reverted": False}, "pending"),
        ("pending", {"sent": True, "reverted": True}, "failed"),
        ("pending", {"sent": True, "uses": [USE], "head_number": 22}, "confirmed"),
        ("pending", {"sent": True, "final_time_s": OVER_S + 1, "told": "unused"}, "expired"),
        # Gone again.
        ("pending", {}, "orphaned"),
        ("confirmed", {"reverted": False}, "orphaned"),
        ("confirmed", {"reverted": True}, "failed"),
        ("orphaned", {}, "orphaned"),
        # Its time is over only when that of a final block is past it, and the token agrees.
        ("signed", {"final_time_s": OVER_S, "told": "unused"}, "signed"),
        ("signed", {"final_time_s": OVER_S + 1}, "signed"),
        ("signed", {"final_time_s": OVER_S + 1, "told": "unused"}, "expired"),
        ("failed", {"final_time_s": OVER_S + 1, "told": "unused", "reverted": True}, "expired"),
        ("pending", {"final_time_s": OVER_S + 1, "told": "unused"}, "expired"),
        ("signed", {"uses": [USE], "head_number": 21, "final_time_s": OVER_S + 9}, "pending"),
    ],
)
def test_the_state_follows_from_the_blocks(
    state: Any, shown: dict[str, Any], expected: str
) -> None:
    in_block = state in ("pending", "confirmed") and not shown.get("sent")
    told = {name: value for name, value in shown.items() if name != "sent"}
    seen = Shown(**{"uses": [], "head_number": 30, "final_time_s": None, **told})
    found = standing(SIGNED, state, seen, seen=in_block, confirmations=2, finality=5)
    assert (found.state, found.contradiction) == (expected, None)


@pytest.mark.parametrize(
    ("shown", "says"),
    [
        ({"uses": [replace(USE, amount=499)]}, "499 was paid"),
        ({"uses": [replace(USE, to=OTHER)]}, f"paid to {OTHER}"),
        ({"uses": [replace(USE, to=None, amount=None)]}, "no one Transfer"),
        ({"uses": [USE, replace(USE, block_number=21)]}, "used 2 times"),
        ({"final_time_s": OVER_S + 1, "told": "used"}, "no event of it"),
        ({"final_time_s": OVER_S + 1, "told": "unreadable"}, "does not say"),
    ],
)
def test_what_contradicts_is_never_final(shown: dict[str, Any], says: str) -> None:
    seen = Shown(**{"uses": [], "head_number": 99, "final_time_s": None, **shown})
    found = standing(SIGNED, "signed", seen, seen=False, confirmations=2, finality=5)
    assert found.contradiction is not None
    assert says in found.contradiction
    assert found.state == ("confirmed" if seen.uses else "signed")


@pytest.mark.parametrize(
    ("shown", "out"),
    [
        ({"final_time_s": OVER_S, "uses": [USE]}, False),  # a block of that time can still use it
        ({"final_time_s": OVER_S + 1, "uses": [USE]}, True),
        ({"final_time_s": OVER_S + 1}, True),
        ({"final_time_s": None, "uses": [USE]}, False),
        # A token that asks for no time: its second use is above what is final.
        ({"final_time_s": OVER_S + 1, "uses": [USE, replace(USE, block_number=26)]}, False),
        ({"final_time_s": OVER_S + 1, "uses": [USE, replace(USE, block_number=25)]}, True),
    ],
)
def test_the_chain_has_said_all_once_nothing_can_use_it_and_all_uses_are_final(
    shown: dict[str, Any], out: bool
) -> None:
    assert is_said_out(SIGNED, Shown(**{"uses": [], "head_number": 30, **shown}), finality=5) is out


OURS = Authorization(PAYER, SHOP, 500, 0, OVER_S, NONCE)
NEXT = Authorization(PAYER, OTHER, 70, 0, OVER_S, b"\x22" * 32)
THEIRS = Authorization(OTHER, SHOP, 500, 0, OVER_S, NONCE)
SENT, FEE = moved(PAYER, SHOP, 500), moved(PAYER, OTHER, 1)
RETURNED = moved(SHOP, PAYER, 500)


@pytest.mark.parametrize(
    ("events", "paid"),
    [
        ([used(OURS), SENT], [(SHOP, 500)]),
        ([SENT, used(OURS)], [(SHOP, 500)]),  # a token may tell it in either order
        ([used(OURS), SENT, RETURNED], [(SHOP, 500)]),
        ([used(NEXT), moved(PAYER, OTHER, 70), used(OURS), SENT], [(SHOP, 500)]),
        ([used(THEIRS), moved(OTHER, SHOP, 500)], []),
        ([used(NEXT), moved(PAYER, OTHER, 70)], []),
        ([SENT], []),
        ([used(OURS)], [(None, None)]),
        ([used(OURS), FEE, moved(PAYER, SHOP, 499)], [(None, None)]),
        ([used(OURS), moved(OTHER, SHOP, 500)], [(None, None)]),
        ([used(OURS), SENT, used(OURS), SENT], [(SHOP, 500), (SHOP, 500)]),
    ],
)
def test_a_use_has_the_transfer_of_its_transaction(
    events: list[Any], paid: list[tuple[Any, Any]]
) -> None:
    chain = ScriptedChain(1, 1)
    elsewhere = Transaction(b"\x02" * 32, (SENT,))
    block = chain.mine(elsewhere, Transaction(b"\x01" * 32, tuple(events)))
    found = uses_of(SIGNED, block.logs)
    assert [(use.to, use.amount) for use in found] == paid
    assert {use.tx_hash for use in found} <= {b"\x01" * 32}


def test_the_events_of_another_contract_are_nothing() -> None:
    block = ScriptedChain(1, 1).mine(paying(OURS))
    assert uses_of(replace(SIGNED, token=OTHER), block.logs) == []


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[World, SessionView]]:
    with shopper(tmp_path_factory.mktemp("shop")) as opened:
        yield opened


def test_whatever_comes_it_ends_as_the_chain_says(shop: tuple[World, SessionView]) -> None:
    check_any_way(*shop, examples=40, drawn_from=11)


def test_what_we_sent_is_pending_unless_a_block_has_told_more(
    shop: tuple[World, SessionView],
) -> None:
    paid = Paid(*shop)
    engine, payment = paid.world.engine, paid.signed.payment

    def sent(tx_hash: bytes) -> Any:
        engine.paying.sent(payment.id, tx_hash).result()
        found = engine.settlements.of([payment])[payment.id]
        return found.state, found.tx_hash

    for ours in (b"\x01" * 32, b"\x02" * 32):
        assert sent(ours) == ("pending", ours)
    paid.mine(["paid", "nothing"], late=False)
    paid.read()
    seen = paying(paid.authorization).hash
    assert sent(ours) == ("confirmed", seen)


def wrong(paid: Paid, *events: Any) -> None:
    """A transaction that is not what was signed, and enough blocks for it to be final."""
    paid.chain.mine(Transaction(b"\x0d" * 32, events))
    for _ in range(FINALITY + 1):
        paid.chain.mine()
    paid.read()


def noted(paid: Paid) -> list[Any]:
    """The discrepancies of a payment."""
    return [
        each
        for each in paid.world.engine.reconciler.open()
        if each.subject == paid.signed.payment.id
    ]


def test_what_contradicts_is_a_discrepancy_and_the_budget_stays_held(
    shop: tuple[World, SessionView],
) -> None:
    paid = Paid(*shop)
    ours = paid.authorization
    wrong(paid, used(ours), moved(ours.payer, ours.pay_to, ours.amount - 1))
    [found] = noted(paid)
    assert (found.kind, found.severity) == (SETTLEMENT_CONTRADICTED, "critical")
    assert found.session_id == paid.signed.payment.session_id
    assert found.evidence["chain"][0]["amount"] == str(ours.amount - 1)
    assert (paid.payment.state, paid.state) == ("held", "confirmed")
    paid.kill()
    paid.read()
    assert noted(paid) == [found]  # it is noted once, and remembered by who comes later
    paid.world.engine.reconciler.run()
    assert len(noted(paid)) == 1  # reconciliation looks at other things and resolves it not
    paid.chain.drop(FINALITY + 2)  # deeper than anything there should be
    paid.kill()
    paid.mine(["paid", *["nothing"] * (FINALITY + 2)], late=False)
    paid.read()
    assert noted(paid) == []
    assert paid.payment.state == "captured"


def accept(paid: Paid) -> None:
    """An operator ends it."""
    paid.watch.accept(paid.signed.payment.id, by="key_1", reason="the token took a fee")


def refused(paid: Paid) -> str:
    """Why it cannot be accepted."""
    with pytest.raises(Conflict) as refusal:
        accept(paid)
    return refusal.value.code


def test_an_operator_accepts_what_contradicts_once_the_chain_can_say_nothing_else(
    shop: tuple[World, SessionView],
) -> None:
    paid, honest = Paid(*shop), Paid(*shop)
    ours = paid.authorization
    wrong(paid, used(ours), moved(ours.payer, ours.pay_to, ours.amount - 1))
    assert refused(paid) == "settlement_open"  # its time is not over
    paid.mine(["nothing"], late=True)
    assert refused(paid) == "settlement_open"  # nor is that final
    paid.mine(["nothing"] * FINALITY, late=True)
    paid.chain.silent = True
    with pytest.raises(Unavailable, match="silent"):
        accept(paid)
    paid.chain.silent = False
    assert (paid.payment.state, len(noted(paid))) == ("held", 1)
    accept(paid)
    assert (paid.payment.state, paid.payment.captured) == ("captured", paid.payment.amount)
    assert (paid.state, noted(paid)) == ("accepted", [])
    last = records_of(*shop)[-1]
    assert (last.kind, last.body["payment"]) == ("payment.captured", paid.signed.payment.id)
    told = last.body["settlement"]
    assert (told["accepted_by"], told["reason"]) == ("key_1", "the token took a fee")
    assert told["transactions"] == ["0x" + "0d" * 32]
    assert f"{ours.amount - 1} was paid" in told["contradiction"]
    for again in (paid.read, paid.kill, paid.read, paid.world.engine.reconciler.run):
        again()  # nobody looks at it any more
    assert (paid.state, noted(paid)) == ("accepted", [])
    assert refused(paid) == "payment_not_signed"
    # What the chain says nothing against ends by itself.
    assert refused(honest) == "settlement_not_contradicted"
    honest.mine(["paid", *["nothing"] * FINALITY], late=True)
    assert refused(honest) == "settlement_not_contradicted"
    honest.read()
    assert honest.payment.state == "expired"
    expect_consistent(paid.world)


def test_before_the_budget_returns_the_token_itself_is_asked(
    shop: tuple[World, SessionView],
) -> None:
    told = [b""]
    paid = Paid(*shop, state=lambda nonce, block: told[0])
    paid.mine(["nothing"] * (FINALITY + 1), late=True)
    for answer, says in (((1).to_bytes(32), "no event"), (b"\x02" * 7, "does not say")):
        told[0] = answer
        paid.read()
        [found] = noted(paid)
        assert says in found.evidence["reason"]
        assert paid.payment.state == "held"
    told[0] = bytes(32)
    paid.read()
    assert (noted(paid), paid.payment.state) == ([], "expired")


def test_what_replaces_blocks_that_were_final_is_read_again(
    shop: tuple[World, SessionView],
) -> None:
    paid = Paid(*shop)
    paid.mine(["nothing"] * 6, late=False)
    paid.read()
    paid.chain.drop(6)
    paid.mine(["paid", *["nothing"] * 6], late=False)
    paid.read()
    assert paid.watch.fault is not None
    assert "was replaced" in paid.watch.fault
    paid.read()
    assert (paid.watch.fault, paid.payment.state) == (None, "captured")


def test_an_endpoint_that_keeps_events_back_is_not_believed(
    shop: tuple[World, SessionView], monkeypatch: pytest.MonkeyPatch
) -> None:
    paid = Paid(*shop)
    paid.mine(["paid", *["nothing"] * FINALITY], late=False)

    def refuses(header: BlockHeader) -> list[Log]:
        raise ChainUnavailable("nothing makes up the block's bloom")

    monkeypatch.setattr(paid.chain, "block_logs", refuses)
    paid.read()
    assert (paid.watch.fault, paid.payment.state) == ("nothing makes up the block's bloom", "held")
    monkeypatch.undo()
    paid.read()
    assert paid.payment.state == "captured"
