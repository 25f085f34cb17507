"""The gate signs what the policy allowed and the log holds, once, and nothing else."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from eth_utils.address import to_checksum_address

from engine.chain.gateway import CallReverted
from engine.clock import ManualClock
from engine.errors import Conflict, Unavailable
from engine.ledger.batch import Batch
from engine.payments.gate import Signed
from engine.policy.budgets import BudgetLimits
from engine.policy.limits import Limits
from tests.ledger.approving import ABOVE_50, first_key, grant, shown
from tests.ledger.oracle import query
from tests.ledger.paying import (
    CENT,
    SHOP,
    ask_gate,
    expect_consistent,
    kinds,
    offer,
    settle_on_chain,
    settled,
    signed,
    transact,
)
from tests.world import USD, WORKSPACE, World


@pytest.fixture(autouse=True, scope="module")
def _consistent(world: World) -> Iterator[None]:
    yield
    expect_consistent(world)


def test_the_token_takes_what_was_signed_and_takes_it_once(world: World) -> None:
    found = signed(world, world.session())
    settle_on_chain(world, found)
    with pytest.raises(CallReverted):
        settle_on_chain(world, found)


def test_a_signed_payment_is_held_until_the_chain_says(world: World, clock: ManualClock) -> None:
    view = world.session(Limits(None, USD, None, None, None))
    found = signed(world, view)
    assert kinds(world, view) == ["payment.decided", "payment.signed"]
    assert found.payment.expires_ms is None
    for end in (engine_end(world, "void"), engine_end(world, "capture")):
        with pytest.raises(Conflict) as refused:
            end(WORKSPACE, found.payment.id).result()
        assert refused.value.code == "payment_signed"
    clock.advance(3_600_000)
    assert world.engine.expiry.holds.run() == 0
    assert world.engine.remaining(view).per_day == USD - CENT
    settled(world, found, "expired")
    assert world.engine.remaining(view).per_day == USD
    with pytest.raises(Conflict, match="expired"):
        world.engine.ledger.void(WORKSPACE, found.payment.id).result()


def engine_end(world: World, how: str) -> Any:
    return getattr(world.engine.ledger, how)


def test_the_same_key_gets_the_same_bytes_whatever_happened_since(
    world: World, clock: ManualClock
) -> None:
    view = world.session()
    first = signed(world, view, key="order 7")
    assert first.payment.replayed is False
    for memory in ("kept", "forgotten", "reopened"):
        if memory == "forgotten":
            world.engine.writer._forget_all()
        elif memory == "reopened":
            world.reopen()
        again = signed(world, view, key="order 7")
        assert (again.payload, again.header) == (first.payload, first.header)
        assert again.payment.replayed is True
    settled(world, first)
    assert signed(world, view, key="order 7").header == first.header
    assert kinds(world, view).count("payment.signed") == 1


def test_without_a_key_nobody_pays_twice_while_the_outcome_is_unknown(
    world: World, clock: ManualClock
) -> None:
    view = world.session()
    first = signed(world, view)
    assert signed(world, view).header == first.header
    assert signed(world, view, offer(world, 2 * CENT), offer(world)).header == first.header
    report = world.engine.paying.report
    assert report(WORKSPACE, first.payment.id, None).result().state == "unknown"
    assert signed(world, view).header == first.header
    assert signed(world, view, key="another").header != first.header
    clock.advance(301_000)
    with pytest.raises(Conflict) as refused:
        ask_gate(world, view, offer(world))
    assert refused.value.code == "payment_outcome_unknown"
    assert refused.value.details["payment_id"] == first.payment.id
    settled(world, first, "expired")
    with pytest.raises(Conflict) as refused:
        ask_gate(world, view, offer(world))  # the one with the key is open still
    second = refused.value.details["payment_id"]
    assert second != first.payment.id


def test_a_signature_is_over_once_the_chains_own_time_is_past_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    view = world.session()
    first = signed(world, view, key="k")
    head, over_s = world.engine.gateway.head(), first.authorization.valid_before_s
    assert world.clock() // 1000 < over_s - 1

    def newest(timestamp_s: int) -> None:
        later = replace(head, timestamp_s=timestamp_s)
        monkeypatch.setattr(type(world.engine.gate), "_head", lambda *_: later)

    newest(over_s - 1)
    assert signed(world, view, key="k").header == first.header
    newest(over_s)
    for key in ("k", None):
        with pytest.raises(Conflict) as refused:
            ask_gate(world, view, offer(world), key=key)
        assert refused.value.code == "payment_outcome_unknown"


def test_once_it_was_reported_or_settled_the_next_one_is_another(world: World) -> None:
    view = world.session()
    first = signed(world, view)
    seen = world.engine.paying.report(WORKSPACE, first.payment.id, b"\x07" * 32).result()
    assert (seen.state, seen.tx_hash) == ("submitted", b"\x07" * 32)
    second = signed(world, view)
    assert second.payment.id != first.payment.id
    settled(world, second)
    settled(world, first)
    assert world.engine.paying.report(WORKSPACE, first.payment.id, None).result().state == "final"
    assert signed(world, view).payment.id not in (first.payment.id, second.payment.id)


def test_a_key_whose_signature_is_over_is_told_so_and_never_signed_again(
    world: World, clock: ManualClock
) -> None:
    view = world.session()
    first = signed(world, view, key="late")
    clock.advance(300_000)
    for code in ("payment_outcome_unknown", "payment_expired"):
        with pytest.raises(Conflict) as refused:
            ask_gate(world, view, offer(world), key="late")
        assert refused.value.code == code
        if code == "payment_outcome_unknown":
            settled(world, first, "expired")
    assert kinds(world, view).count("payment.signed") == 1


def test_an_approval_lets_one_payment_pass_and_then_it_is_signed_once(
    world: World, clock: ManualClock
) -> None:
    view = world.session(ABOVE_50)
    dear = offer(world, 60 * USD)
    denied = ask_gate(world, view, dear, key="dear")
    assert denied.decision["code"] == "APPROVAL_REQUIRED"
    assert ask_gate(world, view, dear, key="dear").replayed is True
    granted = grant(world, shown(world, denied.approval_id), first_key(world))
    assert kinds(world, view)[-2:] == ["approval.granted", "payment.decided"]
    first = signed(world, view, dear, key="dear")
    assert first.payment.id == granted.payment_id
    for key in ("dear", None, "new"):
        again = signed(world, view, dear, key=key)
        assert (again.header, again.payment.replayed) == (first.header, True)
    world.reopen()
    assert signed(world, view, dear, key="dear").header == first.header
    settled(world, first)
    assert signed(world, view, dear, key="dear").header == first.header
    assert ask_gate(world, view, dear).decision["code"] == "APPROVAL_REQUIRED"
    assert kinds(world, view).count("payment.signed") == 1


def test_a_granted_payment_that_nobody_fetched_is_not_signed_any_more(
    world: World, clock: ManualClock
) -> None:
    view = world.session(ABOVE_50)
    dear = offer(world, 60 * USD)
    denied = ask_gate(world, view, dear, key="dear")
    grant(world, shown(world, denied.approval_id), first_key(world))
    clock.advance(900_000)
    with pytest.raises(Conflict) as refused:
        ask_gate(world, view, dear, key="dear")
    assert refused.value.code == "payment_expired"
    assert ask_gate(world, view, dear).decision["code"] == "APPROVAL_REQUIRED"
    assert "payment.signed" not in kinds(world, view)


@pytest.mark.parametrize("how", ["paused", "revoked", "expired"])
def test_what_was_granted_is_not_signed_for_a_session_that_may_not_pay_any_more(
    world: World, clock: ManualClock, how: str
) -> None:
    view, by = world.session(ABOVE_50, duration_ms=600_000), first_key(world)
    dear = offer(world, 60 * USD)
    denied = ask_gate(world, view, dear, key="dear")
    grant(world, shown(world, denied.approval_id), by)
    if how == "paused":
        world.engine.sessions.pause(WORKSPACE, view.id, by=by)
    elif how == "revoked":
        world.engine.sessions.revoke(WORKSPACE, view.id, by=by)
    else:
        clock.advance(601_000)
    for key in ("dear", None):
        with pytest.raises(Conflict, match=how) as refused:
            ask_gate(world, view, dear, key=key)
        assert refused.value.code == "session_not_active"
    assert "payment.signed" not in kinds(world, view)
    if how == "paused":
        world.engine.sessions.resume(WORKSPACE, view.id, by=by)
        signed(world, view, dear, key="dear")


def test_a_transfer_is_not_sent_for_a_session_that_may_not_pay_any_more(world: World) -> None:
    """Between its decision and the first time that it can be sent there may be an hour."""
    view, by = world.session(), first_key(world)
    usdc, transfers = world.engine.token("USDC", None), world.engine.networks.transfers
    assert usdc is not None

    def sent() -> bool:
        transfers.tick()
        return world.engine.settlements.of([payment])[payment.id].state != "signed"

    payment = transfers.execute(view.id, SHOP, CENT, usdc)
    world.engine.sessions.pause(WORKSPACE, view.id, by=by)
    payer, token = to_checksum_address(view.grant.session_key), usdc.asset.rpartition(":")[2]
    assert transact(world, token, "mint", payer, CENT)
    assert not sent()
    world.engine.sessions.resume(WORKSPACE, view.id, by=by)
    transfers._due_ms.clear()
    assert sent()


def test_what_was_granted_is_not_signed_once_the_chain_says_that_the_session_is_over(
    fresh: World,
) -> None:
    """By our clock it is not; one that does not live on the chain goes by that alone."""
    usdc, transfers = fresh.engine.token("USDC", None), fresh.engine.networks.transfers
    assert usdc is not None
    by, dear = first_key(fresh), offer(fresh, 60 * USD)
    on_chain, other = fresh.session(ABOVE_50, mint_pkp=True), fresh.session(ABOVE_50)
    for view in (on_chain, other):
        denied = ask_gate(fresh, view, dear, key="dear")
        grant(fresh, shown(fresh, denied.approval_id), by)
    transfer = transfers.execute(on_chain.id, SHOP, 60 * USD, usdc)
    assert transfer.approval_id is not None
    grant(fresh, shown(fresh, transfer.approval_id), by)
    before = kinds(fresh, on_chain)

    fresh.engine.chain_watch.reached(on_chain.expires_ms)
    for key in ("dear", None):
        with pytest.raises(Conflict, match="expired") as refused:
            ask_gate(fresh, on_chain, dear, key=key)
        assert refused.value.code == "session_not_active"
    with pytest.raises(Conflict, match="expired") as refused:
        transfers.execute(on_chain.id, SHOP, 60 * USD, usdc)
    assert refused.value.code == "session_not_active"
    transfers.tick()
    assert kinds(fresh, on_chain) == before
    assert query(fresh.store, "SELECT count(*) FROM settlements") == [(0,)]
    signed(fresh, other, dear, key="dear")


def test_budgets_above_count_what_is_signed_until_it_ends(world: World, clock: ManualClock) -> None:
    view = world.session(ABOVE_50, agent_id="payer")
    by = first_key(world)
    world.engine.budgets.set(WORKSPACE, "payer", BudgetLimits(per_day=100 * USD), by=by)
    small = signed(world, view, offer(world, 30 * USD))
    denied = ask_gate(world, view, offer(world, 60 * USD), key="dear")
    grant(world, shown(world, denied.approval_id), by)
    dear = signed(world, view, offer(world, 60 * USD), key="dear")
    clock.advance(3_600_000)
    assert ask_gate(world, view, offer(world, 11 * USD)).decision["rule"] == "agent_budget"
    world.engine.budgets.set(WORKSPACE, "payer", BudgetLimits(per_day=99 * USD), by=by)
    assert ask_gate(world, view, offer(world, 10 * USD)).decision["rule"] == "agent_budget"
    settled(world, dear, "expired")
    settled(world, small)
    assert isinstance(ask_gate(world, view, offer(world, 50 * USD)), Signed)
    world.engine.budgets.clear(WORKSPACE, "payer", by=by)


def test_what_was_not_committed_is_not_signed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    view = world.session()
    opened: list[str] = []
    vault = world.engine.gate._signer.vault
    monkeypatch.setattr(type(vault), "open", lambda self, *_: opened.append("opened") or b"")

    def lost(batch: Batch) -> None:
        raise OSError("the disk is gone")

    with monkeypatch.context() as broken:
        broken.setattr(Batch, "close", lost)
        with pytest.raises(Unavailable, match="durable"):
            ask_gate(world, view, offer(world), key="k")
    assert opened == []
    assert kinds(world, view) == []
    monkeypatch.undo()
    signed(world, view, key="k")


def test_a_crash_between_commit_and_signature_costs_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    view = world.session()

    class Killed(BaseException):
        pass

    def killed(*_: Any, **__: Any) -> Any:
        raise Killed

    with monkeypatch.context() as crash:
        crash.setattr(type(world.engine.gate._signer), "sign", killed)
        with pytest.raises(Killed):
            ask_gate(world, view, offer(world), key="k")
    world.reopen()
    first = signed(world, view, key="k")
    assert (first.payment.replayed, kinds(world, view).count("payment.signed")) == (True, 1)
