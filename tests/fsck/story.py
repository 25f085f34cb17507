"""A small installation in which every table has rows, and every kind of record its place."""

import contextlib

from engine.clock import ManualClock
from engine.payments.gate import NoUsableOffer
from engine.policy.budgets import BudgetLimits
from engine.policy.limits import Limits
from engine.sessions.session import SessionView
from engine.webhooks.delivery import disable
from engine.workspaces.agent_keys import NewAgentKey
from engine.workspaces.people import Assertion, Credential, People
from tests.evidence.story import pass_time
from tests.fsck.chain_story import (
    anchored_elsewhere,
    closed_workspace,
    differing,
    lowered_limits,
    owners_of_every_kind,
    replaced_blocks,
    rotated,
)
from tests.ledger.approving import asked_for, first_key, grant, new_key
from tests.ledger.intending import confirm, intent, listed
from tests.ledger.paying import ask_gate, offer, settled, signed
from tests.world import USD, WORKSPACE, World

OTHER = "other"
MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
RESTRICTED = ("at most 60 payments per day",)
ADMIN = "zfi_test_the_admin_key_of_tests"


def tell(world: World, clock: ManualClock) -> None:
    """Everything that can happen, once or twice; at the end all of it is anchored."""
    pass_time(world, clock, HOUR_MS)  # the chain's first blocks are ahead of any clock
    lowered = replaced_blocks(world)
    pass_time(world, clock, HOUR_MS)  # and so are those that replaced others
    engine = world.engine
    first, second = first_key(world), new_key(world)
    engine.access.create_workspace(OTHER, "Another tenant")
    engine.agents.register(WORKSPACE, "shopper", "Shopper")
    engine.agents.register(WORKSPACE, "bot", None)
    _keys(world)
    _people(world)
    shop = world.session(agent_id="shopper", agent_name="ignored", type="app", label="groceries")
    world.pay(shop, 7, key="before any budget")
    world.pay(shop, 3, hold=True)
    for dollars in (900, 1000):
        engine.budgets.set(
            WORKSPACE, None, BudgetLimits(per_day=dollars * USD, lifetime=5000 * USD), by=first
        )
    engine.budgets.set(WORKSPACE, "shopper", BudgetLimits(payments_per_day=2), by=second)
    engine.budgets.set(WORKSPACE, "bot", BudgetLimits(per_day=1), by=second)
    engine.budgets.clear(WORKSPACE, "bot", by=second)
    _webhooks(world, first)
    main = _main(world, clock)
    _approvals(world, clock, main, first, second)
    _signed(world)
    _intents(world, clock, second)
    child = world.session(
        Limits(80 * USD, 20 * USD, None, None, 15 * USD),
        conditions=RESTRICTED,
        duration_ms=20 * HOUR_MS,
        mint_pkp=True,
        await_consent=False,
        parent_id=main.id,
        approvals_required=2,
        metadata_json='{"why":"a part of it"}',
    )
    held = world.pay(child, 4, hold=True)
    engine.ledger.capture(WORKSPACE, held.id, 4 * USD).result()
    for _ in range(2):  # it is paused, and goes on, with its parent
        engine.sessions.pause(WORKSPACE, main.id, by=first)
        assert world.pay(child, 1).decision["code"] == "SESSION_PAUSED"
        engine.sessions.resume(WORKSPACE, main.id, by=second)
    world.pay(shop, 1)
    assert world.pay(shop, 1).decision["rule"] == "agent_budget"
    engine.revoke_session(WORKSPACE, shop.id, by=first)
    engine.anchor()
    lowered_limits(world, lowered)
    rotated(world)
    owners_of_every_kind(world)
    anchored_elsewhere(world)
    ended = world.session(mint_pkp=True, await_consent=False)
    engine.revoke_session(WORKSPACE, ended.id, by=first)
    world.session(duration_ms=HOUR_MS, workspace=OTHER, agent_id="guest", label="for an hour")
    closed_workspace(world, OTHER)
    differing(world, clock)
    world.create(wait_s=0)
    engine.sessions.pause(WORKSPACE, world.session(label="paused").id, by=first)
    pass_time(world, clock, 2 * HOUR_MS)
    for secret in (ADMIN, ADMIN + "_2", ADMIN):
        engine.access.ensure_admin(secret)
    asked_for(world, child, 16, merchant=None)
    world.pay(child, 1, hold=True)
    pass_time(world, clock, MINUTE_MS)
    engine.anchor()
    pass_time(world, clock, MINUTE_MS)


def _webhooks(world: World, by: str) -> None:
    """Webhooks that nothing reaches: one that fails with the event that another one is gone, that
    one, and one that is deleted."""
    webhooks = world.engine.webhooks
    # The name is that of this machine, which is not connected to.
    failing, gone, deleted = (
        webhooks.create(
            WORKSPACE, f"https://localhost/{n}", ("webhook.disabled",), description=each, by=by
        )[0]
        for n, each in enumerate((None, "Chat", "Nothing"))
    )
    webhooks.rotate(WORKSPACE, failing.id, by=by)
    webhooks.replay(WORKSPACE, failing.id, world.clock(), by=by)
    events = ("payment.created", "approval.requested")
    gone = webhooks.change(WORKSPACE, gone.id, events=events, by=by)
    webhooks.delete(WORKSPACE, deleted.id, by=by)
    world.engine.writer.call(lambda batch: disable(batch, gone, "gone"), WORKSPACE)


def _keys(world: World) -> None:
    """Keys of agents, one of which is used and one revoked, and an operator's that is exchanged."""
    keys, admin = world.engine.keys, world.engine.access.operator(str(world.operator_key))
    for name in ("crawler", "buyer"):
        new = NewAgentKey(name=name, agent_id="bot", ip_allowlist=("::1",), lifetime_s=60)
        once = world.engine.once(admin.key_id, name, "agent-keys", {"name": name})
        key, secret = keys.agents.create(WORKSPACE, new, by=admin.key_id, once=once)
        for _ in range(3):
            keys.use.admit(secret, "::1")[1].result()
    keys.agents.revoke(WORKSPACE, key.id, by=admin.key_id)
    made, _ = keys.operators.create(admin, "Ada", live=True)
    keys.operators.rotate(admin, made.id)


def _people(world: World) -> None:
    """Two who have passkeys and are signed in; one consented to something, and ended a third."""
    people = People(world.engine.database, world.engine.writer)
    people.first()
    ada = people.set_up(str(people.first()), Credential("YWRh", "", b"a key", True, 0))
    bob = people.set_up(
        people.invite(ada, "auditor", "Bob"), Credential("Ym9i", "", b"k", False, 1)
    )
    ended = people.in_setup(people.invite(ada, "viewer", "Eve"), world.clock())
    people.revoke(ada, ended.key_id)
    mine = people.passkeys(ada.key_id)[0]
    act = {"act": {"act": "invite"}, "key_id": ada.key_id, "nonce": "n", "expires_ms": 2**50}
    signed = Assertion("{}", b"data", b"signature")
    people.prove(ada, mine, 1, "challenge", 2**50, asked=act, assertion=signed)
    for n, each in enumerate((ada, bob)):
        used = people.credential(("YWRh", "Ym9i")[n])
        assert used is not None
        assert used.key_id == each.key_id
        people.sign_in(used, 2, f"challenge {n}", 2**50 + n)


def _intents(world: World, clock: ManualClock, by: str) -> None:
    """Payment intents that ended in every way, and one that is open still."""
    shop = world.session(Limits(80 * USD, 500 * USD, None, None, 50 * USD), label="by intent")
    ended = [intent(world, dollars, by=by) for dollars in (5, 6, 90)]
    for each in ended:
        confirm(world, *each, shop)
    for dollars in (7, 8, 9):
        held = confirm(world, *intent(world, dollars, capture="manual", by=by), shop).payment
        if dollars == 7:
            world.engine.ledger.capture(WORKSPACE, held.id, 2 * USD).result()
        elif dollars == 8:
            world.engine.ledger.void(WORKSPACE, held.id).result()
    for dollars in (60, 61, 62):  # each needs an approval
        waiting = confirm(world, *intent(world, dollars, by=by), shop).intent.approval_id
        assert waiting is not None
        if dollars == 60:
            world.engine.approvals.grant(WORKSPACE, waiting, by=by)
        elif dollars == 61:
            world.engine.approvals.deny(WORKSPACE, waiting, by=by)
    given_up, _ = intent(world, 1, by=by)
    world.engine.intents.cancel(WORKSPACE, given_up.id, by=by)
    intent(world, 2, life_s=60, by=by)
    pass_time(world, clock, 16 * MINUTE_MS)
    own, _ = intent(world, 3, session=shop, by=by)
    states = {each.state for each in listed(world)}
    assert states == {"requires_payment", "succeeded", "canceled", "failed"}
    assert own.session_id == shop.id


def _signed(world: World) -> None:
    """Payments that are signed: one that the chain took, one that it did not, one still open."""
    view = world.session(label="by x402")
    cheap = offer(world)
    for state in ("captured", "expired"):
        settled(world, signed(world, view, cheap, key=state), state)
    signed(world, view, cheap)
    with contextlib.suppress(NoUsableOffer):
        ask_gate(world, view, offer(world, scheme="upto"))


def _main(world: World, clock: ManualClock) -> SessionView:
    """A session with payments that ended in every way."""
    main = world.session(
        Limits(80 * USD, 200 * USD, None, None, 50 * USD),
        mint_pkp=True,
        label="shopping ≤ 200 $",
        approvals_required=2,
        agent_name="Bot",
        metadata_json='{"project":"moon"}',
    )
    assert world.pay(main, 10, key="paid").state == "captured"
    assert world.pay(main, 90, key="denied").state == "denied"
    held = [world.pay(main, 5, hold=True, key=f"hold {n}") for n in range(3)]
    world.engine.ledger.capture(WORKSPACE, held[0].id, 2 * USD).result()
    world.engine.ledger.void(WORKSPACE, held[1].id).result()
    pass_time(world, clock, 16 * MINUTE_MS)
    assert world.engine.payments.get(WORKSPACE, held[2].id).state == "expired"
    return main


def _approvals(
    world: World, clock: ManualClock, main: SessionView, first: str, second: str
) -> None:
    """Approvals that ended in every way, and a change of restrictions."""
    engine = world.engine
    granted = asked_for(world, main, 51)
    grant(world, granted, first)
    assert grant(world, granted, second).state == "granted"
    denied = asked_for(world, main, 52)
    engine.approvals.deny(WORKSPACE, denied.id, by=second, reason="too dear")
    asked_for(world, main, 53)
    pass_time(world, clock, 16 * MINUTE_MS)
    asked_for(world, main, 54)
    refused = asked_for(world, main, 58)
    grant(world, refused, first)
    for _ in range(2):
        world.pay(main, 49)
    for _ in range(2):
        assert world.pay(main, 49).decision["code"] == "LIMIT_EXCEEDED"
    assert grant(world, refused, second).code == "LIMIT_EXCEEDED"
    engine.sessions.restrict(WORKSPACE, main.id, RESTRICTED, by=first)
    world.pay(main, 1, hold=True)
    world.pay(main, 1, key="after the change")
