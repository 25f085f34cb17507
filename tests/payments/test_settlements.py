"""What becomes of a signed payment on a real Anvil, whoever lies and whatever replaces blocks."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest

from engine.chain import contracts
from engine.chain.gateway import ChainUnavailable
from engine.errors import Conflict, NotFound, Unavailable
from engine.ledger.payment import Payment
from engine.ledger.settlements import SettlementView
from tests.anvil_world import AnvilWithContracts
from tests.payments import killed_watch
from tests.payments.market import Market, anvil_beside, market
from tests.world import WORKSPACE

HOSTILE = (
    "TakesAFee",
    "TakesAFeeFromThePayee",
    "PaysSomebodyElse",
    "TellsNoTransfer",
    "TellsNoUse",
    "ReturnsFalse",
    "ToleratesUsedNonces",
    "ForgetsNonces",
)
HELD = ("held", "signed")
CAPTURED = ("captured", "final")


@pytest.fixture(scope="module")
def bazaar(anvil: AnvilWithContracts, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Market]:
    with market(tmp_path_factory.mktemp("market") / "data", [anvil], HOSTILE) as opened:
        yield opened


def test_it_is_captured_once_it_is_final_and_told_at_each_step(bazaar: Market) -> None:
    signed = bazaar.sign()
    bazaar.tick()
    assert bazaar.states(signed) == HELD
    receipt = bazaar.settle(signed)
    for blocks, state in ((0, "pending"), (1, "confirmed"), (1, "confirmed")):
        if blocks:
            bazaar.anvil.mine(blocks)
        bazaar.tick()
        assert bazaar.states(signed) == ("held", state)
        bazaar.world.reopen()  # nothing that is needed is in memory alone
    bazaar.anvil.mine(1)
    bazaar.tick()
    assert bazaar.states(signed) == CAPTURED
    assert bazaar.payment(signed).captured == signed.payment.amount
    assert bazaar.settlement(signed).tx_hash == receipt.tx_hash
    bazaar.world.reopen()
    bazaar.tick()
    assert bazaar.states(signed) == CAPTURED


def test_who_tells_of_success_with_anothers_transaction_is_not_believed(bazaar: Market) -> None:
    signed, other = bazaar.sign(), bazaar.sign()
    another = bazaar.settle(other)
    bazaar.report(signed, another.tx_hash)
    bazaar.bury()
    assert bazaar.states(signed) == ("held", "submitted")
    mint = contracts.call_data(contracts.TEST_USDC, "mint", bazaar.anvil.owner.address, 1)
    minted = bazaar.anvil.transact(
        bazaar.anvil.operator, to=signed.payload["accepted"]["asset"], data=mint
    )
    bazaar.report(signed, minted.tx_hash)  # a success that moved nothing of the payer's
    bazaar.bury()
    assert bazaar.states(signed) == ("held", "submitted")
    receipt = bazaar.settle(signed)
    bazaar.bury()
    assert bazaar.states(signed) == CAPTURED
    assert bazaar.settlement(signed).tx_hash == receipt.tx_hash
    assert bazaar.contradiction(signed) is None


def test_what_nobody_knew_of_in_time_and_is_mined_later_is_captured(bazaar: Market) -> None:
    signed = bazaar.sign()
    bazaar.report(signed, None)
    with bazaar.anvil.idle():
        bazaar.send(signed)
        bazaar.world.reopen()
        bazaar.tick()
        assert bazaar.states(signed) == ("held", "unknown")
    bazaar.tick()
    assert bazaar.states(signed) == ("held", "pending")
    bazaar.bury()
    assert bazaar.states(signed) == CAPTURED


def test_a_third_party_may_settle_first_and_the_reverted_transaction_counts_for_nothing(
    bazaar: Market,
) -> None:
    signed = bazaar.sign()
    theirs, ours = bazaar.settle(signed), bazaar.settle(signed)
    assert (theirs.succeeded, ours.succeeded) == (True, False)
    bazaar.report(signed, ours.tx_hash)
    bazaar.bury()
    assert bazaar.states(signed) == CAPTURED
    assert bazaar.settlement(signed).tx_hash == theirs.tx_hash


def test_a_transaction_that_reverted_is_told_and_the_signature_can_still_be_used(
    bazaar: Market,
) -> None:
    signed, other = bazaar.sign(), bazaar.sign()
    bazaar.settle(other)
    reverted = bazaar.settle(other)
    bazaar.report(signed, reverted.tx_hash)
    bazaar.tick()
    assert bazaar.states(signed) == ("held", "failed")
    bazaar.settle(signed)
    bazaar.bury()
    assert bazaar.states(signed) == CAPTURED


def test_what_a_reorganisation_takes_away_is_not_captured_until_it_is_back(
    bazaar: Market,
) -> None:
    signed = bazaar.sign()
    first = bazaar.settle(signed)
    bazaar.anvil.mine(1)
    bazaar.tick()
    assert bazaar.states(signed) == ("held", "confirmed")
    bazaar.anvil.rpc("anvil_reorg", 2, [])
    bazaar.tick()
    assert bazaar.states(signed) == ("held", "orphaned")
    bazaar.world.reopen()
    bazaar.tick()
    assert bazaar.states(signed) == ("held", "orphaned")
    assert bazaar.settlement(signed).tx_hash == first.tx_hash  # whom to ask for
    again = bazaar.settle(signed)
    bazaar.bury()
    assert bazaar.states(signed) == CAPTURED
    assert bazaar.settlement(signed).tx_hash == again.tx_hash


def test_the_budget_returns_only_when_the_chains_own_time_is_over(bazaar: Market) -> None:
    signed = bazaar.sign(maxTimeoutSeconds=10)
    bazaar.bury()
    assert bazaar.states(signed) == HELD
    bazaar.anvil.rpc("evm_increaseTime", 12)
    bazaar.anvil.mine(1)
    bazaar.tick()
    assert bazaar.states(signed) == HELD  # a block that is past it is not final yet
    bazaar.bury()
    assert bazaar.states(signed) == ("expired", "expired")
    assert not bazaar.settle(signed).succeeded


@pytest.mark.parametrize(
    ("token", "says"),
    [
        ("TakesAFee", "no one Transfer"),
        ("PaysSomebodyElse", "in place of"),
        ("TellsNoTransfer", "no one Transfer"),
    ],
)
def test_a_token_that_moves_something_else_keeps_the_budget_and_is_on_file(
    bazaar: Market, token: str, says: str
) -> None:
    signed = bazaar.sign(token)
    receipt = bazaar.settle(signed)
    assert receipt.succeeded
    bazaar.report(signed, receipt.tx_hash)
    bazaar.bury()
    assert bazaar.states(signed) == ("held", "confirmed")
    assert says in (bazaar.contradiction(signed) or "")


def test_a_token_that_takes_its_fee_from_the_payee_moved_what_was_signed(bazaar: Market) -> None:
    signed = bazaar.sign("TakesAFeeFromThePayee")
    bazaar.settle(signed)
    bazaar.bury()
    assert bazaar.states(signed) == CAPTURED


def test_a_token_that_lets_a_used_nonce_pass_is_captured_once(bazaar: Market) -> None:
    signed = bazaar.sign("ToleratesUsedNonces")
    first, second = bazaar.settle(signed), bazaar.settle(signed)
    assert first.succeeded
    assert second.succeeded
    bazaar.report(signed, second.tx_hash)
    bazaar.bury()
    assert bazaar.states(signed) == CAPTURED
    assert bazaar.settlement(signed).tx_hash == first.tx_hash


def test_a_nonce_that_is_used_twice_is_on_file(bazaar: Market) -> None:
    signed = bazaar.sign("ForgetsNonces")
    bazaar.settle(signed)
    bazaar.settle(signed)
    bazaar.bury()
    assert bazaar.states(signed) == ("held", "confirmed")
    assert "used 2 times" in (bazaar.contradiction(signed) or "")


def test_what_a_token_moves_in_silence_does_not_give_the_budget_back(bazaar: Market) -> None:
    # The clock of this chain was moved before.
    silent = bazaar.sign("TellsNoUse", maxTimeoutSeconds=60)
    nothing = bazaar.sign("ReturnsFalse", maxTimeoutSeconds=60)
    for signed in (silent, nothing):
        receipt = bazaar.settle(signed)
        assert receipt.succeeded
        bazaar.report(signed, receipt.tx_hash)
    bazaar.anvil.rpc("evm_increaseTime", 62)
    bazaar.bury()
    bazaar.bury()
    assert bazaar.states(silent) == ("held", "submitted")
    assert "no event" in (bazaar.contradiction(silent) or "")
    assert bazaar.states(nothing) == ("expired", "expired")


def test_a_kill_in_the_middle_of_a_capture_costs_nothing(bazaar: Market) -> None:
    signed = bazaar.sign()
    bazaar.settle(signed)
    world = bazaar.world
    world.engine.close()
    bazaar.anvil.mine(4)
    killed = subprocess.run(
        [sys.executable, "-m", killed_watch.__name__],
        input=killed_watch.told(world),
        text=True,
        cwd=Path(__file__).parents[2],
        check=False,
    )
    assert killed.returncode == -9
    world.engine = world._open()
    assert bazaar.states(signed) == HELD
    bazaar.tick()
    assert bazaar.states(signed) == CAPTURED
    assert bazaar.payment(signed).captured == signed.payment.amount


def test_transfers_are_sent_by_the_operator_and_captured_when_final(bazaar: Market) -> None:
    engine, usdc = bazaar.world.engine, bazaar.world.engine.token("USDC", None)
    assert usdc is not None
    shop = "0x" + "5b" * 20
    payment = engine.networks.transfers.execute(bazaar.view.id, shop, 2_500_000, usdc, key="rent")
    assert payment.state == "held"
    bazaar.world.reopen()  # what is signed and was not sent is sent by whoever comes next
    engine = bazaar.world.engine
    sent = bazaar.anvil.gateway.transaction_count(bazaar.anvil.operator.address.lower())
    bazaar.bury()
    bazaar.bury()
    view = engine.settlements.of([payment])[payment.id]
    assert (engine.payments.get("default", payment.id).state, view.state) == CAPTURED
    assert view.tx_hash is not None
    [transfer] = [
        log
        for log in bazaar.anvil.gateway.receipt(view.tx_hash).logs  # type: ignore[union-attr]
        if log.topics[0] == contracts.ERC20_TRANSFER
    ]
    assert "0x" + transfer.topics[2][12:].hex() == shop
    assert int.from_bytes(transfer.data) == 2_500_000
    again = engine.networks.transfers.execute(bazaar.view.id, shop, 2_500_000, usdc, key="rent")
    assert (again.id, again.state, again.replayed) == (payment.id, "captured", True)
    bazaar.tick()
    after = bazaar.anvil.gateway.transaction_count(bazaar.anvil.operator.address.lower())
    assert after <= sent + 1


def test_a_transfer_whose_answer_is_lost_is_pending_and_sent_once(bazaar: Market) -> None:
    usdc, payee = bazaar.world.engine.token("USDC", None), "0x" + "5e" * 20
    assert usdc is not None

    def asked() -> Payment:
        execute = bazaar.world.engine.networks.transfers.execute
        return execute(bazaar.view.id, payee, 1_000_000, usdc)

    payment = asked()

    def settlement() -> SettlementView:
        return bazaar.world.engine.settlements.of([payment])[payment.id]

    assert settlement().state == "signed"
    with bazaar.anvil.idle():
        gateway = bazaar.world.engine.gateway
        honest = gateway.send_raw

        def lost(raw: bytes) -> bytes:
            honest(raw)
            raise ChainUnavailable("the connection was lost")

        with mock.patch.object(gateway, "send_raw", lost):
            bazaar.world.engine.networks.transfers.tick()
        sent = settlement()
        assert (sent.state, sent.block_number) == ("pending", None)
        assert asked().id == payment.id, "who lost the answer too and asks again sends it once"
        bazaar.world.reopen()
        bazaar.tick()  # it is not mined, so it is sent again as it was
        assert settlement() == sent
    bazaar.bury()
    assert (settlement().state, settlement().tx_hash) == ("final", sent.tx_hash)
    topic = bytes.fromhex(payee[2:]).rjust(32, b"\0")
    moved = bazaar.anvil.gateway.logs(
        from_block=0,
        to_block=bazaar.anvil.gateway.head().number,
        addresses=[usdc.asset.rpartition(":")[2]],
        topics=[contracts.ERC20_TRANSFER, None, topic],
    )
    assert len(moved) == 1
    assert asked().id != payment.id


def test_a_signature_for_one_chain_is_worthless_on_another_and_a_silent_one_stops_only_itself(
    anvil: AnvilWithContracts, tmp_path: Path
) -> None:
    with anvil_beside(31_338) as beside, market(tmp_path / "data", [anvil, beside]) as both:
        here, there = both.sign(at=0), both.sign(at=1)
        assert not both.settle(there, at=0).succeeded
        assert not both.settle(here, at=1).succeeded
        assert both.settle(there, at=1).succeeded
        both.bury(at=0)
        both.bury(at=1)
        assert (both.states(here), both.states(there)) == (HELD, CAPTURED)
        beside.process.stop()
        assert both.settle(here, at=0).succeeded
        both.bury(at=0)
        assert both.states(here) == CAPTURED
        home, other = both.world.engine.ready()["networks"]
        assert (home["heard"], other["heard"]) == (True, False)
        assert both.world.engine.ready()["ready"]
        with pytest.raises(Unavailable):
            both.sign(at=1)
        both.sign(at=0)


def test_reconciliation_finds_what_ledger_and_chain_say_of_payments_otherwise(
    bazaar: Market,
) -> None:
    captured, expired, open_one = signed = [bazaar.sign() for _ in range(3)]
    for each in signed[:2]:
        bazaar.settle(each)
    bazaar.bury()
    ours = {each.payment.id for each in signed}

    def found() -> dict[str, str]:
        bazaar.world.engine.reconciler.run()
        noted = bazaar.world.engine.reconciler.open()
        return {each.subject: each.kind for each in noted if each.subject in ours}

    assert found() == {}
    was = [
        bazaar.change(captured, block_hash=b"\x0e" * 32),
        bazaar.change(expired, state="expired"),
        bazaar.change(open_one, valid_before_s=1_000, asset="eip155:31337/erc20:0x" + "77" * 20),
    ]
    assert found() == {
        captured.payment.id: "settlement_missing",
        expired.payment.id: "settlement_not_captured",
        open_one.payment.id: "settlement_contradicted",  # a contract that is none says nothing
    }
    for each, row in zip(signed, was, strict=True):
        bazaar.change(each, **row)
    assert found() == {}

    # Once all is final past the end of the signatures it need not be compared for ever.
    bazaar.anvil.rpc("evm_increaseTime", 301)
    bazaar.bury()
    bazaar.bury()
    assert found() == {}
    wrong = bazaar.change(captured, block_hash=b"\x0e" * 32, updated_ms=0)
    assert found() == {}
    # But what ended long ago, while nobody compared it, is; and until it is right.
    bazaar.change(captured, compared_ms=None)
    for _ in range(2):
        assert found() == {captured.payment.id: "settlement_missing"}
    bazaar.change(captured, block_hash=wrong["block_hash"])
    assert found() == {}


def test_an_operator_accepts_it_and_nobody_looks_at_it_any_more(bazaar: Market) -> None:
    signed = bazaar.sign("TakesAFee", maxTimeoutSeconds=600)
    bazaar.settle(signed)
    networks, ours = bazaar.world.engine.networks, {"by": "key_1", "reason": "it takes a fee"}
    with pytest.raises(Conflict, match="may still show"):
        networks.accept(WORKSPACE, signed.payment.id, **ours)
    bazaar.anvil.rpc("evm_increaseTime", 601)
    bazaar.bury()
    bazaar.bury()
    assert (bazaar.states(signed), bazaar.contradiction(signed) is None) == (
        ("held", "confirmed"),
        False,
    )
    bazaar.world.reopen()
    networks = bazaar.world.engine.networks
    with pytest.raises(NotFound):
        networks.accept("another", signed.payment.id, **ours)
    spent = networks.accept(WORKSPACE, signed.payment.id, **ours)
    assert (spent.state, spent.captured) == ("captured", signed.payment.amount)
    bazaar.tick()
    bazaar.world.engine.reconciler.run()
    assert bazaar.states(signed) == ("captured", "accepted")
    assert bazaar.contradiction(signed) is None
    with pytest.raises(Conflict, match="not signed and open"):
        networks.accept(WORKSPACE, signed.payment.id, **ours)
