"""How deep a settlement has to be before it is told, and what is told of one that is undone."""

from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import httpx
import pytest

from api.facilitator.app import create_facilitator_app
from api.server import AppServer
from engine.chain.gateway import ChainUnavailable
from engine.errors import Unavailable
from engine.selling.witness import Sight, Witness
from tests.anvil_world import AnvilWithContracts, wait_until
from tests.payments.conftest import usdc_of
from tests.payments.paying import Till
from tests.payments.test_pending import PENDING, key_of, sending, swallowed

DUPLICATE = "duplicate_settlement"


@pytest.fixture
def deep_till(anvil: AnvilWithContracts, anvil_till: Till) -> Till:
    """Tells success with two blocks on top, and waits for nothing."""
    anvil_till.confirmations, anvil_till.finality = 2, 4
    anvil_till.receipt_timeout_s = 0.0
    anvil_till.reopen()
    return anvil_till


def mined(till: Till, answer: dict[str, Any]) -> None:
    """Wait until Anvil has mined what was sent."""
    tx_hash = bytes.fromhex(answer["transaction"][2:])
    wait_until(lambda: till.gateway.receipt(tx_hash) is not None)


def looked_up(till: Till, request: dict[str, Any]) -> tuple[str, int | None]:
    """State and blocks on top, as the facilitator tells anybody."""
    found = till.facilitator.look_up(key_of(till, request))
    assert found is not None
    return found.state, found.depth


def test_success_is_told_once_so_many_blocks_are_on_top(
    anvil: AnvilWithContracts, deep_till: Till
) -> None:
    till, request = deep_till, deep_till.request()
    assert till.facilitator.look_up(key_of(till, request)) is None
    first = till.settle(request)
    mined(till, first)
    for depth in range(2):
        assert till.settle(request) == first
        assert first["errorReason"] == PENDING
        assert till.verify(request)["isValid"]
        assert looked_up(till, request) == ("pending", depth)
        anvil.mine()
    assert looked_up(till, request) == ("confirmed", 2)
    told = till.settle(request)
    assert (told["success"], told["transaction"]) == (True, first["transaction"])
    assert till.settle(request)["errorReason"] == DUPLICATE
    assert (till.relayed(), till.transfers()) == (1, 1)


def test_who_waits_long_enough_is_told_by_the_first_request(
    anvil: AnvilWithContracts, deep_till: Till
) -> None:
    till = deep_till
    till.receipt_timeout_s = 30.0
    till.reopen()
    honest = till.gateway.receipt

    def and_a_block(tx_hash: bytes) -> Any:
        found = honest(tx_hash)
        if found is not None:
            anvil.mine()
        return found

    with mock.patch.object(till.gateway, "receipt", and_a_block):
        assert till.settle(till.request())["success"]


def test_what_is_undone_before_it_was_told_is_sent_again(
    anvil: AnvilWithContracts, deep_till: Till
) -> None:
    till, request = deep_till, deep_till.request()
    first = till.settle(request)
    mined(till, first)
    anvil.mine()
    anvil.rpc("anvil_reorg", 2, [])
    assert till.transfers() == 0
    assert looked_up(till, request) == ("pending", None)
    assert till.settle(request) == first
    mined(till, first)
    anvil.mine(2)
    assert till.settle(request)["success"]
    assert till.transfers() == 1


def test_what_reverts_is_told_as_failed_once_that_is_as_deep(
    anvil: AnvilWithContracts, deep_till: Till, tmp_path: Path
) -> None:
    """In another fork it may succeed, and who was told that it failed pays again."""
    till = deep_till
    request = till.request(till.authorization(600_000))
    with sending(till, swallowed):
        first = till.settle(request)
    elsewhere = Till(
        gateway=till.gateway,
        bank=till.bank,
        domain=till.domain,
        path=tmp_path / "elsewhere.sqlite3",
        payer=till.payer,
    )
    assert elsewhere.settle(elsewhere.request(elsewhere.authorization(1_500_000)))["success"]
    elsewhere.facilitator.close()
    assert till.settle(request) == first
    mined(till, first)
    assert till.settle(request) == first
    anvil.rpc("anvil_reorg", 2, [])
    assert till.settle(request) == first
    mined(till, first)
    anvil.mine(2)
    assert till.settle(request)["success"]


def test_an_end_that_is_not_buried_ends_nothing(anvil: AnvilWithContracts, deep_till: Till) -> None:
    till = deep_till
    over_s = till.gateway.head().timestamp_s + 60
    request = till.request(till.authorization(valid_before_s=over_s))
    with sending(till, swallowed):
        first = till.settle(request)
        snapshot = anvil.rpc("evm_snapshot")
        try:
            anvil.rpc("evm_increaseTime", 120)
            anvil.mine()
            assert till.settle(request) == first
            anvil.mine(2)
            assert "valid_before" in till.settle(request)["errorReason"]
            assert looked_up(till, request) == ("expired", None)
        finally:
            anvil.rpc("evm_revert", snapshot)


@pytest.fixture
def quick_till(anvil: AnvilWithContracts, tmp_path: Path) -> Any:
    """Tells success as soon as it is mined, as without any setting."""
    opened = Till(
        gateway=anvil.gateway,
        bank=anvil.stranger,
        domain=usdc_of(anvil),
        path=tmp_path / "quick.sqlite3",
        finality=4,
    )
    yield opened
    opened.facilitator.close()


def test_what_was_told_and_undone_is_not_said_to_be_settled_and_is_sent_again(
    anvil: AnvilWithContracts, quick_till: Till
) -> None:
    till, request = quick_till, quick_till.request()
    told = till.settle(request)
    assert told["success"]
    assert looked_up(till, request) == ("confirmed", 0)
    anvil.rpc("anvil_reorg", 1, [])
    till.reopen()
    assert looked_up(till, request) == ("orphaned", None)
    with anvil.idle():
        nonce = key_of(till, request).nonce
        other = till.request(till.authorization(nonce=nonce), url="https://other.test/")
        with sending(till, swallowed):  # nobody knows whether it was sent: that is no 503
            assert till.settle(request)["errorReason"] == PENDING
        for asked, reason in ((request, PENDING), (other, DUPLICATE)):
            again = till.settle(asked)
            assert (again["success"], again["errorReason"]) == (False, reason)
            assert again["transaction"] == told["transaction"]
            assert "undid it" in again["errorMessage"]
            assert till.verify(asked)["invalidReason"] == reason
        assert till.transfers() == 0
    mined(till, told)
    assert till.settle(request)["errorReason"] == DUPLICATE, "success is told once"
    assert (till.relayed(), till.transfers()) == (1, 1)


def test_what_was_undone_is_sent_again_without_being_asked_for(
    anvil: AnvilWithContracts, quick_till: Till
) -> None:
    till, request = quick_till, quick_till.request()
    told = till.settle(request)
    anvil.rpc("anvil_reorg", 1, [])
    till.facilitator.tick()
    mined(till, told)
    assert till.transfers() == 1
    anvil.mine(3)
    till.facilitator.tick()
    claim = till.claims.find(key_of(till, request))
    assert claim is not None
    assert (claim.state, bool(claim.raw)) == ("settled", True)
    anvil.mine()
    till.facilitator.tick()
    claim = till.claims.find(key_of(till, request))
    assert claim is not None
    assert (claim.state, claim.raw) == ("settled", b""), "what is final is not followed"
    assert looked_up(till, request)[0] == "final"


def test_what_was_undone_and_cannot_come_back_is_settled_anew(
    anvil: AnvilWithContracts, quick_till: Till
) -> None:
    till, request = quick_till, quick_till.request()
    told = till.settle(request)
    anvil.rpc("anvil_reorg", 1, [])
    assert till.settle(till.request())["success"]  # takes its number
    till.facilitator.tick()
    again = till.settle(request)
    assert again["success"]
    assert again["transaction"] != told["transaction"]
    assert (till.relayed(), till.transfers()) == (2, 2)


def test_what_was_undone_and_reverts_is_not_said_to_be_settled(
    anvil: AnvilWithContracts, quick_till: Till
) -> None:
    """The payer has spent it elsewhere, before it was mined again."""
    till, request = quick_till, quick_till.request(quick_till.authorization(600_000))
    told = till.settle(request)
    key = key_of(till, request)
    claim = till.claims.find(key)
    assert claim is not None
    anvil.rpc("anvil_reorg", 1, [])
    other = till.authorization(600_000)
    call = other.settling(other.sign(till.domain, bytes(till.payer.key)))
    till.transact(to=till.domain.token, data=call)
    till.facilitator.tick()
    mined(till, told)
    assert looked_up(till, request) == ("failed", 0)
    till.facilitator.tick()
    assert till.claims.find(key) == claim
    refused = till.settle(request)
    assert refused["errorReason"] == "invalid_exact_evm_insufficient_balance"
    till.claims.open(replace(claim, state="settled"))
    anvil.mine(4)
    till.facilitator.tick()
    assert till.claims.find(key) is None
    till.transact(to=till.domain.token, data=till.mint(600_000))
    assert till.settle(request)["success"]
    assert till.transfers() == 2


def test_a_chain_that_is_silent_undoes_nothing(quick_till: Till) -> None:
    till, request = quick_till, quick_till.request()
    told = till.settle(request)
    with mock.patch.object(till.gateway, "receipt", side_effect=ChainUnavailable("silent")):
        with pytest.raises(Unavailable):
            till.settle(request)
        till.facilitator.tick()
    again = till.settle(request)
    assert (again["errorReason"], again["transaction"]) == (DUPLICATE, told["transaction"])
    assert till.transfers() == 1


def test_who_sells_sees_a_payment_once_so_many_blocks_are_on_top(
    anvil: AnvilWithContracts, quick_till: Till, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.selling.witness.CONFIRMING_S", 0.05)
    till, authorization = quick_till, quick_till.authorization()
    witness = Witness(till.gateway, confirmations=2)
    since, asked = witness.since(), (till.domain.token, authorization)
    assert witness.look(*asked, since) == Sight("open")
    transaction = till.settle(till.request(authorization))["transaction"]
    for _ in range(2):
        with pytest.raises(ChainUnavailable, match="not deep enough"):
            witness.look(*asked, since)
        with pytest.raises(ChainUnavailable):
            witness.confirms(*asked, transaction)
        anvil.mine()
    assert witness.look(*asked, since) == Sight("paid", transaction)
    assert witness.confirms(*asked, transaction)


def test_anybody_may_look_up_what_became_of_a_payment(
    anvil: AnvilWithContracts, deep_till: Till
) -> None:
    till, request = deep_till, deep_till.request()
    key = key_of(till, request)
    asked = {
        "network": key.network,
        "asset": till.domain.token,
        "payer": till.payer.address,
        "nonce": f"0x{key.nonce.hex()}",
    }
    with (
        AppServer(create_facilitator_app(till.facilitator), "127.0.0.1", 0) as server,
        httpx.Client(base_url=server.url, trust_env=False, timeout=30) as client,
    ):
        missing = client.get("/settlement", params=asked)
        assert (missing.status_code, missing.json()["code"]) == (404, "not_found")
        with anvil.idle():
            told = client.post("/settle", json=request).json()
            found = client.get("/settlement", params=asked).json()
            assert found == {"state": "pending", "transaction": told["transaction"]}
        anvil.mine(2)
        found = client.get("/settlement", params=asked).json()
        assert found == {
            "state": "confirmed",
            "transaction": told["transaction"],
            "blocksOnTop": 2,
        }
        for name, value in (
            ("network", "base"),
            ("asset", "USDC"),
            ("payer", "me"),
            ("nonce", "1"),
        ):
            refused = client.get("/settlement", params={**asked, name: value})
            assert refused.status_code == 422
            assert refused.json()["details"]["field"] == name
        with mock.patch.object(till.gateway, "receipt", side_effect=ChainUnavailable("silent")):
            assert client.get("/settlement", params=asked).status_code == 503
