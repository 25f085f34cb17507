"""A workspace that is closed on the chain: all of it ends at first sight, and for good."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from engine.audit.canonical import encode
from engine.audit.verify import Verdict
from engine.chain import contracts
from engine.db.tables import Session, table
from engine.errors import Conflict
from engine.sessions.session import SessionView
from tests.sessions.hands import (
    chain_of,
    close_workspace,
    code,
    discrepancies,
    now,
    open_workspace,
    replayed,
    send,
    verified,
)
from tests.sessions.seen import events
from tests.world import WORKSPACE, World, records_of

CONFIRMATIONS = 3

_sessions = table(Session)


@pytest.fixture
def cautious(tmp_path: Path) -> Iterator[World]:
    """A world in which what loosens counts after three more blocks."""
    opened = World(tmp_path / "data", confirmations=CONFIRMATIONS)
    yield opened
    opened.engine.close()


def refused(world: World, workspace: str = WORKSPACE, **changes: bool) -> str:
    """Why no session can be made."""
    with pytest.raises(Conflict) as conflict:
        world.create(workspace=workspace, **changes)
    return conflict.value.code


def closings(world: World, workspace: str = WORKSPACE) -> list[dict[str, object]]:
    """What the log tells of them."""
    return [dict(r.body) for r in records_of(world, workspace) if r.kind == "workspace.closed"]


def test_a_closing_ends_every_session_of_the_workspace_and_no_other(own: World) -> None:
    own.engine.access.create_workspace("other", "Another tenant")
    anchored, awaiting = own.session(mint_pkp=True), own.create()
    child = own.create(parent_id=anchored.id, await_consent=False, duration_ms=3_600_000)
    unlisted = own.session()
    expired_or_over = own.session()
    own.engine.revoke_session(WORKSPACE, expired_or_over.id, by="somebody")
    elsewhere = own.create(workspace="other", mint_pkp=False)
    receipt = close_workspace(own)
    own.engine.tick()
    for view in (anchored, awaiting, child, unlisted):
        assert now(own, view).state == "revoked"
        assert code(own, view) == "SESSION_REVOKED"
        [record] = [r for r in records_of(own, view.id) if r.kind == "session.revoked"]
        assert record.body == {
            "by": "chain",
            "event": "WorkspaceClosed",
            "state": "revoked",
            "account": own.engine.deployment.operator.address.lower(),
            "epoch": 1,
            "tx_hash": "0x" + receipt.tx_hash.hex(),
            "block_number": receipt.block_number,
            "block_hash": "0x" + receipt.block_hash.hex(),
            "log_index": receipt.logs[0].log_index,
        }
        replayed(own, view)
    assert code(own, elsewhere) == "ALLOWED"
    [before] = [r for r in records_of(own, expired_or_over.id) if r.kind == "session.revoked"]
    assert before.body["by"] == "somebody"
    assert [closing["epoch"] for closing in closings(own)] == [1]
    report = verified(own, anchored)
    assert report.verdict is Verdict.VERIFIED, report.reason


def test_nothing_is_made_in_a_closed_workspace_until_its_opening_is_confirmed(
    cautious: World,
) -> None:
    close_workspace(cautious)
    assert cautious.create(mint_pkp=False).state == "active", "nobody has looked"
    cautious.engine.tick()
    assert refused(cautious) == refused(cautious, mint_pkp=False) == "workspace_closed"
    open_workspace(cautious)
    for _ in range(CONFIRMATIONS):
        cautious.engine.tick()
        assert refused(cautious) == "workspace_closed"
        chain_of(cautious).mine()
    cautious.engine.tick()
    view = cautious.consent(cautious.create(), wait_s=0)
    cautious.engine.tick()
    chain_of(cautious).mine(CONFIRMATIONS)
    cautious.engine.tick()
    assert code(cautious, view) == "ALLOWED"


def test_opened_again_it_has_new_sessions_and_the_old_stay_ended(own: World) -> None:
    old = [own.session(mint_pkp=True), own.session()]
    for _ in range(2):
        close_workspace(own)
        own.engine.tick()
        open_workspace(own)
        own.engine.tick()
        new = [own.session(mint_pkp=True), own.session()]
        assert [code(own, view) for view in new] == ["ALLOWED"] * 2
        own.reopen()
        own.engine.tick()
        assert [code(own, view) for view in new] == ["ALLOWED"] * 2
        assert {code(own, view) for view in old} == {"SESSION_REVOKED"}
        old += new
    assert [closing["epoch"] for closing in closings(own)] == [1, 2]


def registered_by_hand(world: World, view: SessionView) -> None:
    """The operator's registration, before the engine looks at the chain."""
    operator = world.engine.deployment.operator
    send(world, operator, contracts.registering(view.grant, view.public_key))


def test_what_was_registered_after_the_closing_that_is_seen_late_lives_on(own: World) -> None:
    old = own.session(mint_pkp=True)
    unsent = own.create(await_consent=False, wait_s=0)
    late = own.create(await_consent=False, wait_s=0)
    close_workspace(own)
    open_workspace(own)
    registered_by_hand(own, late)
    own.engine.tick()
    assert [now(own, view).state for view in (old, unsent)] == ["revoked"] * 2
    assert code(own, late) == "ALLOWED"
    assert len(closings(own)) == 1


def test_what_ended_with_its_workspace_is_not_revoked_on_the_chain_one_by_one(own: World) -> None:
    ended = [own.session(mint_pkp=True) for _ in range(2)]
    close_workspace(own)
    for _ in range(3):
        own.engine.tick()
    open_workspace(own)
    own.engine.tick()
    after = own.session(mint_pkp=True)
    own.engine.revoke_session(WORKSPACE, after.id, by="somebody")
    own.engine.tick()
    assert [len(events(own.engine, "SessionRevoked", view)) for view in ended] == [0, 0]
    assert len(events(own.engine, "SessionRevoked", after)) == 1


@pytest.mark.parametrize("tightened", ["closed", "revoked"])
def test_a_session_whose_row_cannot_be_read_is_ended_with_the_others(
    own: World, tightened: str
) -> None:
    damaged, other = own.session(mint_pkp=True), own.session(mint_pkp=True)
    row = sa.update(_sessions).where(_sessions.c.id == damaged.id)
    own.engine.writer.call(lambda batch: batch.update(row.values(grant_json="{}")))
    if tightened == "closed":
        close_workspace(own)
    else:
        send(own, own.owner, contracts.revoking(damaged.grant, damaged.token_id))
    own.engine.tick()
    assert own.engine.lead.chain_fault is None
    as_it_was = encode(damaged.grant.to_json()).decode()
    own.engine.writer.call(lambda batch: batch.update(row.values(grant_json=as_it_was)))
    assert code(own, damaged) == "SESSION_REVOKED"
    expected = "SESSION_REVOKED" if tightened == "closed" else "ALLOWED"
    assert code(own, other) == expected
    if tightened == "revoked":
        assert [found.kind for found in discrepancies(own, damaged)] == ["session_damaged"]
