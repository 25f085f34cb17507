"""A file in which something is withheld: it tells nothing of it, and the rest is still verified."""

import hashlib
import json
from collections.abc import Callable
from typing import Any

import pytest

from engine.audit import canonical
from engine.audit.disclosure import GROUPS, WITHHOLDABLE
from engine.audit.verify import Report, Verdict, verify
from engine.errors import InvalidInput
from engine.evidence.chain_view import GatewayView
from engine.ledger.discrepancies import note
from engine.policy.budgets import BudgetLimits
from engine.policy.limits import Limits
from engine.sessions.session import SessionView
from tests.audit.test_vectors import check_schema
from tests.evidence.story import Document, Story, failed, read, shown, story
from tests.evidence.test_relogged import LIES, Change
from tests.ledger.approving import asked_for, first_key, grant
from tests.world import USD, WORKSPACE, World

ALL = tuple(WITHHOLDABLE)
MERCHANT = ("merchant",)


@pytest.fixture(scope="module")
def told() -> Story:
    return story()


def checked(world: World, file: bytes) -> Report:
    gateway, registry = world.engine.gateway, world.engine.deployment.registry
    return verify(file, GatewayView(gateway), registry=registry)


def test_a_file_with_everything_withheld_is_verified_and_says_what_is(told: Story) -> None:
    report = told.verify(told.blind)
    assert report.verdict is Verdict.VERIFIED
    reasons = {check.name: check.reason for check in report.checks}
    assert reasons["format"].endswith("; withheld: label, merchant, user_wallet")
    assert reasons["replay"] == (
        "11 decisions, 5 allowed, $89.999999 captured; the merchants of 11 payments are withheld, "
        "so rules on merchants are not replayed: 1 denial taken as told"
    )
    plain = {check.name: check.reason for check in told.verify(told.full).checks}
    same = plain.keys() - {"format", "replay"}
    assert {name: reasons[name] for name in same} == {name: plain[name] for name in same}


def test_what_is_withheld_is_not_in_the_file(told: Story) -> None:
    """But for the merchants that the grant names: the chain holds its hash, so it is shown."""
    for text in ("casino", "shopping"):
        assert text.encode() in told.full
        assert text.encode() not in told.blind
    document = read(told.blind)
    assert document["session"]["label"] is None
    assert document["session"]["grant"]["merchants"] == ["books", "data"]
    records = [json.loads(entry["record"]) for entry in document["records"]]
    assert "books" not in json.dumps(records[1:])
    plain = [json.loads(entry["record"]) for entry in told.document["records"]]
    for whole, record in zip(plain, records, strict=True):
        assert ("salt" in record) == (record["kind"] not in GROUPS)
        for secret in ("request_digest", "idempotency_key", "digest", "user_wallet", "label"):
            assert secret not in record["body"]
            if (value := whole["body"].get(secret)) is not None and secret != "user_wallet":
                assert str(value).encode() not in told.blind
        assert ("salt" in record) or whole["salt"].encode() not in told.blind


def test_only_what_tells_something_withheld_is_in_committed_form(told: Story) -> None:
    document, plain = read(told.small_blind), read(told.small)
    for entry, whole in zip(document["records"], plain["records"], strict=True):
        kind = json.loads(whole["record"])["kind"]
        if kind == "session.created":
            assert entry["openings"].keys() == {"user_wallet"}
        elif kind == "payment.decided":
            assert entry["openings"] == {}
        else:
            assert entry == whole


@pytest.mark.parametrize("which", ["full", "small", "unsigned", "blind", "small_blind"])
def test_every_file_and_every_record_in_it_fits_the_schema(told: Story, which: str) -> None:
    check_schema(read(getattr(told, which)))


# Nothing of it can be guessed


SHOPS = ("alpha.example", "beta.example")
MEMO = {"description": None, "metadata_json": "{}", "capture": True}


def busy(world: World, merchant: str) -> SessionView:
    """A session that pays one merchant, and is refused it for every reason there is.

    Only sentences that a grant or the operator would write of any merchant are in force.
    """
    other = f"merchant {SHOPS[0]} at most 999 USD per day"
    sentences = (other, other.replace(*SHOPS), "never merchant other.example")
    view = world.session(
        Limits(50 * USD, 200 * USD, None, None, 40 * USD),
        mint_pkp=True,
        label="the same",
        conditions=sentences,
    )
    for dollars in (10, 60, 20):
        world.pay(view, dollars, merchant=merchant)
    world.pay(view, 5, merchant=merchant, token_priced=False)
    held = world.pay(view, 7, merchant=merchant, hold=True)
    world.engine.ledger.void(WORKSPACE, held.id).result()
    grant(world, asked_for(world, view, 45, merchant=merchant), first_key(world))
    denied = asked_for(world, view, 46, merchant=merchant)
    world.engine.approvals.deny(
        WORKSPACE, denied.id, by=first_key(world), reason=f"not at {merchant}"
    )
    asked_for(world, view, 47, merchant=merchant)
    world.engine.sessions.restrict(
        WORKSPACE, view.id, tuple(s.replace("999", "80") for s in sentences), by="operator"
    )
    world.pay(view, 30, merchant=merchant)
    world.engine.agents.register(WORKSPACE, "bot", None)
    world.engine.budgets.set(WORKSPACE, "bot", BudgetLimits(per_day=1 * USD), by="test")
    assert world.pay(view, 4, merchant=merchant).decision["rule"] == "agent_budget"
    world.engine.budgets.clear(WORKSPACE, "bot", by="test")
    return view


@pytest.fixture
def twins(world: World) -> tuple[World, list[SessionView]]:
    """Two sessions that differ in nothing but whom they pay."""
    views = [busy(world, merchant) for merchant in SHOPS]
    world.engine.anchor()
    return world, views


def digests(document: Document, merchant: str) -> list[str]:
    """The digests of all requests of a file, were they for this merchant."""
    found = []
    for entry in document["records"]:
        record = json.loads(entry["record"])
        if record["kind"] == "payment.decided":
            asked = {**record["body"]["request"], "merchant": merchant}
            for memo in (MEMO, {**MEMO, "capture": False}):
                hashed = canonical.encode(asked) + canonical.encode(memo)
                found.append(hashlib.sha256(hashed).hexdigest())
    return found


def test_trying_merchants_finds_nothing(twins: tuple[World, list[SessionView]]) -> None:
    """The digest of a request, which a whole file has, would tell at once."""
    world, views = twins
    for view, merchant in zip(views, SHOPS, strict=True):
        whole = world.engine.evidence(WORKSPACE, view.id)
        withheld = world.engine.evidence(WORKSPACE, view.id, withhold=MERCHANT)
        for file in (whole, withheld):
            assert checked(world, file).verdict is Verdict.VERIFIED
        tried = digests(read(withheld), merchant)
        assert sum(digest.encode() in whole for digest in tried) == len(tried) // 2 == 11
        assert not any(digest.encode() in withheld for digest in tried)


def alike(document: Document) -> list[Any]:
    """What the records of a file say, but for ids, hashes and times, which are never the same."""
    told = []
    for entry in document["records"]:
        record = json.loads(entry["record"])
        names = list(record["commitments"]) if "commitments" in record else None
        told.append((record["kind"], timeless(record["body"]), names))
    return told


PASSING = ("payment", "approval", "grant", "owner_signature")


def timeless(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {
        name: timeless(inner)
        for name, inner in value.items()
        if name not in PASSING and not name.endswith(("_ms", "_number", "_hash"))
    }


def test_two_sessions_that_differ_in_their_merchants_are_alike_without_them(
    twins: tuple[World, list[SessionView]],
) -> None:
    world, views = twins
    one, other = (
        alike(read(world.engine.evidence(WORKSPACE, view.id, withhold=MERCHANT))) for view in views
    )
    assert len(one) > 20
    assert one == other
    one, other = (alike(read(world.engine.evidence(WORKSPACE, view.id))) for view in views)
    assert one != other


def test_the_evidence_of_a_discrepancy_is_withheld_with_the_rest(world: World) -> None:
    view = world.session(mint_pkp=True)
    world.pay(view, 5, merchant="secret")
    world.engine.anchor()
    evidence = {"said": "secret"}
    world.engine.writer.call(
        lambda batch: note(batch, "parameters_differ", view.id, "critical", evidence, view.stream),
        view.id,
    )
    whole = world.engine.evidence(WORKSPACE, view.id)
    withheld = world.engine.evidence(WORKSPACE, view.id, withhold=MERCHANT)
    for file, told in ((whole, evidence), (withheld, None)):
        [noted] = read(file)["discrepancies"]
        assert (noted["kind"], noted["evidence"]) == ("parameters_differ", told)
        assert (noted["severity"], noted["resolved_ms"]) == ("critical", None)
        report = checked(world, file)
        assert report.verdict is Verdict.VERIFIED
        assert report.checks[1].reason.endswith("; the operator's server noted discrepancies (1)")
        check_schema(read(file))
    assert b"secret" not in withheld


def test_what_cannot_be_withheld_is_named(world: World) -> None:
    view = world.session(mint_pkp=True)
    with pytest.raises(InvalidInput, match=r"withhold.*'amount'.*label, merchant, user_wallet"):
        world.engine.evidence(WORKSPACE, view.id, withhold=("merchant", "amount"))


# Lies of an operator that withholds


UNSEEN = {
    "the merchant is another": "",
    "the reason is another": "",
    "the facts are others": "",
    "created with another label": "",
    "created with true for one": "",
}
"""What is withheld can be anything, and the file says so."""


FORMED = [lie for lie in LIES if lie[2] != "inclusion"]
"""The others have no committed form."""


@pytest.mark.parametrize("lie", FORMED, ids=[lie[0] for lie in FORMED])
def test_a_lie_in_what_is_not_withheld_is_named_by_the_same_check(
    told: Story, lie: tuple[str, Change, str]
) -> None:
    what, change, check = lie
    file, chain = told.relogged(change, withhold=ALL)
    assert failed(told.verify(file, chain)) == UNSEEN.get(what, check)


Edit = Callable[[Document], object]


def opening(document: Document) -> Document:
    """The wallet of the session, which is opened beside what is withheld."""
    found: Document = document["records"][0]["openings"]["user_wallet"]
    return found


def committed(change: Callable[[Document], object]) -> Edit:
    """Change the committed form of the session's creation."""

    def edit(document: Document) -> None:
        entry = document["records"][0]
        record = json.loads(entry["record"])
        change(record)
        entry["record"] = canonical.encode(record).decode()

    return edit


def whole(document: Document) -> None:
    """The creation is shown whole."""
    document["records"][0] = read(story().small)["records"][0]


def openly(document: Document) -> None:
    """A record that tells nothing withheld is shown as if it did."""
    document["records"][1]["openings"] = {}


def grafted(document: Document) -> None:
    """The wallet of another session, with its own salt."""
    raw = read(story().full)["records"][0]["record"].encode()
    openings = shown(raw, ("label",))["openings"]
    document["records"][0]["openings"] = openings


ATTACKS: list[tuple[str, Edit, str]] = [
    ("another value", lambda d: opening(d)["value"].update(user_wallet="x"), "inclusion"),
    ("another salt", lambda d: opening(d).update(salt="00" * 32), "inclusion"),
    ("an opening of another record", grafted, "inclusion"),
    ("an opening that is missing", lambda d: d["records"][0].update(openings={}), "sequence"),
    (
        "an opening under another name",
        lambda d: d["records"][0].update(openings={"label": opening(d)}),
        "inclusion",
    ),
    ("a commitment is another", committed(lambda r: r["commitments"].update(label="00" * 32)),
     "inclusion"),
    ("a label beside its commitment", committed(lambda r: r["body"].update(label="x")),
     "inclusion"),
    ("a label in the session", lambda d: d["session"].update(label="x"), "sequence"),
    ("a record is shown whole", whole, "sequence"),
    ("a record is called withheld", openly, "inclusion"),
    ("less is said to be withheld", lambda d: d.update(withheld=["merchant"]), "sequence"),
    (
        "more is said to be withheld",
        lambda d: d.update(withheld=["label", "merchant", "user_wallet"]),
        "sequence",
    ),
    ("nothing is said to be withheld", lambda d: d.update(withheld=[]), "sequence"),
    ("withheld in another order", lambda d: d["withheld"].reverse(), "format"),
    ("withheld twice", lambda d: d["withheld"].append("merchant"), "format"),
    ("something else is withheld", lambda d: d.update(withheld=["amount"]), "format"),
    ("an opening of something else", lambda d: d["records"][0]["openings"].update(x={}), "format"),
    ("a short salt", lambda d: opening(d).update(salt="00" * 16), "format"),
    ("a field of an opening more", lambda d: opening(d).update(x=1), "format"),
    ("an opening without a value", lambda d: opening(d).update(value=None), "format"),
]  # fmt: skip


@pytest.mark.parametrize(("edit", "check"), [a[1:] for a in ATTACKS], ids=[a[0] for a in ATTACKS])
def test_an_operator_that_seals_a_withheld_file_again_is_named_by(
    told: Story, edit: Edit, check: str
) -> None:
    document = read(told.small_blind)
    edit(document)
    report = told.verify(told.seal(document))
    assert (report.verdict, failed(report)) == (Verdict.TAMPERED, check)


@pytest.mark.parametrize("edit", [a[1] for a in ATTACKS], ids=[a[0] for a in ATTACKS])
def test_anybody_else_breaks_the_seal(told: Story, edit: Edit) -> None:
    document = read(told.small_blind)
    edit(document)
    assert failed(told.verify(canonical.encode(document) + b"\n")) in ("format", "seal")
