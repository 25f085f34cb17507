"""A chain that left more behind than is remembered of it: somebody has to look."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.audit.record import decode_record
from engine.chain.gateway import BlockHeader, ChainUnavailable
from engine.chain.indexer import REORG_DEPTH_MAX
from engine.errors import Conflict, Unavailable
from engine.sessions.session import SessionView
from tests.anvil_world import AnvilWithContracts, anvil_with_contracts, tick_until
from tests.chain.following import Follower, indexed, sources_of
from tests.cli.processes import called, one_line
from tests.ledger.oracle import query
from tests.rest.served import Served, refused
from tests.sessions.seen import events
from tests.world import WORKSPACE, World

RESUME = "/api/v1/chain/resume"
DEPTH = REORG_DEPTH_MAX + 1


@pytest.fixture(scope="module")
def anvil() -> Iterator[AnvilWithContracts]:
    """A chain that these tests may rewrite."""
    with anvil_with_contracts() as running:
        yield running


@pytest.fixture
def served(anvil: AnvilWithContracts, tmp_path: Path) -> Iterator[Served]:
    """An installation on it, over HTTP."""
    with Served(tmp_path / "data", **anvil.settings) as opened:
        opened.world.owner = anvil.owner
        yield opened


@pytest.fixture
def world(served: Served) -> World:
    return served.world


def lose(anvil: AnvilWithContracts, world: World) -> tuple[SessionView, SessionView]:
    """Replace one block more than is remembered: a session that stays, one that was in them."""
    stays = world.session(mint_pkp=True)
    anvil.mine()
    goes = world.session(mint_pkp=True)
    [event] = events(world.engine, "SessionRegistered", goes)
    anvil.mine(event.log.block_number + REORG_DEPTH_MAX - anvil.gateway.head().number)
    world.engine.tick()
    assert (code(world, stays), code(world, goes)) == ("ALLOWED", "ALLOWED")
    anvil.rpc("evm_setAutomine", False)
    anvil.rpc("anvil_reorg", DEPTH, [])
    assert events(world.engine, "SessionRegistered", goes) == []
    world.engine.tick()
    return stays, goes


@pytest.fixture(autouse=True)
def _mining(anvil: AnvilWithContracts) -> Iterator[None]:
    yield
    anvil.rpc("evm_setAutomine", True)
    anvil.mine()


def code(world: World, view: SessionView) -> str:
    return str(world.pay(view, 1).decision["code"])


def stopped(world: World, *views: SessionView) -> None:
    """Assert that nothing is decided for them, and that everybody is told why."""
    assert world.engine.ready()["ready"] is False
    [fault] = world.engine.ready()["faults"]
    assert f"replaced more than {REORG_DEPTH_MAX} blocks" in fault
    assert "tallystick resume-chain" in fault
    for view in views:
        with pytest.raises(Unavailable, match="replaced more than") as refusal:
            world.pay(view, 1)
        assert refusal.value.code == "chain_reorganised"


def follows(anvil: AnvilWithContracts, world: World, stays: SessionView, goes: SessionView) -> None:
    """Assert that it goes on, that what is gone is not allowed, and then is put back."""
    assert world.engine.ready()["faults"] == []
    assert code(world, stays) == "ALLOWED"
    assert code(world, goes) == "SESSION_NOT_ANCHORED"
    anvil.rpc("evm_setAutomine", True)
    anvil.mine()
    tick_until(world, lambda: code(world, goes) == "ALLOWED")
    assert len(events(world.engine, "SessionRegistered", goes)) == 1
    is_as_read_anew(world)


def is_as_read_anew(world: World) -> None:
    deployment = world.engine.deployment
    clean = Follower(
        world.settings.data_dir / "clean.sqlite3",
        world.engine.gateway,
        sources_of(deployment),
        genesis_hash=deployment.genesis_hash,
        start_block=deployment.start_block,
    )
    world.engine.lead._read_chain()
    try:
        assert indexed(world.engine.database) == clean.read()
    finally:
        clean.close()


def resumptions(world: World) -> list[dict[str, Any]]:
    """What the records of the workspace say of it."""
    rows = query(world.store, f"SELECT body FROM records WHERE stream = '{WORKSPACE}' ORDER BY seq")
    records = [decode_record(bytes(row[0])) for row in rows]
    return [dict(record.body) for record in records if record.kind == "chain.resumed"]


def test_an_operator_resumes_and_that_is_a_record(
    anvil: AnvilWithContracts, served: Served, world: World
) -> None:
    refused(served.post(RESUME), 409, "chain_not_reorganised")
    stays, goes = lose(anvil, world)
    stopped(world, stays, goes)
    ready = served.get("/readyz")
    assert (ready.status_code, ready.json()["ready"]) == (503, False)
    refused(served.pay(world.token, 1), 503, "chain_reorganised")
    before = anvil.gateway.head().number
    given_up = served.post(RESUME)
    assert given_up.status_code == 200
    assert given_up.json()["block_number"] == before
    follows(anvil, world, stays, goes)
    refused(served.post(RESUME), 409, "chain_not_reorganised")
    [body] = resumptions(world)
    assert body.pop("by").startswith("key_")
    assert body == given_up.json()


def test_the_command(anvil: AnvilWithContracts, served: Served, world: World) -> None:
    stays, goes = lose(anvil, world)
    done = called("resume-chain", url=served.url, api_key=served.key)
    assert done.returncode == 0
    [body] = resumptions(world)
    assert f"block {body['block_number']} ({body['block_hash']}) is given up" in done.stdout
    follows(anvil, world, stays, goes)
    again = called("resume-chain", url=served.url, api_key=served.key)
    assert one_line(again, 1).startswith("chain_not_reorganised: ")


def test_a_restart_does_not_forget_that_it_stopped(anvil: AnvilWithContracts, world: World) -> None:
    stays, goes = lose(anvil, world)
    world.reopen()
    stopped(world, stays, goes)
    world.engine.resume_chain(by="somebody")
    follows(anvil, world, stays, goes)


def test_who_resumes_and_ends_before_the_chain_is_read_finds_it_read_by_the_next(
    anvil: AnvilWithContracts, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    stays, goes = lose(anvil, world)
    events_before, _ = indexed(world.engine.database)

    def silent(*_: Any, **__: Any) -> Any:
        raise ChainUnavailable("no answer")

    monkeypatch.setattr(world.engine.gateway, "logs", silent)
    world.engine.resume_chain(by="somebody")
    assert indexed(world.engine.database) == (events_before, []), "nothing of it is stored yet"
    for view in (stays, goes):
        with pytest.raises(Unavailable):
            world.pay(view, 1)
    with pytest.raises(Conflict):
        world.engine.resume_chain(by="somebody else")
    monkeypatch.undo()
    world.reopen()
    follows(anvil, world, stays, goes)
    assert [body["by"] for body in resumptions(world)] == ["somebody"]


def test_a_reading_of_everything_that_falters_goes_on_where_it_was(
    anvil: AnvilWithContracts, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    stays, goes = lose(anvil, world)
    monkeypatch.setattr("engine.chain.indexer.BLOCKS_PER_READ_MAX", 20)
    gateway, honest = world.engine.gateway, world.engine.gateway.logs
    asked: list[int] = []

    def faltering(**wanted: Any) -> Any:
        asked.append(wanted["from_block"])
        if len(asked) % 2 == 0:
            raise ChainUnavailable("no answer")
        return honest(**wanted)

    monkeypatch.setattr(gateway, "logs", faltering)
    world.engine.resume_chain(by="somebody")
    for _ in range(20):
        world.engine.tick()
    assert len(set(asked)) > 2
    assert max(asked.count(first) for first in asked[:-1]) == 2, "no portion was read twice"
    monkeypatch.setattr(gateway, "logs", honest)
    world.engine.tick()
    follows(anvil, world, stays, goes)


def test_a_node_that_is_far_behind_stops_decisions_until_it_has_caught_up(
    anvil: AnvilWithContracts, world: World
) -> None:
    view = world.session(mint_pkp=True)
    anvil.mine(DEPTH)
    world.engine.tick()
    honest, here = world.engine.gateway, anvil.gateway.head().number

    class Behind:
        """A node that has not got the newest blocks yet."""

        def __getattr__(self, name: str) -> Any:
            return getattr(honest, name)

        def head(self) -> BlockHeader:
            header = honest.block(here - DEPTH)
            assert header is not None
            return header

        def block(self, number: int) -> BlockHeader | None:
            return honest.block(number) if number <= here - DEPTH else None

    indexer = world.engine.lead.indexer
    with pytest.MonkeyPatch.context() as line:
        line.setattr(indexer, "_gateway", Behind())
        world.engine.tick()
        [fault] = world.engine.ready()["faults"]
        assert f"ends more than {REORG_DEPTH_MAX} blocks below {here}" in fault
        with pytest.raises(Unavailable) as refusal:
            world.pay(view, 1)
        assert refusal.value.code == "chain_reorganised"
    world.engine.tick()
    assert world.engine.ready()["faults"] == []
    assert code(world, view) == "ALLOWED"


def test_a_chain_that_comes_back_needs_nobody(anvil: AnvilWithContracts, world: World) -> None:
    """The deep reorganisation was another node's, which is gone again."""
    anvil.mine(DEPTH)
    view = world.session(mint_pkp=True)
    honest = world.engine.gateway.block
    head = anvil.gateway.head().number

    def other(number: int) -> BlockHeader | None:
        header = honest(number)
        if header is None or number < head - DEPTH:
            return header
        return replace(header, hash=bytes(32))

    with pytest.MonkeyPatch.context() as line:
        line.setattr(world.engine.gateway, "block", other)
        world.engine.tick()
        stopped(world, view)
    world.engine.tick()
    assert world.engine.ready()["faults"] == []
    assert code(world, view) == "ALLOWED"
