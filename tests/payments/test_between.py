"""What happens between verifying and settling, where a resource server runs its handler.

Whatever it is, what cannot be settled any more is refused before any gas is paid, and nothing of it
is kept, so that an honest payer may try again.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from eth_utils.address import to_checksum_address
from x402.mechanisms.evm.constants import TRANSFER_WITH_AUTHORIZATION_BYTES_ABI
from x402.mechanisms.evm.multicall import encode_contract_call

from engine.chain import contracts
from engine.chain.embedded import EmbeddedChain
from engine.chain.gateway import CallReverted
from engine.payments.authorization import Authorization, TokenDomain
from engine.payments.relay import GAS_MAX
from tests.anvil_world import AnvilWithContracts
from tests.payments.paying import Till, embedded_till
from tests.payments.test_pending import key_of
from tests.payments.test_settling import changed
from tests.payments.tokens import deployed, selector

Meanwhile = Callable[[Till, Authorization], None]


def spends_it_elsewhere(till: Till, agreed: Authorization) -> None:
    """The payer has nothing left."""
    other = till.authorization(1_000_000)
    data = encode_contract_call(
        TRANSFER_WITH_AUTHORIZATION_BYTES_ABI,
        "transferWithAuthorization",
        other.payer,
        other.pay_to,
        other.amount,
        other.valid_after_s,
        other.valid_before_s,
        other.nonce,
        other.sign(till.domain, bytes(till.payer.key)),
    )
    till.transact(to=till.domain.token, data=data)


def cancels(till: Till, agreed: Authorization) -> None:
    """The payer takes it back, as EIP-3009 has it."""
    domain = {
        "name": till.domain.name,
        "version": till.domain.version,
        "chainId": till.domain.chain_id,
        "verifyingContract": to_checksum_address(till.domain.token),
    }
    kinds = {
        "CancelAuthorization": [
            {"name": "authorizer", "type": "address"},
            {"name": "nonce", "type": "bytes32"},
        ]
    }
    message = {"authorizer": till.payer.address, "nonce": agreed.nonce}
    signed = till.payer.sign_typed_data(domain, kinds, message)
    canceled = contracts.call_data(
        contracts.TEST_USDC,
        "cancelAuthorization",
        till.payer.address,
        agreed.nonce,
        signed.v,
        signed.r.to_bytes(32),
        signed.s.to_bytes(32),
    )
    till.transact(to=till.domain.token, data=canceled)


@pytest.mark.parametrize(
    ("meanwhile", "reason"),
    [
        (spends_it_elsewhere, "invalid_exact_evm_insufficient_balance"),
        (cancels, "invalid_exact_evm_nonce_already_used"),
    ],
)
def test_a_payer_who_takes_it_back_is_refused(
    till: Till, meanwhile: Meanwhile, reason: str
) -> None:
    agreed = till.authorization()
    request = till.request(agreed)
    assert till.verify(request)["isValid"]
    meanwhile(till, agreed)
    expect_refused(till, request, reason)


def expect_refused(till: Till, request: dict[str, Any], reason: str) -> None:
    """It is not settled, nothing was sent, and nothing is kept of it."""
    refused = till.settle(request)
    assert (refused["success"], refused["transaction"]) == (False, "")
    assert refused["errorReason"] == reason
    assert till.claims.find(key_of(till, request)) is None
    assert till.relayed() == 0


def test_a_token_that_stops_is_refused_until_it_goes_on(
    embedded: EmbeddedChain, tmp_path: Path
) -> None:
    till = embedded_till(tmp_path / "claims.sqlite3", embedded, "Stops")
    request = till.request()
    assert till.verify(request)["isValid"]
    till.transact(to=till.domain.token, data=selector("stop()"))
    expect_refused(till, request, "transaction_failed")
    till.facilitator.close()


@pytest.mark.parametrize(
    ("endless", "reason"),
    [(False, "invalid_exact_evm_payload_signature"), (True, "transaction_failed")],
)
def test_a_wallet_that_changes_its_mind_is_refused(
    anvil: AnvilWithContracts, tmp_path: Path, endless: bool, reason: str
) -> None:
    token = deployed(anvil.gateway, anvil.operator, "TakesWallets")
    till = Till(
        gateway=anvil.gateway,
        bank=anvil.operator,
        domain=TokenDomain("Hostile", "1", anvil.gateway.chain_id, token),
        path=tmp_path / "claims.sqlite3",
    )
    wallet = deployed(till.gateway, till.bank, "FickleWallet")
    mint = contracts.call_data(contracts.TEST_USDC, "mint", to_checksum_address(wallet), 1000)
    till.transact(to=token, data=mint)
    honest = till.request(till.authorization(payer=wallet))
    request = changed(honest, "paymentPayload.payload.signature", "0x" + "11" * 66)
    assert till.verify(request)["isValid"]
    till.transact(to=wallet, data=selector("change(bool)") + int(endless).to_bytes(32))
    expect_refused(till, request, reason)
    till.facilitator.close()


def test_a_wallet_that_is_still_to_be_deployed_is_refused(till: Till) -> None:
    """ERC-6492: a factory would be called with whatever the payer likes, at our cost."""
    nobody = "0x" + "07" * 20
    honest = till.request(till.authorization(payer=nobody))
    wrapped = "0x" + "11" * 96 + "6492" * 16
    request = changed(honest, "paymentPayload.payload.signature", wrapped)
    assert not till.verify(request)["isValid"]
    refused = till.settle(request)
    assert (refused["success"], refused["transaction"], till.relayed()) == (False, "", 0)


def test_what_a_contract_says_stays_in_one_line_of_the_log(
    till: Till, caplog: pytest.LogCaptureFixture
) -> None:
    """The SDK logs it as it is: whoever writes a token or a wallet would write log lines."""
    said = CallReverted(b"", 'no\n{"event": "settled"}\x1b[2J')
    honest = till.gateway.call

    def refuses(to: str, data: bytes, **how: Any) -> bytes:
        if data[:4] == selector("authorizationState(address,bytes32)"):
            return honest(to, data, **how)
        raise said

    with mock.patch.object(till.gateway, "call", refuses):
        answer = till.verify(till.request())
    assert not answer["isValid"]
    assert answer["invalidMessage"].isprintable()
    assert "settled" in caplog.text
    assert all(record.getMessage().isprintable() for record in caplog.records)


def test_gas_without_end_is_not_paid(till: Till) -> None:
    request = till.request()
    with mock.patch.object(till.gateway, "estimate_gas", return_value=GAS_MAX + 1):
        expect_refused(till, request, "transaction_failed")
    assert till.settle(request)["success"]
