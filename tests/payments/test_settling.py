"""What the facilitator settles and what it refuses, on the embedded chain."""

import copy
from pathlib import Path
from typing import Any

import pytest
from eth_utils.address import to_checksum_address
from x402.mechanisms.evm.constants import TRANSFER_WITH_AUTHORIZATION_BYTES_ABI
from x402.mechanisms.evm.multicall import encode_contract_call

from engine.chain import contracts
from engine.chain.embedded import EmbeddedChain
from engine.payments.facilitator import Facilitator
from engine.payments.relay import Relayer
from engine.payments.served import Served
from tests.payments.paying import PAYEE, Till, embedded_till
from tests.payments.tokens import deployed


def test_a_payment_is_verified_settled_and_told_as_the_chain_shows_it(till: Till) -> None:
    request = till.request(till.authorization(123))
    assert till.verify(request) == {"isValid": True, "payer": till.payer.address.lower()}
    assert till.transfers() == 0
    answer = till.settle(request)
    receipt = till.gateway.receipt(bytes.fromhex(answer["transaction"][2:]))
    assert receipt is not None
    assert receipt.succeeded
    assert answer == {
        "success": True,
        "payer": till.payer.address.lower(),
        "transaction": f"0x{receipt.tx_hash.hex()}",
        "network": till.network,
        "amount": "123",
    }
    assert till.transfers() == 1


def test_only_what_is_served_is_advertised(till: Till) -> None:
    assert till.facilitator.supported().model_dump(by_alias=True, exclude_none=True) == {
        "kinds": [{"x402Version": 2, "scheme": "exact", "network": till.network}],
        "extensions": [],
        "signers": {"eip155:*": [till.gas_payer.address]},
    }


def test_each_network_is_settled_on_its_own_chain(till: Till, tmp_path: Path) -> None:
    """The SDK would route every `eip155` network to the first."""
    chain = EmbeddedChain(None, chain_id=1337)
    other = embedded_till(tmp_path / "unused.sqlite3", chain)
    other.facilitator.close()
    relayers = [Relayer(each.gateway, each.gas_payer, till.claims) for each in (till, other)]
    till.facilitator = other.facilitator = Facilitator(relayers, till.claims)
    networks = {kind.network for kind in till.facilitator.supported().kinds}
    assert networks == {till.network, "eip155:1337"}
    for each in (other, till):
        assert each.settle(each.request())["network"] == each.network
        assert each.transfers() == 1
    request = till.request()
    for part in ("paymentPayload.accepted.network", "paymentRequirements.network"):
        request = changed(request, part, "eip155:999")
    assert till.settle(request)["errorReason"] == "invalid_network"
    chain.close()


@pytest.mark.parametrize("restarted", [False, True])
def test_what_was_settled_is_settled_once(till: Till, restarted: bool) -> None:
    authorization = till.authorization()
    request = till.request(authorization)
    first = till.settle(request)
    if restarted:
        till.reopen()
    for again in (request, till.request(authorization, url="https://other.test/")):
        refused = till.settle(again)
        assert (refused["success"], refused["errorReason"]) == (False, "duplicate_settlement")
        assert refused["transaction"] == first["transaction"]
        assert till.verify(again)["invalidReason"] == "duplicate_settlement"
    assert till.relayed() == 1


def test_another_amount_under_a_settled_nonce_is_a_duplicate(till: Till) -> None:
    authorization = till.authorization(100)
    till.settle(till.request(authorization))
    other = till.authorization(99, nonce=authorization.nonce)
    assert till.settle(till.request(other))["errorReason"] == "duplicate_settlement"


def test_the_same_nonce_of_another_payer_is_another_payment(till: Till, tmp_path: Path) -> None:
    authorization = till.authorization()
    assert till.settle(till.request(authorization))["success"]
    other = Till(
        gateway=till.gateway,
        bank=till.bank,
        domain=till.domain,
        path=tmp_path / "other.sqlite3",
        gas_payer=till.gas_payer,
    )
    other.facilitator.close()
    other.facilitator = till.facilitator
    assert other.settle(other.request(other.authorization(nonce=authorization.nonce)))["success"]


def test_what_fails_before_it_is_broadcast_leaves_no_claim(till: Till) -> None:
    request = till.request(till.authorization(2_000_000))
    for _ in range(2):
        refused = till.settle(request)
        assert refused["errorReason"] == "invalid_exact_evm_insufficient_balance"
        assert refused["transaction"] == ""
    assert till.verify(request)["invalidReason"] == "invalid_exact_evm_insufficient_balance"
    assert till.relayed() == 0
    till.transact(to=till.domain.token, data=till.mint(2_000_000))
    assert till.settle(request)["success"]


def test_what_the_payer_used_elsewhere_is_refused_before_gas_is_paid(till: Till) -> None:
    authorization = till.authorization()
    request = till.request(authorization)
    data = encode_contract_call(
        TRANSFER_WITH_AUTHORIZATION_BYTES_ABI,
        "transferWithAuthorization",
        authorization.payer,
        authorization.pay_to,
        authorization.amount,
        authorization.valid_after_s,
        authorization.valid_before_s,
        authorization.nonce,
        authorization.sign(till.domain, bytes(till.payer.key)),
    )
    till.transact(to=till.domain.token, data=data)
    assert till.settle(request)["errorReason"] == "invalid_exact_evm_nonce_already_used"
    assert till.verify(request)["invalidReason"] == "invalid_exact_evm_nonce_already_used"
    assert till.relayed() == 0


HOSTILE = {
    "TakesAFee": "invalid_exact_evm_transfer_event_mismatch",
    "TakesAFeeFromThePayee": "invalid_exact_evm_transfer_event_mismatch",
    "PaysSomebodyElse": "invalid_exact_evm_transfer_event_mismatch",
    "PaysTwice": "invalid_exact_evm_transfer_event_mismatch",
    "TellsNoTransfer": "invalid_exact_evm_transfer_event_mismatch",
    "ReturnsFalse": "invalid_exact_evm_authorization_event_mismatch",
    "TellsNoUse": "invalid_exact_evm_authorization_event_mismatch",
}


@pytest.mark.parametrize(("token", "reason"), HOSTILE.items())
def test_a_token_that_does_something_else_is_refused_by_name_and_never_again(
    embedded: EmbeddedChain, tmp_path: Path, token: str, reason: str
) -> None:
    till = embedded_till(tmp_path / "claims.sqlite3", embedded, token)
    request = till.request()
    refused = till.settle(request)
    assert (refused["success"], refused["errorReason"]) == (False, reason)
    assert till.gateway.receipt(bytes.fromhex(refused["transaction"][2:])) is not None
    for _ in range(2):
        again = till.settle(request)
        assert again["errorReason"] == "duplicate_settlement"
        assert again["transaction"] == refused["transaction"]
        till.reopen()
    assert till.relayed() == 1


def test_a_token_that_forgets_nonces_is_paid_with_once_all_the_same(
    embedded: EmbeddedChain, tmp_path: Path
) -> None:
    till = embedded_till(tmp_path / "claims.sqlite3", embedded, "ForgetsNonces")
    authorization = till.authorization()
    assert till.settle(till.request(authorization))["success"]
    till.reopen()
    for url in ("https://shop.test/book", "https://shop.test/other"):
        again = till.settle(till.request(authorization, url=url))
        assert again["errorReason"] == "duplicate_settlement"
    assert till.transfers() == 1


def test_a_token_that_tolerates_used_nonces_is_asked_first(
    embedded: EmbeddedChain, tmp_path: Path
) -> None:
    till = embedded_till(tmp_path / "claims.sqlite3", embedded, "ToleratesUsedNonces")
    authorization = till.authorization()
    assert till.settle(till.request(authorization))["success"]
    other = Till(
        gateway=till.gateway,
        bank=till.bank,
        domain=till.domain,
        path=tmp_path / "other.sqlite3",
        payer=till.payer,
    )
    refused = other.settle(other.request(authorization))
    assert refused["errorReason"] == "invalid_exact_evm_nonce_already_used"
    assert other.relayed() == 0


def test_a_token_without_authorization_state_is_not_served(
    embedded: EmbeddedChain, tmp_path: Path
) -> None:
    till = embedded_till(tmp_path / "claims.sqlite3", embedded, "HasNoState")
    refused = till.settle(till.request())
    assert refused["errorReason"] == "invalid_exact_evm_eip3009_not_supported"
    assert till.relayed() == 0


def test_a_wallet_that_is_a_contract_pays_too(embedded: EmbeddedChain, tmp_path: Path) -> None:
    till = embedded_till(tmp_path / "claims.sqlite3", embedded, "TakesWallets")
    wallet = deployed(till.gateway, till.bank, "Wallet")
    mint = contracts.call_data(contracts.TEST_USDC, "mint", to_checksum_address(wallet), 1000)
    till.transact(to=till.domain.token, data=mint)
    request = till.request(till.authorization(payer=wallet))
    wrong = changed(request, "paymentPayload.payload.signature", "0x" + "22" * 66)
    assert till.settle(wrong)["errorReason"] != "duplicate_settlement"
    assert till.relayed() == 0
    right = changed(request, "paymentPayload.payload.signature", "0x" + "11" * 66)
    assert till.verify(right)["isValid"]
    settled = till.settle(right)
    assert (settled["success"], settled["payer"]) == (True, wallet)
    assert till.settle(right)["errorReason"] == "duplicate_settlement"
    assert till.relayed() == 1


def test_gas_is_paid_for_configured_tokens_and_payees_only(
    embedded: EmbeddedChain, tmp_path: Path
) -> None:
    till = embedded_till(tmp_path / "claims.sqlite3", embedded)
    token = f"{till.network}/erc20:{till.domain.token}"
    for served, reason in (
        (Served(tokens=frozenset({f"{till.network}/erc20:{PAYEE}"})), "asset_not_served"),
        (
            Served(tokens=frozenset({token}), payees=frozenset({"0x" + "01" * 20})),
            "payee_not_served",
        ),
    ):
        till.served = served
        till.reopen()
        assert till.settle(till.request())["errorReason"] == reason
        assert till.verify(till.request())["invalidReason"] == reason
    till.served = Served(tokens=frozenset({token}), payees=frozenset({PAYEE}))
    till.reopen()
    assert till.settle(till.request())["success"]
    assert till.relayed() == 1


def changed(request: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A deep copy in which one thing is different; None takes it away."""
    request = copy.deepcopy(request)
    *way, last = path.split(".")
    at = request
    for step in way:
        at = at[step]
    if value is None:
        del at[last]
    else:
        at[last] = value
    return request


AUTHORIZATION = "paymentPayload.payload.authorization"
WRONG: dict[str, tuple[str, Any, str]] = {
    "Arabic digits": (f"{AUTHORIZATION}.value", "\u0661\u0660\u0660", "invalid_payload"),
    "an amount with an underscore": (f"{AUTHORIZATION}.value", "1_00", "invalid_payload"),
    "an amount with a sign": (f"{AUTHORIZATION}.value", "+100", "invalid_payload"),
    "an amount that is a number": (f"{AUTHORIZATION}.value", 100, "invalid_payload"),
    "an amount of 257 bits": (f"{AUTHORIZATION}.value", str(2**256), "invalid_payload"),
    "a nonce with spaces": (f"{AUTHORIZATION}.nonce", "0x" + "ab " * 32, "invalid_payload"),
    "a nonce without 0x": (f"{AUTHORIZATION}.nonce", "ab" * 32, "invalid_payload"),
    "a short nonce": (f"{AUTHORIZATION}.nonce", "0x" + "ab" * 31, "invalid_payload"),
    "no payer": (f"{AUTHORIZATION}.from", None, "invalid_payload"),
    "no authorization": (AUTHORIZATION, None, "invalid_payload"),
    "an authorization that is a list": (AUTHORIZATION, ["from"], "invalid_payload"),
    "no signature": ("paymentPayload.payload.signature", None, "invalid_payload"),
    "a signature that is a number": ("paymentPayload.payload.signature", 1, "invalid_payload"),
    "a signature that is no hex": (
        "paymentPayload.payload.signature",
        "0xzz",
        "invalid_exact_evm_failed_to_verify_signature",
    ),
    "an empty signature": (
        "paymentPayload.payload.signature",
        "",
        "invalid_exact_evm_payload_signature",
    ),
    "another signature": (
        "paymentPayload.payload.signature",
        "0x" + "11" * 64 + "1b",
        "invalid_exact_evm_payload_signature",
    ),
    "a smart wallet that is none": (
        "paymentPayload.payload.signature",
        "0x" + "11" * 99,
        "invalid_exact_evm_payload_undeployed_smart_wallet",
    ),
    "another amount": (
        "paymentRequirements.amount",
        "99",
        "invalid_exact_evm_payload_authorization_value_mismatch",
    ),
    "another spelling of the amount": (
        "paymentRequirements.amount",
        "0100",
        "invalid_exact_evm_payload_authorization_value_mismatch",
    ),
    "another payee": (
        "paymentRequirements.payTo",
        "0x" + "01" * 20,
        "invalid_exact_evm_payload_recipient_mismatch",
    ),
    "a payee that is none": (
        "paymentRequirements.payTo",
        "me",
        "invalid_exact_evm_payload_recipient_mismatch",
    ),
    "another network": ("paymentRequirements.network", "eip155:1", "invalid_network"),
    "a network accepted that is another": (
        "paymentPayload.accepted.network",
        "eip155:1",
        "invalid_network",
    ),
    "a V1 name of a network": ("paymentRequirements.network", "base", "invalid_network"),
    "another scheme": ("paymentRequirements.scheme", "upto", "unsupported_scheme"),
    "a scheme accepted that is another": (
        "paymentPayload.accepted.scheme",
        "upto",
        "unsupported_scheme",
    ),
    "an asset that is none": (
        "paymentRequirements.asset",
        "USDC",
        "invalid_payment_requirements",
    ),
    "an asset without code": (
        "paymentRequirements.asset",
        "0x" + "01" * 20,
        "invalid_exact_evm_eip3009_not_supported",
    ),
    "a wrong name": (
        "paymentRequirements.extra",
        {"name": "USD Coin", "version": "2"},
        "invalid_exact_evm_payload_signature",
    ),
    "a name of another type": (
        "paymentRequirements.extra",
        {"name": ["Test USD Coin"], "version": 2},
        "invalid_exact_evm_payload_signature",
    ),
    "no name": ("paymentRequirements.extra", {}, "missing_eip712_domain"),
    "Permit2": (
        "paymentRequirements.extra",
        {"assetTransferMethod": "permit2"},
        "invalid_payload",
    ),
    "a Permit2 authorization": (
        "paymentPayload.payload.permit2Authorization",
        {},
        "invalid_payload",
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_spelt_or_meant_otherwise_is_refused_with_a_reason(
    busy_till: Till, wrong: str
) -> None:
    path, value, reason = WRONG[wrong]
    request = changed(busy_till.request(), path, value)
    assert busy_till.verify(request)["invalidReason"] == reason
    refused = busy_till.settle(request)
    assert (refused["success"], refused["errorReason"]) == (False, reason)
    assert refused["transaction"] == ""


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"valid_before_s": 1_700_000_000}, "authorization_valid_before"),
        (
            {"valid_after_s": 4_000_000_000, "valid_before_s": 5_000_000_000},
            "authorization_valid_after",
        ),
        ({"amount": 0}, "authorization_value_mismatch"),
    ],
)
def test_what_may_not_be_used_now_is_refused(
    busy_till: Till, changes: dict[str, int], reason: str
) -> None:
    request = busy_till.request(busy_till.authorization(**changes))
    assert busy_till.settle(request)["errorReason"] == f"invalid_exact_evm_payload_{reason}"


def test_the_first_version_of_x402_is_refused(busy_till: Till) -> None:
    request = changed(busy_till.request(), "paymentPayload.x402Version", 1)
    assert busy_till.settle(request)["errorReason"] == "unsupported_scheme"
    assert busy_till.verify(request)["invalidReason"] == "unsupported_scheme"


def test_upper_case_digits_are_the_same_payment(till: Till) -> None:
    request = till.request()
    authorization = request["paymentPayload"]["payload"]["authorization"]
    loud = changed(request, f"{AUTHORIZATION}.nonce", "0x" + authorization["nonce"][2:].upper())
    loud = changed(loud, "paymentRequirements.asset", "0x" + till.domain.token[2:].upper())
    assert till.settle(loud)["success"]
    assert till.settle(request)["errorReason"] == "duplicate_settlement"
