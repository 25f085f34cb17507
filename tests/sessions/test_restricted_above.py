"""What an operator restricts a session to binds those that were opened beneath it before."""

import contextlib
import sqlite3
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from engine.audit.canonical import encode
from engine.audit.verify import Verdict
from engine.clock import ManualClock
from engine.db.tables import Session, table
from engine.errors import Unavailable
from engine.fsck.check import check
from engine.policy.limits import Limits
from engine.sessions.session import SessionView
from tests.sessions.hands import discrepancies, kinds, now, replayed, rule, verified
from tests.world import NO_LIMITS, USD, WORKSPACE, World, records_of

FRIDAY_8_UTC_MS = 1_800_000_000_000  # 15 January 2027
HOUR_MS = 3_600_000
CASINO, BOOKS = "never merchant casino", "merchant books at most 5 USD per transaction"

_sessions = table(Session)


@pytest.fixture
def timed(tmp_path: Path) -> Iterator[World]:
    """A world whose clock we turn."""
    opened = World(tmp_path / "data", ManualClock(FRIDAY_8_UTC_MS))
    yield opened
    opened.engine.close()


def child_of(world: World, parent: SessionView, **changes: Any) -> SessionView:
    """A child on the chain if its parent is, for half the time."""
    duration_ms = (parent.expires_ms - parent.created_ms) // 2
    same = {
        "limits": NO_LIMITS,
        "mint_pkp": parent.mint_pkp,
        "await_consent": False,
        "duration_ms": duration_ms,
    }
    return world.create(parent_id=parent.id, **(same | changes))


def restrict(world: World, view: SessionView, *sentences: str) -> None:
    world.engine.sessions.restrict(WORKSPACE, view.id, sentences, by="key_1")


def clean(world: World) -> bool:
    return check(world.settings.data_dir / "ledger.sqlite3", patience_s=0).clean


def paid_for(world: World, view: SessionView, dollars: int, merchant: str) -> str:
    return str(world.pay(view, dollars, merchant=merchant).decision["rule"])


def test_it_binds_every_session_beneath_until_it_is_lifted(world: World) -> None:
    top, beside = world.session(mint_pkp=True), world.session()
    child = child_of(world, top)
    beneath = child_of(world, child)
    for view in (top, child, beneath):
        assert paid_for(world, view, 6, "books") == paid_for(world, view, 1, "casino") == "all"
    restrict(world, child, CASINO)
    restrict(world, top, BOOKS, CASINO)
    for view in (top, child, beneath):
        assert paid_for(world, view, 1, "casino") == "never_merchant"
        assert paid_for(world, view, 6, "books") == "per_transaction"
        assert paid_for(world, view, 5, "books") == "all"
    assert paid_for(world, beside, 6, "casino") == "all"
    world.reopen()
    above = {child.id: (CASINO,), top.id: (BOOKS, CASINO)}
    assert replayed(world, beneath).restrictions_above == now(world, beneath).restrictions_above
    assert now(world, beneath).restrictions_above == above
    assert [r.body for r in records_of(world, child.id) if "ancestor_id" in r.body] == [
        {
            "by": "ancestor",
            "ancestor_id": top.id,
            "restrictions": [BOOKS, CASINO],
            "state": "active",
        }
    ]
    restrict(world, top)
    assert paid_for(world, beneath, 6, "books") == "all"
    assert paid_for(world, beneath, 1, "casino") == "never_merchant"
    restrict(world, child)
    assert paid_for(world, beneath, 1, "casino") == paid_for(world, child, 1, "casino") == "all"
    assert now(world, beneath).restrictions_above == {}
    report = verified(world, beneath)
    assert report.verdict is Verdict.VERIFIED, report.reason
    assert clean(world)


def test_hours_are_those_that_both_have_and_caps_count_what_was_paid_before(timed: World) -> None:
    top = timed.session(conditions=("only 08:00-12:00 UTC on Fri",))
    child = child_of(timed, top, conditions=top.grant.conditions)
    assert [rule(timed, child) for _ in range(2)] == ["all", "all"]
    restrict(timed, top, "at most 3 payments per day", "only 09:00-13:00 UTC on Fri")
    assert rule(timed, child) == "active_hours"
    assert isinstance(timed.clock, ManualClock)
    timed.clock.advance(HOUR_MS)
    assert [rule(timed, child) for _ in range(2)] == ["all", "payments"]
    restrict(timed, top, "only 13:00-14:00 UTC on Fri")
    assert rule(timed, child) == "active_hours"
    replayed(timed, child)


def test_who_asks_as_much_by_its_grant_or_is_over_is_told_nothing(world: World) -> None:
    top = world.session()
    over = child_of(world, top)
    world.engine.revoke_session(WORKSPACE, over.id, by="somebody")
    restrict(world, top, CASINO)
    within = child_of(world, top, conditions=(CASINO,))
    restrict(world, top)
    restrict(world, top, CASINO)
    assert kinds(world, within) == ["session.created"]
    assert kinds(world, over) == ["session.created", "session.revoked"]
    world.reopen()
    assert paid_for(world, within, 1, "casino") == "never_merchant"
    assert world.pay(over, 1).decision["code"] == "SESSION_REVOKED"
    assert clean(world)


def test_beneath_a_session_whose_parameters_are_not_the_chains_nothing_is_paid(
    world: World,
) -> None:
    top = world.session(mint_pkp=True)
    child = child_of(world, top)
    beneath = child_of(world, child)
    assert world.pay(beneath, 1).state == "captured"
    told = {"grant_hash": "0x" + "ab" * 32}
    world.engine.writer.call(
        lambda batch: world.engine.sessions.mismatched(batch, now(world, top), told)
    )
    for view in (top, child, beneath):
        assert world.pay(view, 1).decision["code"] == "PARAMETERS_MISMATCH"
    [found] = discrepancies(world, beneath)
    assert (found.kind, found.evidence["ancestor_id"]) == ("parameters_differ", top.id)
    world.engine.tick()  # which finds the right registration on the chain
    assert world.pay(beneath, 1).state == world.pay(top, 1).state == "captured"
    world.engine.tick()
    assert discrepancies(world, beneath) == discrepancies(world, top) == []
    replayed(world, beneath)


def test_a_child_pays_again_once_a_wrong_registration_above_it_has_left_the_chain(
    world: World,
) -> None:
    """Its parent is not active at once, as where one right registration replaces a wrong one."""
    top = world.session(mint_pkp=True)
    child = child_of(world, top)
    sessions, told = world.engine.sessions, {"grant_hash": "0x" + "ab" * 32}
    world.engine.writer.call(lambda batch: sessions.mismatched(batch, now(world, top), told))
    assert world.pay(child, 1).decision["code"] == "PARAMETERS_MISMATCH"
    world.engine.writer.call(lambda batch: sessions.unregistered(batch, now(world, top), {}))
    assert now(world, top).state == "registering"
    assert discrepancies(world, top) == []
    world.engine.tick()  # which finds the right one
    assert now(world, top).state == "active"
    assert [world.pay(each, 1).decision["code"] for each in (top, child)] == ["ALLOWED"] * 2
    world.engine.tick()
    assert discrepancies(world, child) == []
    replayed(world, child)


def test_an_approval_that_waits_below_does_not_pass_it(world: World) -> None:
    top = world.session()
    child = child_of(world, top, limits=Limits(None, None, None, None, 5 * USD))
    denied = world.pay(child, 6, merchant="casino")
    assert denied.approval_id is not None
    restrict(world, top, CASINO)
    key = world.engine.access.operator(str(world.operator_key)).key_id
    approval = world.engine.approvals.grant(WORKSPACE, denied.approval_id, by=key)
    assert (approval.state, approval.code) == ("refused", "MERCHANT_NOT_ALLOWED")
    replayed(world, child)


def test_a_child_that_could_not_be_read_meanwhile_follows_once_it_is_mended(world: World) -> None:
    top = world.session(mint_pkp=True)
    child = child_of(world, top)
    row = sa.update(_sessions).where(_sessions.c.id == child.id)
    for grant_json in ("{}", encode(child.grant.to_json()).decode()):
        change = row.values(grant_json=grant_json)
        written = partial(lambda change, batch: batch.update(change), change)
        world.engine.writer.call(written)
        if grant_json == "{}":
            restrict(world, top, CASINO)
            assert [found.kind for found in discrepancies(world, child)] == ["session_damaged"]
    with pytest.raises(Unavailable, match="is not followed yet"):
        world.pay(child, 1)
    world.engine.tick()
    assert paid_for(world, child, 1, "casino") == "never_merchant"
    replayed(world, child)


@pytest.mark.parametrize(
    ("whose", "values"),
    [
        ("child", {"restrictions_above_json": "{}"}),
        ("child", {"restrictions_above_json": '{"sess_x":["never merchant casino"]}'}),
        ("top", {"restrictions_json": "[]"}),
    ],
)
def test_rows_that_tell_otherwise_stop_the_child(
    world: World, whose: str, values: dict[str, str]
) -> None:
    top = world.session()
    child = child_of(world, top)
    restrict(world, top, CASINO)
    world.engine.close()
    changed = {"child": child, "top": top}[whose]
    [(column, value)] = values.items()
    with contextlib.closing(sqlite3.connect(world.settings.data_dir / "ledger.sqlite3")) as raw:
        statement = f"UPDATE sessions SET {column} = ? WHERE id = ?"
        assert raw.execute(statement, (value, changed.id)).rowcount == 1
        raw.commit()
    world.engine = world._open()
    with pytest.raises(Unavailable) as refused:
        world.pay(child, 1)
    assert refused.value.code == "session_damaged"
