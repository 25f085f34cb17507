"""An approval lets one request pass, once, if as many operators as required are for it in time."""

from typing import Any

import pytest

from engine.errors import (
    Conflict,
    InvalidInput,
    NotFound,
    TallystickError,
    Unauthenticated,
    Unavailable,
)
from engine.ledger.approval import WAITING_MAX, Approval
from engine.ledger.ask import ask as asked
from engine.policy.limits import Limits
from tests.ledger.approving import (
    ABOVE_50,
    TTL_MS,
    approval_of,
    asked_for,
    events,
    first_key,
    grant,
    new_key,
    replayed,
    revoke_key,
    shown,
    told,
)
from tests.ledger.asking import ask, at_once, one_batch
from tests.ledger.oracle import alter, query
from tests.world import USD, WORKSPACE, World


@pytest.mark.parametrize("hold", [True, False], ids=["held", "captured at once"])
def test_a_grant_makes_the_payment_that_was_asked_for(world: World, hold: bool) -> None:
    view = world.session(ABOVE_50)
    denied = world.pay(view, 60, key="k", hold=hold)
    waiting = approval_of(world, denied)
    assert (waiting.state, waiting.required, waiting.grants) == ("waiting", 1, ())
    assert waiting.expires_ms == waiting.requested_ms + TTL_MS == denied.decided_ms + TTL_MS
    assert waiting.denied_payment_id == denied.id
    assert world.engine.remaining(view).per_day == 200 * USD, "nothing is held while it waits"
    after = grant(world, waiting, first_key(world))
    assert (after.state, after.code) == ("granted", None)
    assert [given.key_id for given in after.grants] == [first_key(world)]
    assert after.payment_id is not None
    paid = world.engine.payments.get(WORKSPACE, after.payment_id)
    assert (paid.state, paid.amount, paid.approval_id) == (
        "held" if hold else "captured",
        60 * USD,
        waiting.id,
    )
    assert paid.request == denied.request
    assert world.engine.remaining(view).per_day == 140 * USD
    end = [] if hold else ["payment.captured"]
    kinds = ["payment.decided", "approval.requested", "approval.granted", "payment.decided", *end]
    assert told(world, view) == kinds
    if hold:
        captured = world.engine.ledger.capture(WORKSPACE, paid.id, 20 * USD).result()
        assert captured.state == "captured"
    assert replayed(world, view).captured_micro_usd == (20 if hold else 60) * USD


def test_the_key_of_the_request_answers_with_the_denial_for_ever(world: World) -> None:
    view = world.session(ABOVE_50)
    denied = world.pay(view, 60, key="k")
    grant(world, approval_of(world, denied), first_key(world))
    for _ in range(2):
        again = world.pay(view, 60, key="k")
        assert (again.id, again.state, again.replayed) == (denied.id, "denied", True)
        assert again.approval_id == denied.approval_id
        world.reopen()


@pytest.mark.parametrize("restart", [False, True], ids=["running on", "after a restart"])
def test_the_same_request_waits_for_the_same_approval_until_that_is_over(
    world: World, restart: bool
) -> None:
    view = world.session(ABOVE_50)
    first = world.pay(view, 60, key="a")
    if restart:
        world.reopen()
    for key in ("b", None):
        again = world.pay(view, 60, key=key)
        assert again.id != first.id
        assert again.approval_id == first.approval_id
    assert told(world, view).count("approval.requested") == 1
    world.engine.approvals.deny(WORKSPACE, str(first.approval_id), by=first_key(world))
    if restart:
        world.reopen()
    later = world.pay(view, 60)
    assert later.approval_id not in (None, first.approval_id)
    grant(world, approval_of(world, later), first_key(world))
    assert world.pay(view, 60).approval_id not in (None, first.approval_id, later.approval_id)
    replayed(world, view)


def test_two_same_requests_in_one_batch_wait_for_one_approval(world: World) -> None:
    view = world.session(ABOVE_50)
    with one_batch(world.engine.writer):
        both = [ask(world, view, 60 * USD) for _ in range(2)]
    one, other = (future.result() for future in both)
    assert one.id != other.id
    assert one.approval_id == other.approval_id


REQUESTS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "a millionth more": {"amount": 60 * USD + 1},
    "another merchant": {"merchant": "book"},
    "no merchant": {"merchant": None},
    "a composed letter": {"merchant": "caf\u00e9"},
    "the same letter in two parts": {"merchant": "cafe\u0301"},
    "another permission": {"permission": "trade"},
    "at once": {"capture": True},
    "described": {"memo": {"description": "a"}},
    "described in another alphabet": {"memo": {"description": "\u0430"}},
    "described as metadata": {"memo": {"metadata_json": '{"description":"a"}'}},
    "metadata": {"memo": {"metadata_json": '{"a":1,"b":2}'}},
    "metadata in another order": {"memo": {"metadata_json": '{"b":2,"a":1}'}},
    "metadata with a key twice": {"memo": {"metadata_json": '{"a":1,"a":1,"b":2}'}},
    "metadata, spaced": {"memo": {"metadata_json": '{"a": 1,"b":2}'}},
    "a quotation mark": {"memo": {"description": 'a","x":"b'}},
    "two fields": {"memo": {"description": "a", "x": "b"}},
}


def test_no_two_requests_share_an_approval(world: World) -> None:
    """Each of them differs from every other by something that somebody could have asked for."""
    view = world.session(ABOVE_50, permissions=("pay", "trade"))
    waiting = {}
    for name, changes in REQUESTS.items():
        memo = {"description": None, "metadata_json": "{}"} | changes.get("memo", {})
        fields = {n: value for n, value in changes.items() if n not in ("memo", "capture")}
        denied = world.engine.ledger.authorise(
            view.id,
            world.request(**{"amount": 60 * USD} | fields),
            memo=memo,
            capture=changes.get("capture", False),
        ).result()
        waiting[name] = approval_of(world, denied)
    assert len({approval.digest for approval in waiting.values()}) == len(REQUESTS)
    assert len({approval.id for approval in waiting.values()}) == len(REQUESTS)
    replayed(world, view)


def test_the_order_in_which_a_request_is_written_does_not_matter(world: World) -> None:
    view = world.session(ABOVE_50)
    memos: list[dict[str, Any]] = [
        {"description": None, "metadata_json": "{}", "x": "1"},
        {"x": "1", "metadata_json": "{}", "description": None},
    ]
    one, other = (asked(view.id, world.request(60), memo=memo).digest for memo in memos)
    assert one == other


def test_two_sessions_with_one_request_wait_for_two_approvals(world: World) -> None:
    one, other = (asked_for(world, world.session(ABOVE_50)) for _ in range(2))
    assert one.digest == other.digest
    assert grant(world, one, first_key(world)).state == "granted"
    assert shown(world, other.id).state == "waiting"


def test_as_many_keys_as_required_and_each_counts_once(world: World) -> None:
    keys = [new_key(world) for _ in range(3)]
    view = world.session(ABOVE_50, approvals_required=3)
    waiting = asked_for(world, view)
    for number, key in enumerate((keys[0], keys[0], keys[1], keys[0], keys[1])):
        after = grant(world, waiting, key)
        assert (after.state, after.payment_id) == ("waiting", None)
        assert len(after.grants) == (1 if number < 2 else 2)
        if number == 2:
            world.reopen()
    assert told(world, view).count("approval.granted") == 2
    granted = grant(world, waiting, keys[2])
    assert granted.state == "granted"
    for key in keys:  # whose answer was lost asks again
        assert grant(world, waiting, key) == granted
    with pytest.raises(Conflict) as refused:
        grant(world, waiting, first_key(world))
    assert refused.value.code == "approval_granted"
    assert len(replayed(world, view).allowed_ms) == 1


def test_the_grant_of_a_key_that_is_revoked_since_does_not_count(world: World) -> None:
    lost, second, third = (new_key(world) for _ in range(3))
    view = world.session(ABOVE_50, approvals_required=2)
    waiting = asked_for(world, view)
    grant(world, waiting, lost)
    revoke_key(world, lost)
    with pytest.raises(Unauthenticated):
        grant(world, waiting, lost)
    with pytest.raises(Unauthenticated):
        world.engine.approvals.deny(WORKSPACE, waiting.id, by=lost)
    after = grant(world, waiting, second)
    assert after.state == "waiting", "two keys, but one of them is revoked"
    assert [(each.key_id, each.counts) for each in after.grants] == [(lost, False), (second, True)]
    world.clock.advance(1)  # type: ignore[attr-defined]
    paid = grant(world, waiting, third)
    assert paid.state == "granted"
    world.clock.advance(1)  # type: ignore[attr-defined]
    revoke_key(world, second)  # which it was not when the payment was made
    listed, _ = world.engine.approvals.page(
        WORKSPACE, world.clock(), session_id=view.id, state=None, offset=0, limit=9
    )
    counts = [(lost, False), (second, True), (third, True)]
    for each in (paid, shown(world, waiting.id), *listed):
        assert [(given.key_id, given.counts) for given in each.grants] == counts
    replayed(world, view)


def test_only_an_operators_key_of_the_workspace_can_grant_or_deny(world: World) -> None:
    if "elsewhere" not in str(query(world.store, "SELECT id FROM workspaces")):
        world.engine.access.create_workspace("elsewhere", "Elsewhere")
    foreign, view = new_key(world, "elsewhere"), world.session(ABOVE_50)
    waiting, approvals = asked_for(world, view), world.engine.approvals
    for key in (foreign, view.id, world.token, "", "key_" + "0" * 26):
        with pytest.raises(Unauthenticated):
            approvals.grant(WORKSPACE, waiting.id, by=key)
        with pytest.raises(Unauthenticated):
            approvals.deny(WORKSPACE, waiting.id, by=key)
    for act in (approvals.grant, approvals.deny):
        with pytest.raises(NotFound):
            act("elsewhere", waiting.id, by=foreign)
    with pytest.raises(NotFound):
        approvals.get("elsewhere", waiting.id, world.clock())
    assert shown(world, waiting.id) == waiting


@pytest.mark.parametrize(
    "approval", ["apr_0_0", "", "apr_" + "0" * 26 + "_0", "apr_" + "0" * 26 + "_01", "pay_x_0"]
)
def test_an_approval_that_does_not_exist_is_not_found(world: World, approval: str) -> None:
    approvals, key = world.engine.approvals, first_key(world)
    with pytest.raises(NotFound):
        approvals.grant(WORKSPACE, approval, by=key)
    with pytest.raises(NotFound):
        approvals.deny(WORKSPACE, approval, by=key)
    with pytest.raises(NotFound):
        approvals.get(WORKSPACE, approval, world.clock())


def test_one_operator_who_denies_it_ends_it(world: World) -> None:
    keys = [new_key(world) for _ in range(2)]
    view = world.session(ABOVE_50, approvals_required=2)
    waiting, approvals = asked_for(world, view), world.engine.approvals
    grant(world, waiting, keys[0])
    denied = approvals.deny(WORKSPACE, waiting.id, by=keys[1], reason="not “this” merchant")
    assert (denied.state, denied.denied_by, denied.reason) == (
        "denied",
        keys[1],
        "not “this” merchant",
    )
    assert approvals.deny(WORKSPACE, waiting.id, by=keys[1], reason="another") == denied
    for act in (approvals.grant, approvals.deny):
        with pytest.raises(Conflict) as refused:
            act(WORKSPACE, waiting.id, by=keys[0])
        assert refused.value.code == "approval_denied"
    assert told(world, view)[-1] == "approval.denied"
    assert not replayed(world, view).allowed_ms


def test_with_too_many_waiting_whoever_asks_is_denied_without_one(world: World) -> None:
    view = world.session(ABOVE_50)
    asked_for_all = [ask(world, view, 60 * USD + n) for n in range(1_000)]
    denied = [future.result() for future in asked_for_all]
    assert {payment.decision["code"] for payment in denied} == {"APPROVAL_REQUIRED"}
    ids = [payment.approval_id for payment in denied]
    assert len(set(ids[:WAITING_MAX])) == WAITING_MAX == 100
    assert None not in ids[:WAITING_MAX]
    assert set(ids[WAITING_MAX:]) == {None}
    known = world.pay(view, 60)
    assert known.approval_id == ids[0], "one that waits is still found"
    world.reopen()
    world.engine.approvals.deny(WORKSPACE, str(ids[0]), by=first_key(world))
    assert ask(world, view, 99 * USD).result().approval_id not in ids
    assert ask(world, view, 98 * USD).result().approval_id is None
    replayed(world, view)


def test_each_step_is_told_beside_its_record(world: World) -> None:
    keys = [new_key(world) for _ in range(2)]
    view = world.session(ABOVE_50, approvals_required=2, label="groceries", type="app")
    waiting = asked_for(world, view, hold=True)
    grant(world, waiting, keys[0])
    grant(world, waiting, keys[1])
    payload = {
        "approval_id": waiting.id,
        "session_id": view.id,
        "type": "app",
        "label": "groceries",
        "denied_payment_id": waiting.denied_payment_id,
        "grants": 0,
        "approvals_required": 2,
        "expires_ms": waiting.expires_ms,
        "code": None,
        "reason": None,
    }
    *steps, (created, payment) = events(world, view)
    assert steps == [
        ("approval.requested", payload),
        ("approval.granted", payload | {"grants": 1}),
        ("approval.granted", payload | {"grants": 2}),
    ]
    assert (created, payment["approval_id"]) == ("payment.created", waiting.id)
    other = asked_for(world, view, 61)
    world.engine.approvals.deny(WORKSPACE, other.id, by=keys[0], reason="no")
    name, told_of = events(world, view)[-1]
    assert (name, told_of["approval_id"], told_of["reason"]) == ("approval.denied", other.id, "no")
    beside = "SELECT count(*), count(DISTINCT stream || seq), count(r.seq) FROM outbox "
    where = "LEFT JOIN records r USING (id, stream, seq) WHERE stream = ?"
    [(count, different, known)] = query(world.store, beside + where, view.id)
    assert count == different == known


def test_grants_in_one_batch_make_one_payment(world: World) -> None:
    keys = [new_key(world) for _ in range(4)]
    view = world.session(ABOVE_50, approvals_required=2)
    waiting = asked_for(world, view)
    answers = at_once(8, lambda n: grant(world, waiting, keys[n % 4]))
    assert sum(isinstance(answer, Approval) for answer in answers) >= 2
    assert told(world, view).count("payment.captured") == 1
    assert told(world, view).count("approval.granted") == 2
    assert world.engine.remaining(view).per_day == 140 * USD


@pytest.mark.parametrize("asked_for_many", [0, 11, -1])
def test_a_session_requires_one_to_ten(world: World, asked_for_many: int) -> None:
    with pytest.raises(InvalidInput) as refused:
        world.session(ABOVE_50, approvals_required=asked_for_many)
    assert refused.value.field == "approvals_required"


def test_one_is_required_unless_more_are_said(world: World) -> None:
    assert world.session(ABOVE_50).approvals_required == 1
    assert world.session(ABOVE_50, approvals_required=10).approvals_required == 10


def test_a_child_requires_as_many_as_its_parent_or_more(world: World) -> None:
    parent = world.session(ABOVE_50, approvals_required=2)

    def child(required: int | None) -> int:
        made = world.session(
            Limits(None, 200 * USD, None, None, 50 * USD),
            parent_id=parent.id,
            duration_ms=60_000,
            approvals_required=required,
        )
        return made.approvals_required

    assert [child(required) for required in (None, 2, 3)] == [2, 2, 3]
    with pytest.raises(InvalidInput) as refused:
        child(1)
    assert refused.value.field == "approvals_required"


def test_a_silent_chain_stops_a_grant_and_leaves_no_trace(fresh: World) -> None:
    view = fresh.session(ABOVE_50, mint_pkp=True)
    waiting = asked_for(fresh, view)
    before = told(fresh, view)
    fresh.engine.chain_watch.lost()
    with pytest.raises(Unavailable):
        grant(fresh, waiting, first_key(fresh))
    assert told(fresh, view) == before
    fresh.engine.tick()
    assert grant(fresh, waiting, first_key(fresh)).state == "granted"
    replayed(fresh, view)


def test_an_engine_that_starts_again_knows_what_waits(fresh: World) -> None:
    keys = [new_key(fresh) for _ in range(2)]
    view = fresh.session(ABOVE_50, approvals_required=2)
    waiting = asked_for(fresh, view)
    over = asked_for(fresh, view, 61)
    grant(fresh, waiting, keys[0])
    fresh.engine.approvals.deny(WORKSPACE, over.id, by=keys[0])
    fresh.reopen()
    assert grant(fresh, waiting, keys[1]).state == "granted"
    fresh.reopen()
    account = fresh.engine.writer.call(
        lambda batch: fresh.engine.ledger.account(batch, view.id), view.id
    )
    assert account.approvals == {}
    assert asked_for(fresh, view).id != waiting.id


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("UPDATE approvals SET state = 'denied'", "the approval is denied"),
        ("UPDATE approvals SET digest = 'x'", "other approvals"),
        ("UPDATE approvals SET expires_ms = expires_ms + 1", "other approvals"),
        ("DELETE FROM approvals", "no such approval"),
        ("UPDATE sessions SET approvals_required = 2", "other approvals"),
        ("UPDATE decisions SET memo_json = '{\"capture\":false}'", "damaged"),
    ],
)
def test_rows_that_contradict_the_records_stop_the_session(
    fresh: World, change: str, said: str
) -> None:
    view = fresh.session(ABOVE_50)
    waiting = asked_for(fresh, view)
    fresh.engine.close()
    assert alter(fresh.store, change) == 1
    fresh.engine = fresh._open()
    with pytest.raises(TallystickError, match=said):
        grant(fresh, waiting, first_key(fresh))
    if "approvals" in change:
        with pytest.raises(Unavailable, match="other approvals"):
            fresh.pay(view, 1)
    paid = query(fresh.store, "SELECT count(*) FROM decisions WHERE state != 'denied'")
    assert paid == [(0,)]


def test_one_that_is_over_and_waits_again_by_its_row_is_not_the_one_that_does(fresh: World) -> None:
    view, key = fresh.session(ABOVE_50), first_key(fresh)
    over = asked_for(fresh, view)
    fresh.engine.approvals.deny(WORKSPACE, over.id, by=new_key(fresh))
    waiting = asked_for(fresh, view)
    assert waiting.digest == over.digest
    again = "UPDATE approvals SET state = 'waiting', denied_by = NULL WHERE number = ?"
    assert alter(fresh.store, again, over.number) == 1
    for decide in (fresh.engine.approvals.grant, fresh.engine.approvals.deny):
        with pytest.raises(Unavailable, match=f"approval {over.id} is damaged"):
            decide(WORKSPACE, over.id, by=key)
    assert shown(fresh, waiting.id).grants == ()
    assert grant(fresh, waiting, key).state == "granted"
