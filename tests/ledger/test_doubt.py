"""In doubt the ledger says no, or nothing: about the chain and about a session's parameters."""

import json

import pytest

from engine.clock import ManualClock, system_clock
from engine.engine import open_engine
from engine.errors import Unavailable
from engine.ledger.chain_watch import CHAIN_SILENCE_MAX_MS
from engine.policy.limits import Limits
from tests.ledger.oracle import alter, query
from tests.world import USD, WORKSPACE, World

DAY = Limits(None, 100 * USD, None, None, None)


@pytest.fixture(scope="module")
def clock() -> ManualClock:
    return ManualClock(system_clock())  # the embedded chain goes by the wall clock


def test_a_silent_chain_stops_the_sessions_that_live_on_it_and_no_others(
    world: World, clock: ManualClock
) -> None:
    on_chain, off_chain = world.session(DAY, mint_pkp=True), world.session(DAY)
    world.engine.tick()
    answered = world.pay(on_chain, 10, key="k", hold=True)
    clock.advance(CHAIN_SILENCE_MAX_MS)
    assert world.pay(on_chain, 10).state == "captured"
    clock.advance(1)
    with pytest.raises(Unavailable) as refused:
        world.pay(on_chain, 10, key="later")
    assert refused.value.code == "chain_unavailable"
    assert world.pay(off_chain, 10).state == "captured"
    assert world.pay(on_chain, 10, key="k", hold=True).id == answered.id, "it was decided before"
    world.engine.ledger.capture(WORKSPACE, answered.id).result()
    world.engine.tick()
    assert world.pay(on_chain, 10, key="later").state == "captured"
    assert world.engine.remaining(on_chain).per_day == 70 * USD


@pytest.mark.parametrize("mint_pkp", [False, True], ids=["off the chain", "on the chain"])
@pytest.mark.parametrize("hidden", [False, True], ids=["grant alone", "grant and its hash"])
def test_parameters_that_were_changed_in_the_database_are_not_enforced(
    world: World, mint_pkp: bool, hidden: bool
) -> None:
    view, other = world.session(DAY, mint_pkp=mint_pkp), world.session(DAY)
    world.pay(view, 100)
    richer = view.grant.to_json()
    richer["limits_micro_usd"]["per_day"] = 1_000_000 * USD
    grant_hash = type(view.grant).from_json(richer).hash() if hidden else view.grant_hash
    text = json.dumps(richer, sort_keys=True, separators=(",", ":"))
    data_file = world.store
    world.engine.close()
    change = "UPDATE sessions SET grant_json = ?, grant_hash = ? WHERE id = ?"
    assert alter(data_file, change, text, grant_hash, view.id) == 1
    world.engine = open_engine(world.settings, clock=world.clock)
    denied = world.pay(view, 1)
    assert (denied.state, denied.decision["code"]) == ("denied", "PARAMETERS_MISMATCH")
    assert world.pay(other, 1).state == "captured"


def test_a_session_that_is_over_pays_no_more_though_its_holds_may_still_end(world: World) -> None:
    view = world.session(DAY)
    hold = world.pay(view, 10, hold=True)
    world.engine.revoke_session(WORKSPACE, view.id, by="test")
    assert world.pay(view, 1).decision["code"] == "SESSION_REVOKED"
    world.reopen()
    assert world.pay(view, 1).decision["code"] == "SESSION_REVOKED"
    assert world.engine.ledger.capture(WORKSPACE, hold.id).result().state == "captured"
    data_file = world.store
    denials = (
        "SELECT body FROM records JOIN decisions USING (id) WHERE session_id = ? ORDER BY number"
    )
    bodies = [json.loads(bytes(body))["body"] for (body,) in query(data_file, denials, view.id)]
    standings = [body["decision"]["evidence"].get("standing") for body in bodies]
    assert standings[1:] == ["revoked", "revoked"]
