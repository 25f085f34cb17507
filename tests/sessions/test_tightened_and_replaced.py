"""A chain that takes back what tightened: undone only when its disappearance is confirmed."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from engine.chain import contracts, sender
from engine.chain.sender import SignedTransaction
from engine.errors import Conflict
from engine.policy.limits import Limits
from engine.sessions.session import SessionView
from tests.anvil_world import AnvilWithContracts, anvil_with_contracts, wait_until
from tests.sessions.hands import code, kinds, now, replayed, rule
from tests.sessions.seen import events
from tests.world import USD, WORKSPACE, World, records_of

CONFIRMATIONS = 3
GRANTED = Limits(50 * USD, None, None, None, None)
LOWERED = replace(GRANTED, per_transaction=10 * USD)


@pytest.fixture(scope="module")
def anvil() -> Iterator[AnvilWithContracts]:
    """A chain that can be rewritten."""
    with anvil_with_contracts() as running:
        yield running


@pytest.fixture
def cautious(anvil: AnvilWithContracts, tmp_path: Path) -> Iterator[World]:
    """An installation on it, in which what loosens counts after three more blocks."""
    with anvil.world(tmp_path / "data", confirmations=CONFIRMATIONS) as opened:
        yield opened


def active(anvil: AnvilWithContracts, world: World) -> SessionView:
    view = world.consent(world.create(GRANTED), wait_s=0)
    data = contracts.registering(view.grant, view.public_key, view.owner_signature)
    anvil.transact(anvil.operator, to=anvil.deployed.registry, data=data)
    anvil.mine(CONFIRMATIONS)
    world.engine.tick()
    assert code(world, view) == "ALLOWED"
    return view


def active_child(anvil: AnvilWithContracts, world: World, parent: SessionView) -> SessionView:
    """One beneath it that may as much."""
    how = {"parent_id": parent.id, "await_consent": False, "duration_ms": 3_600_000}
    view = world.create(GRANTED, wait_s=0, **how)
    data = contracts.registering(view.grant, view.public_key, None)
    anvil.transact(anvil.operator, to=anvil.deployed.registry, data=data)
    anvil.mine(CONFIRMATIONS)
    world.engine.tick()
    assert code(world, view) == "ALLOWED"
    return view


def lowering(
    anvil: AnvilWithContracts, view: SessionView, limits: Limits = LOWERED
) -> SignedTransaction:
    """The owner's transaction."""
    data = contracts.lowering(view.grant, view.token_id, limits)
    return sender.sign(anvil.gateway, anvil.owner, to=anvil.deployed.registry, data=data)


def mined(anvil: AnvilWithContracts, signed: SignedTransaction) -> None:
    anvil.gateway.send_raw(signed.raw)
    wait_until(lambda: anvil.gateway.receipt(signed.hash) is not None)
    receipt = anvil.gateway.receipt(signed.hash)
    assert receipt is not None
    assert receipt.succeeded


def replaced(
    anvil: AnvilWithContracts, *instead: SignedTransaction, depth: int = 1, at: int = 0
) -> None:
    """As many blocks as before, with these transactions in number `at` of the new ones."""
    raw = [["0x" + signed.raw.hex(), at] for signed in instead]
    anvil.rpc("anvil_reorg", depth, raw)


def lowered(anvil: AnvilWithContracts, world: World) -> tuple[SessionView, SignedTransaction]:
    """A session whose limits the owner lowered in the newest block, which the engine has seen."""
    view = active(anvil, world)
    signed = lowering(anvil, view)
    mined(anvil, signed)
    world.engine.tick()
    assert (rule(world, view, 11), rule(world, view, 10)) == ("per_transaction", "all")
    return view, signed


def binds(world: World, view: SessionView) -> bool:
    """Whether the lower limit decides."""
    return rule(world, view, 11) == "per_transaction"


def test_lower_limits_that_left_the_chain_bind_until_that_is_confirmed(
    anvil: AnvilWithContracts, cautious: World
) -> None:
    """C03: the disappearance counts after as many blocks as a registration."""
    view, signed = lowered(anvil, cautious)
    replaced(anvil)
    assert events(cautious.engine, "LimitsLowered", view) == []
    cautious.engine.tick()
    first_missing = anvil.gateway.head().number
    for _ in range(CONFIRMATIONS):
        assert binds(cautious, view)
        anvil.mine()
        assert binds(cautious, view), "nobody has looked"
        cautious.engine.tick()
    assert rule(cautious, view, 11) == "all"
    assert kinds(cautious, view)[-2:] == ["session.lowered", "session.unlowered"]
    [undone] = [r.body for r in records_of(cautious, view.id) if r.kind == "session.unlowered"]
    head = anvil.gateway.block(first_missing + CONFIRMATIONS)
    assert head is not None
    assert undone == {
        "state": "active",
        "tx_hash": "0x" + signed.hash.hex(),
        "limits_micro_usd": LOWERED.to_json(),
        "block_number": head.number,
        "block_hash": "0x" + head.hash.hex(),
    }
    assert replayed(cautious, view).lowered == ()
    assert now(cautious, view).policy.limits == GRANTED


def test_what_bound_a_session_from_above_is_undone_with_it_and_not_before(
    anvil: AnvilWithContracts, cautious: World
) -> None:
    parent = active(anvil, cautious)
    child = active_child(anvil, cautious, parent)
    signed = lowering(anvil, parent)
    mined(anvil, signed)
    cautious.engine.tick()
    assert binds(cautious, child)
    replaced(anvil)
    cautious.engine.tick()
    anvil.mine(CONFIRMATIONS - 1)
    cautious.engine.tick()
    assert binds(cautious, child)
    anvil.mine()
    cautious.engine.tick()
    assert rule(cautious, child, 11) == rule(cautious, parent, 11) == "all"
    assert kinds(cautious, child)[-2:] == ["session.lowered", "session.unlowered"]
    [told] = [r.body for r in records_of(cautious, child.id) if r.kind == "session.lowered"]
    assert told == {
        "state": "active",
        "ancestor_id": parent.id,
        "tx_hash": "0x" + signed.hash.hex(),
        "limits_micro_usd": LOWERED.to_json(),
    }
    cautious.reopen()
    cautious.engine.tick()
    assert rule(cautious, child, 11) == "all"
    assert replayed(cautious, child).lowered == now(cautious, child).lowered == ()


def test_the_same_transaction_in_another_block_counts_once(
    anvil: AnvilWithContracts, cautious: World
) -> None:
    """C04: at once, or some blocks later, while its disappearance is not confirmed."""
    view, signed = lowered(anvil, cautious)
    anvil.mine()
    replaced(anvil, signed, depth=2, at=1)
    cautious.engine.tick()
    [event] = events(cautious.engine, "LimitsLowered", view)
    assert event.log.tx_hash == signed.hash
    replaced(anvil, depth=2)
    cautious.engine.tick()
    anvil.mine(CONFIRMATIONS - 1)
    cautious.engine.tick()
    assert events(cautious.engine, "LimitsLowered", view) == []
    assert binds(cautious, view)
    mined(anvil, signed)
    for _ in range(2):
        cautious.engine.tick()
        assert binds(cautious, view)
        anvil.mine(2 * CONFIRMATIONS)
    cautious.reopen()
    cautious.engine.tick()
    assert binds(cautious, view)
    told = [r for r in records_of(cautious, view.id) if r.kind.endswith("lowered")]
    assert [record.kind for record in told] == ["session.lowered"]
    assert len(replayed(cautious, view).lowered) == 1


def test_it_is_counted_anew_when_the_chain_is_replaced_again_or_the_engine_started(
    anvil: AnvilWithContracts, cautious: World
) -> None:
    view, _ = lowered(anvil, cautious)
    replaced(anvil)
    cautious.engine.tick()
    anvil.mine(CONFIRMATIONS - 1)
    cautious.engine.tick()
    replaced(anvil, depth=CONFIRMATIONS)  # the block too from which it was counted
    cautious.engine.tick()
    anvil.mine(CONFIRMATIONS - 1)
    cautious.engine.tick()
    assert binds(cautious, view)
    cautious.reopen()
    anvil.mine(CONFIRMATIONS - 1)
    cautious.engine.tick()
    assert binds(cautious, view)
    anvil.mine()
    cautious.engine.tick()
    assert rule(cautious, view, 11) == "all"
    replayed(cautious, view)


def test_others_in_its_place_bind_beside_it_until_it_is_gone(
    anvil: AnvilWithContracts, cautious: World
) -> None:
    view = active(anvil, cautious)
    first, second = (
        lowering(anvil, view, limits) for limits in (LOWERED, replace(GRANTED, per_day=300 * USD))
    )
    assert first.nonce == second.nonce
    mined(anvil, first)
    cautious.engine.tick()
    assert binds(cautious, view)
    replaced(anvil, second)
    cautious.engine.tick()
    both = replace(LOWERED, per_day=300 * USD)
    assert now(cautious, view).policy.limits == both
    assert binds(cautious, view)
    anvil.mine(CONFIRMATIONS)
    cautious.engine.tick()
    assert now(cautious, view).policy.limits == replace(GRANTED, per_day=300 * USD)
    assert rule(cautious, view, 11) == "all"
    told = [kind for kind in kinds(cautious, view) if kind.endswith("lowered")]
    assert told == ["session.lowered", "session.lowered", "session.unlowered"]
    replayed(cautious, view)


def test_a_closing_that_left_the_chain_ended_its_sessions_for_good(
    anvil: AnvilWithContracts, cautious: World
) -> None:
    views = [active(anvil, cautious), cautious.session(GRANTED)]
    registry = anvil.deployed.registry
    closing = sender.sign(
        anvil.gateway, anvil.operator, to=registry, data=contracts.closing(WORKSPACE)
    )
    mined(anvil, closing)
    anvil.mine()
    cautious.engine.tick()
    assert [code(cautious, view) for view in views] == ["SESSION_REVOKED"] * 2
    with pytest.raises(Conflict, match="closed"):
        cautious.create(wait_s=0)
    with anvil.idle():
        replaced(anvil, closing, depth=2, at=1)
        cautious.engine.tick()
        replaced(anvil, depth=2)
        cautious.engine.tick()
    anvil.mine(2 * CONFIRMATIONS)
    for _ in range(2):
        cautious.engine.tick()
        assert [code(cautious, view) for view in views] == ["SESSION_REVOKED"] * 2
        cautious.reopen()
    closings = [r for r in records_of(cautious, WORKSPACE) if r.kind == "workspace.closed"]
    assert len(closings) == 1
    assert code(cautious, active(anvil, cautious)) == "ALLOWED"


def test_a_rotation_that_left_the_chain_brings_nothing_back_and_is_told_to_it_again(
    anvil: AnvilWithContracts, cautious: World
) -> None:
    """The old session ends at first sight, and the new one pays when it is confirmed."""
    old = active(anvil, cautious)
    new = cautious.consent(cautious.create(GRANTED, rotates_id=old.id), wait_s=0)
    anvil.mine()  # the new one has begun by the chain's clock, too

    def rotated() -> bool:
        cautious.engine.tick()
        return events(cautious.engine, "SessionRotated", old) != []

    wait_until(rotated)
    assert (code(cautious, old), code(cautious, new)) == ("SESSION_REVOKED", "SESSION_NOT_ANCHORED")
    replaced(anvil)
    for _ in range(CONFIRMATIONS + 3):
        cautious.engine.tick()
        assert code(cautious, old) == "SESSION_REVOKED"
        anvil.mine()
    cautious.engine.tick()
    assert (code(cautious, old), code(cautious, new)) == ("SESSION_REVOKED", "ALLOWED")
    assert len(events(cautious.engine, "SessionRevoked", old)) == 1
    for view in (old, new):
        replayed(cautious, view)
