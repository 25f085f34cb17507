"""Engines that share one database of PostgreSQL: nothing over a limit, nothing forgotten.

Each engine here is what a server process has; that they are in one process is not known to them.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from engine.chain import contracts
from engine.chain.indexer import REORG_DEPTH_MAX
from engine.errors import CannotStart, Conflict, Unauthenticated, Unavailable
from engine.ledger.batch import Batch
from engine.ledger.payment import Payment
from engine.policy.limits import Limits
from engine.sessions.session import SessionView
from tests.anvil_world import AnvilWithContracts, anvil_with_contracts, tick_until, wait_until
from tests.durability.pools import SharedRecords
from tests.ledger.approving import (
    ABOVE_50,
    asked_for,
    grant,
    new_key,
    replayed,
    revoke_key,
    shown,
    told,
)
from tests.ledger.asking import ask, at_once
from tests.ledger.oracle import alter, query, read_records
from tests.servers import PostgresServer
from tests.webhooks.receiver import Receiver
from tests.world import USD, WORKSPACE, World, records_of

STORES = ("postgresql",)
DAY = Limits(None, 100 * USD, None, None, None)
KEK = "the same for every server"


@pytest.fixture(scope="module")
def anvil() -> Iterator[AnvilWithContracts]:
    with anvil_with_contracts() as started:
        yield started


@contextmanager
def engines(
    anvil: AnvilWithContracts, url: str, directory: Path, count: int = 2, **changes: Any
) -> Iterator[list[World]]:
    """So many engines on one database; the first one leads."""
    with ExitStack() as opened:
        yield [
            opened.enter_context(
                anvil.world(directory / str(number), database=url, kek=KEK, **changes)
            )
            for number in range(count)
        ]


@pytest.fixture
def pair(
    anvil: AnvilWithContracts, database_url: str, tmp_path: Path
) -> Iterator[tuple[World, World]]:
    """Two of them."""
    with engines(anvil, database_url, tmp_path) as (first, second):
        yield first, second


def remaining(world: World, view: Any) -> int | None:
    return world.engine.remaining(view).per_day


def test_what_one_decides_the_other_knows(pair: tuple[World, World]) -> None:
    first, second = pair
    view = first.session(DAY)
    hold = first.pay(view, 60, hold=True, key="k")
    again = second.pay(view, 60, hold=True, key="k")
    assert (again.id, again.replayed) == (hold.id, True)
    assert second.pay(view, 41).state == "denied"
    assert second.engine.ledger.capture(WORKSPACE, hold.id, 10 * USD).result().state == "captured"
    assert remaining(first, view) == remaining(second, view) == 90 * USD
    assert first.pay(view, 90).state == "captured"
    assert second.pay(view, 1).decision["code"] == "LIMIT_EXCEEDED"


def test_a_revocation_by_one_stops_the_other_at_once(pair: tuple[World, World]) -> None:
    first, second = pair
    view = first.session(DAY)
    assert second.pay(view, 1).state == "captured"
    first.engine.revoke_session(WORKSPACE, view.id, by="test")
    assert second.pay(view, 1).decision["code"] == "SESSION_REVOKED"


def test_nothing_is_over_a_limit_and_all_of_it_is_used(
    anvil: AnvilWithContracts, database_url: str, tmp_path: Path
) -> None:
    with engines(anvil, database_url, tmp_path, 3) as worlds:
        views = [worlds[0].session(DAY) for _ in range(4)]

        def call(caller: int) -> list[Payment]:
            world = worlds[caller % 3]
            asked = [
                ask(world, views[(caller + n) % 4], (1 + n % 3) * USD, key=f"{caller}-{n}")
                for n in range(40)
            ]
            return [future.result() for future in asked]

        answers = at_once(12, call)
        assert [answer for answer in answers if isinstance(answer, Exception)] == []
        for view in views:
            assert remaining(worlds[0], view) == 0
        records = SharedRecords({})
        records.feed(read_records(database_url))
        assert len(records.decided) == 12 * 40
        for world in worlds:
            assert world.engine.lead.sequence() == len(records.leaves)
            assert world.engine.writer.fault is None
        roots = {world.engine._log.tree.root() for world in worlds}
        assert len(roots) == 1, "one log, whoever builds it"


def test_a_transaction_that_takes_its_time_is_not_skipped(pair: tuple[World, World]) -> None:
    """It was numbered first and commits last; both are in the log, and so is each once."""
    first, second = pair
    slow, quick = first.session(DAY), first.session(DAY)
    numbered, commit = threading.Event(), threading.Event()

    def wait(batch: Batch) -> None:
        batch.record(slow.stream, "test.slow", {})
        batch.flush()
        numbered.set()
        assert commit.wait(20)

    waiting = first.engine.writer.submit(wait, slow.id)
    assert numbered.wait(20)
    assert second.pay(quick, 1).state == "captured"
    before = second.engine.lead.sequence()
    commit.set()
    waiting.result()
    assert second.engine.lead.sequence() == before + 1
    [(slow_batch, slow_leaf)] = placed(second, slow.id, last=True)
    [(quick_batch, quick_leaf)] = placed(second, quick.id, last=True)
    assert slow_batch < quick_batch
    assert slow_leaf == before > quick_leaf
    leaves = query(first.store, "SELECT first_leaf FROM log_batches ORDER BY first_leaf")
    assert len(set(leaves)) == len(leaves)


def test_who_leads_delivers(anvil: AnvilWithContracts, database_url: str, tmp_path: Path) -> None:
    to_here = {"webhook_networks": "127.0.0.0/8"}
    with Receiver() as receiver, engines(anvil, database_url, tmp_path, **to_here) as (one, two):
        two.engine.webhooks.create(WORKSPACE, receiver.url, ["payment.created"], by="test")
        stream, numbered, commit = one.session().stream, threading.Event(), threading.Event()

        def wait(batch: Batch) -> None:
            batch.record(stream, "test.slow", {})
            batch.event(stream, "payment.created", {})
            numbered.set()
            assert commit.wait(20)

        slow = two.engine.writer.submit(wait, stream.id)
        assert numbered.wait(20)
        quick = one.pay(one.session(), 1, hold=True).session_id
        one.engine.tick()
        commit.set()
        slow.result()
        two.engine.tick()
        assert receiver.ids() == [f"evt_{quick}_1"]
        one.engine.tick()
        assert receiver.ids() == [f"evt_{quick}_1", f"evt_{stream.id}_1"]


def placed(world: World, stream: str, *, last: bool) -> list[tuple[Any, ...]]:
    rows = query(
        world.store,
        "SELECT b.id, b.first_leaf + r.id - b.id FROM records r JOIN log_batches b "
        "ON r.id / 1048576 = b.id / 1048576 WHERE stream = ? ORDER BY seq",
        stream,
    )
    return rows[-1:] if last else rows


def test_limits_that_the_leader_saw_lowered_bind_in_every_process(
    anvil: AnvilWithContracts, pair: tuple[World, World]
) -> None:
    first, second = pair
    parent = first.session(DAY, mint_pkp=True)
    how = {"parent_id": parent.id, "await_consent": False, "duration_ms": 3_600_000}
    child = first.create(DAY, **how)
    assert [second.pay(view, 5).state for view in (parent, child)] == ["captured"] * 2
    lower = contracts.lowering(parent.grant, parent.token_id, replace(DAY, per_day=12 * USD))
    anvil.transact(anvil.owner, to=anvil.deployed.registry, data=lower)
    tick_until(first, lambda: bool(first.engine.sessions.get(WORKSPACE, parent.id).lowered))
    assert second.pay(child, 3).decision["rule"] == "ancestor_budget"
    assert second.pay(parent, 3).decision["rule"] == "ancestor_budget"
    assert second.pay(child, 2).state == "captured"
    for view in (parent, child):
        replayed(second, view)


def test_one_leads_and_another_follows_when_it_is_gone(pair: tuple[World, World]) -> None:
    first, second = pair
    assert (first.engine.database.leads(), second.engine.database.leads()) == (True, False)
    view = first.session(mint_pkp=True)
    second.pay(view, 1)
    first.engine.close()
    wait_until(second.engine.database.leads)  # PostgreSQL hears of it a little later
    second.engine.tick()
    assert second.pay(view, 1).state == "captured"
    anchor = second.engine.anchor()
    assert anchor is not None
    assert anchor.size == second.engine.ready()["records"]
    first.engine = first._open()
    assert not first.engine.database.leads()


def test_a_leader_that_lost_its_connection_does_not_lead(pair: tuple[World, World]) -> None:
    first, second = pair
    query(
        first.store,
        "SELECT pg_terminate_backend(pid) FROM pg_locks "
        "WHERE locktype = 'advisory' AND objid = 3 AND granted "
        "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
    )
    wait_until(second.engine.database.leads)
    assert not first.engine.database.leads()
    first.engine.tick()
    assert first.engine.writer.fault is None


def test_a_follower_has_its_anchor_made_and_writes_evidence(
    anvil: AnvilWithContracts, pair: tuple[World, World]
) -> None:
    first, second = pair
    view = first.session(mint_pkp=True)
    second.pay(view, 1)
    stop = threading.Event()

    def lead() -> None:
        while not stop.is_set():
            first.engine.tick()
            time.sleep(0.02)

    leading = threading.Thread(target=lead)
    leading.start()
    try:
        anchor = second.engine.anchor()
    finally:
        stop.set()
        leading.join()
    assert anchor is not None
    assert anchor.size == second.engine.ready()["anchored"]
    tick_until(first, lambda: first.engine.lead.anchorer.latest().state == "final")  # type: ignore[union-attr]
    assert b'"payment.decided"' in second.engine.evidence(WORKSPACE, view.id).replace(b"\\", b"")


def test_the_leaders_doubt_stops_everybody(
    pair: tuple[World, World], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = pair
    view = first.session(mint_pkp=True)
    assert second.pay(view, 1).state == "captured"
    first.engine.chain_watch.lost()
    first.engine.writer.call(first.engine.lead._tell)
    with pytest.raises(Unavailable, match="chain"):
        second.pay(view, 1)
    first.engine.tick()
    assert second.pay(view, 1).state == "captured"
    first.engine.writer.call(lambda batch: first.engine.lead._stop_all(batch, "forged"))
    with pytest.raises(Unavailable, match="forged"):
        second.pay(view, 1)


@contextmanager
def lost_too_deep(
    anvil: AnvilWithContracts, world: World
) -> Iterator[tuple[SessionView, SessionView]]:
    """More than is remembered is replaced: there is a session that stays, one that was in it."""
    stays = world.session(mint_pkp=True)
    anvil.mine(REORG_DEPTH_MAX)
    goes = world.session(mint_pkp=True)
    anvil.mine(REORG_DEPTH_MAX)
    world.engine.tick()
    with anvil.idle():
        anvil.rpc("anvil_reorg", REORG_DEPTH_MAX + 2, [])
        yield stays, goes


def refuses(world: World, view: SessionView) -> None:
    with pytest.raises(Unavailable, match="replaced more than") as refused:
        world.pay(view, 1)
    assert refused.value.code == "chain_reorganised"
    assert "replaced more than" in world.engine.ready()["faults"][0]


def goes_on(world: World, stays: SessionView, goes: SessionView) -> None:
    assert world.pay(stays, 1).state == "captured"
    assert world.pay(goes, 1).decision["code"] == "SESSION_NOT_ANCHORED"
    assert world.engine.ready()["faults"] == []


def test_a_chain_that_was_reorganised_too_deep_stops_everybody_and_whoever_is_asked_resumes_it(
    anvil: AnvilWithContracts, pair: tuple[World, World]
) -> None:
    first, second = pair
    with lost_too_deep(anvil, first) as views:
        first.engine.tick()
        for world in pair:
            refuses(world, views[0])
        second.engine.resume_chain(by="somebody")
        with pytest.raises(Conflict):
            first.engine.resume_chain(by="somebody else")
        first.engine.tick()
        for world in pair:
            goes_on(world, *views)


def test_who_takes_over_a_chain_that_was_reorganised_too_deep_leads_and_says_so(
    anvil: AnvilWithContracts, pair: tuple[World, World]
) -> None:
    """The one that led is gone before it has seen it."""
    first, second = pair
    with lost_too_deep(anvil, first) as views:
        first.engine.close()
        wait_until(second.engine.database.leads)
        second.engine.tick()
        assert second.engine.lead.leads
        refuses(second, views[0])
        first.engine = first._open()
        refuses(first, views[0])
        second.engine.resume_chain(by="somebody")
        second.engine.tick()
        for world in pair:
            goes_on(world, *views)


def test_damage_that_one_noted_and_that_is_mended_is_closed_by_who_loads_it(
    pair: tuple[World, World],
) -> None:
    first, second = pair
    view = first.session(DAY)
    first.pay(view, 1)
    change = "UPDATE decisions SET captured = captured + ? WHERE session_id = ?"
    assert alter(first.store, change, 1, view.id) == 1
    first.engine.ledger.memory.accounts.known.clear()
    with pytest.raises(Unavailable, match="damaged"):
        first.pay(view, 1)
    first.engine.tick()
    assert [each.kind for each in first.engine.reconciler.open()] == ["session_damaged"]
    assert alter(first.store, change, -1, view.id) == 1
    second.engine.tick()
    assert second.pay(view, 1).state == "captured"
    second.engine.tick()
    assert first.engine.reconciler.open() == []


def test_a_server_that_is_killed_and_comes_back_lost_nothing(
    anvil: AnvilWithContracts, tmp_path: Path
) -> None:
    with (
        PostgresServer() as postgres,
        postgres.database() as url,
        engines(anvil, url, tmp_path, 1) as [world],
    ):
        view = world.session(DAY)
        paid = world.pay(view, 60, key="before")
        postgres.kill()
        with pytest.raises((Unavailable, sa.exc.OperationalError)):
            world.pay(view, 1, key="meanwhile")
        postgres.start()
        again = world.pay(view, 60, key="before")
        assert (again.id, again.replayed) == (paid.id, True)
        assert world.pay(view, 41).state == "denied"
        assert world.pay(view, 40).state == "captured"
        world.engine.tick()
        assert world.engine.ready()["ready"]


@pytest.mark.parametrize("setting", ["fsync", "full_page_writes"])
def test_a_server_that_could_lose_commits_is_refused(
    anvil: AnvilWithContracts, tmp_path: Path, setting: str
) -> None:
    with (
        PostgresServer({setting: "off"}) as postgres,
        postgres.database() as url,
        pytest.raises(CannotStart, match=f"{setting} = off"),
        engines(anvil, url, tmp_path, 1),
    ):
        pass


def test_commits_are_synchronous_whatever_the_server_says(
    anvil: AnvilWithContracts, tmp_path: Path
) -> None:
    with (
        PostgresServer({"synchronous_commit": "off"}) as postgres,
        postgres.database() as url,
        engines(anvil, url, tmp_path, 1) as [world],
    ):
        shown = sa.text("SHOW synchronous_commit")
        assert world.engine.database.writer.execute(shown).scalar_one() == "on"


def test_an_approval_is_granted_in_whichever_process(pair: tuple[World, World]) -> None:
    first, second = pair
    keys = [new_key(first) for _ in range(2)]
    view = first.session(ABOVE_50, approvals_required=2)
    waiting = asked_for(first, view)
    assert second.pay(view, 60).approval_id == waiting.id
    assert grant(second, waiting, keys[0]).state == "waiting"
    after = grant(first, waiting, keys[1])
    assert after.state == "granted"
    assert grant(second, waiting, keys[1]) == after
    assert remaining(second, view) == 140 * USD
    assert second.pay(view, 60).approval_id not in (None, waiting.id)
    assert len(replayed(second, view).allowed_ms) == 1


@pytest.mark.parametrize("against", ["nobody", "a denial", "a revocation", "a restriction"])
def test_grants_in_two_processes_make_one_payment(pair: tuple[World, World], against: str) -> None:
    first, second = pair
    keys = [new_key(first) for _ in range(6)]
    for _ in range(5):
        view = first.session(ABOVE_50, approvals_required=3)
        waiting = asked_for(first, view)
        calls: list[Callable[[], Any]] = [
            partial(grant, pair[number % 2], waiting, keys[number % 6]) for number in range(12)
        ]
        if against == "a denial":
            deny = second.engine.approvals.deny
            calls.append(partial(deny, WORKSPACE, waiting.id, by=keys[0]))
        elif against == "a revocation":
            revoke = second.engine.revoke_session
            calls.append(partial(revoke, WORKSPACE, view.id, by="test"))
        elif against == "a restriction":
            restrict = second.engine.sessions.restrict
            calls.append(partial(restrict, WORKSPACE, view.id, ("never merchant x",), by="test"))
        answers = at_once(len(calls), lambda number, calls=calls: calls[number]())
        errors = [answer for answer in answers if isinstance(answer, Exception)]
        assert {type(error) for error in errors} <= {Conflict}
        after = shown(second, waiting.id)
        ends = {"nobody": ["granted"], "a denial": ["granted", "denied"]}
        assert after.state in ends.get(against, ["granted", "refused"])
        paid = query(
            first.store,
            "SELECT count(*) FROM decisions WHERE session_id = ? AND state != 'denied'",
            view.id,
        )
        assert paid == [(1 if after.state == "granted" else 0,)]
        kinds = told(first, view)
        assert kinds.count("approval.granted") == len(after.grants) <= 3
        assert remaining(first, view) == remaining(second, view)
        replayed(first, view)


def test_a_key_is_not_revoked_in_the_middle_of_a_grant(pair: tuple[World, World]) -> None:
    """Whoever revokes first, the other way of it did not happen: no grant after the revocation."""
    first, second = pair
    for _ in range(10):
        lost, other = new_key(first), new_key(first)
        view = first.session(ABOVE_50, approvals_required=2)
        waiting = asked_for(first, view)
        grant(first, waiting, other)
        granted, _ = at_once(
            2,
            lambda n, waiting=waiting, lost=lost: (
                grant(second, waiting, lost) if n == 0 else revoke_key(first, lost)
            ),
        )
        refused = isinstance(granted, Unauthenticated)
        assert shown(first, waiting.id).state == ("waiting" if refused else "granted")
        [(revoked_ms,)] = query(first.store, "SELECT revoked_ms FROM api_keys WHERE id = ?", lost)
        times = [r.time_ms for r in records_of(first, view) if r.body.get("key") == lost]
        assert len(times) == (0 if refused else 1)
        assert all(time_ms <= revoked_ms for time_ms in times)


def test_the_sweep_of_the_leader_ends_what_another_opened(
    anvil: AnvilWithContracts, database_url: str, tmp_path: Path
) -> None:
    with engines(anvil, database_url, tmp_path, approval_ttl_s=1) as (first, second):
        waiting = asked_for(second, second.session(ABOVE_50))

        def over() -> bool:
            rows = query(first.store, "SELECT state FROM approvals")
            return rows == [("expired",)]

        tick_until(first, over)
        with pytest.raises(Conflict, match="expired"):
            grant(second, waiting, new_key(second))
