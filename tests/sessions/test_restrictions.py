"""Conditions of the grant and restrictions of the operator: enforced, recorded, replayed."""

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.audit import replay
from engine.audit.verify import Verdict, verify
from engine.clock import ManualClock
from engine.errors import Conflict, InvalidInput, NotFound, Unavailable
from engine.evidence.chain_view import GatewayView
from engine.policy.limits import Limits
from engine.sessions import lifecycle
from engine.sessions.session import SessionView
from tests.world import USD, WORKSPACE, World, records_of

FRIDAY_8_UTC_MS = 1_800_000_000_000  # 15 January 2027
HOUR_MS = 3_600_000


@pytest.fixture
def timed(tmp_path: Path) -> Iterator[World]:
    """A world whose clock we turn."""
    opened = World(tmp_path / "data", ManualClock(FRIDAY_8_UTC_MS))
    yield opened
    opened.engine.close()


def restrict(world: World, view: SessionView, *sentences: str) -> SessionView:
    return world.engine.sessions.restrict(WORKSPACE, view.id, sentences, by="key_1")


def rule(world: World, view: SessionView, dollars: int = 1, **changes: str) -> str:
    """The rule that decides a payment now."""
    return str(world.pay(view, dollars, **changes).decision["rule"])


def caps(world: World, view: SessionView) -> dict[str, int]:
    left = world.engine.ledger.left(view.id).result()
    return {str(cap): amount for cap, amount in left.caps}


def advance(world: World, by_ms: int) -> None:
    assert isinstance(world.clock, ManualClock)
    world.clock.advance(by_ms)
    world.engine.tick()


# Conditions of the grant


def test_conditions_are_put_in_order_and_become_part_of_the_grant(world: World) -> None:
    given = ("never merchant casino", "at most 2 payments per hour")
    view = world.session(conditions=given)
    assert view.grant.conditions == ("at most 2 payments per hour", "never merchant casino")
    assert view.grant_hash == view.grant.hash()
    assert rule(world, view, merchant="casino") == "never_merchant"
    assert [rule(world, view) for _ in range(3)] == ["all", "all", "payments"]
    world.reopen()
    assert rule(world, view) == "payments"


def test_the_owner_signs_the_conditions_and_the_chain_holds_them(world: World) -> None:
    view = world.create(conditions=("lifetime at most 5 USD",))
    typed_data = view.grant.typed_data(world.engine.sessions.domain)
    assert typed_data["message"]["scope"]["conditions"] == ["lifetime at most 5 USD"]
    view = world.consent(view)
    assert (view.state, view.consent) == ("active", "eip712")
    assert [rule(world, view, 5), rule(world, view)] == ["all", "lifetime"]


HOSTILE = [
    (["spend it all"], 0, "is none of the sentences"),
    (["never merchant casino", ""], 1, "is none"),
    (["never merchant casino", "never merchant casino"], 1, "same"),
    (["at most 1 payment per day", "at most 2 payments per day"], 1, "same"),
    (["at most 1 payments per day"], 0, "write 'at most 1 payment per day'"),
    (["at most 0 payments per day"], 0, "between 1 and"),
    (["at most \uff12 payments per day"], 0, "is none"),
    (["at most 10 payments per week"], 0, "is none"),
    (["lifetime at most 1.50 USD"], 0, "write 'lifetime at most 1.5 USD'"),
    (["lifetime at most 1e3 USD"], 0, "amount"),
    (["never merchant a b"], 0, "is none"),
    (['never merchant "books"'], 0, "write 'never merchant books'"),
    (['never merchant "a" at most 5 USD"'], 0, "is none"),
    (["never merchant bo\u200boks"], 0, "U\\+200B"),
    (['never merchant "a\nnever chain b"'], 0, "U\\+000A"),
    (["never merchant e\u0301"], 0, "write"),
    (["never chain eip155:01"], 0, "CAIP-2"),
    (["never token USDC"], 0, "CAIP-19"),
    (["only 10:00-09:00 UTC on Mon"], 0, "end after they start"),
    (["only 09:00-25:00 UTC on Mon"], 0, "24:00"),
    (["only 09:00-10:00 UTC on Tue Mon"], 0, "write"),
    (["never chain eip155:1", "only 09:00-10:00"], 1, "is none"),
]


@pytest.mark.parametrize(("sentences", "place", "reason"), HOSTILE)
def test_a_sentence_that_is_none_is_named_by_its_place_and_nothing_is_made(
    world: World, sentences: list[str], place: int, reason: str
) -> None:
    live = world.session()
    before = world.engine.ready()["records"]
    with pytest.raises(InvalidInput, match=reason) as refused:
        world.session(conditions=tuple(sentences))
    assert refused.value.field == f"conditions[{place}]"
    with pytest.raises(InvalidInput, match=reason) as refused:
        restrict(world, live, *sentences)
    assert refused.value.field == f"restrictions[{place}]"
    assert world.engine.ready()["records"] == before
    assert world.engine.sessions.get(WORKSPACE, live.id) == live


@pytest.mark.parametrize(
    "sentences",
    [
        [f"never chain eip155:{n}" for n in range(1, 66)],
        ["only 09:00-12:00 UTC on Mon", "only 11:00-17:00 UTC on Mon"],
        ["only 00:00-24:00 UTC on Mon Tue Wed Thu Fri Sat Sun"],
    ],
    ids=("65", "hours that overlap", "hours that are always"),
)
def test_what_is_wrong_with_all_of_them_together_names_the_list(
    world: World, sentences: list[str]
) -> None:
    with pytest.raises(InvalidInput) as refused:
        world.session(conditions=tuple(sentences))
    assert refused.value.field == "conditions"
    with pytest.raises(InvalidInput) as refused:
        restrict(world, world.session(), *sentences)
    assert refused.value.field == "restrictions"


# Restrictions of the operator


def test_restrictions_narrow_a_live_session_at_once_and_can_be_lifted(world: World) -> None:
    view = world.session(merchants=("books", "casino"))
    assert (view.restrictions, view.policy_version) == ((), 1)
    assert rule(world, view, merchant="casino") == "all"
    view = restrict(world, view, "never merchant casino", "at most 5 payments per day")
    assert view.restrictions == ("at most 5 payments per day", "never merchant casino")
    assert view.policy_version == 2
    assert rule(world, view, merchant="casino") == "never_merchant"
    for _ in range(2):  # the same ones again, in another order
        view = restrict(world, view, "at most 5 payments per day", "never merchant casino")
        assert view.policy_version == 2
    world.reopen()
    assert rule(world, view, merchant="casino") == "never_merchant"
    view = restrict(world, view)
    assert (view.restrictions, view.policy_version) == ((), 3)
    assert rule(world, view, merchant="casino") == "all"
    restricted = [r for r in records_of(world, view) if r.kind == "session.restricted"]
    assert [record.body for record in restricted] == [
        {
            "by": "key_1",
            "policy_version": version,
            "restrictions": sentences,
            "state": "active",
        }
        for version, sentences in (
            (2, ["at most 5 payments per day", "never merchant casino"]),
            (3, []),
        )
    ]


def test_restrictions_never_widen(world: World) -> None:
    view = world.session(merchants=("books",), conditions=("lifetime at most 10 USD",))
    restrict(world, view, "lifetime at most 500 USD", "merchant casino at most 9 USD per day")
    assert rule(world, view, merchant="casino") == "merchants"
    assert rule(world, view, 11) == "lifetime"
    assert caps(world, view) == {
        "lifetime at most 10 USD": 10 * USD,
        "merchant casino at most 9 USD per day": 9 * USD,
    }


@pytest.mark.parametrize("restarted", [False, True])
def test_a_cap_that_is_set_later_counts_what_was_paid_before_it(
    timed: World, restarted: bool
) -> None:
    view = timed.session(Limits(None, None, None, None, None))
    timed.pay(view, 30)
    part = timed.pay(view, 20, hold=True)
    timed.engine.ledger.capture(WORKSPACE, part.id, 5 * USD).result()
    voided = timed.pay(view, 7, hold=True)
    timed.engine.ledger.void(WORKSPACE, voided.id).result()
    held = timed.pay(view, 10, hold=True, merchant="data")
    timed.pay(view, 3, merchant="data")
    advance(timed, 14 * 60_000)
    restrict(
        timed,
        view,
        "lifetime at most 50 USD",
        "at most 5 payments per hour",
        "merchant data at most 20 USD per day",
    )
    if restarted:
        timed.reopen()
    assert caps(timed, view) == {
        "lifetime at most 50 USD": 2 * USD,  # 30 + 5 + 10 + 3 are used
        "at most 5 payments per hour": 1,
        "merchant data at most 20 USD per day": 7 * USD,
    }
    assert rule(timed, view, 3) == "lifetime"
    advance(timed, 60_000)  # the hold of 10 is over
    assert timed.engine.payments.get(WORKSPACE, held.id).state == "expired"
    assert caps(timed, view)["lifetime at most 50 USD"] == 12 * USD
    assert rule(timed, view, 8, merchant="data") == "all"
    assert rule(timed, view, 5) == "lifetime"
    assert rule(timed, view, 4) == "all"
    assert rule(timed, view, 1) == "payments"
    told = replay.Replay(view.grant, view.grant_hash)
    told.feed(records_of(timed, view))
    assert told.policy_version == 2
    assert told.captured_micro_usd == 50 * USD


def test_active_hours_that_contradict_the_grants_allow_nothing(timed: World) -> None:
    view = timed.session(conditions=("only 08:00-12:00 UTC on Fri",))
    assert rule(timed, view) == "all"
    restrict(timed, view, "only 12:00-17:00 UTC on Fri")
    assert rule(timed, view) == "active_hours"
    advance(timed, 5 * HOUR_MS)
    assert rule(timed, view) == "active_hours"
    restrict(timed, view)
    assert rule(timed, view) == "active_hours"


def test_only_a_session_that_is_not_over_is_restricted(timed: World) -> None:
    revoked, expired, awaiting = timed.session(), timed.session(), timed.create()
    timed.engine.revoke_session(WORKSPACE, revoked.id, by="somebody")
    assert restrict(timed, awaiting, "never merchant casino").state == "awaiting_consent"
    advance(timed, 25 * HOUR_MS)
    for view in (revoked, expired, awaiting):
        with pytest.raises(Conflict) as refused:
            restrict(timed, view, "never merchant casino")
        assert refused.value.code == "session_not_live"
    with pytest.raises(NotFound):
        timed.engine.sessions.restrict("other", revoked.id, (), by="key_1")


def test_there_is_an_end_to_changes(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (lifecycle, replay):
        monkeypatch.setattr(module, "POLICY_VERSION_MAX", 3)
    view = world.session()
    for sentences in (("never merchant a",), ("never merchant b",)):
        restrict(world, view, *sentences)
    with pytest.raises(Conflict) as refused:
        restrict(world, view)
    assert refused.value.code == "too_many_restrictions"
    told = replay.Replay(view.grant, view.grant_hash)
    told.feed(records_of(world, view))


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE sessions SET restrictions_json = '[]'",
        "UPDATE sessions SET restrictions_json = '[\"never merchant books\"]'",
        "UPDATE sessions SET restrictions_json = '[\"spend it all\"]'",
        "UPDATE sessions SET restrictions_json = 'x'",
        "UPDATE sessions SET restrictions_json = '5'",
        "UPDATE sessions SET policy_version = 1",
    ],
)
def test_a_row_that_tells_of_other_restrictions_stops_the_session(
    world: World, statement: str
) -> None:
    view = world.session()
    restrict(world, view, "never merchant casino")
    world.engine.close()
    with contextlib.closing(sqlite3.connect(world.settings.data_dir / "ledger.sqlite3")) as raw:
        assert raw.execute(f"{statement} WHERE id = '{view.id}'").rowcount == 1
        raw.commit()
    world.engine = world._open()
    with pytest.raises(Unavailable) as refused:
        world.pay(view, 1)
    assert refused.value.code == "session_damaged"


def test_evidence_of_a_restricted_session_is_verified(world: World) -> None:
    view = world.session(mint_pkp=True, conditions=("at most 3 payments per hour",))
    world.pay(view, 4)
    restrict(world, view, "lifetime at most 5 USD")
    assert [rule(world, view, 2), rule(world, view, 1)] == ["lifetime", "all"]
    restrict(world, view)
    assert [rule(world, view, 2), rule(world, view, 1)] == ["all", "payments"]
    world.engine.anchor()
    deployment = world.engine.deployment
    file = world.engine.evidence(WORKSPACE, view.id)
    report = verify(file, GatewayView(world.engine.gateway), registry=deployment.registry)
    assert report.verdict is Verdict.VERIFIED, report.reason
