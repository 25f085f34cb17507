"""What we say to the chain and hear from it: registrations, revocations, confirmations."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from engine.chain import contracts, sender
from engine.chain.embedded import EmbeddedChain
from engine.chain.gateway import CallReverted, ChainUnavailable
from engine.clock import ManualClock, system_clock
from engine.db.tables import ChainTransaction, table
from engine.errors import Unavailable
from engine.ledger.chain_watch import CHAIN_SILENCE_MAX_MS
from engine.sessions.session import SessionView
from tests.sessions.seen import events, read
from tests.world import WORKSPACE, World

CONFIRMATIONS = 3

_transactions = table(ChainTransaction)


@pytest.fixture
def cautious(tmp_path: Path) -> Iterator[World]:
    """A world in which a registration counts after three more blocks."""
    opened = World(tmp_path / "data", confirmations=CONFIRMATIONS)
    yield opened
    opened.engine.close()


def chain_of(world: World) -> EmbeddedChain:
    assert isinstance(world.engine.gateway, EmbeddedChain)
    return world.engine.gateway


def state(world: World, view: SessionView) -> str:
    return world.engine.sessions.get(view.workspace_id, view.id).state


def code(world: World, view: SessionView) -> str:
    return str(world.pay(view, 1).decision["code"])


def written(world: World, view: SessionView, action: str) -> sa.Row[tuple[object, ...]]:
    """The transaction that was written down for a session."""
    query = sa.select(_transactions).where(
        _transactions.c.session_id == view.id, _transactions.c.action == action
    )
    with world.engine.database.reading() as connection:
        return connection.execute(query).one()


def owner_revokes(world: World, view: SessionView) -> None:
    """The owner's own transaction, which names the session as the chain published it."""
    chain = chain_of(world)
    chain.fund(world.owner.address.lower(), 10**18)
    [registered] = events(world.engine, "SessionRegistered", view)
    session = tuple(registered.args[name] for name in ("tokenId", "owner", "grantHash"))
    data = contracts.call_data(contracts.SESSION_REGISTRY, "revoke", [session])
    tx_hash = sender.send(chain, world.owner, to=world.engine.deployment.registry, data=data)
    receipt = chain.receipt(tx_hash)
    assert receipt is not None
    assert receipt.succeeded


def test_the_owner_revokes_on_the_chain_and_the_next_payment_is_refused(world: World) -> None:
    view = world.session(mint_pkp=True)
    assert code(world, view) == "ALLOWED"
    owner_revokes(world, view)
    world.engine.tick()
    assert code(world, view) == "SESSION_REVOKED"
    [revoked] = events(world.engine, "SessionRevoked", view)
    assert revoked.args["by"].lower() == world.owner.address.lower()


def test_the_background_tick_hears_of_the_owners_revocation(own: World) -> None:
    view = own.session(mint_pkp=True)
    owner_revokes(own, view)
    own.engine.start()
    condition = own.engine.lead.ticked
    with condition:
        assert condition.wait_for(lambda: state(own, view) == "revoked", timeout=20)


def test_a_stranger_cannot_revoke(world: World) -> None:
    view = world.session(mint_pkp=True)
    chain = chain_of(world)
    data = contracts.revoking(view.grant, view.token_id)
    with pytest.raises(CallReverted) as refused:
        sender.send(chain, chain.faucet, to=world.engine.deployment.registry, data=data)
    assert contracts.revert_name(refused.value) == "NotOwnerOrOperator"
    world.engine.tick()
    assert code(world, view) == "ALLOWED"


def test_an_operators_revocation_is_in_force_at_once_and_on_the_chain_after_a_tick(
    world: World,
) -> None:
    view = world.session(mint_pkp=True)
    world.engine.revoke_session(WORKSPACE, view.id, by="somebody")
    assert code(world, view) == "SESSION_REVOKED"
    assert events(world.engine, "SessionRevoked", view) == []
    world.engine.tick()
    [revoked] = events(world.engine, "SessionRevoked", view)
    operator = world.engine.deployment.operator.address
    assert revoked.args["by"] == operator
    stored = read(world.engine, "session", int.from_bytes(view.token_id))
    assert stored[5] is True


def test_a_registration_waits_for_its_confirmations(cautious: World) -> None:
    view = cautious.consent(cautious.create(), wait_s=0)
    cautious.engine.tick()
    assert len(events(cautious.engine, "SessionRegistered", view)) == 1
    seen = []
    for _ in range(CONFIRMATIONS):
        seen.append((state(cautious, view), code(cautious, view)))
        chain_of(cautious).mine()
        cautious.engine.tick()
    assert seen == [("registering", "SESSION_NOT_ANCHORED")] * CONFIRMATIONS
    assert (state(cautious, view), code(cautious, view)) == ("active", "ALLOWED")
    assert len(events(cautious.engine, "SessionRegistered", view)) == 1


def test_a_revocation_waits_for_none(cautious: World) -> None:
    view = cautious.consent(cautious.create(), wait_s=0)
    cautious.engine.tick()
    chain_of(cautious).mine(CONFIRMATIONS)
    cautious.engine.tick()
    assert code(cautious, view) == "ALLOWED"
    owner_revokes(cautious, view)
    cautious.engine.tick()
    assert code(cautious, view) == "SESSION_REVOKED"


def test_a_revocation_is_heard_while_the_registration_still_waits(cautious: World) -> None:
    view = cautious.consent(cautious.create(), wait_s=0)
    cautious.engine.tick()
    owner_revokes(cautious, view)
    cautious.engine.tick()
    chain_of(cautious).mine(2 * CONFIRMATIONS)
    cautious.engine.tick()
    assert (state(cautious, view), code(cautious, view)) == ("revoked", "SESSION_REVOKED")


@pytest.mark.parametrize("background", [False, True], ids=["alone", "beside the background"])
def test_who_waits_for_confirmations_does_not_ask_the_chain_all_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, background: bool
) -> None:
    world = World(tmp_path / "data", confirmations=CONFIRMATIONS, poll_interval_ms=60_000)
    if background:
        world.engine.start()
    asked = []
    honest = world.engine.gateway.head
    monkeypatch.setattr(world.engine.gateway, "head", lambda: asked.append(1) or honest())
    assert world.create(await_consent=False, wait_s=0.3).state == "registering"
    monkeypatch.setattr(world.engine.gateway, "head", honest)
    world.engine.close()
    assert 0 < len(asked) < 20


@pytest.mark.parametrize("arrived", [False, True], ids=["never arrived", "arrived all the same"])
def test_a_registration_whose_answer_was_lost_is_sent_again_unchanged(
    world: World, monkeypatch: pytest.MonkeyPatch, arrived: bool
) -> None:
    chain = chain_of(world)
    honest = chain.send_raw

    def cut(raw: bytes) -> bytes:
        if arrived:
            honest(raw)
        raise ChainUnavailable("the line was cut")

    monkeypatch.setattr(chain, "send_raw", cut)
    view = world.consent(world.create(), wait_s=0)
    world.engine.tick()
    before = written(world, view, "register")
    assert world.engine.lead.chain_fault is not None
    assert "the line was cut" in world.engine.lead.chain_fault
    assert code(world, view) == "SESSION_NOT_ANCHORED"
    world.engine.tick()
    assert written(world, view, "register") == before
    monkeypatch.setattr(chain, "send_raw", honest)
    world.engine.tick()
    assert world.engine.lead.chain_fault is None
    assert state(world, view) == "active"
    assert written(world, view, "register") == before
    [registered] = events(world.engine, "SessionRegistered", view)
    assert registered.log.tx_hash == before.tx_hash


def test_one_whose_nonce_was_taken_by_another_is_replaced(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain, operator = chain_of(world), world.engine.deployment.operator
    honest = chain.send_raw

    def cut(raw: bytes) -> bytes:
        raise ChainUnavailable("the line was cut")

    monkeypatch.setattr(chain, "send_raw", cut)
    view = world.consent(world.create(), wait_s=0)
    world.engine.tick()
    before = written(world, view, "register")
    monkeypatch.setattr(chain, "send_raw", honest)
    sender.send(chain, operator, to=operator.address.lower(), data=b"")
    world.engine.tick()
    assert state(world, view) == "active"
    [registered] = events(world.engine, "SessionRegistered", view)
    assert registered.log.tx_hash == written(world, view, "register").tx_hash != before.tx_hash


def test_a_silent_chain_stops_what_lives_on_it_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = ManualClock(system_clock())
    world = World(tmp_path / "data", clock)
    here, there = world.session(mint_pkp=False), world.session(mint_pkp=True)

    def silent() -> None:
        raise ChainUnavailable("no answer")

    with monkeypatch.context() as cut:
        cut.setattr(world.engine.gateway, "head", silent)
        world.engine.tick()
        assert world.engine.ready()["faults"] == ["no answer"]
        clock.advance(CHAIN_SILENCE_MAX_MS)
        assert code(world, there) == "ALLOWED"
        clock.advance(1)
        with pytest.raises(Unavailable) as refused:
            world.pay(there, 1)
        assert refused.value.code == "chain_unavailable"
        assert code(world, here) == "ALLOWED"
    world.engine.tick()
    assert world.engine.ready()["ready"]
    assert code(world, there) == "ALLOWED"
    world.engine.close()
