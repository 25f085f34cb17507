"""What an attacker can do to an evidence file, and the check that names it.

Two attackers: one who can edit the file, and an operator who holds the log's key and seals the
edited file again. (`tests/evidence/test_relogged.py` has the operator that lied from the start.)
"""

from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from eth_account import Account

from engine.audit import canonical
from engine.audit.checkpoint import Checkpoint, sign, verifier_key
from engine.audit.merkle import Tree
from engine.audit.verify import Verdict, summary, verify
from engine.grant import Domain, Grant
from tests.evidence.story import (
    Document,
    Story,
    another_story,
    chained,
    failed,
    leaf_of,
    read,
    replaced,
    story,
)

CHECKS = [
    "format",
    "seal",
    "chain",
    "registration",
    "consent",
    "log",
    "anchor",
    "inclusion",
    "sequence",
    "replay",
    "life",
    "spends",
    "tail",
]
SECP256K1_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
Edit = Callable[[Document], object]


@pytest.fixture(scope="module")
def told() -> Story:
    assert len(story().log) == LOG_SIZE
    return story()


@pytest.mark.parametrize("which", ["full", "small", "unsigned"])
def test_a_real_session_is_verified_by_thirteen_checks(told: Story, which: str) -> None:
    report = told.verify(getattr(told, which))
    assert [(check.number, check.name) for check in report.checks] == list(enumerate(CHECKS, 1))
    assert {check.verdict for check in report.checks} == {Verdict.VERIFIED}
    assert summary(report)["exit_code"] == 0


def test_the_report_counts_what_the_session_did(told: Story) -> None:
    reasons = {check.name: check.reason for check in told.verify(told.full).checks}
    assert reasons["replay"] == "11 decisions, 5 allowed, $89.999999 captured"
    assert reasons["life"].startswith("revoked on the chain in block ")
    assert reasons["life"].endswith(", and in the log")


def test_a_condition_that_cannot_be_read_is_named_with_its_reason(told: Story) -> None:
    document = told.document
    document["session"]["grant"]["conditions"] = ["at most 1 payments per hour"]
    report = told.verify(told.seal(document))
    assert report.verdict is Verdict.TAMPERED
    assert "conditions[0]: write 'at most 1 payment per hour'" in report.reason


def test_that_nobody_consented_is_said_openly(told: Story) -> None:
    reasons = {check.name: check.reason for check in told.verify(told.unsigned).checks}
    assert reasons["consent"].startswith("none: ")


# What can be done to a document. Each takes the document of the full session and changes it.


def records(document: Document) -> list[Any]:
    listed: list[Any] = document["records"]
    return listed


def edit_record(document: Document, place: int, *path: str, to: object) -> None:
    entry = records(document)[place]
    record = canonical.decode_object(entry["record"].encode())
    inner = record
    for name in path[:-1]:
        inner = inner[name]
    assert inner[path[-1]] != to
    inner[path[-1]] = to
    entry["record"] = canonical.encode(record).decode()


def rechain(document: Document) -> None:
    """Make the records name each other's hashes again."""
    bodies = [canonical.decode_object(entry["record"].encode()) for entry in records(document)]
    for entry, raw in zip(records(document), chained(bodies), strict=True):
        entry["record"] = raw.decode()


def edit_and_rechain(document: Document) -> None:
    edit_record(document, 4, "body", "captured_micro_usd", to=24_000_000)
    rechain(document)


def swap(document: Document) -> None:
    listed = records(document)
    listed[3], listed[4] = listed[4], listed[3]


def swap_contents(document: Document) -> None:
    one, other = records(document)[5:7]
    one["record"], other["record"] = other["record"], one["record"]


def graft(file: Callable[[], bytes]) -> Edit:
    """Put a record of another file in the place of one's own last record."""
    return lambda document: records(document).__setitem__(-1, records(read(file()))[-1])


def graft_all(file: Callable[[], bytes], *names: str) -> Edit:
    return lambda document: document.update({name: read(file())[name] for name in names})


def in_session(**changes: object) -> Edit:
    return lambda document: document["session"].update(changes)


def in_grant(**changes: object) -> Edit:
    return lambda document: document["session"]["grant"].update(changes)


def in_limits(**changes: object) -> Edit:
    return lambda document: document["session"]["grant"]["limits_micro_usd"].update(changes)


def raise_the_limit(document: Document) -> None:
    document["session"]["grant"]["limits_micro_usd"]["per_day"] = 10**12
    in_session(grant_hash=Grant.from_json(document["session"]["grant"]).hash().hex())(document)


def from_session(file: Callable[[], bytes], *names: str) -> Edit:
    return lambda document: document["session"].update(
        {name: read(file())["session"][name] for name in names}
    )


def high_s(document: Document) -> None:
    raw = bytes.fromhex(document["session"]["owner_signature"])
    s = SECP256K1_ORDER - int.from_bytes(raw[32:64])
    flipped = raw[:32] + s.to_bytes(32) + bytes([55 - raw[64]])
    document["session"]["owner_signature"] = flipped.hex()


def a_stranger_signs(document: Document) -> None:
    grant = Grant.from_json(document["session"]["grant"])
    domain = Domain(int(document["chain"]["chain_id"]), document["chain"]["registry"])
    signed = Account.create().sign_typed_data(full_message=grant.typed_data(domain))
    document["session"]["owner_signature"] = bytes(signed.signature).hex()


def change_the_signature(document: Document) -> None:
    raw = bytes.fromhex(document["session"]["owner_signature"])
    document["session"]["owner_signature"] = (bytes([raw[0] ^ 1]) + raw[1:]).hex()


def checkpoint_of(size: int, root: bytes | None = None, **changes: Any) -> Edit:
    """A checkpoint by the log's real key, of what was never anchored."""

    def edit(document: Document) -> None:
        tree = Tree([leaf_of(raw) for raw in story().log])
        document["checkpoint"] = story().checkpoint(size, root or tree.root(size), **changes)
        for entry in records(document):
            if entry["index"] < size:
                entry["proof"] = [n.hex() for n in tree.inclusion_proof(entry["index"], size)]

    return edit


def sign_checkpoint_with_another_key(document: Document) -> None:
    told = story()
    tree = Tree([leaf_of(raw) for raw in told.log])
    origin = document["log"]["origin"]
    head = Checkpoint(origin, tree.size, tree.root())
    document["checkpoint"] = sign(head, origin, Ed25519PrivateKey.generate())


def into_tail(document: Document) -> None:
    entry = records(document).pop()
    del entry["proof"]
    document["tail"].append(entry)


def change_proof(document: Document) -> None:
    node = records(document)[2]["proof"][1]
    records(document)[2]["proof"][1] = f"{node[:-1]}{'0' if node[-1] != '0' else '1'}"


LOG_SIZE = 36
ATTACKS: list[tuple[str, Edit, str]] = [
    # The file's form
    ("a field is added", lambda d: d.update(note="x"), "format"),
    ("a field is removed", lambda d: d.pop("made_ms"), "format"),
    ("a field of a record's entry is added", lambda d: records(d)[0].update(x=1), "format"),
    ("what is not proven is left out", lambda d: d["not_proven"].clear(), "format"),
    ("a statement is cut from it", lambda d: d["not_proven"].pop(), "format"),
    ("the format is another", lambda d: d.update(format="tallystick.evidence/1"), "format"),
    ("the chain id has another spelling", lambda d: d["chain"].update(chain_id="01"), "format"),
    ("the records are no list", lambda d: d.update(records={}), "format"),
    ("a time is true", lambda d: d["session"]["grant"].update(valid_from_s=True), "format"),
    ("a limit is true", in_limits(per_day=True), "format"),
    ("a limit is negative", in_limits(per_day=-1), "format"),
    ("a limit is beyond any amount", in_limits(per_day=2**53 - 1), "format"),
    ("the grant ends before it begins", in_grant(valid_until_s=1), "format"),
    ("a merchant has a space at its end", in_grant(merchants=["books "]), "format"),
    ("a chain is none", in_grant(chains=["x"]), "format"),
    ("a condition is none", in_grant(conditions=["spend it all"]), "format"),
    ("conditions in another order", in_grant(conditions=["never chain b:b", "a"]), "format"),
    ("a parent is none", in_grant(parent="0x"), "format"),
    ("a consistency proof is no list", lambda d: d.update(consistency=[None]), "format"),
    # Where it is
    ("another chain", lambda d: d["chain"].update(chain_id="1"), "chain"),
    ("another registry", lambda d: d["chain"].update(registry="0x" + "11" * 20), "chain"),
    ("other anchors", lambda d: d["chain"].update(anchors="0x" + "11" * 20), "chain"),
    # What was granted, to whom
    ("the limit is raised", raise_the_limit, "registration"),
    ("merchants are added", in_grant(merchants=["books", "casino", "data"]), "registration"),
    ("a condition is added", in_grant(conditions=["never merchant casino"]), "registration"),
    ("a parent is added", in_grant(parent="0x" + "11" * 32), "registration"),
    ("the session is longer", in_grant(valid_until_s=4_000_000_000), "registration"),
    ("the grant hash is another", in_session(grant_hash="00" * 32), "registration"),
    ("the grant of another session", from_session(lambda: story().small, "grant"), "registration"),
    (
        "the key of another session",
        from_session(lambda: story().small, "grant", "grant_hash", "public_key", "token_id"),
        "consent",
    ),
    ("the token id is another", in_session(token_id="00" * 32), "registration"),
    (
        "the public key is another",
        from_session(lambda: story().small, "public_key"),
        "registration",
    ),
    (
        "the public key begins with 05",
        lambda d: in_session(public_key="05" + d["session"]["public_key"][2:])(d),
        "format",
    ),
    (
        "another installation's session",
        graft_all(lambda: another_story().full, "session"),
        "registration",
    ),
    # Who consented
    ("the signature is left out", in_session(owner_signature=None), "consent"),
    (
        "the signature and the consent are left out",
        in_session(owner_signature=None, consent="none"),
        "consent",
    ),
    ("the consent is denied", in_session(consent="none"), "consent"),
    ("the signature is a stranger's", a_stranger_signs, "consent"),
    ("the signature is changed", change_the_signature, "consent"),
    (
        "the signature is of another grant",
        from_session(lambda: story().small, "owner_signature"),
        "consent",
    ),
    ("the signature is malleated to high s", high_s, "consent"),
    # Which log
    ("another log id", lambda d: d["log"].update(id="22" * 32), "log"),
    ("another origin", lambda d: d["log"].update(origin="tallystick/x"), "anchor"),
    # What is anchored
    ("no checkpoint", lambda d: d.update(checkpoint=None), "anchor"),
    ("a checkpoint that was not anchored", checkpoint_of(LOG_SIZE - 1), "anchor"),
    ("an anchor of another size", lambda d: d["anchors"][0].update(size=1), "anchor"),
    ("an anchor of another root", lambda d: d["anchors"][0].update(root="00" * 32), "anchor"),
    ("an anchor less", lambda d: d["anchors"].pop(0), "anchor"),
    ("an anchor more", lambda d: d["anchors"].insert(0, d["anchors"][0]), "anchor"),
    ("anchors in another order", lambda d: d["anchors"].reverse(), "anchor"),
    ("a forked checkpoint", checkpoint_of(LOG_SIZE, b"\x00" * 32), "anchor"),
    ("a checkpoint of another origin", checkpoint_of(LOG_SIZE, origin="tallystick/x"), "anchor"),
    ("a checkpoint by another key", sign_checkpoint_with_another_key, "anchor"),
    (
        "the checkpoint of another log",
        graft_all(lambda: another_story().full, "checkpoint"),
        "anchor",
    ),
    # What is in it
    (
        "an amount is edited",
        lambda d: edit_record(d, 4, "body", "captured_micro_usd", to=1),
        "inclusion",
    ),
    ("an amount is edited, and all that follows", edit_and_rechain, "inclusion"),
    ("a time is edited", lambda d: edit_record(d, 4, "time_ms", to=1_700_000_000_000), "inclusion"),
    ("a salt is edited", lambda d: edit_record(d, 4, "salt", to="00" * 16), "inclusion"),
    ("contents are swapped", swap_contents, "inclusion"),
    ("an index is another", lambda d: records(d)[4].update(index=0), "inclusion"),
    ("an index is beyond the log", lambda d: records(d)[-1].update(index=LOG_SIZE), "inclusion"),
    ("an index is negative", lambda d: records(d)[0].update(index=-1), "inclusion"),
    ("a proof is changed", change_proof, "inclusion"),
    ("a proof is cut", lambda d: records(d)[2]["proof"].pop(), "inclusion"),
    ("a proof is longer", lambda d: records(d)[2]["proof"].append("00" * 32), "inclusion"),
    ("a proof is empty", lambda d: records(d)[2]["proof"].clear(), "inclusion"),
    ("a record of another log", graft(lambda: another_story().full), "inclusion"),
    ("all records of another log", graft_all(lambda: another_story().full, "records"), "inclusion"),
    ("a record is no record", lambda d: records(d)[2].update(record="{}"), "inclusion"),
    # Whether it is all, and in order
    ("no record is left", lambda d: records(d).clear(), "sequence"),
    ("the first record is dropped", lambda d: records(d).pop(0), "sequence"),
    ("a record is dropped", lambda d: records(d).pop(6), "sequence"),
    ("a record is there twice", lambda d: records(d).insert(6, records(d)[6]), "sequence"),
    ("two records are swapped", swap, "sequence"),
    ("the order is reversed", lambda d: records(d).reverse(), "sequence"),
    ("a record of another session", graft(lambda: story().small), "sequence"),
    ("all of another session's", graft_all(lambda: story().small, "records"), "sequence"),
    ("another session id", in_session(id="sess_0"), "sequence"),
    ("another workspace", in_session(workspace="other"), "sequence"),
    ("another type", in_session(type="app"), "sequence"),
    ("another label", in_session(label=None), "sequence"),
    ("an anchored record is called unanchored", into_tail, "tail"),
]


@pytest.mark.parametrize(("edit", "check"), [a[1:] for a in ATTACKS], ids=[a[0] for a in ATTACKS])
def test_an_operator_that_seals_the_edited_file_again_is_named_by(
    told: Story, edit: Edit, check: str
) -> None:
    document = told.document
    edit(document)
    report = told.verify(told.seal(document))
    assert report.verdict is Verdict.TAMPERED
    assert failed(report) == check


MOVED: list[tuple[str, Edit, str]] = [
    ("registration, block", lambda d: d["registration"].update(block_number=1), "registration"),
    ("registration, log", lambda d: d["registration"].update(log_index=99), "registration"),
    ("registration, tx", lambda d: d["registration"].update(tx_hash="00" * 32), "registration"),
    ("anchor, block", lambda d: d["anchors"][0].update(block_number=1), "anchor"),
    ("anchor, tx", lambda d: d["anchors"][-1].update(tx_hash="00" * 32), "anchor"),
]


@pytest.mark.parametrize(("edit", "check"), [a[1:] for a in MOVED], ids=[a[0] for a in MOVED])
def test_what_is_elsewhere_on_the_chain_than_the_file_says_is_pending(
    told: Story, edit: Edit, check: str
) -> None:
    """The operator's mistake, or a reorganisation since: the file alone cannot tell."""
    document = told.document
    edit(document)
    report = told.verify(told.seal(document))
    assert (report.verdict, failed(report)) == (Verdict.PENDING, check)
    assert "the chain was reorganised since, or the file is wrong" in report.reason
    assert failed(told.verify(canonical.encode(document) + b"\n")) == "seal"


@pytest.mark.parametrize("edit", [a[1] for a in ATTACKS], ids=[a[0] for a in ATTACKS])
def test_anybody_else_breaks_the_seal(told: Story, edit: Edit) -> None:
    document = told.document
    edit(document)
    file = canonical.encode(document) + b"\n"
    assert failed(told.verify(file)) in ("format", "seal")


def test_another_log_key_seals_nothing(told: Story) -> None:
    """The operator makes a new key and names it in the file: the chain knows the old one."""
    document = told.document
    key = Ed25519PrivateKey.generate()
    document["log"]["verifier_key"] = verifier_key(document["log"]["origin"], key.public_key())
    assert failed(told.verify(told.seal(document, key))) == "log"


@pytest.mark.parametrize(
    "key", ["", "x", "a+00000000+AAAA", "tallystick/x+00000000+" + "A" * 44], ids=repr
)
def test_a_verifier_key_that_is_none_is_tampering(told: Story, key: str) -> None:
    document = told.document
    document["log"]["verifier_key"] = key
    assert failed(told.verify(told.seal(document))) == "seal"


def test_the_registry_is_the_auditor_s_and_never_the_file_s(told: Story) -> None:
    """A perfect file of an installation that the auditor did not ask about."""
    foreign = another_story()
    assert foreign.verify(foreign.full).verdict is Verdict.VERIFIED
    chain = replaced(foreign.chain, anchor_registries={told.registry: told.anchors})
    report = verify(foreign.full, chain, registry=told.registry)
    assert report.verdict is Verdict.TAMPERED
    assert failed(report) == "chain"


def test_the_registry_s_address_may_be_checksummed(told: Story) -> None:
    report = verify(told.full, told.chain, registry=told.registry.upper().replace("X", "x"))
    assert report.verdict is Verdict.VERIFIED


def test_a_reason_cannot_write_over_the_verdict(told: Story) -> None:
    document = told.document
    document["chain"]["registry"] = "\x1b[2J\rVERIFIED\u202e\n" + "x" * 10_000
    report = told.verify(told.seal(document))
    assert failed(report) == "chain"
    for check in report.checks:
        assert check.reason.isprintable()
        assert len(check.reason) < 2_000
