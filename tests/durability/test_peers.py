"""Processes that share one PostgreSQL: one that is frozen inside a transaction, one that dies
before it hears of its commit, and two whose clocks are wrong.

PostgreSQL ends the transaction of somebody who says nothing for a minute. No test waits for that:
it has PostgreSQL do it at once.
"""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.db import postgres as engine_postgres
from engine.errors import Unavailable
from engine.policy.limits import Limits
from engine.sessions.session import NewSession
from tests.anvil_world import AnvilWithContracts, anvil_with_contracts, wait_until
from tests.durability.peer import Peer, peer
from tests.durability.pools import SharedRecords, read_log
from tests.ledger.oracle import query
from tests.world import NO_LIMITS, USD, WORKSPACE, World

KEK = "the same for every server"
DAY = Limits(None, 100 * USD, None, None, None)
LOCK_TIMEOUT_MS = 100
HOLD_TTL_S = 100
WRONG_MS = 5 * 60_000


@pytest.fixture(scope="module")
def anvil() -> Iterator[AnvilWithContracts]:
    with anvil_with_contracts() as started:
        yield started


@pytest.fixture
def world(
    anvil: AnvilWithContracts,
    database_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[World]:
    """It waits for a lock a little shorter than it does for its users."""
    monkeypatch.setattr(engine_postgres, "LOCK_TIMEOUT_MS", LOCK_TIMEOUT_MS)
    given = {"database": database_url, "kek": KEK, "hold_ttl_s": HOLD_TTL_S}
    with anvil.world(tmp_path / "data", **given) as opened:
        yield opened


@pytest.fixture
def frozen(world: World, tmp_path: Path) -> Iterator[tuple[Peer, str]]:
    """A process that stopped after it had decided 60 dollars of a session, and the session."""
    view = world.session(DAY)
    with peer(world.settings, tmp_path / "peer") as opened:
        assert opened.ask("pay", "first", view.id, 1, False)["state"] == "captured"
        opened.ask("freeze")
        opened.tell("pay", "k", view.id, 60 * USD, False)
        wait_until(lambda: opened.frozen)
        yield opened, view.id


def used(world: World, session: str) -> int:
    """By the records, every one of which was right."""
    world.engine.lead.sequence()
    records = SharedRecords({})
    records.feed(read_log(str(world.store)))
    budget = records.budgets[session]
    return budget.used("per_day", 0)


def test_the_others_are_refused_or_not_concerned(world: World, frozen: tuple[Peer, str]) -> None:
    _, session = frozen
    view = world.engine.sessions.get(WORKSPACE, session)
    with pytest.raises(Unavailable, match="same key"):
        world.pay(view, 60)
    with pytest.raises(Unavailable):
        world.engine.revoke_session(WORKSPACE, session, by="test")
    assert world.pay(world.session(DAY), 60).state == "captured"
    assert used(world, session) == 1


def test_one_that_goes_on_has_paid(world: World, frozen: tuple[Peer, str]) -> None:
    thawed, session = frozen
    view = world.engine.sessions.get(WORKSPACE, session)
    with pytest.raises(Unavailable):
        world.pay(view, 41)
    thawed.process.send_signal(signal.SIGCONT)
    answer = thawed.answer()
    assert (answer["state"], answer["replayed"]) == ("captured", False)
    assert world.pay(view, 40).state == "denied"
    assert world.pay(view, 39).state == "captured"
    assert used(world, session) == 99 * USD + 1


def test_one_that_goes_on_too_late_has_not(world: World, frozen: tuple[Peer, str]) -> None:
    """What it had decided is gone with its transaction, and is decided again when it is asked."""
    thawed, session = frozen
    view = world.engine.sessions.get(WORKSPACE, session)
    of_it = (
        "FROM pg_stat_activity WHERE datname = current_database() AND state = 'idle in transaction'"
    )
    wait_until(lambda: bool(query(str(world.store), f"SELECT pid {of_it}")))  # it may say so late
    assert query(str(world.store), f"SELECT pg_terminate_backend(pid) {of_it}") == [(True,)]
    assert world.pay(view, 60).state == "captured"
    thawed.process.send_signal(signal.SIGCONT)
    assert thawed.answer() == "service_unavailable"
    answer = thawed.ask("pay", "k", session, 60 * USD, False)
    assert (answer["rule"], answer["replayed"]) == ("per_day", False)
    assert thawed.ask("pay", "other", session, 39 * USD, False)["state"] == "captured"
    assert used(world, session) == 99 * USD + 1


def test_one_that_goes_on_after_a_revocation_is_refused(
    world: World, frozen: tuple[Peer, str]
) -> None:
    thawed, session = frozen
    query(
        str(world.store),
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND state = 'idle in transaction'",
    )
    world.engine.revoke_session(WORKSPACE, session, by="test")
    thawed.process.send_signal(signal.SIGCONT)
    assert thawed.answer() == "service_unavailable"
    assert thawed.ask("pay", "k", session, 60 * USD, False)["code"] == "SESSION_REVOKED"


def database_ms(world: World) -> int:
    now = "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint"
    [(now_ms,)] = query(str(world.store), now)
    return int(now_ms)


def test_wrong_clocks_of_hosts_decide_nothing(world: World, tmp_path: Path) -> None:
    view = world.session(DAY)
    with (
        peer(world.settings, tmp_path / "fast", WRONG_MS) as fast,
        peer(world.settings, tmp_path / "slow", -WRONG_MS) as slow,
    ):
        assert fast.ask("clock") - slow.ask("clock") > 2 * WRONG_MS - HOLD_TTL_S * 1000
        answers, earliest_ms = [], database_ms(world)
        for number in range(24):
            party = (fast, slow)[number % 2]
            answers.append(party.ask("pay", f"{number}", view.id, 5 * USD, number % 3 == 0))
            party.ask("tick")
        latest_ms = database_ms(world)
        times = [answer["decided_ms"] for answer in answers]
        assert times == sorted(times)
        assert earliest_ms <= times[0] <= times[-1] <= latest_ms
        assert [answer["state"] for answer in answers].count("denied") == 4
        held = [answer for answer in answers if answer["state"] == "held"]
        assert {a["expires_ms"] - a["decided_ms"] for a in held} == {HOLD_TTL_S * 1000}
        again = [slow.ask("pay", f"{n}", view.id, 5 * USD, n % 3 == 0) for n in range(24)]
        assert [(a["id"], a["state"]) for a in again] == [(a["id"], a["state"]) for a in answers]
    assert used(world, view.id) == 100 * USD


@pytest.mark.parametrize("skew_ms", [WRONG_MS, -WRONG_MS], ids=["fast", "slow"])
def test_a_session_that_a_wrong_clock_opened_begins_now(
    world: World, tmp_path: Path, skew_ms: int
) -> None:
    new = NewSession(
        type="agent",
        label=None,
        agent_id="bot",
        agent_name=None,
        user_wallet=world.owner.address,
        owner=None,
        limits=NO_LIMITS,
        permissions=(),
        merchants=(),
        tokens=(),
        chains=(),
        duration_ms=WRONG_MS // 2,
        mint_pkp=False,
        await_consent=False,
        metadata_json="{}",
    )
    with peer(world.settings, tmp_path / "peer", skew_ms) as wrong:
        session = wrong.ask("create", WORKSPACE, new)
        assert wrong.ask("pay", "theirs", session, USD, False)["state"] == "captured"
    view = world.engine.sessions.get(WORKSPACE, session)
    assert world.pay(view, 1).state == "captured"
    assert abs(view.created_ms - database_ms(world)) < WRONG_MS // 2


def test_what_somebody_committed_and_did_not_live_to_say_is_found_by_its_key(
    world: World, tmp_path: Path
) -> None:
    view = world.session(DAY)
    with peer(world.settings, tmp_path / "peer") as opened:
        opened.ask("die")
        opened.tell("pay", "k", view.id, 60 * USD, False)
        with pytest.raises(EOFError):
            opened.answer()
    found = world.pay(view, 60, key="k")
    assert (found.state, found.replayed) == ("captured", True)
    assert used(world, view.id) == 60 * USD
    assert world.pay(view, 41).state == "denied"


def test_what_another_anchored_since_its_own_start_contradicts_nobody(
    world: World, anvil: AnvilWithContracts, database_url: str, tmp_path: Path
) -> None:
    """It is asked at the end of a start, and the one that leads goes on meanwhile."""
    with anvil.world(tmp_path / "beside", database=database_url, kek=KEK) as beside:
        assert world.pay(world.session(DAY), 1).state == "captured"
        anchor = world.engine.anchor()
        world.engine.tick()
        assert anchor is not None
        assert world.engine.lead.leads
        assert not beside.engine.lead.leads
        assert beside.engine.lead.contradiction() is None
