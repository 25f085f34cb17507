"""A settlement whose fate is unknown stays open, is sent no second time, and is told once."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from engine.chain.gateway import ChainUnavailable, TransactionRejected
from engine.errors import Unavailable
from engine.payments.claims import Key
from tests.anvil_world import AnvilWithContracts
from tests.payments.paying import Till

PENDING = "settlement_pending"


@contextmanager
def impatient(till: Till) -> Iterator[None]:
    """Wait for no receipt."""
    till.receipt_timeout_s = 0.0
    till.reopen()
    yield
    till.receipt_timeout_s = 5.0
    till.reopen()


def swallowed(raw: bytes) -> bytes:
    """What is sent gets lost on its way."""
    raise ChainUnavailable("the connection was lost")


@contextmanager
def sending(till: Till, how: Callable[[bytes], bytes]) -> Iterator[None]:
    with mock.patch.object(till.gateway, "send_raw", how):
        yield


def test_what_is_not_mined_in_time_is_pending_and_answered_from_the_same_transaction(
    anvil: AnvilWithContracts, anvil_till: Till
) -> None:
    till = anvil_till
    request = till.request()
    with impatient(till), anvil.idle():
        first = till.settle(request)
        assert (first["success"], first["errorReason"]) == (False, PENDING)
        assert first["transaction"]
        assert till.settle(request) == first
        assert till.verify(request)["isValid"]
        till.reopen()
        assert till.settle(request) == first
        assert till.relayed() == 0
    settled = till.settle(request)
    assert (settled["success"], settled["transaction"]) == (True, first["transaction"])
    assert till.settle(request)["errorReason"] == "duplicate_settlement"
    assert (till.relayed(), till.transfers()) == (1, 1)


def test_while_it_is_pending_another_request_for_it_is_a_duplicate(
    anvil: AnvilWithContracts, anvil_till: Till
) -> None:
    till = anvil_till
    authorization = till.authorization()
    with impatient(till), anvil.idle():
        first = till.settle(till.request(authorization))
        other = till.request(authorization, url="https://other.test/")
        refused = till.settle(other)
        assert refused["errorReason"] == "duplicate_settlement"
        assert refused["transaction"] == first["transaction"]
        assert till.verify(other)["invalidReason"] == "duplicate_settlement"
    assert till.settle(other)["errorReason"] == "duplicate_settlement"
    assert till.settle(till.request(authorization))["success"]


def test_while_one_has_it_in_hand_the_same_request_is_told_the_transaction_and_no_success(
    anvil: AnvilWithContracts, anvil_till: Till
) -> None:
    till = anvil_till
    request = till.request()
    with ThreadPoolExecutor(1) as pool:
        sent = threading.Event()
        honest = till.gateway.send_raw

        def noted(raw: bytes) -> bytes:
            try:
                return honest(raw)
            finally:
                sent.set()

        with anvil.idle():
            with sending(till, noted):
                first = pool.submit(till.settle, request)
                assert sent.wait(10)
            second = till.settle(request)
            assert second["errorReason"] == PENDING
            assert till.verify(request)["invalidReason"] == "duplicate_settlement"
        assert first.result()["success"]
        assert first.result()["transaction"] == second["transaction"]
    assert till.settle(request)["errorReason"] == "duplicate_settlement"


@pytest.mark.parametrize("arrived", [True, False])
def test_a_connection_that_is_lost_while_sending_leaves_it_pending(
    anvil: AnvilWithContracts, anvil_till: Till, arrived: bool
) -> None:
    till = anvil_till
    request = till.request()
    honest = till.gateway.send_raw

    def lost(raw: bytes) -> bytes:
        if arrived:
            honest(raw)
        raise ChainUnavailable("the connection was lost")

    with impatient(till), anvil.idle(), sending(till, lost):
        first = till.settle(request)
        assert first["errorReason"] == PENDING
    second = till.settle(request)
    assert (second["success"], second["transaction"]) == (True, first["transaction"])
    assert (till.relayed(), till.transfers()) == (1, 1)


def test_what_the_chain_refuses_leaves_no_claim(anvil_till: Till) -> None:
    till = anvil_till
    request = till.request()

    def refused(raw: bytes) -> bytes:
        raise TransactionRejected("not today")

    with sending(till, refused):
        answer = till.settle(request)
    assert (answer["errorReason"], answer["transaction"]) == ("transaction_failed", "")
    assert till.settle(request)["success"]


def test_a_transaction_whose_number_was_taken_is_replaced(anvil_till: Till) -> None:
    till = anvil_till
    lost, other = till.request(), till.request()

    with impatient(till), sending(till, swallowed):
        first = till.settle(lost)
    assert first["errorReason"] == PENDING
    assert till.settle(other)["success"]
    second = till.settle(lost)
    assert second["success"]
    assert second["transaction"] != first["transaction"]
    assert (till.relayed(), till.transfers()) == (2, 2)


def test_an_endpoint_that_forgets_a_transaction_does_not_make_another(anvil_till: Till) -> None:
    till = anvil_till
    request = till.request()
    with impatient(till), mock.patch.object(till.gateway, "receipt", return_value=None):
        first = till.settle(request)
        assert first["errorReason"] == PENDING
        assert till.settle(request) == first
    assert till.settle(request)["transaction"] == first["transaction"]
    assert (till.relayed(), till.transfers()) == (1, 1)


def test_a_transaction_that_is_not_mined_in_time_is_over(
    anvil: AnvilWithContracts, anvil_till: Till
) -> None:
    till = anvil_till
    authorization = till.authorization(
        valid_before_s=till.gateway.head().timestamp_s + 60, amount=7
    )
    request = till.request(authorization)

    with impatient(till), sending(till, swallowed):
        pending = till.settle(request)
    assert pending["errorReason"] == PENDING
    snapshot = anvil.rpc("evm_snapshot")
    try:
        anvil.rpc("evm_increaseTime", 120)
        anvil.mine()
        refused = till.settle(request)
        assert refused["errorReason"] == "invalid_exact_evm_payload_authorization_valid_before"
        assert refused["transaction"] == pending["transaction"]
        assert till.settle(request)["errorReason"] == "duplicate_settlement"
        assert till.relayed() == 0
    finally:
        anvil.rpc("evm_revert", snapshot)


def test_a_transaction_that_reverts_is_told_as_failed_and_its_claim_is_freed(
    anvil_till: Till, tmp_path: Path
) -> None:
    till = anvil_till
    request = till.request(till.authorization(600_000))
    with impatient(till), sending(till, swallowed):
        pending = till.settle(request)
    assert pending["errorReason"] == PENDING
    elsewhere = Till(
        gateway=till.gateway,
        bank=till.bank,
        domain=till.domain,
        path=tmp_path / "elsewhere.sqlite3",
        payer=till.payer,
    )
    spent = elsewhere.settle(elsewhere.request(elsewhere.authorization(1_500_000)))
    assert spent["success"]
    failed = till.settle(request)
    assert failed["errorReason"] == "transaction_failed"
    assert failed["transaction"] == pending["transaction"]
    assert till.settle(request)["errorReason"] == "invalid_exact_evm_insufficient_balance"
    till.transact(to=till.domain.token, data=till.mint(600_000))
    assert till.settle(request)["success"]
    assert (till.relayed(), till.transfers()) == (2, 2)
    elsewhere.facilitator.close()


@pytest.mark.parametrize("asked", ["code", "call", "estimate_gas", "transaction_count", "fees"])
def test_a_chain_that_cannot_be_asked_is_no_reason_to_refuse(anvil_till: Till, asked: str) -> None:
    till = anvil_till
    request = till.request()

    def silent(*_: Any, **__: Any) -> Any:
        raise ChainUnavailable("nobody answers")

    with mock.patch.object(till.gateway, asked, silent):
        with pytest.raises(Unavailable):
            till.settle(request)
        if asked in ("code", "call"):
            with pytest.raises(Unavailable):
                till.verify(request)
    assert till.claims.find(key_of(till, request)) is None
    assert till.settle(request)["success"]


def test_claims_that_cannot_be_written_are_not_settled(anvil_till: Till) -> None:
    till = anvil_till
    request = till.request()
    till.path.rename(till.path.with_suffix(".away"))
    with pytest.raises(Unavailable):
        till.settle(request)
    with pytest.raises(Unavailable):
        till.verify(request)
    assert till.relayed() == 0


def test_an_end_that_cannot_be_written_is_not_told(anvil_till: Till) -> None:
    till = anvil_till
    request = till.request()
    with mock.patch.object(till.claims, "close", side_effect=Unavailable("the disk is full")):
        first = till.settle(request)
        assert first["errorReason"] == PENDING
    settled = till.settle(request)
    assert (settled["success"], settled["transaction"]) == (True, first["transaction"])
    assert (till.relayed(), till.transfers()) == (1, 1)


def key_of(till: Till, request: dict[str, Any]) -> Key:
    """The key of the claim that a request has."""
    authorization = request["paymentPayload"]["payload"]["authorization"]
    nonce = bytes.fromhex(authorization["nonce"][2:])
    return Key(till.network, till.domain.token, authorization["from"], nonce)
