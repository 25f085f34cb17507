"""Limits that are lowered on the chain: enforced at first sight, recorded, never raised."""

import contextlib
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from engine.audit.backtest import Backtest, Total
from engine.audit.canonical import encode
from engine.audit.lowering import Lowering, lowered_to_json
from engine.audit.verify import Verdict
from engine.chain import contracts
from engine.db.tables import Session, table
from engine.errors import InvalidInput, Unavailable
from engine.fsck.check import check
from engine.policy.limits import Limits
from engine.policy.money import AMOUNT_MAX_MICRO_USD
from engine.sessions import life
from engine.sessions.session import SessionView
from tests.sessions.hands import (
    chain_of,
    code,
    discrepancies,
    kinds,
    lower,
    now,
    replayed,
    rule,
    send,
    verified,
)
from tests.sessions.test_delegation import child_of
from tests.world import NO_LIMITS, USD, WORKSPACE, World, records_of

CONFIRMATIONS = 3
_sessions = table(Session)

GRANTED = Limits(50 * USD, 100 * USD, 400 * USD, None, 40 * USD)


@pytest.fixture
def cautious(tmp_path: Path) -> Iterator[World]:
    """A world in which what loosens counts after three more blocks."""
    opened = World(tmp_path / "data", confirmations=CONFIRMATIONS)
    yield opened
    opened.engine.close()


def test_the_owner_lowers_the_limits_and_the_next_payment_is_held_against_them(
    world: World,
) -> None:
    view = world.session(GRANTED, mint_pkp=True)
    assert rule(world, view, 30) == "all"
    lowered = Limits(20 * USD, 100 * USD, 90 * USD, 80 * USD, 10 * USD)
    receipt = lower(world, view, lowered)
    assert rule(world, view, 21) == "per_transaction"
    assert rule(world, view, 11) == "approval_above"
    assert rule(world, view, 10) == "all"
    left = world.engine.remaining(view)
    assert (left.per_day, left.per_week, left.per_month) == (60 * USD, 50 * USD, 40 * USD)
    [record] = [r for r in records_of(world, view.id) if r.kind == "session.lowered"]
    assert record.body == {
        "state": "active",
        "grant_hash": "0x" + view.grant_hash.hex(),
        "limits_micro_usd": lowered.to_json(),
        "account": world.owner.address.lower(),
        "tx_hash": "0x" + receipt.tx_hash.hex(),
        "block_number": receipt.block_number,
        "block_hash": "0x" + receipt.block_hash.hex(),
        "log_index": receipt.logs[0].log_index,
    }
    assert now(world, view).policy.limits == lowered
    world.reopen()
    assert rule(world, view, 11) == "approval_above"
    assert [each.limits for each in replayed(world, view).lowered] == [lowered]
    report = verified(world, view)
    assert report.verdict is Verdict.VERIFIED, report.reason


def test_a_window_is_not_filled_again_by_lower_limits(world: World) -> None:
    view = world.session(replace(GRANTED, approval_above=None), mint_pkp=True)
    for dollars in (40, 30):
        assert rule(world, view, dollars) == "all"
    lower(world, view, Limits(50 * USD, 75 * USD, 400 * USD, None, None))
    assert rule(world, view, 6) == "per_day"
    assert rule(world, view, 5) == "all"
    lower(world, view, Limits(50 * USD, 60 * USD, 400 * USD, None, None))
    assert world.engine.remaining(view).per_day == 0
    assert rule(world, view, 1) == "per_day"
    assert kinds(world, view).count("session.lowered") == 2
    assert replayed(world, view).captured_micro_usd == 75 * USD


def test_what_had_no_limit_has_one_and_what_no_payment_reaches_is_one(world: World) -> None:
    view = world.session(NO_LIMITS, mint_pkp=True)
    lower = (2**63, 2**63, 9 * USD, 2**63, 2**63)
    token_id, grant = int.from_bytes(view.token_id), view.grant.abi_tuple()
    data = contracts.call_data(contracts.SESSION_REGISTRY, "lowerLimits", token_id, grant, lower)
    send(world, world.owner, data)
    world.engine.tick()
    highest = AMOUNT_MAX_MICRO_USD
    assert now(world, view).policy.limits == Limits(highest, highest, 9 * USD, highest, highest)
    assert (rule(world, view, 10), rule(world, view, 9)) == ("per_week", "all")
    assert replayed(world, view).captured_micro_usd == 9 * USD


def test_lower_limits_act_at_first_sight_and_a_registration_after_its_confirmations(
    cautious: World,
) -> None:
    """C03: tighten at once, loosen when it is sure."""
    view = cautious.consent(cautious.create(GRANTED), wait_s=0)
    cautious.engine.tick()
    lowered = replace(GRANTED, per_transaction=5 * USD)
    send(cautious, cautious.owner, contracts.lowering(view.grant, view.token_id, lowered))
    cautious.engine.tick()
    assert now(cautious, view).state == "registering"
    assert now(cautious, view).policy.limits == lowered
    chain_of(cautious).mine(CONFIRMATIONS)
    cautious.engine.tick()
    assert now(cautious, view).state == "active"
    assert (rule(cautious, view, 6), rule(cautious, view, 5)) == ("per_transaction", "all")
    assert kinds(cautious, view)[-2:] == ["session.lowered", "session.registered"]
    replayed(cautious, view)


def test_what_is_delegated_is_bound_by_what_is_lowered_above_it(world: World) -> None:
    granted = replace(GRANTED, approval_above=None)
    parent = world.session(granted, mint_pkp=True)
    how = {"parent_id": parent.id, "await_consent": False, "duration_ms": 3_600_000}
    child = world.create(granted, **how)
    assert rule(world, child, 20) == "all"
    beneath = world.create(granted, **{**how, "parent_id": child.id, "duration_ms": 1_800_000})
    lowered = replace(granted, per_day=30 * USD, per_transaction=12 * USD)
    receipt = lower(world, parent, lowered)
    assert rule(world, child, 13) == rule(world, beneath, 13) == "per_transaction"
    assert rule(world, child, 11) == "per_day"
    assert rule(world, beneath, 11) == "ancestor_budget"
    assert rule(world, child, 10) == "all"
    assert rule(world, parent, 1) == "ancestor_budget"
    with pytest.raises(InvalidInput, match=r"limits\.max_per_transaction"):
        world.create(granted, **how)
    within = world.create(replace(lowered, per_day=5 * USD), **how)
    bound = Lowering("0x" + receipt.tx_hash.hex(), lowered, parent.id)
    world.reopen()
    for view in (child, beneath):
        assert replayed(world, view).lowered == now(world, view).lowered == (bound,)
    assert replayed(world, within).lowered == ()
    report = verified(world, child)
    assert report.verdict is Verdict.VERIFIED, report.reason
    assert "limits of a session above lowered on the chain in block" in report.checks[10].reason
    assert check(world.settings.data_dir / "ledger.sqlite3", patience_s=0).clean


def test_the_threshold_of_a_session_above_binds_what_it_delegated(world: World) -> None:
    parent = world.session(GRANTED, mint_pkp=True)
    how = {"parent_id": parent.id, "await_consent": False, "duration_ms": 3_600_000}
    child = world.create(GRANTED, **how)
    lower(world, parent, replace(GRANTED, approval_above=10 * USD))
    assert (rule(world, child, 11), rule(world, child, 10)) == ("approval_above", "all")
    lower(world, child, replace(GRANTED, per_transaction=9 * USD))
    assert (rule(world, child, 10), rule(world, parent, 10)) == ("per_transaction", "all")
    assert [each.ancestor_id for each in replayed(world, child).lowered] == [parent.id, None]


def test_limits_that_were_lowered_often_since_the_last_look_are_followed_at_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An owner can lower them thousands of times for little; what is written of it each time is all
    of it, so to write it for each would keep everybody else waiting."""
    parent = world.session(GRANTED, mint_pkp=True)
    duration_ms = (parent.expires_ms - parent.created_ms) // 2
    how = {"parent_id": parent.id, "await_consent": False, "duration_ms": duration_ms}
    child = world.create(replace(GRANTED, per_day=20 * USD), **how)
    wanted = [replace(GRANTED, per_day=dollars * USD) for dollars in (19, 18, 17)]
    for limits in wanted:
        send(world, world.owner, contracts.lowering(parent.grant, parent.token_id, limits))
    written: list[int] = []
    monkeypatch.setattr(
        life, "lowered_to_json", lambda all_: written.append(len(all_)) or lowered_to_json(all_)
    )
    world.engine.tick()
    assert written == [3, 3], "for the session, and for the one beneath it"
    for view in (parent, child):
        assert kinds(world, view)[-3:] == ["session.lowered"] * 3
        assert [each.limits for each in replayed(world, view).lowered] == wanted
        assert now(world, view).policy.limits.per_day == 17 * USD


def lower_unread(world: World, lowered: SessionView, unread: SessionView) -> None:
    """Limits of a session are lowered while one that they bind is damaged; then that is mended."""
    row = sa.update(_sessions).where(_sessions.c.id == unread.id)
    as_it_was = encode(unread.grant.to_json()).decode()
    for grant_json in ("{}", as_it_was):
        change = row.values(grant_json=grant_json)
        world.engine.writer.call(lambda batch, change=change: batch.update(change))  # type: ignore[misc]
        if grant_json == "{}":
            lower(world, lowered, replace(GRANTED, per_transaction=5 * USD))
            [found] = discrepancies(world, unread)
            assert found.kind == "session_damaged"


def test_a_child_that_could_not_be_read_follows_what_was_lowered_above_it(world: World) -> None:
    parent = world.session(GRANTED, mint_pkp=True)
    how = {"parent_id": parent.id, "await_consent": False, "duration_ms": 3_600_000}
    child = world.create(GRANTED, **how)
    lower_unread(world, parent, child)
    with pytest.raises(Unavailable, match="lowered above it are not followed yet"):
        world.pay(child, 6)
    world.engine.tick()
    assert (rule(world, child, 6), rule(world, child, 5)) == ("per_transaction", "all")
    replayed(world, child)


def test_a_session_that_is_over_or_is_not_the_one_of_the_event_stays_as_it_is(
    world: World,
) -> None:
    revoked, other = (world.session(GRANTED, mint_pkp=True) for _ in range(2))
    world.engine.revoke_session(WORKSPACE, revoked.id, by="somebody")
    lower(world, revoked, replace(GRANTED, per_day=1 * USD))
    assert "session.lowered" not in kinds(world, revoked) + kinds(world, other)
    assert now(world, revoked).lowered == now(world, other).lowered == ()
    assert rule(world, other, 40) == "all"
    replayed(world, revoked)


def test_an_approval_does_not_pass_limits_that_were_lowered_since(world: World) -> None:
    view = world.session(GRANTED, mint_pkp=True)
    denied = world.pay(view, 45)
    assert denied.approval_id is not None
    lower(world, view, replace(GRANTED, per_transaction=44 * USD))
    key = world.engine.access.operator(str(world.operator_key)).key_id
    approval = world.engine.approvals.grant(WORKSPACE, denied.approval_id, by=key)
    assert (approval.state, approval.code) == ("refused", "LIMIT_EXCEEDED")
    replayed(world, view)


@pytest.mark.parametrize(
    "stored",
    [
        "[]",
        "x",
        "",
        '[{"limits_micro_usd":{"approval_above":null,"per_day":1,"per_month":null,'
        '"per_transaction":null,"per_week":null},"tx_hash":"0x' + "ab" * 32 + '"}]',
    ],
)
def test_a_row_that_tells_of_other_lowered_limits_stops_the_session(
    world: World, stored: str
) -> None:
    view = world.session(GRANTED, mint_pkp=True)
    lower(world, view, replace(GRANTED, per_day=30 * USD))
    assert code(world, view) == "ALLOWED"
    world.engine.close()
    with contextlib.closing(sqlite3.connect(world.settings.data_dir / "ledger.sqlite3")) as raw:
        changed = "UPDATE sessions SET lowered_json = ? WHERE id = ?"
        assert raw.execute(changed, (stored, view.id)).rowcount == 1
        raw.commit()
    world.engine = world._open()
    with pytest.raises(Unavailable) as refused:
        world.pay(view, 1)
    assert refused.value.code == "session_damaged"
    world.engine.tick()
    assert [found.kind for found in discrepancies(world, view)] == ["session_damaged"]
    other = world.session(GRANTED, mint_pkp=True)
    assert code(world, other) == "ALLOWED"


def test_a_session_without_an_identity_on_the_chain_that_was_damaged_goes_on(world: World) -> None:
    """It was looked at with those that may have missed an event, and never had a registration."""
    view = world.session(GRANTED)
    row = sa.update(_sessions).where(_sessions.c.id == view.id)
    assert code(world, view) == "ALLOWED"
    for lowered in ("nothing", "[]"):
        change = row.values(lowered_json=lowered)
        world.engine.writer.call(lambda batch, change=change: batch.update(change))  # type: ignore[misc]
        world.engine.tick()
    world.engine.tick()
    assert now(world, view).state == "active"
    assert code(world, view) == "ALLOWED"


def test_a_session_that_could_not_be_read_follows_what_it_missed(world: World) -> None:
    view = world.session(GRANTED, mint_pkp=True)
    lower_unread(world, view, view)
    with pytest.raises(Unavailable, match="not followed yet"):
        world.pay(view, 6)
    world.engine.tick()
    assert (rule(world, view, 6), rule(world, view, 5)) == ("per_transaction", "all")
    world.engine.tick()
    assert discrepancies(world, view) == []
    replayed(world, view)


@pytest.mark.parametrize("beneath", [False, True], ids=["its own", "of a session above it"])
def test_no_draft_undoes_what_was_lowered_on_the_chain(world: World, beneath: bool) -> None:
    granted = Limits(None, 100 * USD, None, None, None)
    top = world.session(granted, mint_pkp=True)
    view = child_of(world, top) if beneath else top
    lower(world, top, Limits(None, 50 * USD, None, None, None))
    assert (rule(world, view, 40), rule(world, view, 15)) == ("all", "per_day")

    def under(limits: Limits) -> Backtest:
        return world.engine.explanations.backtest(
            WORKSPACE, view.id, lambda policy: replace(policy, limits=limits)
        )

    for limits in (granted, NO_LIMITS):  # the first is what is shown of the session
        assert (under(limits).differences, under(limits).drafted) == ((), Total(1, 40 * USD))
    drafted = [each.drafted.rule for each in under(Limits(None, 30 * USD, *[None] * 3)).differences]
    assert drafted == ["per_day", "all"]
