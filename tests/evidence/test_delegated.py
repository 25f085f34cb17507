"""The evidence of a delegated session shows the line of grants that it comes from."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest

from engine.audit.chain import Lowering, Revocation
from engine.audit.evidence import render_evidence, seal_message
from engine.audit.verify import Report, Verdict, verify
from engine.evidence.chain_view import GatewayView
from engine.grant import Grant
from engine.policy.limits import Limits
from engine.sessions import lifecycle
from engine.sessions.session import SessionView
from tests.audit.test_vectors import check_schema, validator
from tests.evidence.story import Document, failed, read
from tests.world import USD, WORKSPACE, World

LIMITS = Limits(None, 50 * USD, None, None, None)
UNLIMITED = Limits(None, None, None, None, None)


def child_of(world: World, parent: SessionView, **changes: Any) -> SessionView:
    duration_ms = (parent.expires_ms - parent.created_ms) // 2
    same = {"limits": parent.grant.limits, "await_consent": False, "duration_ms": duration_ms}
    return world.create(parent_id=parent.id, **(same | changes))


@dataclass
class Line:
    """Three sessions, the first of them signed, and two files."""

    world: World
    line: tuple[SessionView, SessionView, SessionView]
    unsigned: bytes
    file: bytes

    @property
    def document(self) -> Document:
        return read(self.file)

    def check(self, file: bytes, chain: GatewayView | None = None) -> Report:
        engine = self.world.engine
        return verify(
            file, chain or GatewayView(engine.gateway), registry=engine.deployment.registry
        )

    def seal(self, document: Document) -> bytes:
        """What the operator signs with the log's key."""
        content = {name: value for name, value in document.items() if name != "signature"}
        key = self.world.engine.deployment.log_key
        return render_evidence(content, key.sign(seal_message(content)))


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Line]:
    world = World(tmp_path_factory.mktemp("line") / "data")
    top = world.session(LIMITS, mint_pkp=True)
    middle = child_of(world, top)
    last = child_of(world, middle)
    nobodys = child_of(world, world.session(LIMITS, mint_pkp=True, await_consent=False))
    for view in (last, nobodys):
        assert world.pay(view, 5).state == "captured"
    world.engine.anchor()
    files = [world.engine.evidence(WORKSPACE, view.id) for view in (nobodys, last)]
    yield Line(world, (top, middle, last), *files)
    world.engine.close()


def consent(report: Report) -> str:
    return next(check.reason for check in report.checks if check.name == "consent")


def test_it_is_verified_and_says_whose_signature_stands_behind_it(told: Line) -> None:
    report = told.check(told.file)
    assert report.verdict is Verdict.VERIFIED, report.reason
    owner = told.world.owner.address.lower()
    assert consent(report) == f"delegated from a grant signed by {owner} (EIP-712)"
    session = told.document["session"]
    assert session["consent"] == "delegated"
    above = [ancestor["grant"] for ancestor in session["ancestors"]]
    assert above == [view.grant.to_json() for view in reversed(told.line[:-1])]


def test_the_files_fit_the_schema_which_refuses_ancestors_without_a_consent(told: Line) -> None:
    check_schema(read(told.unsigned))
    check_schema(told.document)
    document = told.document
    del session(document)["ancestors"][0]["consent"]
    assert not validator().is_valid(document)


def test_that_nobody_signed_above_it_is_said_openly(told: Line) -> None:
    report = told.check(told.unsigned)
    assert report.verdict is Verdict.VERIFIED, report.reason
    assert consent(report) == "delegated from a session that nobody signed for"


def test_a_child_that_its_owner_signed_says_so(told: Line) -> None:
    world = told.world
    child = world.consent(child_of(world, told.line[0], await_consent=True))
    world.engine.anchor()
    report = told.check(world.engine.evidence(WORKSPACE, child.id))
    assert report.verdict is Verdict.VERIFIED, report.reason
    assert consent(report) == f"signed by {world.owner.address.lower()} (EIP-712)"


def session(document: Document) -> dict[str, Any]:
    found: dict[str, Any] = document["session"]
    return found


FORGERIES: list[tuple[str, Callable[[Document], object], str]] = [
    ("no line", lambda d: session(d).update(ancestors=[]), "no beginning"),
    ("no line and no consent", lambda d: session(d).update(ancestors=[], consent="none"), "no beg"),
    ("the first is left out", lambda d: session(d)["ancestors"].pop(), "no beginning"),
    ("the parent is left out", lambda d: session(d)["ancestors"].pop(0), "another grant"),
    ("another order", lambda d: session(d)["ancestors"].reverse(), "another grant"),
    (
        "one is there twice",
        lambda d: session(d)["ancestors"].insert(0, session(d)["ancestors"][0]),
        "another grant",
    ),
    (
        "the first allowed more",
        lambda d: session(d)["ancestors"][1]["grant"]["limits_micro_usd"].update(per_day=None),
        "another grant",
    ),
    (
        "the owner's signature is left out",
        lambda d: session(d)["ancestors"][1].update(owner_signature=None),
        "of a session above; it has",
    ),
    (
        "a signature is made up",
        lambda d: session(d)["ancestors"][0].update(owner_signature="11" * 65),
        "of a session above; it has",
    ),
    (
        "one above is called nobody's",
        lambda d: session(d)["ancestors"][0].update(consent="none"),
        "without a signature",
    ),
    (
        "the owner's signature is another",
        lambda d: session(d)["ancestors"][1].update(owner_signature="11" * 64 + "1b"),
        "delegated from",
    ),
    (
        "the public key is another's, of whom the chain has nothing",
        lambda d: session(d)["ancestors"][1].update(public_key="04" + "11" * 64),
        "not that of its grant",
    ),
    (
        "the consent is the owner's",
        lambda d: session(d).update(consent="eip712"),
        '"eip712" without',
    ),
    ("the consent is nobody's", lambda d: session(d).update(consent="none"), '"none" without'),
]


@pytest.mark.parametrize(
    ("forge", "said"), [row[1:] for row in FORGERIES], ids=[row[0] for row in FORGERIES]
)
def test_another_line_is_tampering(
    told: Line, forge: Callable[[Document], object], said: str
) -> None:
    document = told.document
    forge(document)
    report = told.check(told.seal(document))
    assert (report.verdict, failed(report)) == (Verdict.TAMPERED, "consent"), report.reason
    assert said in report.reason


@pytest.mark.parametrize("consent", ["delegated", "eip712", ""])
def test_the_consent_of_an_unsigned_first_is_none_and_nothing_else(
    told: Line, consent: str
) -> None:
    document = read(told.unsigned)
    session(document)["ancestors"][0]["consent"] = consent
    report = told.check(told.seal(document))
    assert (report.verdict, failed(report)) == (Verdict.TAMPERED, "consent"), report.reason
    assert report.reason == (
        f'consent: the file names the consent "{consent}" without a signature; '
        'that of a grant without a parent is then "none"'
    )


@pytest.mark.parametrize("ancestors", [None, {}, [None], [{}], [{"grant": {}, "public_key": ""}]])
def test_a_line_that_cannot_be_read_is_no_evidence(told: Line, ancestors: Any) -> None:
    document = told.document
    session(document)["ancestors"] = ancestors
    report = told.check(told.seal(document))
    assert (report.verdict, failed(report)) == (Verdict.TAMPERED, "format")


def test_an_operator_that_registers_a_child_that_may_more_is_found_out(
    told: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifecycle, "check_narrower", lambda grant, line: None)
    world = told.world
    wider = child_of(world, told.line[1], limits=Limits(None, 51 * USD, None, None, None))
    world.engine.anchor()
    report = told.check(world.engine.evidence(WORKSPACE, wider.id))
    assert (report.verdict, failed(report)) == (Verdict.TAMPERED, "consent")
    assert "limits.per_day: is above the parent's" in report.reason


class RevokedAbove(GatewayView):
    """A chain on which one session was revoked, at first long before anything was paid."""

    def __init__(self, told: Line, place: int, time_s: int = 1) -> None:
        super().__init__(told.world.engine.gateway)
        self._token_id = told.line[place].token_id
        self._time_s = time_s

    def revocation(self, registry: str, token_id: bytes) -> Revocation | None:
        if token_id == self._token_id:
            return Revocation(1, self._time_s, bytes(32))
        return super().revocation(registry, token_id)


@pytest.mark.parametrize("place", [0, 1])
def test_a_payment_long_after_the_end_of_any_session_above_is_tampering(
    told: Line, place: int
) -> None:
    report = told.check(told.file, RevokedAbove(told, place))
    assert (report.verdict, failed(report)) == (Verdict.TAMPERED, "life")
    assert "after the session was revoked" in report.reason


@pytest.mark.parametrize("place", [0, 1])
def test_the_records_must_have_the_end_that_came_from_any_session_above(
    told: Line, place: int
) -> None:
    anchored_s = GatewayView(told.world.engine.gateway).block_time_s(
        told.document["anchors"][-1]["block_number"]
    )
    report = told.check(told.file, RevokedAbove(told, place, anchored_s + 1))
    assert report.verdict is Verdict.VERIFIED, report.reason
    report = told.check(told.file, RevokedAbove(told, place, anchored_s))
    assert (report.verdict, failed(report)) == (Verdict.PENDING, "life")


class LoweredAbove(GatewayView):
    """A chain on which the limits of one session were lowered long before anything was paid."""

    def __init__(self, told: Line, place: int, limits: Limits) -> None:
        super().__init__(told.world.engine.gateway)
        self._token_id = told.line[place].token_id
        self._limits = limits

    def lowerings(self, registry: str, token_id: bytes, grant: Grant) -> Sequence[Lowering]:
        if token_id == self._token_id:
            return [Lowering(self._limits, 1, 1, bytes(32))]
        return super().lowerings(registry, token_id, grant)


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("limit", ["per_transaction", "per_day", "approval_above"])
def test_a_payment_over_what_was_lowered_long_before_for_any_session_above_is_tampering(
    told: Line, place: int, limit: str
) -> None:
    over, kept = (replace(UNLIMITED, **{limit: dollars * USD}) for dollars in (4, 5))
    report = told.check(told.file, LoweredAbove(told, place, over))
    assert (report.verdict, failed(report)) == (Verdict.TAMPERED, "life")
    assert "allows more than the limits that were lowered in block 1" in report.reason
    report = told.check(told.file, LoweredAbove(told, place, kept))
    assert report.verdict is Verdict.VERIFIED, report.reason
    life = next(check.reason for check in report.checks if check.name == "life")
    assert life.endswith("; limits of a session above lowered on the chain in block 1")
