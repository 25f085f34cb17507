"""Every event arrives, at least once, and nobody else's."""

import threading
import time

import pytest
from standardwebhooks.webhooks import Webhook

from engine.clock import ManualClock, system_clock
from engine.webhooks import delivery
from engine.webhooks.egress import Egress
from engine.webhooks.lane import WIDTH
from engine.webhooks.schedule import ATTEMPTS_MAX, DELAYS_MS, JITTER
from tests.ledger.approving import asked_for, first_key, grant
from tests.webhooks.receiver import Received, Receiver
from tests.webhooks.sending import (
    NEEDS_APPROVAL,
    deliver,
    endpoint,
    next_ms,
    pass_time,
    rows,
    shown,
    waiting,
)
from tests.world import WORKSPACE, World

HOUR_MS = 3_600_000
WAITING_MAX = 12
"""Instead of a hundred, which takes longer."""


def test_what_happens_is_told_in_its_words_once_and_signed(
    world: World, receiver: Receiver, clock: ManualClock
) -> None:
    clock.now_ms = system_clock()  # the library knows no other clock
    _, secret = world.engine.webhooks.create(WORKSPACE, receiver.url, ("*",), by="test")
    view = world.session(NEEDS_APPROVAL, approvals_required=1)
    approval = asked_for(world, view)
    grant(world, approval, first_key(world))
    held = world.pay(world.session(), 1, hold=True)
    world.engine.ledger.void(WORKSPACE, held.id).result()
    world.engine.revoke_session(WORKSPACE, view.id, by="test")
    deliver(world)
    deliver(world)
    assert sorted(receiver.names()) == sorted(
        (
            *("agent.session.created", "approval.requested", "approval.granted"),
            *("payment.confirmed", "agent.session.created", "payment.created", "payment.voided"),
            "agent.session.revoked",
        )
    )
    assert len(set(receiver.ids())) == len(receiver.received)
    outbox = rows(world, "SELECT stream, seq, event FROM outbox")
    for each in receiver.received:
        told = Webhook(secret).verify(each.body, each.headers)
        assert told["merchant_id"] == WORKSPACE
        stream, _, number = told["id"].removeprefix("evt_").rpartition("_")
        assert (stream, told["sequence"], told["event"]) in outbox
        assert (stream, int(number)) == (told["data"]["session_id"], told["sequence"])
        assert each.headers["x-zendfi-event-id"] == each.headers["webhook-id"] == told["id"]
    [requested] = [each.event for each in receiver.received if each.name == "approval.requested"]
    assert requested["data"]["approval_id"] == approval.id


def test_an_endpoint_hears_what_it_wants_of_its_own_workspace_since_it_was_made(
    world: World, receiver: Receiver
) -> None:
    world.engine.access.create_workspace("other", "Another tenant")
    world.session()
    deliver(world)
    mine = endpoint(world, receiver, "payment.confirmed", path="/mine")
    endpoint(world, receiver, path="/theirs", workspace="other")
    view, foreign = world.session(), world.session(workspace="other")
    world.pay(view, 1)
    world.pay(view, 1, hold=True)
    world.pay(foreign, 1)
    deliver(world)
    heard = {(each.path, each.name, each.event["merchant_id"]) for each in receiver.received}
    assert heard == {
        ("/hooks/mine", "payment.confirmed", WORKSPACE),
        ("/hooks/theirs", "payment.confirmed", "other"),
        ("/hooks/theirs", "agent.session.created", "other"),
    }
    assert len(receiver.received) == 3
    assert shown(world, mine).succeeded_ms == world.clock()


def test_an_event_has_the_name_by_which_it_was_asked_for_at_each_attempt(
    world: World, receiver: Receiver
) -> None:
    receiver.answer = lambda _: 500
    completed = ("payment.completed", "payment.failed")
    for path, events in (("/docs", completed), ("/both", (*completed, "payment.confirmed"))):
        endpoint(world, receiver, *events, path=path)
    view = world.session()
    world.pay(view, 1)
    world.engine.ledger.void(WORKSPACE, world.pay(view, 1, hold=True).id).result()
    deliver(world)
    receiver.answer = lambda _: 200
    pass_time(world, 60_000)
    deliver(world)
    for path, confirmed in (("/hooks/docs", "completed"), ("/hooks/both", "confirmed")):
        heard = [each for each in receiver.received if each.path == path]
        assert {each.name for each in heard} == {f"payment.{confirmed}", "payment.failed"}
        assert (len(heard), len({each.body for each in heard})) == (4, 2)


def test_ten_attempts_on_the_schedule_over_restarts_and_then_it_is_disabled(
    world: World, receiver: Receiver
) -> None:
    receiver.answer = lambda _: 500
    made = endpoint(world, receiver, "agent.session.created")
    with_notice = endpoint(world, receiver, "webhook.disabled", path="/notice")
    view = world.session()
    deliver(world)
    attempted = [world.clock()]
    while shown(world, made).active:
        due = next_ms(world)
        pass_time(world, due - 1 - world.clock())
        deliver(world)
        assert len(receiver.received) == len(attempted), "not a millisecond too early"
        pass_time(world, 1)
        if len(attempted) % 3 == 0:
            world.reopen()
        if len(attempted) == ATTEMPTS_MAX - 1:
            receiver.answer = lambda each: 200 if "notice" in each.path else 500
        deliver(world)
        attempted.append(due)
    failing = [each for each in receiver.received if each.name == "agent.session.created"]
    assert len(failing) == len(attempted) == ATTEMPTS_MAX
    for before, after, delay in zip(attempted, attempted[1:], DELAYS_MS[1:], strict=False):
        assert delay <= after - before <= delay + delay / JITTER
    assert len({each.body for each in failing}) == 1
    assert len({each.headers["webhook-id"] for each in failing}) == 1
    retries = [each.headers.get("x-zendfi-retry-count") for each in failing]
    assert retries == [None, *map(str, range(1, ATTEMPTS_MAX))]
    first = {each.headers["x-zendfi-original-timestamp"] for each in failing[1:]}
    assert first == {failing[0].headers["webhook-timestamp"]}
    assert len({each.headers["webhook-timestamp"] for each in failing}) == ATTEMPTS_MAX

    deliver(world)
    assert shown(world, made).disabled_reason == "failing"
    [notice] = [each.event for each in receiver.received if each.name == "webhook.disabled"]
    assert notice["data"] == {"webhook_id": made.id, "reason": "failing"}
    assert shown(world, with_notice).active
    [(kind,)] = rows(
        world,
        "SELECT json_extract(body, '$.kind') FROM records WHERE stream = ? "
        "ORDER BY seq DESC LIMIT 1",
        WORKSPACE,
    )
    assert kind == "webhook.disabled"

    receiver.answer = lambda _: 200
    world.session()
    count = len(receiver.received)
    deliver(world)
    assert len(receiver.received) == count, "nothing goes to one that is disabled"
    world.engine.webhooks.change(WORKSPACE, made.id, active=True, by="test")
    deliver(world)
    back = receiver.received[count:]
    assert len(back) == 2, "what was given up, and what happened meanwhile"
    assert f"evt_{view.id}_0" in [each.event["id"] for each in back]
    assert waiting(world, made) == 0


def test_gone_is_gone_at_once(world: World, receiver: Receiver) -> None:
    receiver.answer = lambda _: 410
    made = endpoint(world, receiver)
    world.session()
    deliver(world)
    assert (shown(world, made).active, shown(world, made).disabled_reason) == (False, "gone")
    pass_time(world, 100 * HOUR_MS)
    deliver(world)
    assert len(receiver.received) == 1


def test_a_receiver_that_asks_for_a_pause_is_left_alone_for_so_long(
    world: World, receiver: Receiver
) -> None:
    receiver.answer = lambda _: (429, {"Retry-After": "3600"})
    endpoint(world, receiver)
    world.session()
    deliver(world)
    world.session()
    pass_time(world, HOUR_MS - 1)
    deliver(world)
    assert len(receiver.received) == 1, "neither the same again nor anything new"
    receiver.answer = lambda _: 200
    pass_time(world, 1)
    deliver(world)
    assert len(receiver.received) == 3


def test_one_event_that_a_receiver_cannot_take_stops_no_other(
    world: World, receiver: Receiver
) -> None:
    receiver.answer = lambda each: 500 if each.name == "payment.voided" else 200
    made = endpoint(world, receiver)
    view = world.session()
    world.engine.ledger.void(WORKSPACE, world.pay(view, 1, hold=True).id).result()
    for _ in range(ATTEMPTS_MAX):
        world.session()
        deliver(world)
        pass_time(world, 27 * HOUR_MS)
    assert receiver.names().count("payment.voided") == ATTEMPTS_MAX
    assert receiver.names().count("agent.session.created") == ATTEMPTS_MAX + 1
    assert (shown(world, made).active, waiting(world, made)) == (True, 0)
    logged, _ = world.engine.webhooks.attempts(WORKSPACE, made.id, offset=0, limit=100)
    given_up = next(each for each in logged if each.status_code == 500)
    assert (given_up.attempt, given_up.next_ms) == (ATTEMPTS_MAX - 1, None)


def test_so_many_wait_and_the_rest_comes_when_the_receiver_is_back(
    world: World, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "WAITING_MAX", WAITING_MAX)
    receiver.answer = lambda _: 500
    made = endpoint(world, receiver, "payment.confirmed")
    view = world.session()
    paid = [world.pay(view, 1) for _ in range(3 * WAITING_MAX)]
    ids = {f"evt_{view.id}_{payment.number + 1}" for payment in paid}
    deliver(world)
    assert waiting(world, made) == WAITING_MAX
    pass_time(world, 30 * HOUR_MS)
    deliver(world)
    assert waiting(world, made) == WAITING_MAX
    most, flying, lock = 0, 0, threading.Lock()

    def counting(_: Received) -> int:
        nonlocal most, flying
        with lock:
            flying += 1
            most = max(most, flying)
        time.sleep(0.005)  # so that they meet
        with lock:
            flying -= 1
        return 200

    receiver.answer = counting
    before = len(receiver.received)
    pass_time(world, 30 * HOUR_MS)
    deliver(world)
    assert {each.event["id"] for each in receiver.received[before:]} == ids
    assert len(receiver.received) - before == len(paid)
    assert (waiting(world, made), shown(world, made).failures) == (0, 0)
    assert 1 < most <= WIDTH


def test_what_is_changed_or_deleted_is_so_for_what_waits(world: World, receiver: Receiver) -> None:
    receiver.answer = lambda _: 503
    moved = endpoint(world, receiver, path="/old")
    deleted = endpoint(world, receiver, path="/deleted")
    disabled = endpoint(world, receiver, path="/disabled")
    world.session()
    deliver(world)
    assert len(receiver.received) == 3
    webhooks = world.engine.webhooks
    webhooks.change(WORKSPACE, moved.id, url=receiver.url + "/new", by="test")
    _, secret = webhooks.rotate(WORKSPACE, moved.id, by="test")
    webhooks.delete(WORKSPACE, deleted.id, by="test")
    webhooks.change(WORKSPACE, disabled.id, active=False, by="test")
    pass_time(world, 6_000)
    receiver.answer = lambda _: 200
    deliver(world)
    [again] = receiver.received[3:]
    assert again.path == "/hooks/new"
    assert len(again.headers["webhook-signature"].split(" ")) == 2
    expected = world.engine.webhooks.get(WORKSPACE, moved.id).secrets(webhooks.vault, world.clock())
    assert len(expected) == 2
    assert secret.startswith("whsec_")
    pass_time(world, 24 * HOUR_MS)
    assert len(shown(world, moved).secrets(webhooks.vault, world.clock())) == 1
    assert rows(world, "SELECT DISTINCT endpoint_id FROM webhook_deliveries") == [(disabled.id,)]
    attempts = rows(world, "SELECT DISTINCT endpoint_id FROM webhook_attempts")
    assert deleted.id not in [endpoint_id for (endpoint_id,) in attempts]


def test_what_was_sent_and_not_written_down_is_sent_again_under_its_id(
    world: World, receiver: Receiver
) -> None:
    endpoint(world, receiver, "payment.confirmed")
    view = world.session()
    for _ in range(3):
        world.pay(view, 1)
    world.engine.lead.sequence()
    world.engine.delivery._begin()  # and the process ends before anything came back
    for _ in range(3):
        world.engine.delivery._sent.get()
    world.reopen()
    deliver(world)
    assert sorted(receiver.ids()) == sorted(receiver.ids()[:3] * 2)
    deliver(world)
    assert len(receiver.received) == 6


def test_everything_since_then_comes_once_more(world: World, receiver: Receiver) -> None:
    made = endpoint(world, receiver, "payment.confirmed")
    view = world.session()
    world.pay(view, 1)
    deliver(world)
    pass_time(world, 60_000)
    since_ms = world.clock()
    world.pay(view, 2)
    world.pay(view, 3)
    deliver(world)
    world.engine.webhooks.replay(WORKSPACE, made.id, since_ms, by="test")
    deliver(world)
    ids = receiver.ids()
    assert sorted(ids[3:]) == sorted(ids[1:3])
    world.engine.webhooks.replay(WORKSPACE, made.id, since_ms + HOUR_MS, by="test")
    deliver(world)
    assert len(receiver.received) == 5
    asked = {"actor": None, "kinds": ["webhook.replayed"], "from_ms": None, "until_ms": None}
    acts = [(each.actor, each.resource_id) for each in world.engine.acts.all(WORKSPACE, **asked)]
    assert acts == [("test", made.id)] * 2


def test_one_that_hangs_holds_up_no_other(world: World, receiver: Receiver) -> None:
    world.engine.delivery._egress = Egress(world.settings.webhook_ip_networks, deadline_s=5)
    released = threading.Event()

    def answer(each: Received) -> int:
        if "slow" in each.path:
            assert released.wait(20)
        elif receiver.names().count("payment.confirmed") >= 4:
            released.set()  # only once the other has heard everything
        return 200

    receiver.answer = answer
    slow = endpoint(world, receiver, "agent.session.created", path="/slow")
    endpoint(world, receiver, "payment.confirmed", path="/fast")
    view = world.session()
    for _ in range(4):
        world.pay(view, 1)
    deliver(world)
    assert released.is_set()
    assert shown(world, slow).failures == 0


def test_receivers_of_one_workspace_that_hang_hold_up_no_other_workspace(
    world: World, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "FLYING_MAX", 4)
    monkeypatch.setattr(delivery, "FLYING_OF_WORKSPACE_MAX", 2)
    hanging, heard, released = threading.Semaphore(0), threading.Event(), threading.Event()

    def answer(each: Received) -> int:
        if "slow" in each.path:
            hanging.release()
            assert released.wait(20)
        else:
            heard.set()
        return 200

    receiver.answer = answer
    for number in range(4):
        endpoint(world, receiver, path=f"/slow/{number}")
    world.engine.access.create_workspace("other", "Another tenant")
    endpoint(world, receiver, path="/fast", workspace="other")
    view, stopping = world.session(), threading.Event()
    world.engine.lead.sequence()
    threads = world.engine.delivery.start(lambda: True, stopping=stopping)
    for _ in range(2):
        assert hanging.acquire(timeout=10)
    assert world.pay(view, 1).state == "captured"
    world.session(workspace="other")
    world.engine.lead.sequence()
    in_time = heard.wait(10)
    assert not hanging.acquire(blocking=False), "no more than its share"
    released.set()
    stopping.set()
    for thread in threads:
        thread.join()
    assert in_time


def test_a_key_encryption_key_that_is_another_s_is_a_failure_like_others(
    world: World, receiver: Receiver
) -> None:
    made = endpoint(world, receiver)
    world.engine.writer.call(
        lambda batch: batch._connection.exec_driver_sql(
            "UPDATE webhook_endpoints SET sealed = zeroblob(60)"
        )
    )
    world.session()
    deliver(world)
    assert receiver.received == []
    [logged], _ = world.engine.webhooks.attempts(WORKSPACE, made.id, offset=0, limit=5)
    assert (logged.success, logged.error) == (False, "its secret cannot be opened")
