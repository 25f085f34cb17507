"""docs/records.md tells what an owner signs, what the chain is asked and what checks rest on,
as the engine and the contracts do it."""

import re
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from eth_account.messages import encode_typed_data
from eth_utils.crypto import keccak

from engine.audit import consent, evidence, verify
from engine.audit.checkpoint import Checkpoint, NoteError, open_note, sign, verifier_key
from engine.audit.report import BY_SEVERITY
from engine.chain import contracts
from engine.grant import Domain, Grant
from engine.policy.limits import Limits
from tests.policy.samples import CHAIN, USDC

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "records.md").read_text()
SAID = " ".join(PAGE.split())
ACCOUNT = "0x" + "5b" * 20
KEY = Ed25519PrivateKey.from_private_bytes(b"\x01" * 32)
GRANT = Grant(
    owner="0x" + "a1" * 20,
    session_key="0x" + "b2" * 20,
    audit_log=b"\x01" * 32,
    parent=b"\x02" * 32,
    workspace="büro",
    agent_id="bot",
    permissions=("pay", "refund"),
    merchants=("bücher",),
    tokens=(USDC,),
    chains=(CHAIN, "eip155:1"),
    limits=Limits(1, None, 3, None, 5),
    conditions=("never merchant casino",),
    valid_from_s=8,
    valid_until_s=9,
    salt=b"\x03" * 32,
)


def type_lines() -> dict[str, str]:
    [text] = re.findall(r"```\n(EIP712Domain.*?)\n```", PAGE, re.DOTALL)
    return {line.partition("(")[0]: line for line in text.splitlines()}


def test_the_types_and_the_fields_of_a_grant_make_the_digest_that_is_signed() -> None:
    types = {
        name: [
            dict(zip(("type", "name"), member.split(" "), strict=True))
            for member in line[len(name) + 1 : -1].split(",")
        ]
        for name, line in type_lines().items()
    }
    table = PAGE.partition("## The grant\n")[2].partition("### Consents")[0]
    mapped = re.findall(r"^\| `([\w.]+)` \| `([\w.]+)` \| .* \|$", table, re.MULTILINE)
    told: Any = GRANT.to_json()
    message: dict[str, Any] = {"limits": {}, "scope": {}}
    for field, member in mapped:
        outer, _, inner = field.partition(".")
        value = told[outer][inner] if inner else told[outer]
        if outer == "limits_micro_usd" and value is None:
            value = 2**64 - 1
        struct, _, name = member.rpartition(".")
        (message[struct] if struct else message)[name] = value
    assert {field.partition(".")[0] for field, _ in mapped} == told.keys()
    found = encode_typed_data(
        full_message={
            "types": types,
            "primaryType": "Grant",
            "domain": {
                "name": "Tallystick",
                "version": "1",
                "chainId": 7,
                "verifyingContract": ACCOUNT,
            },
            "message": message,
        }
    )
    assert found.body == GRANT.hash()
    digest = keccak(b"\x19" + found.version + found.header + found.body)
    assert digest == GRANT.digest(Domain(7, ACCOUNT))
    assert "`name` `Tallystick`, `version` `1`" in SAID


def test_the_type_strings_are_those_of_the_contracts() -> None:
    lines = type_lines()
    source = (ROOT / "contracts/src/libraries/GrantLib.sol").read_text()
    for name, parts in {
        "GRANT": ("Grant", "Limits", "Scope"),
        "LIMITS": ("Limits",),
        "SCOPE": ("Scope",),
    }.items():
        [written_there] = re.findall(rf"{name}_TYPEHASH =\s*keccak256\((.*?)\);", source, re.DOTALL)
        literals = "".join(re.findall(r'"(.*?)"', written_there))
        assert literals == "".join(lines[part] for part in parts)


def test_the_events_are_those_of_the_contracts() -> None:
    [text] = re.findall(r"```\n(SessionRegistered.*?)\n```", PAGE, re.DOTALL)
    for line in text.splitlines():
        name = line.partition("(")[0]
        of_anchors = name in ("LogOpened", "Anchored")
        contract = contracts.ANCHOR_REGISTRY if of_anchors else contracts.SESSION_REGISTRY
        assert keccak(text=line) == contracts.event_topic(contract, name)
    told = ", ".join(f"{number} `{kind}`" for number, kind in enumerate(contracts.CONSENT))
    assert told in SAID


def test_the_halves_of_the_orders_are_those_that_signatures_are_held_against() -> None:
    secp256k1, p256 = (int(each, 16) for each in re.findall(r"`(0x7f[0-9a-f]{62})`", PAGE))
    assert "upper half" in refusal(secp256k1 + 1, 27)
    assert "upper half" not in refusal(secp256k1, 27)
    assert "v 27 or 28" in refusal(1, 0)
    assert p256 == consent._HALF_ORDER


def refusal(s: int, v: int) -> str:
    """Why a signature over the grant is none; empty if it is somebody's."""
    try:
        GRANT.signer((5).to_bytes(32) + s.to_bytes(32) + bytes([v]), Domain(7, ACCOUNT))
    except ValueError as error:
        return str(error)
    return ""


def test_the_salt_of_a_log_is_the_hash_of_its_verifier_key() -> None:
    assert "is SHA-256 of the text of `verifier_key`" in SAID
    key = "a+00000000+b"
    assert evidence.log_salt(key) == sha256(key.encode()).digest()


NOTE = sign(Checkpoint("log/1", 7, bytes(32)), "log/1", KEY)
CHANGED = {
    "Extension lines": NOTE.replace("\n\n", "\nmore\n\n"),
    "further signatures": NOTE + NOTE.splitlines()[-1] + "\n",
    "other spellings of base64": NOTE.replace("=\n\n", "\n\n"),
    "missing last newline": NOTE[:-1],
}


@pytest.mark.parametrize("said", CHANGED)
def test_a_checkpoint_has_no_other_form(said: str) -> None:
    name = verifier_key("log/1", KEY.public_key())
    assert open_note(NOTE, name).size == 7
    assert said in SAID
    assert CHANGED[said] != NOTE
    with pytest.raises(NoteError):
        open_note(CHANGED[said], name)


def test_what_rests_on_what_and_what_is_worse_is_as_it_is_verified() -> None:
    section = PAGE.partition("## What rests on what\n")[2]
    rows = re.findall(r"^\| `(\w+)` \| (`.*`) \|$", section, re.MULTILINE)
    told = {name: tuple(re.findall(r"`(\w+)`", needed)) for name, needed in rows}
    assert told == verify._NEEDS
    worst = section.partition("the worst of its checks': ")[2].partition(".")[0]
    assert re.findall(r"`(\w+)`", worst) == [each.name.lower() for each in BY_SEVERITY]
