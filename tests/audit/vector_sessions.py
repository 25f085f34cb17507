"""The sessions of the test vectors: one for each way in which its owner can have consented."""

from dataclasses import dataclass, replace

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from eth_account import Account
from eth_keys.datatypes import PrivateKey
from eth_utils.crypto import keccak

from engine.audit.chain import Anchoring, Registration
from engine.audit.consent import passkey_owner
from engine.grant import NO_PARENT, Domain, Grant
from engine.policy.limits import Limits
from tests.contracts.passkey import Passkey
from tests.evidence.story import Document, Snapshot

USD = 1_000_000
START_S = 1_800_000_000
CHAIN_ID = 31_337
USDC = f"eip155:{CHAIN_ID}/erc20:0x" + "44" * 20
REGISTRY, ANCHORS = "0x" + "11" * 20, "0x" + "22" * 20
LOG_ID = b"\x33" * 32
LOG_KEY = Ed25519PrivateKey.from_private_bytes(b"\x01" * 32)
OWNER = Account.from_key(b"\x02" * 32)
SESSION_KEY = PrivateKey(b"\x03" * 32)
PARENT_KEY = PrivateKey(b"\x04" * 32)
PASSKEY = Passkey(0x9A55)
WALLET = "0x" + "77" * 20
WALLET_SIGNATURE, WALLET_REFUSES = b"as the wallet likes it", b"as it does not"
PUBLIC_KEY = b"\x04" + SESSION_KEY.public_key.to_bytes()
ORIGIN, WORKSPACE, SESSION = "tallystick/vectors", "default", "sess_" + "0" * 26
PARENT = "sess_" + "1" * 26
REGISTERED = (5, 1, b"\x55" * 32)
"""Block, log index and transaction of the registration; block n is n minutes after the start."""


def grant() -> Grant:
    """What the owner signed: $100 a day, no casino."""
    return Grant(
        owner=OWNER.address.lower(),
        session_key=SESSION_KEY.public_key.to_address(),
        audit_log=LOG_ID,
        parent=NO_PARENT,
        workspace=WORKSPACE,
        agent_id="shopper",
        permissions=("pay",),
        merchants=(),
        tokens=(),
        chains=(),
        limits=Limits(None, 100 * USD, None, None, None),
        conditions=("never merchant casino",),
        valid_from_s=START_S,
        valid_until_s=START_S + 86_400,
        salt=b"\x66" * 32,
    )


@dataclass(frozen=True)
class Consented:
    """A session by its grant, how its owner consented to it, and the sessions above it."""

    grant: Grant
    consent: str
    signature: bytes | None
    ancestors: tuple["Consented", ...] = ()
    key: PrivateKey = SESSION_KEY

    @property
    def token_id(self) -> bytes:
        """The identity of its key on the chain."""
        return keccak(self.key.public_key.to_bytes())

    def registration(self) -> Document:
        """What the chain's event tells of it."""
        block, log_index, tx_hash = REGISTERED
        return {
            "grant_hash": self.grant.hash().hex(),
            "owner": self.grant.owner,
            "consent": "none" if self.signature is None else self.consent,
            "block_number": block,
            "log_index": log_index,
            "tx_hash": tx_hash.hex(),
        }

    def above(self) -> list[Document]:
        """The sessions above as a file tells them."""
        return [
            {
                "grant": each.grant.to_json(),
                "public_key": (b"\x04" + each.key.public_key.to_bytes()).hex(),
                "consent": each.consent,
                "owner_signature": None if each.signature is None else each.signature.hex(),
            }
            for each in self.ancestors
        ]


def by_key(granted: Grant, key: PrivateKey = SESSION_KEY) -> Consented:
    """Signed with the key of the owner's own wallet (EIP-712)."""
    typed = granted.typed_data(Domain(CHAIN_ID, REGISTRY))
    signed = bytes(OWNER.sign_typed_data(full_message=typed).signature)
    return Consented(granted, "eip712", signed, key=key)


def by_passkey() -> Consented:
    """Signed with a passkey."""
    owner = passkey_owner(PASSKEY.x.to_bytes(32), PASSKEY.y.to_bytes(32))
    granted = replace(grant(), owner=owner)
    return Consented(granted, "passkey", PASSKEY.sign(granted.digest(Domain(CHAIN_ID, REGISTRY))))


def by_wallet() -> Consented:
    """Accepted by a contract, whatever the bytes mean to it (ERC-1271)."""
    return Consented(replace(grant(), owner=WALLET), "erc1271", WALLET_SIGNATURE)


def delegated(per_day: int) -> Consented:
    """Beneath a session of $80 a day that the owner signed for."""
    limits = Limits(None, 80 * USD, None, None, None)
    key = PARENT_KEY.public_key.to_address()
    parent = by_key(replace(grant(), session_key=key, limits=limits), PARENT_KEY)
    limits = replace(limits, per_day=per_day * USD)
    child = replace(grant(), parent=parent.grant.hash(), limits=limits, salt=b"\x77" * 32)
    return Consented(child, "delegated", None, (parent,))


def sessions() -> dict[str, Consented]:
    """One for each way in which its owner can have consented, and one that allows too much."""
    return {
        "eip712": by_key(grant()),
        "passkey": by_passkey(),
        "erc1271": by_wallet(),
        "delegated": delegated(80),
        "delegated-wider": delegated(100),
    }


def snapshot(told_chain: Document) -> Snapshot:
    """A chain of the vectors as verification asks it."""
    registry, anchors = told_chain["registry"], told_chain["anchors"]
    log_id = bytes.fromhex(told_chain["log_id"])
    registrations = {
        (registry, bytes.fromhex(token)): Registration(
            **each | {name: bytes.fromhex(each[name]) for name in ("grant_hash", "tx_hash")}
        )
        for token, each in told_chain["registrations"].items()
    }
    anchored = [
        Anchoring(
            each["size"],
            bytes.fromhex(each["root"]),
            each["block_number"],
            bytes.fromhex(each["tx_hash"]),
        )
        for each in told_chain["anchored"]
    ]
    return Snapshot(
        chain_id=told_chain["chain_id"],
        anchor_registries={registry: anchors},
        registrations=registrations,
        revocations={},
        salts={(anchors, log_id): bytes.fromhex(told_chain["log_salt"])},
        anchored={(anchors, log_id): anchored},
        times_s={int(number): time_s for number, time_s in told_chain["block_times_s"].items()},
        wallets={
            (each["address"], bytes.fromhex(each["signature"])): each["accepted"]
            for each in told_chain["wallets"]
        },
    )
