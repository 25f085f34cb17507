"""What each transaction costs: gas as the receipt has it, intrinsic cost and calldata included.

    python -m tests.contracts.gas      writes contracts/gas.json

Every byte of every transaction is the same each time, so the figures are exact.
"""

import json
from pathlib import Path
from typing import Any

from eth_account import Account
from eth_account.signers.local import LocalAccount

from engine.policy.limits import Limits
from tests.contracts.deployed import ANCHORS, UNTIL_S, Contracts, ref, token_id
from tests.contracts.passkey import Passkey

SNAPSHOT = Path(__file__).resolve().parents[2] / "contracts" / "gas.json"
BATCH = 50


def measured() -> dict[str, int]:
    """Gas by what was done; of a batch, for each in it, rounded up."""
    contracts = Contracts()
    gas: dict[str, int] = {}

    def of(what: str, *call: Any, each: int = 1, **options: Any) -> None:
        gas[what] = -(-contracts.send(*call, **options).gas_used // each)

    def register(what: str, number: int, grant: Any = None, **options: Any) -> None:
        grant = grant or contracts.grant(number)
        of(what, "register", [contracts.registration(grant, number, **options)])

    # Sessions
    register("register, the first of the registry", 0)
    register("register, the first of a workspace", 1, contracts.grant(1, workspace="other"))
    register("register", 2)
    dearest = contracts.grant(3, limits=Limits(*[None] * 5), parent=b"\xff" * 32)
    register("register, with as few zeros as a grant can have", 3, dearest)
    register("register, without a signature", 4, consent="none", signature=b"")
    register("register, storing the public key", 5, store=True)
    passkey = Passkey(6)
    owner = contracts.read("passkeyOwner", passkey.x.to_bytes(32), passkey.y.to_bytes(32))
    grant = contracts.grant(6, owner=owner.lower())
    signature = passkey.sign(contracts.digest("grantDigest", grant.abi_tuple()))
    register("register, by a passkey", 6, grant, consent="passkey", signature=signature)
    numbers = range(100, 100 + BATCH)
    batch = [contracts.registration(contracts.grant(n), n) for n in numbers]
    of("register, each of 50", "register", batch, each=BATCH)

    refs = {n: ref(contracts.grant(n), n) for n in (*range(6), *numbers)}
    of("rotate", "rotate", refs[2], contracts.registration(contracts.grant(7), 7))
    of("revoke, by an operator", "revoke", [refs[0]])
    of("revoke, by the owner", "revoke", [refs[4]], by=contracts.owner)
    digest = contracts.digest("revocationDigest", [token_id(5)], UNTIL_S)
    relayed = [refs[5]], UNTIL_S, 1, _signed(contracts.owner, digest)
    of("revoke, by signature", "revokeBySignature", *relayed, by=contracts.stranger)
    of("revoke, each of 50", "revoke", [refs[n] for n in numbers], each=BATCH)

    lowered = token_id(7), contracts.grant(7).abi_tuple()
    of("lower limits", "lowerLimits", *lowered, (1000, 1000, 1000, 1000, 1000))
    of("lower limits again", "lowerLimits", *lowered, (900, 900, 900, 900, 900))
    workspace = contracts.grant(0).abi_tuple()[2]
    of("close a workspace", "closeWorkspace", workspace)
    of("open a workspace", "openWorkspace", workspace)

    # Anchors
    log_id = contracts.read("logIdOf", contracts.operator.address, b"\x01" * 32, name=ANCHORS)
    of("open a log", "openLog", b"\x01" * 32, name=ANCHORS)
    of("anchor, the first of a log", "anchor", log_id, 1, b"\x02" * 32, name=ANCHORS)
    of("anchor", "anchor", log_id, 1_000_000, b"\x03" * 32, name=ANCHORS)
    of("anchor, the largest", "anchor", log_id, 2**64 - 1, b"\x04" * 32, name=ANCHORS)
    contracts.chain.close()
    return gas


def _signed(account: LocalAccount, digest: bytes) -> bytes:
    return bytes(Account.unsafe_sign_hash(digest, account.key).signature)


def text(gas: dict[str, int]) -> str:
    """The snapshot's file."""
    return json.dumps(gas, indent=2) + "\n"


if __name__ == "__main__":
    SNAPSHOT.write_text(text(measured()))
