"""Payment intents: paid once whoever confirms how often, and whatever becomes of the payment."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from engine.clock import ManualClock
from engine.errors import Conflict, Forbidden, NotFound, TallystickError
from engine.ledger.intents import Confirmed
from engine.policy.limits import Limits
from tests.ledger.approving import first_key, new_key
from tests.ledger.intending import confirm, intent, now
from tests.ledger.oracle import query
from tests.world import USD, WORKSPACE, World

DAY_MS = 86_400_000
CALLERS = 50
LIMITS = Limits(100 * USD, 200 * USD, None, None, 50 * USD)


def payments_of(world: World, session_id: str) -> list[tuple[str, int]]:
    rows = query(
        world.store, f"SELECT state, captured FROM decisions WHERE session_id = '{session_id}'"
    )
    return [(row[0], row[1]) for row in rows]


def told(world: World, intent_id: str) -> list[str]:
    """The events about an intent, in their order."""
    like = f"SELECT event FROM outbox WHERE payload_json LIKE '%{intent_id}%' ORDER BY id"
    return [row[0] for row in query(world.store, like)]


def test_fifty_callers_who_confirm_at_once_make_one_payment(world: World) -> None:
    """Half of them with one session, half with another: one session pays, the others hear so."""
    sessions = [world.session(), world.session()]
    made, secret = intent(world, 5)
    gate = Barrier(CALLERS)

    def call(caller: int) -> Confirmed | TallystickError:
        gate.wait()
        try:
            return confirm(world, made, secret, sessions[caller % 2])
        except Conflict as refusal:
            return refusal

    with ThreadPoolExecutor(CALLERS) as threads:
        answers = list(threads.map(call, range(CALLERS)))
    paid = [each for each in answers if isinstance(each, Confirmed)]
    assert len({each.payment.id for each in paid}) == 1
    assert [each.payment.replayed for each in paid].count(False) == 1
    assert len(paid) == CALLERS // 2
    refused = {each.code for each in answers if isinstance(each, Conflict)}
    assert refused == {"intent_succeeded"}
    made_of = [payments_of(world, session.id) for session in sessions]
    assert sorted(made_of) == [[], [("captured", 5 * USD)]]
    assert told(world, made.id) == ["intent.created", "intent.confirmed", "intent.succeeded"]


def test_a_confirmation_in_other_words_is_refused_and_names_what_differs(world: World) -> None:
    session = world.session()
    made, secret = intent(world, 5)
    confirm(world, made, secret, session, metadata_json='{"a":1}')
    with pytest.raises(Conflict) as refused:
        confirm(world, made, secret, session, metadata_json='{"a":2}')
    assert refused.value.details["field"] == "metadata_json"
    assert len(payments_of(world, session.id)) == 1


def test_what_is_held_is_captured_in_part_voided_or_runs_out(
    world: World, clock: ManualClock
) -> None:
    session = world.session()
    captured, voided, expired = (intent(world, 10, capture="manual") for _ in range(3))
    held = [confirm(world, *each, session) for each in (captured, voided, expired)]
    assert {each.intent.state for each in held} == {"processing"}
    world.engine.ledger.capture(WORKSPACE, held[0].payment.id, 4 * USD).result()
    world.engine.ledger.void(WORKSPACE, held[1].payment.id).result()
    clock.advance(900_000)
    world.engine.expiry.holds.run()
    ended = [now(world, each) for each, _ in (captured, voided, expired)]
    assert [(each.state, each.code, each.captured) for each in ended] == [
        ("succeeded", None, 4 * USD),
        ("canceled", "payment_voided", 0),
        ("failed", "payment_expired", 0),
    ]
    assert told(world, expired[0].id)[-1] == "intent.failed"
    for each, secret in (captured, voided, expired):
        assert confirm(world, each, secret, session).payment.replayed
    assert len(payments_of(world, session.id)) == 3


def test_a_denial_fails_it_for_good(world: World) -> None:
    session = world.session(LIMITS)
    made, secret = intent(world, 101)
    first = confirm(world, made, secret, session)
    assert (first.intent.state, first.intent.code) == ("failed", "LIMIT_EXCEEDED")
    assert confirm(world, made, secret, session).payment.id == first.payment.id
    with pytest.raises(Conflict) as refused:
        confirm(world, made, secret, world.session())
    assert refused.value.code == "intent_failed"
    assert told(world, made.id) == ["intent.created", "intent.failed"]


def test_what_needs_an_approval_is_what_becomes_of_that(world: World, clock: ManualClock) -> None:
    session, approvals, by = world.session(LIMITS), world.engine.approvals, new_key(world)
    every = [intent(world, 60 + n, capture=("automatic", "manual")[n % 2]) for n in range(5)]
    waiting = [confirm(world, *each, session).intent for each in every]
    assert [(each.state, each.payment_id) for each in waiting] == [("processing", None)] * 5
    ids = [str(each.approval_id) for each in waiting]
    assert len(set(ids)) == 5
    for approval in ids[:2]:
        approvals.grant(WORKSPACE, approval, by=by)
    approvals.deny(WORKSPACE, ids[2], by=by)
    assert confirm(world, *every[0], session).payment.state == "captured"  # the 60 of 200
    world.pay(session, 50)
    assert approvals.grant(WORKSPACE, ids[3], by=by).state == "refused"  # over the day's 200
    clock.advance(900_000)
    world.engine.expiry.approvals.run()
    ended = [now(world, each) for each, _ in every]
    assert [(each.state, each.code) for each in ended] == [
        ("succeeded", None),
        ("processing", None),
        ("failed", "approval_denied"),
        ("failed", "LIMIT_EXCEEDED"),
        ("failed", "approval_expired"),
    ]
    assert ended[1].payment is not None
    assert ended[1].payment_id == ended[1].payment.id
    assert told(world, every[1][0].id) == ["intent.created", "intent.confirmed"]


def test_it_is_over_from_the_millisecond_of_its_expiry(world: World, clock: ManualClock) -> None:
    session = world.session(duration_ms=3 * DAY_MS)
    early, late = intent(world, 1, life_s=60), intent(world, 1, life_s=60)
    own = intent(world, 1, life_s=60, session=session)
    clock.advance(59_999)
    assert confirm(world, *early, session).intent.state == "succeeded"
    clock.advance(1)
    assert (now(world, late[0]).state, now(world, late[0]).code) == ("canceled", "expired")
    for over in (late, own):
        with pytest.raises(Conflict) as refused:
            confirm(world, *over, session)
        assert refused.value.code == "intent_canceled"
        assert told(world, over[0].id) == ["intent.created"]
    assert world.engine.expiry.intents.run() == 2
    assert world.engine.expiry.intents.run() == 0
    assert told(world, late[0].id) == ["intent.created", "intent.canceled"]
    assert len(payments_of(world, session.id)) == 1


def test_only_what_nobody_confirmed_can_be_canceled(world: World) -> None:
    session, intents = world.session(), world.engine.intents
    held = intent(world, 1, capture="manual")
    for given_up in (intent(world, 1), intent(world, 1, session=session)):
        for _ in range(2):
            ended = intents.cancel(WORKSPACE, given_up[0].id, by=first_key(world))
            assert ended.state == "canceled"
        assert told(world, given_up[0].id) == ["intent.created", "intent.canceled"]
        with pytest.raises(Conflict, match="canceled"):
            confirm(world, *given_up, session)
    confirm(world, *held, session)
    with pytest.raises(Conflict) as refused:
        intents.cancel(WORKSPACE, held[0].id, by=first_key(world))
    assert refused.value.code == "intent_processing"


def test_a_client_secret_opens_its_own_intent_and_nothing_else(world: World) -> None:
    session = world.session()
    made, secret = intent(world, 1)
    _, another = intent(world, 1)
    hostile = [
        another,
        secret[:-1],
        secret + "0",
        secret.upper(),
        secret[:-1] + chr(ord(secret[-1]) ^ 1),
        secret.rpartition("_")[2],
        made.id + "_secret_",
        f"{made.id}_secret_" + "0" * 64,
        " " + secret,
        secret + "\0",
        secret[:-1] + "\uff10",
        "\ud800",
        "",
        "x" * 10_000,
        "' OR '1'='1",
        "zai_session_" + "0" * 64,
    ]
    before = query(world.store, "SELECT count(*) FROM records")
    for each in hostile:
        with pytest.raises(Forbidden) as refused:
            confirm(world, made, each, session)
        assert refused.value.code == "invalid_client_secret"
    assert query(world.store, "SELECT count(*) FROM records") == before
    assert confirm(world, made, secret, session).intent.state == "succeeded"


def test_it_is_for_the_agent_or_the_session_that_it_names(world: World) -> None:
    own, other = world.session(agent_id="bot"), world.session(agent_id="shopper")
    made, secret = intent(world, 1, agent="bot")
    with pytest.raises(Forbidden) as refused:
        confirm(world, made, secret, other)
    assert refused.value.code == "intent_of_another_agent"
    bound, its_secret = intent(world, 1, session=own)
    with pytest.raises(NotFound):
        confirm(world, bound, its_secret, world.session(agent_id="bot"))
    assert confirm(world, made, secret, own).intent.state == "succeeded"
    assert confirm(world, bound, its_secret, own).intent.state == "succeeded"


def test_a_key_that_was_used_for_another_payment_pays_no_intent(world: World) -> None:
    """Whoever guesses the ledger's own key for an intent spoils it for their session alone."""
    session = world.session()
    made, secret = intent(world, 1)
    world.pay(session, 1, key=f"payment-intent:{made.id}")
    with pytest.raises(Conflict) as refused:
        confirm(world, made, secret, session)
    assert refused.value.code == "idempotency_key_reused"
    assert confirm(world, made, secret, world.session()).intent.state == "succeeded"
