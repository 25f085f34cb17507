"""The grant is one object: Python, the wallet and the contract hash it to the same bytes."""

from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any

import pytest
from eth_account import Account
from eth_account.messages import encode_typed_data
from eth_utils.crypto import keccak
from hypothesis import example, given, settings
from hypothesis import strategies as st

from engine.chain import contracts
from engine.chain.deploy import deploy
from engine.chain.embedded import EmbeddedChain
from engine.grant import UNLIMITED, Domain, Grant
from engine.policy.limits import Limits
from engine.policy.money import AMOUNT_MAX_MICRO_USD

SECP256K1_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
OWNER = Account.from_key(b"\x01" * 32)
CHAIN = "eip155:8453"
PLAIN = Grant(
    owner=OWNER.address.lower(),
    session_key="0x" + "ab" * 20,
    audit_log=b"\x02" * 32,
    parent=b"\x04" * 32,
    workspace="default",
    agent_id="bot",
    permissions=("pay",),
    merchants=("books.example", "データ"),
    tokens=(f"{CHAIN}/erc20:0x833589fcd6edb6e08f4c7c32d4f71b54bda02913",),
    chains=(CHAIN,),
    limits=Limits(1, 20, 300, None, 0),
    conditions=("at most 1 payment per hour", 'never merchant "a b"'),
    valid_from_s=1_800_000_000,
    valid_until_s=1_800_086_400,
    salt=b"\x03" * 32,
)
DOMAIN = Domain(131277322940537, "0x" + "cd" * 20)
CHANGED: dict[str, Any] = {
    "owner": "0x" + "11" * 20,
    "session_key": "0x" + "12" * 20,
    "audit_log": b"\x13" * 32,
    "parent": b"\x15" * 32,
    "workspace": "default ",
    "agent_id": "Bot",
    "permissions": (),
    "merchants": ("データ", "books.example"),
    "tokens": (),
    "chains": (CHAIN, CHAIN),
    "limits": Limits(2, 20, 300, None, 0),
    "conditions": (),
    "valid_from_s": 1_800_000_001,
    "valid_until_s": 1_800_086_401,
    "salt": b"\x14" * 32,
}

texts = st.text(max_size=40)
# To some encoders a string of hexadecimal digits is not the string but the bytes it spells.
tricky = st.sampled_from(["", "0x", "0x00", "0xdeadbeef", "\x00", "🧾", "é", "e\u0301", "\u202e"])
lists = st.lists(texts | tricky, max_size=6).map(tuple) | st.just(tuple(map(str, range(40))))
limit = st.none() | st.integers(0, AMOUNT_MAX_MICRO_USD)
addresses = st.binary(min_size=20, max_size=20).map(lambda raw: "0x" + raw.hex())
hashes = st.binary(min_size=32, max_size=32)
seconds = st.integers(0, UNLIMITED)
grants = st.builds(
    Grant,
    owner=addresses,
    session_key=addresses,
    audit_log=hashes,
    parent=hashes,
    workspace=texts | tricky,
    agent_id=texts | tricky,
    permissions=lists,
    merchants=lists,
    tokens=lists,
    chains=lists,
    limits=st.builds(Limits, limit, limit, limit, limit, limit),
    conditions=lists,
    valid_from_s=seconds,
    valid_until_s=seconds,
    salt=hashes,
)


@pytest.fixture(scope="module")
def registry() -> Iterator[tuple[EmbeddedChain, str]]:
    """A deployed SessionRegistry."""
    chain = EmbeddedChain(None)
    yield chain, deploy(chain, chain.faucet).registry
    chain.close()


@settings(max_examples=60)
@given(grant=grants)
@example(grant=PLAIN)
def test_python_and_the_contract_hash_a_grant_alike(
    registry: tuple[EmbeddedChain, str], grant: Grant
) -> None:
    chain, address = registry
    digest = encode_typed_data(full_message=grant.typed_data(Domain(chain.chain_id, address)))

    def asked(function: str, struct: tuple[Any, ...]) -> bytes:
        answer: bytes = contracts.read(chain, contracts.SESSION_REGISTRY, address, function, struct)
        return answer

    struct = grant.abi_tuple()
    lists = (grant.permissions, grant.merchants, grant.tokens, grant.chains, grant.conditions)
    assert struct[2] == keccak(grant.workspace.encode())
    assert struct[4] == asked("scopeHash", (grant.agent_id, *lists))
    assert grant.hash() == asked("grantHash", struct)
    assert keccak(b"\x19" + digest.version + digest.header + digest.body) == asked(
        "grantDigest", struct
    )


def test_the_hash_depends_on_every_field() -> None:
    assert CHANGED.keys() == {field.name for field in fields(Grant)}
    others = [replace(PLAIN, **{name: value}) for name, value in CHANGED.items()]
    others += [
        replace(PLAIN, limits=replace(PLAIN.limits, **{field.name: 7})) for field in fields(Limits)
    ]
    assert len({PLAIN.hash(), *(grant.hash() for grant in others)}) == len(others) + 1


def test_a_limit_of_zero_is_not_no_limit() -> None:
    zero, none = (replace(PLAIN, limits=Limits(value, 1, 1, 1, 1)) for value in (0, None))
    assert zero.hash() != none.hash()


def signature(grant: Grant = PLAIN, domain: Domain = DOMAIN) -> bytes:
    return bytes(OWNER.sign_typed_data(full_message=grant.typed_data(domain)).signature)


def high_s(good: bytes) -> bytes:
    s = SECP256K1_ORDER - int.from_bytes(good[32:64])
    return good[:32] + s.to_bytes(32) + bytes([27 + 28 - good[64]])


def test_the_owner_s_signature_names_the_owner() -> None:
    assert PLAIN.signer(signature(), DOMAIN) == OWNER.address.lower()


def test_a_high_s_signature_recovers_to_the_owner_and_is_refused() -> None:
    message = encode_typed_data(full_message=PLAIN.typed_data(DOMAIN))
    assert Account.recover_message(message, signature=high_s(signature())) == OWNER.address
    with pytest.raises(ValueError, match="upper half"):
        PLAIN.signer(high_s(signature()), DOMAIN)


@pytest.mark.parametrize(
    "malformed",
    [
        pytest.param(lambda good: good[:64] + bytes([good[64] - 27]), id="v 0 or 1"),
        pytest.param(lambda good: good[:64] + b"\x1d", id="v 29"),
        pytest.param(lambda good: good[:64], id="64 bytes"),
        pytest.param(lambda good: good + b"\x00", id="66 bytes"),
        pytest.param(lambda good: b"", id="empty"),
        pytest.param(lambda good: bytes(64) + b"\x1b", id="r and s zero"),
        pytest.param(lambda good: b"\xff" * 32 + good[32:], id="r beyond the order"),
        pytest.param(lambda good: good[:32] + bytes(32) + good[64:], id="s zero"),
    ],
)
def test_a_malformed_signature_is_a_value_error(malformed: Any) -> None:
    with pytest.raises(ValueError, match="signature"):
        PLAIN.signer(malformed(signature()), DOMAIN)


@pytest.mark.parametrize("name", CHANGED)
def test_a_signature_over_a_grant_with_another_field_is_not_the_owner_s(name: str) -> None:
    changed = replace(PLAIN, **{name: CHANGED[name]})
    assert changed.signer(signature(), DOMAIN) != OWNER.address.lower()


@pytest.mark.parametrize(
    "domain",
    [
        pytest.param(replace(DOMAIN, chain_id=1), id="chain"),
        pytest.param(replace(DOMAIN, registry="0x" + "ce" * 20), id="contract"),
    ],
)
def test_a_signature_for_another_place_is_not_the_owner_s(domain: Domain) -> None:
    assert PLAIN.signer(signature(), domain) != OWNER.address.lower()


@given(
    names=st.lists(st.sampled_from(["books", "データ", "0xab"]), unique=True).map(tuple),
    limits=st.builds(Limits, limit, limit, limit, limit, limit),
    starts_s=st.integers(0, UNLIMITED - 1),
)
def test_json_gives_the_same_grant_back(
    names: tuple[str, ...], limits: Limits, starts_s: int
) -> None:
    grant = replace(
        PLAIN, merchants=names, limits=limits, valid_from_s=starts_s, valid_until_s=starts_s + 1
    )
    assert Grant.from_json(grant.to_json()) == grant


def with_limits(**changes: Any) -> dict[str, Any]:
    return {"limits_micro_usd": {**PLAIN.to_json()["limits_micro_usd"], **changes}}


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"extra": 1}, id="extra field"),
        pytest.param(with_limits(per_year=1), id="extra limit"),
        pytest.param(with_limits(per_day=True), id="bool for a limit"),
        pytest.param(with_limits(per_day=-1), id="negative limit"),
        pytest.param(with_limits(per_day=AMOUNT_MAX_MICRO_USD + 1), id="limit out of range"),
        pytest.param(with_limits(per_day="1"), id="text for a limit"),
        pytest.param(with_limits(per_day=1.0), id="float for a limit"),
        pytest.param({"limits_micro_usd": []}, id="list for the limits"),
        pytest.param({"valid_from_s": True}, id="bool for a time"),
        pytest.param({"valid_from_s": -1}, id="negative time"),
        pytest.param({"valid_until_s": 2**64}, id="time beyond uint64"),
        pytest.param({"valid_until_s": PLAIN.valid_from_s}, id="ends when it begins"),
        pytest.param({"valid_until_s": "1800086400"}, id="text for a time"),
        pytest.param({"valid_until_s": 1_800_086_400.0}, id="float for a time"),
        pytest.param({"owner": PLAIN.owner.upper().replace("X", "x")}, id="upper-case address"),
        pytest.param({"owner": OWNER.address}, id="checksummed address"),
        pytest.param({"owner": PLAIN.owner[2:]}, id="address without 0x"),
        pytest.param({"owner": PLAIN.owner + "00"}, id="21 bytes of address"),
        pytest.param({"owner": PLAIN.owner[:-1] + "g"}, id="not hexadecimal"),
        pytest.param({"session_key": None}, id="null for an address"),
        pytest.param({"audit_log": "0X" + "02" * 32}, id="0X"),
        pytest.param({"audit_log": "0x" + "AB" * 32}, id="upper-case hash"),
        pytest.param({"audit_log": "0x" + "02" * 31}, id="31 bytes of hash"),
        pytest.param({"salt": "0x" + "0 " * 32}, id="spaces in a hash"),
        pytest.param({"salt": 5}, id="number for a hash"),
        pytest.param({"parent": None}, id="null for no parent"),
        pytest.param({"parent": "0x"}, id="empty parent"),
        pytest.param({"parent": "0x" + "AB" * 32}, id="upper-case parent"),
        pytest.param({"workspace": 7}, id="number for text"),
        pytest.param({"agent_id": None}, id="null for text"),
        pytest.param({"workspace": "\ud800"}, id="lone surrogate"),
        pytest.param({"permissions": "pay"}, id="text for a list"),
        pytest.param({"permissions": [1]}, id="number in a list"),
        pytest.param({"permissions": {"pay": 1}}, id="object for a list"),
        pytest.param({"merchants": [["x"]]}, id="list in a list"),
        pytest.param({"merchants": [" books"]}, id="merchant not in canonical form"),
        pytest.param({"tokens": ["USDC"]}, id="token that is no asset"),
        pytest.param({"chains": None}, id="null for a list"),
        pytest.param({"conditions": None}, id="null for conditions"),
        pytest.param({"conditions": "never chain eip155:1"}, id="text for conditions"),
        pytest.param({"conditions": ["never  chain eip155:1"]}, id="condition with two spaces"),
        pytest.param({"conditions": ["at most 01 payments per day"]}, id="another spelling"),
        pytest.param({"conditions": ["never chain eip155:1"] * 2}, id="condition twice"),
        pytest.param(
            {"conditions": ["never chain eip155:56", "never chain eip155:1"]}, id="not sorted"
        ),
        pytest.param({"conditions": [True]}, id="bool for a condition"),
        pytest.param({"conditions": ["never merchant \ud800"]}, id="surrogate in a condition"),
        pytest.param(
            {"conditions": [f"never chain eip155:{n}" for n in range(101, 166)]},
            id="65 conditions",
        ),
    ],
)
def test_json_that_is_not_exactly_a_grant_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="not a grant"):
        Grant.from_json({**PLAIN.to_json(), **change})


@pytest.mark.parametrize("name", PLAIN.to_json())
def test_json_without_a_field_is_refused(name: str) -> None:
    data = PLAIN.to_json()
    del data[name]
    with pytest.raises(ValueError, match="not a grant"):
        Grant.from_json(data)


@pytest.mark.parametrize("data", [None, [], "grant", 3, {}], ids=repr)
def test_json_that_is_no_grant_at_all_is_refused(data: Any) -> None:
    with pytest.raises(ValueError, match="not a grant"):
        Grant.from_json(data)


def test_why_a_condition_is_none_is_said_by_its_place() -> None:
    sentences = ["at most 1 payment per hour", "at most 1 payments per day"]
    with pytest.raises(ValueError, match=r"conditions\[1\]: write 'at most 1 payment per day'"):
        Grant.from_json({**PLAIN.to_json(), "conditions": sentences})


def test_the_policy_holds_the_conditions_and_beside_them_the_restrictions() -> None:
    policy = PLAIN.policy(["at most 3 payments per hour", "never merchant casino"])
    assert tuple(map(str, policy.conditions)) == PLAIN.conditions
    assert [str(cap) for cap in policy.in_force.caps] == ["at most 1 payment per hour"]
    assert policy.in_force.never == {("merchant", "a b"), ("merchant", "casino")}
    assert PLAIN.policy().restrictions == ()
    with pytest.raises(ValueError, match=r"restrictions\[0\]: is none"):
        PLAIN.policy(["spend it all"])
