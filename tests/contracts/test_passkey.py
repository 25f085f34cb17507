"""An owner without a wallet consents with a passkey, whether or not the chain verifies P-256."""

from collections.abc import Iterator
from typing import Any

import pytest

from engine.chain import contracts as abi
from engine.chain.anvil import AnvilProcess
from engine.chain.gateway import CallReverted
from tests.anvil_world import ANVIL_TOML, AnvilWithContracts
from tests.contracts.deployed import REGISTRY, UNTIL_S, Contracts, token_id
from tests.contracts.passkey import ORDER, Passkey

PASSKEY = Passkey(0x9A55)
POINT = (PASSKEY.x.to_bytes(32), PASSKEY.y.to_bytes(32))


@pytest.fixture(scope="module")
def contracts() -> Iterator[Contracts]:
    """An embedded chain, which runs Prague: P-256 is verified in Solidity there."""
    found = Contracts()
    yield found
    found.chain.close()


def registration(contracts: Contracts, number: int, **changes: Any) -> tuple[Any, ...]:
    """Of a session whose owner is the passkey, with its assertion over the grant."""
    owner = contracts.read("passkeyOwner", *POINT).lower()
    grant = contracts.grant(number, owner=owner, **changes)
    signature = PASSKEY.sign(contracts.digest("grantDigest", grant.abi_tuple()))
    return contracts.registration(grant, number, consent="passkey", signature=signature)


def consent_of(receipt: Any) -> str:
    [event] = [
        found
        for log in receipt.logs
        if (found := abi.decode_log(REGISTRY, log)) and found.name == "SessionRegistered"
    ]
    return abi.CONSENT[event.args["consent"]]


def test_a_passkey_registers_lowers_and_revokes(contracts: Contracts) -> None:
    item = registration(contracts, 1)
    assert consent_of(contracts.send("register", [item])) == "passkey"
    grant, limits = item[0], (1, 2, 3, 4, 5)
    digest = contracts.digest("loweringDigest", token_id(1), limits, UNTIL_S)
    relayed = UNTIL_S, abi.CONSENT.index("passkey")
    lowering = (token_id(1), grant, limits, *relayed, PASSKEY.sign(digest))
    contracts.send("lowerLimitsBySignature", *lowering, by=contracts.stranger)
    assert contracts.read("limitsOf", token_id(1), grant) == limits
    session = (token_id(1), grant[0], contracts.read("grantHash", grant))
    digest = contracts.digest("revocationDigest", [token_id(1)], UNTIL_S)
    revocation = ([session], *relayed, PASSKEY.sign(digest))
    contracts.send("revokeBySignature", *revocation, by=contracts.stranger)
    assert contracts.read("session", token_id(1))[5] is True


def with_high_s(signature: bytes) -> bytes:
    s = ORDER - int.from_bytes(signature[96:128])
    return signature[:96] + s.to_bytes(32) + signature[128:]


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda s: s[:-32], id="cut off"),
        pytest.param(lambda s: b"", id="nothing"),
        pytest.param(lambda s: s[:64] + bytes(len(s) - 64), id="zeros"),
        pytest.param(with_high_s, id="high s"),
        pytest.param(lambda s: Passkey(7).sign(b"\x01" * 32), id="another passkey's"),
        pytest.param(lambda s: s.replace(b"webauthn.get", b"webauthn.put"), id="another ceremony"),
    ],
)
def test_any_other_assertion_is_refused(contracts: Contracts, change: Any) -> None:
    *item, signature = registration(contracts, 2)
    with pytest.raises(CallReverted) as refused:
        contracts.send("register", [(*item, change(signature))])
    assert abi.revert_name(refused.value) == "OwnerSignatureInvalid"
    assert contracts.read("exists", token_id(2)) is False


def test_the_chain_verifies_p256_where_it_can(contracts: Contracts) -> None:
    """Osaka has EIP-7951: the same call then costs a fraction."""
    in_solidity = contracts.send("register", [registration(contracts, 3)]).gas_used
    with AnvilProcess.from_toml(ANVIL_TOML, port=0, state_file=None, hardfork="osaka") as process:
        anvil = AnvilWithContracts(process)
        grant = registration(contracts, 4)[0]
        digest = abi.read(anvil.gateway, REGISTRY, anvil.deployed.registry, "grantDigest", grant)
        *item, _ = registration(contracts, 4)
        data = abi.call_data(REGISTRY, "register", [(*item, PASSKEY.sign(digest))])
        receipt = anvil.transact(anvil.operator, to=anvil.deployed.registry, data=data)
        anvil.gateway.close()
    assert consent_of(receipt) == "passkey"
    assert receipt.gas_used < in_solidity / 2
