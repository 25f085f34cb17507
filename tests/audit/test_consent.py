"""Signatures are judged here as the registry judges them: a real one is asked about each."""

from collections.abc import Iterator
from typing import Any

import pytest
from eth_abi.abi import decode, encode

from engine.audit import consent
from engine.chain import contracts as abi
from engine.chain.anvil import AnvilProcess
from engine.chain.gateway import CallReverted
from engine.grant import Domain, Grant
from engine.policy.limits import Limits
from tests.anvil_world import ANVIL_TOML, AnvilWithContracts
from tests.contracts.deployed import UNTIL_S, session_key
from tests.contracts.passkey import ORDER, Passkey

PASSKEY, ANOTHER = Passkey(0x9A55), Passkey(7)
DOMAIN = Domain(31337, "0x" + "11" * 20)
TYPES = ["bytes32", "bytes32", "uint256", "uint256", "bytes", "bytes"]
PARTS = ("r", "s", "challenge_at", "type_at", "authenticator_data", "client_data")
HUGE = 2**256 - 1


def owner_of(passkey: Passkey) -> str:
    return consent.passkey_owner(passkey.x.to_bytes(32), passkey.y.to_bytes(32))


def grant_of(owner: str) -> Grant:
    return Grant(
        owner=owner,
        session_key=session_key(1).public_key.to_address(),
        audit_log=bytes(32),
        parent=bytes(32),
        workspace="acme",
        agent_id="bot",
        permissions=("pay",),
        merchants=(),
        tokens=(),
        chains=(),
        limits=Limits(None, None, None, None, None),
        conditions=(),
        valid_from_s=1_700_000_000,
        valid_until_s=UNTIL_S,
        salt=bytes(32),
    )


GRANT = grant_of(owner_of(PASSKEY))


@pytest.fixture(scope="module")
def anvil() -> Iterator[AnvilWithContracts]:
    """Osaka verifies P-256 by itself, which is quick."""
    with AnvilProcess.from_toml(ANVIL_TOML, port=0, state_file=None, hardfork="osaka") as process:
        opened = AnvilWithContracts(process)
        yield opened
        opened.gateway.close()


def domain_of(anvil: AnvilWithContracts) -> Domain:
    return Domain(anvil.gateway.chain_id, anvil.deployed.registry)


class Assertion:
    """The parts of a good assertion over `GRANT`, to be changed."""

    def __init__(self, domain: Domain, passkey: Passkey = PASSKEY) -> None:
        signature = passkey.sign(GRANT.digest(domain))
        self.point = signature[:64]
        self.parts = dict(zip(PARTS, decode(TYPES, signature[64:]), strict=True))

    def signature(self, **changes: Any) -> bytes:
        parts = self.parts | changes
        return self.point + encode(TYPES, [parts[name] for name in PARTS])

    def signed(self, passkey: Passkey = PASSKEY, **changes: Any) -> bytes:
        """Another assertion that the passkey made."""
        parts = self.parts | changes
        r, s = passkey.raw(parts["authenticator_data"], parts["client_data"])
        return self.signature(**changes | {"r": r.to_bytes(32), "s": s.to_bytes(32)})


def flags(value: int) -> bytes:
    return bytes(32) + bytes([value]) + bytes(4)


def assertions(good: Assertion) -> dict[str, bytes]:
    """What somebody could send as the passkey's signature."""
    whole, data = good.signature(), good.parts["client_data"]
    padded = b'{"x":"' + b"y" * 40 + b'",' + data[1:]
    found = {
        "good": whole,
        "nothing": b"",
        "the point only": good.point,
        "with bytes behind it": whole + b"\1" * 31,
        "another digest": PASSKEY.sign(b"\1" * 32),
        "another's": ANOTHER.sign(GRANT.digest(DOMAIN)),
        "another's point": ANOTHER.x.to_bytes(32) + ANOTHER.y.to_bytes(32) + whole[64:],
        "not on the curve": whole[:63] + bytes([whole[63] ^ 1]) + whole[64:],
        "another relying party": good.signed(authenticator_data=b"\7" * 32 + b"\5" + bytes(4)),
        "no counter": good.signed(authenticator_data=flags(5)[:36]),
        "extensions": good.signed(authenticator_data=flags(5) + b"x" * 50),
        "another ceremony": good.signed(client_data=data.replace(b".get", b".put")),
        "further fields": good.signed(client_data=data[:-1] + b',"x":1}'),
        "fields before": good.signed(
            client_data=padded,
            type_at=padded.index(b'"type"'),
            challenge_at=padded.index(b'"challenge"'),
        ),
        "fields before, not said so": good.signed(client_data=padded),
        "type only": good.signed(client_data=data[1:22], type_at=0),
        "challenge at the very end": good.signed(client_data=data[: data.index(b',"origin"')]),
        "challenge cut off": good.signed(client_data=data[: data.index(b',"origin"') - 1]),
        "r is zero": good.signature(r=bytes(32)),
        "s is zero": good.signature(s=bytes(32)),
        "r is the order": good.signature(r=ORDER.to_bytes(32)),
        "high s": good.signature(s=(ORDER - int.from_bytes(good.parts["s"])).to_bytes(32)),
    }
    for value in range(32):
        found[f"flags {value:05b}"] = good.signed(authenticator_data=flags(value))
    for at in ("challenge_at", "type_at"):
        for value in (0, good.parts[at] + 1, len(data) - 1, len(data), 2**64, HUGE):
            found[f"{at} {value}"] = good.signature(**{at: value})
    for size in range(64, len(whole), 32):
        found[f"cut to {size}"] = whole[:size]
    for word in (4, 5, 6, 6 + 3):  # offsets and lengths of the two strings
        at = 64 + 32 * word
        for number in (0, 32, 192, len(whole) - 64 - 32, len(whole) - 64, 2**64, HUGE):
            found[f"word {word} is {number}"] = whole[:at] + number.to_bytes(32) + whole[at + 32 :]
    return found


def accepted_by_the_registry(anvil: AnvilWithContracts, grant: Grant, signature: bytes) -> bool:
    point = session_key(1).public_key.to_bytes()
    kind = abi.CONSENT.index("passkey")
    item = (grant.abi_tuple(), point[:32], point[32:], False, kind, signature)
    data = abi.call_data(abi.SESSION_REGISTRY, "register", [item])
    try:
        anvil.gateway.call(anvil.deployed.registry, data, sender=anvil.operator.address.lower())
    except CallReverted as error:
        if abi.revert_name(error) != "OwnerSignatureInvalid":
            raise
        return False
    return True


def accepted_here(grant: Grant, signature: bytes, domain: Domain) -> bool:
    try:
        return consent.signer("passkey", signature, grant, domain) == grant.owner
    except ValueError:
        return False


def test_an_assertion_is_taken_if_and_only_if_the_registry_takes_it(
    anvil: AnvilWithContracts,
) -> None:
    domain = domain_of(anvil)
    told = {
        name: (
            accepted_here(GRANT, signature, domain),
            accepted_by_the_registry(anvil, GRANT, signature),
        )
        for name, signature in assertions(Assertion(domain)).items()
    }
    assert {name: pair for name, pair in told.items() if pair[0] != pair[1]} == {}
    taken = {name for name, pair in told.items() if pair[0]}
    assert {"good", "with bytes behind it", "further fields", "flags 00101"} <= taken
    assert len(taken) < len(told) / 2


def test_a_passkey_s_owner_is_the_registry_s(anvil: AnvilWithContracts) -> None:
    point = PASSKEY.x.to_bytes(32), PASSKEY.y.to_bytes(32)
    registry = anvil.deployed.registry
    asked = anvil.gateway, abi.SESSION_REGISTRY, registry, "passkeyOwner"
    assert abi.read(*asked, *point).lower() == owner_of(PASSKEY)


def test_the_digest_is_the_registry_s(anvil: AnvilWithContracts) -> None:
    asked = anvil.gateway, abi.SESSION_REGISTRY, anvil.deployed.registry, "grantDigest"
    assert abi.read(*asked, GRANT.abi_tuple()) == GRANT.digest(domain_of(anvil))


@pytest.mark.parametrize("kind", ["erc1271", "none", "delegated", "x"])
def test_who_signed_in_another_way_is_not_in_the_signature(kind: str) -> None:
    with pytest.raises(ValueError, match="cannot be told"):
        consent.signer(kind, b"\1" * 65, GRANT, DOMAIN)
