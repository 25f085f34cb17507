"""Writes the test vectors of records and evidence files; run it as a module when a format changes.

    python -m tests.audit.make_vectors

Every key, salt and time is fixed, so the same files come out every time. `records.json` has a
record of each kind in which something can be withheld; `evidence.json` says what one chain answers
and how `tallystick verify` must judge each file in `evidence/` against it.
"""

import hashlib
import json
from collections.abc import Callable, Collection, Iterator, Sequence
from copy import deepcopy
from itertools import pairwise
from pathlib import Path
from typing import Any

from engine.audit import canonical
from engine.audit.chain import Anchoring
from engine.audit.checkpoint import Checkpoint, sign, verifier_key
from engine.audit.disclosure import GROUPS, WITHHOLDABLE, field_salt, split
from engine.audit.evidence import FORMAT, NOT_PROVEN, log_salt, render_evidence, seal_message
from engine.audit.merkle import Tree, leaf_hash
from engine.audit.record import Head, committed_form, encode_record
from engine.audit.usage import Usage
from engine.grant import Domain, Grant
from engine.policy.decide import decide
from engine.policy.decision import PaymentRequest, Standing
from tests.audit.records import BODIES, encoded
from tests.audit.vector_sessions import (
    ANCHORS,
    CHAIN_ID,
    LOG_ID,
    LOG_KEY,
    ORIGIN,
    PARENT,
    PASSKEY,
    PUBLIC_KEY,
    REGISTERED,
    REGISTRY,
    SESSION,
    START_S,
    USD,
    USDC,
    WALLET,
    WALLET_REFUSES,
    WALLET_SIGNATURE,
    WORKSPACE,
    Consented,
    sessions,
)
from tests.contracts.passkey import Passkey
from tests.evidence.story import Document, shown, told_anchors

VECTORS = Path(__file__).parent / "vectors"
FOREIGN = [b"a record of another session", b"and another"]

File = tuple[bytes, str, str]
"""A file, its verdict, and the check that decides it."""


class Records:
    """The records of the session, one a second."""

    def __init__(self, granted: Grant) -> None:
        self.raws: list[bytes] = []
        self.hashes: list[bytes] = []
        self.grant = granted
        self.usage = Usage(self.grant.policy())

    @property
    def now_ms(self) -> int:
        """When the next record is made."""
        return (START_S + 300 + len(self.raws)) * 1000

    def add(self, kind: str, body: Document) -> None:
        """Append a record with a salt that its number decides."""
        raw, hashed = encode_record(
            log=ORIGIN,
            workspace=WORKSPACE,
            stream=SESSION,
            head=Head(len(self.raws), self.hashes[-1] if self.hashes else None),
            time_ms=self.now_ms,
            kind=kind,
            body=body,
            salt=hashlib.sha256(b"salt %d" % len(self.raws)).digest()[:16],
        )
        self.raws.append(raw)
        self.hashes.append(hashed)

    def pay(self, dollars: int, merchant: str) -> None:
        """Decide a payment, and capture it at once if it is allowed."""
        asked: Document = {
            "amount_micro_usd": dollars * USD,
            "merchant": merchant,
            "token": USDC,
            "chain": f"eip155:{CHAIN_ID}",
            "permission": "pay",
            "token_priced": True,
        }
        policy, spending, now_ms = self.usage.policy, self.usage.spending, self.now_ms
        request = PaymentRequest(
            amount=dollars * USD,
            merchant=merchant,
            token=USDC,
            chain=asked["chain"],
            token_priced=True,
        )
        decision = decide(policy, Standing.ACTIVE, spending, request, now_ms)
        payment = f"pay_{SESSION.removeprefix('sess_')}_{len(self.raws)}"
        self.add(
            "payment.decided",
            {
                "payment": payment,
                "request": asked,
                "idempotency_key": None,
                "request_digest": hashlib.sha256(canonical.encode(asked)).hexdigest(),
                "grant_hash": self.grant.hash().hex(),
                "standing": "active",
                "chain_time_ms": (START_S + 300) * 1000,
                "decision": decision.to_json(),
                "hold_expires_ms": now_ms + 900_000 if decision.allowed else None,
                "approval": None,
            },
        )
        if decision.allowed:
            self.usage.hold(payment, now_ms, request)
            ended = {"held_micro_usd": dollars * USD, "captured_micro_usd": dollars * USD}
            self.usage.end(payment, self.now_ms, dollars * USD)
            self.add("payment.captured", {"payment": payment, **ended})


def told(session: Consented) -> Records:
    """A session that pays a bookshop, is refused a casino, and too much for the day."""
    granted, signed = session.grant, session.signature
    records = Records(granted)
    created = {
        "type": "agent",
        "label": "gifts for Zoë",
        "user_wallet": granted.owner,
        "grant": granted.to_json(),
        "grant_hash": granted.hash().hex(),
        "mint_pkp": True,
        "parent_id": PARENT if session.ancestors else None,
        "approvals_required": 1,
        "consent": "none" if signed else session.consent,
        "state": "awaiting_consent" if signed else "registering",
    }
    registered = {"tx_hash": "0x" + REGISTERED[2].hex(), "block_number": REGISTERED[0]}
    records.add("session.created", created)
    if signed:
        consented = {"owner": granted.owner, "owner_signature": "0x" + signed.hex()}
        consented["consent"] = session.consent
        records.add("session.consented", {**consented, "state": "registering"})
    records.add("session.registered", {**registered, "state": "active"})
    records.pay(25, "books.example")
    records.pay(5, "casino")
    records.pay(80, "books.example")
    return records


class Log:
    """The log that the records are in, with others before and between them, anchored twice."""

    def __init__(self, session: Consented, records: Records | None = None) -> None:
        self.session = session
        self.records = records = records or told(session)
        leaves = [*map(leaf_hash, FOREIGN), *records.hashes]
        leaves.insert(4, leaf_hash(b"a third"))
        self.tree = Tree(leaves)
        self.indexes = [leaves.index(hashed) for hashed in records.hashes]
        self.anchorings = [self.anchoring(5, 7), self.anchoring(self.tree.size, 9)]

    def anchoring(self, size: int, block: int) -> Anchoring:
        """An anchor of the first `size` records."""
        return Anchoring(size, self.tree.root(size), block, bytes([block]) * 32)

    def document(self, withhold: Collection[str] = (), anchors: int = 2) -> Document:
        """What the file of the session says under the first so many anchors."""
        session, used = self.session, self.anchorings[:anchors]
        signed = session.signature
        size = used[-1].size if used else 0
        entries: list[Document] = []
        for index, raw in zip(self.indexes, self.records.raws, strict=True):
            entry = {"index": index, **shown(raw, withhold)}
            if index < size:
                entry["proof"] = hexes(self.tree.inclusion_proof(index, size))
            entries.append(entry)
        checkpoint = Checkpoint(ORIGIN, size, self.tree.root(size))
        block, log_index, tx_hash = REGISTERED
        return {
            "format": FORMAT,
            "made_ms": (START_S + 3600) * 1000,
            "chain": {"chain_id": str(CHAIN_ID), "registry": REGISTRY, "anchors": ANCHORS},
            "log": {"id": LOG_ID.hex(), "origin": ORIGIN, "verifier_key": log_verifier_key()},
            "session": {
                "id": SESSION,
                "workspace": WORKSPACE,
                "type": "agent",
                "label": None if "label" in withhold else "gifts for Zoë",
                "grant": session.grant.to_json(),
                "grant_hash": session.grant.hash().hex(),
                "consent": session.consent,
                "ancestors": session.above(),
                "owner_signature": None if signed is None else signed.hex(),
                "public_key": PUBLIC_KEY.hex(),
                "token_id": session.token_id.hex(),
            },
            "registration": {
                "block_number": block,
                "log_index": log_index,
                "tx_hash": tx_hash.hex(),
            },
            "checkpoint": sign(checkpoint, ORIGIN, LOG_KEY) if used else None,
            "anchors": told_anchors(*used),
            "consistency": [
                hexes(self.tree.consistency_proof(older.size, newer.size))
                for older, newer in pairwise(used)
            ],
            "records": [entry for entry in entries if "proof" in entry],
            "tail": [entry for entry in entries if "proof" not in entry],
            "withheld": sorted(withhold),
            "discrepancies": [],
            "not_proven": list(NOT_PROVEN),
        }


def hexes(proof: Sequence[bytes]) -> list[str]:
    """A proof as a file has it."""
    return [node.hex() for node in proof]


def log_verifier_key() -> str:
    """The log's key as notes name it."""
    return verifier_key(ORIGIN, LOG_KEY.public_key())


def sealed(document: Document) -> bytes:
    """The file of a document, signed by the log's key."""
    return render_evidence(document, LOG_KEY.sign(seal_message(document)))


def bad(log: Log) -> Iterator[tuple[str, bytes, str]]:
    """Files that must be refused, each with the check that must do it.

    All are sealed by the log's own key, but for the first two: of those, anybody could be the
    author.
    """
    whole, withheld = log.document(), log.document(("merchant",))
    file = bytearray(sealed(whole))
    at = file.index(b"25000000")
    file[at] ^= 1
    yield "flipped-byte", bytes(file), "seal"
    yield "cut", bytes(file[:4000]), "format"
    decided = [at for at, e in enumerate(withheld["records"]) if "openings" in e]
    first, second = decided[0], decided[1]

    def open_with(record: int, opening_of: int, **changes: Any) -> Callable[[Document], None]:
        """Show the merchant of a record with the opening of one, or another, or a made up one."""

        def change(document: Document) -> None:
            openings = openings_of(log.records.raws[opening_of])
            openings["merchant"]["value"]["request"] |= changes
            document["records"][record]["openings"] = openings

        return change

    yield "record-edited", edited(whole, amount_edited), "inclusion"
    yield "record-dropped", edited(whole, lambda d: d["records"].pop(4)), "sequence"
    yield (
        "record-added",
        edited(whole, lambda d: d["records"].insert(4, d["records"][4])),
        "sequence",
    )
    yield "records-swapped", edited(whole, swapped), "sequence"
    yield "other-chain", edited(whole, lambda d: d["chain"].update(chain_id="1")), "chain"
    yield "anchor-forked", edited(whole, forked), "anchor"
    yield "anchor-told-wrong", edited(whole, lambda d: d["anchors"][0].update(size=4)), "anchor"
    yield "opening-wrong", edited(withheld, open_with(first, first, merchant="x")), "inclusion"
    yield "opening-grafted", edited(withheld, open_with(second, first)), "inclusion"
    yield "opened-though-withheld", edited(withheld, open_with(first, first)), "sequence"
    yield (
        "whole-though-withheld",
        edited(whole, lambda d: d.update(withheld=["merchant"])),
        "sequence",
    )


def edited(of: Document, change: Callable[[Document], object]) -> bytes:
    """What the log's key signs for an operator that changed a document."""
    document = deepcopy(of)
    change(document)
    return sealed(document)


def in_session(**changes: Any) -> Callable[[Document], None]:
    """Tell something else of the session."""
    return lambda document: document["session"].update(changes)


def badly_consented(kind: str, log: Log) -> Iterator[tuple[str, bytes]]:
    """Files whose owner did not consent, though they say so; the `consent` check must refuse them.

    All are sealed by the log's own key.
    """
    whole = log.document()
    signed = (log.session.signature or b"").hex()
    if kind == "passkey":
        origin = (b"http://localhost".hex(), b"https://localhos".hex())
        another = PASSKEY.sign(bytes(32)).hex()
        point = Passkey(7).sign(log.session.grant.digest(Domain(CHAIN_ID, REGISTRY))).hex()
        assert signed.count(origin[0]) == 1
        altered = signed.replace(*origin)
        yield "passkey-assertion-altered", edited(whole, in_session(owner_signature=altered))
        yield "passkey-another-challenge", edited(whole, in_session(owner_signature=another))
        yield "passkey-another-key", edited(whole, in_session(owner_signature=point))
    if kind == "erc1271":
        refused = WALLET_REFUSES.hex()
        yield "erc1271-signature-refused", edited(whole, in_session(owner_signature=refused))
        yield "erc1271-called-eip712", edited(whole, called_eip712)
    if kind == "delegated":
        yield "delegated-parent-left-out", edited(whole, in_session(ancestors=[]))
        yield "delegated-parent-edited", edited(whole, parent_edited)
        yield "delegated-parent-unsigned", edited(whole, parent_unsigned)
        yield "delegated-parent-unknown-to-the-chain", edited(whole, parent_of_another_key)
    if kind == "delegated-wider":
        yield "delegated-wider-than-parent", sealed(whole)


def called_eip712(document: Document) -> None:
    """What a wallet accepted is said to be a signature of 65 bytes."""
    in_session(consent="eip712", owner_signature="11" * 65)(document)


def parent_edited(document: Document) -> None:
    """The session above is said to have had more."""
    above = document["session"]["ancestors"][0]
    above["grant"]["limits_micro_usd"]["per_day"] = 100 * USD


def parent_unsigned(document: Document) -> None:
    """Nobody is said to have signed for the session above."""
    document["session"]["ancestors"][0].update(consent="none", owner_signature=None)


def parent_of_another_key(document: Document) -> None:
    """What the chain says of the session above is looked for where there is nothing."""
    document["session"]["ancestors"][0]["public_key"] = PUBLIC_KEY.hex()


def amount_edited(document: Document) -> None:
    """A captured amount is another."""
    entry = document["records"][4]
    entry["record"] = entry["record"].replace('"captured_micro_usd":25', '"captured_micro_usd":15')


def swapped(document: Document) -> None:
    """Two records change places."""
    records = document["records"]
    records[3], records[4] = records[4], records[3]


def forked(document: Document) -> None:
    """The checkpoint is of another history of the log."""
    size = document["anchors"][-1]["size"]
    head = Checkpoint(ORIGIN, size, hashlib.sha256(b"another").digest())
    document["checkpoint"] = sign(head, ORIGIN, LOG_KEY)


def files(kind: str, log: Log) -> dict[str, File]:
    """All files of a session by name."""
    refused = {name: (file, "tampered", "consent") for name, file in badly_consented(kind, log)}
    if kind == "delegated-wider":
        return refused
    if kind != "eip712":
        return {kind: (sealed(log.document()), "verified", ""), **refused}
    found: dict[str, File] = {
        "whole": (sealed(log.document()), "verified", ""),
        "merchant-withheld": (sealed(log.document(("merchant",))), "verified", ""),
        "label-withheld": (sealed(log.document(("label",))), "verified", ""),
        "all-withheld": (sealed(log.document(WITHHOLDABLE)), "verified", ""),
        "tail": (sealed(log.document(anchors=1)), "pending", "tail"),
        "not-anchored-yet": (sealed(log.document(anchors=0)), "pending", "anchor"),
    }
    found.update((name, (file, "tampered", check)) for name, file, check in bad(log))
    return found


def chain(log: Log) -> Document:
    """What the chain of one log answers."""
    sessions = (log.session, *log.session.ancestors)
    wallets = {WALLET_SIGNATURE: True, WALLET_REFUSES: False}
    return {
        "chain_id": CHAIN_ID,
        "registry": REGISTRY,
        "anchors": ANCHORS,
        "registrations": {each.token_id.hex(): each.registration() for each in sessions},
        "revocations": {},
        "wallets": [
            {"address": WALLET, "signature": signed.hex(), "accepted": accepted}
            for signed, accepted in wallets.items()
            if log.session.consent == "erc1271"
        ],
        "log_id": LOG_ID.hex(),
        "log_salt": log_salt(log_verifier_key()).hex(),
        "anchored": told_anchors(*log.anchorings),
        "block_times_s": {str(number): START_S + 60 * number for number in range(10)},
        "spends": [],
    }


def records_vector() -> Document:
    """One record of each kind with groups: whole, in committed form, and every opening."""
    vectors = []
    for kind in sorted(BODIES):
        raw, hashed = encoded(kind, BODIES[kind])
        everything, _ = committed_form(raw, WITHHOLDABLE)
        vectors.append(
            {
                "whole": raw.decode(),
                "committed": everything.decode(),
                "leaf_hash": hashed.hex(),
                "openings": openings_of(raw),
            }
        )
    return {
        "about": "A record, its committed form, the leaf hash of both, and what opens its groups.",
        "records": vectors,
    }


def openings_of(raw: bytes) -> Document:
    """The openings of all groups: each is shown by a file that withholds another."""
    record = json.loads(raw)
    salt = bytes.fromhex(record["salt"])
    return {
        name: {"salt": field_salt(salt, name).hex(), "value": split(record["body"], fields)[1]}
        for name, fields in GROUPS[record["kind"]].items()
    }


def made() -> dict[str, bytes]:
    """Every vector by its path beneath `vectors`."""
    logs = {name: Log(session) for name, session in sessions().items()}
    found = {name: files(name, log) for name, log in logs.items()}
    about = {
        "about": "What some chains answer, and how each file in evidence/ is judged against one of "
        "them: the verdict, and the check that decides it.",
        "chains": {name: chain(log) for name, log in logs.items()},
        "files": {
            name: {"chain": of, "verdict": verdict, "check": check}
            for of, files_of in found.items()
            for name, (_, verdict, check) in files_of.items()
        },
    }
    return {
        "records.json": written(records_vector()),
        "evidence.json": written(about),
        **{
            f"evidence/{name}.json": file
            for files_of in found.values()
            for name, (file, _, _) in files_of.items()
        },
    }


def written(document: Document) -> bytes:
    """JSON for people."""
    return (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()


def main() -> None:
    """Write them all."""
    (VECTORS / "evidence").mkdir(exist_ok=True)
    for name, content in made().items():
        (VECTORS / name).write_bytes(content)


if __name__ == "__main__":
    main()
