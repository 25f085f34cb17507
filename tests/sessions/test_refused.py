"""A wallet that changes its mind keeps no other session off the chain, and drains no account."""

from types import SimpleNamespace

import pytest

from engine.chain import sender
from engine.sessions import on_chain, refusals
from engine.sessions.refusals import REFUSED_WAIT_MAX_S, REFUSED_WAIT_S, Refusals
from engine.sessions.session import SessionView
from tests.sessions.hands import ETHER_WEI, chain_of
from tests.world import WORKSPACE, World

CALLER, GASPRICE = 0x33, 0x3A
"""What is 0 when the engine asks, or estimates, and not when the registry does in a block."""


def fickle(world: World, opcode: int) -> str:
    """A wallet (ERC-1271) that takes any signature while an opcode answers 0."""
    runtime = bytes.fromhex(f"631626ba7e60e01b{opcode:02x}15025f5260205ff3")
    init = bytes.fromhex(f"60{len(runtime):02x}80600b6000396000f3") + runtime
    chain = chain_of(world)
    chain.fund(world.owner.address.lower(), ETHER_WEI)
    receipt = chain.receipt(sender.send(chain, world.owner, to=None, data=init))
    assert receipt is not None
    assert receipt.contract_address is not None
    return receipt.contract_address.lower()


def consented(world: World, wallet: str) -> SessionView:
    view = world.create(user_wallet=wallet, owner=wallet, wait_s=0)
    return world.engine.consent(WORKSPACE, view.id, b"\x01", kind="erc1271", wait_s=0)


def states(world: World, *views: SessionView) -> list[str]:
    return [world.engine.sessions.get(view.workspace_id, view.id).state for view in views]


def test_what_is_refused_again_and_again_takes_no_others_turn(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(on_chain, "TRANSACTIONS_PER_TICK_MAX", 3)
    wallet = fickle(world, CALLER)
    refused = [consented(world, wallet) for _ in range(3)]
    world.engine.tick()
    other = world.session(mint_pkp=True)
    assert states(world, *refused, other) == [*["registering"] * 3, "active"]
    world.engine.revoke_session(WORKSPACE, other.id, by="somebody")
    world.engine.tick()
    world.engine.tick()
    assert world.engine.lead.registrar._due() == [], "what was revoked is so on the chain, too"


def test_what_is_mined_and_reverts_is_not_paid_for_again_at_once(world: World) -> None:
    view = consented(world, fickle(world, GASPRICE))
    operator = world.engine.deployment.operator.address.lower()
    before = chain_of(world).transaction_count(operator)
    for _ in range(20):
        world.engine.tick()
    assert chain_of(world).transaction_count(operator) == before + 2, "once at once, and then not"
    assert states(world, view) == ["registering"]


def test_the_wait_is_longer_each_time_and_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    now = SimpleNamespace(s=1000.0)
    monkeypatch.setattr(refusals, "time", SimpleNamespace(monotonic=lambda: now.s))
    kept, waits = Refusals(), []
    for _ in range(12):
        kept.note("one", "register")
        assert kept.waiting("register") == ["one"]
        assert kept.waiting("revoke") == []
        begun = now.s
        while kept.waiting("register"):
            now.s += 5
        waits.append(now.s - begun)
    assert waits[:4] == [REFUSED_WAIT_S * times for times in (1, 2, 4, 8)]
    assert waits[-2:] == [REFUSED_WAIT_MAX_S] * 2
    now.s += 2 * REFUSED_WAIT_MAX_S
    kept.waiting("register")
    kept.note("one", "register")
    now.s += REFUSED_WAIT_S
    assert kept.waiting("register") == [], "it is begun anew"
