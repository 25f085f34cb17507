"""Authorizations are signed as wallets sign them and read back in one spelling only."""

from typing import Any

import pytest
from eth_account import Account
from eth_account.messages import encode_typed_data
from hypothesis import given
from hypothesis import strategies as st
from x402.mechanisms.evm.eip712 import hash_eip3009_authorization
from x402.mechanisms.evm.types import ExactEIP3009Payload

from engine.payments.authorization import (
    UINT256_MAX,
    Authorization,
    TokenDomain,
    read_authorization,
)

KEY = bytes.fromhex("4c0883a69102937d6231471b5dbb6204fe5129617082792ae468d01a3f362318")
PAYER = Account.from_key(KEY).address.lower()
DOMAIN = TokenDomain("Test USD Coin", "2", 31337, "0x" + "70" * 20)

addresses = st.binary(min_size=20, max_size=20).map(lambda raw: f"0x{raw.hex()}")
uints = st.integers(0, UINT256_MAX)
authorizations = st.builds(
    Authorization,
    payer=addresses,
    pay_to=addresses,
    amount=uints,
    valid_after_s=uints,
    valid_before_s=uints,
    nonce=st.binary(min_size=32, max_size=32),
)
GOOD = Authorization(PAYER, "0x" + "9a" * 20, 100, 0, 2_000_000_000, bytes(range(32)))


@given(authorizations)
def test_what_is_sent_is_read_back(authorization: Authorization) -> None:
    assert read_authorization(authorization.wire) == authorization
    loud = authorization.wire | {
        name: "0x" + authorization.wire[name][2:].upper() for name in ("from", "to", "nonce")
    }
    assert read_authorization(loud) == authorization


@given(authorizations)
def test_the_sdk_hashes_the_same_message(authorization: Authorization) -> None:
    signature = authorization.sign(DOMAIN, KEY)
    sent = ExactEIP3009Payload.from_dict({"authorization": authorization.wire})
    digest = hash_eip3009_authorization(
        sent.authorization, DOMAIN.chain_id, DOMAIN.token, DOMAIN.name, DOMAIN.version
    )
    assert len(signature) == 65
    assert Account._recover_hash(digest, signature=signature).lower() == PAYER


def test_it_is_signed_the_same_every_time_and_for_one_domain() -> None:
    assert GOOD.sign(DOMAIN, KEY) == GOOD.sign(DOMAIN, KEY)
    signable = encode_typed_data(full_message=GOOD.typed_data(DOMAIN))
    signature = GOOD.sign(DOMAIN, KEY)
    assert Account.recover_message(signable, signature=signature).lower() == PAYER
    others = (
        TokenDomain("Test USD coin", "2", 31337, DOMAIN.token),
        TokenDomain("Test USD Coin", "1", 31337, DOMAIN.token),
        TokenDomain("Test USD Coin", "2", 1, DOMAIN.token),
        TokenDomain("Test USD Coin", "2", 31337, "0x" + "71" * 20),
    )
    assert len({GOOD.sign(other, KEY) for other in (*others, DOMAIN)}) == 5


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(
            (name, value)
            for name in ("from", "to")
            for value in ("", "0x12", PAYER[2:], "0X" + PAYER[2:])
        ),
        *((name, 1) for name in GOOD.wire),
        *((name, None) for name in GOOD.wire),
        *(
            (name, value)
            for name in ("value", "validAfter", "validBefore")
            for value in ("", "-1", "+1", "01", "1 ", "0x1", "1_0", "\u0661", str(UINT256_MAX + 1))
        ),
        ("nonce", "0x" + "00" * 31),
        ("nonce", "0x" + "00" * 33),
        ("nonce", "0x" + "0 " * 32),
        ("nonce", "00" * 32),
    ],
)
def test_another_spelling_is_refused_by_the_name_of_its_field(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"^authorization\.{name}: takes "):
        read_authorization(GOOD.wire | {name: value})


@pytest.mark.parametrize("name", GOOD.wire)
def test_what_is_missing_is_named(name: str) -> None:
    with pytest.raises(ValueError, match=rf"^authorization\.{name}: takes "):
        read_authorization({kept: GOOD.wire[kept] for kept in GOOD.wire if kept != name})


@pytest.mark.parametrize("sent", [None, "from", ["from"], 1])
def test_what_is_no_object_is_no_authorization(sent: Any) -> None:
    with pytest.raises(ValueError, match=r"^authorization: takes an object$"):
        read_authorization(sent)
