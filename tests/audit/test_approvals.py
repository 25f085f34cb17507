"""A payment above the threshold replays only if the records before it approve it."""

from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from engine.audit import canonical
from engine.audit.record import decode_record
from engine.audit.replay import Replay, ReplayError
from engine.clock import ManualClock
from engine.sessions.session import SessionView
from tests.evidence.story import Document, chained
from tests.ledger.approving import (
    ABOVE_50,
    TTL_MS,
    asked_for,
    first_key,
    grant,
    new_key,
    revoke_key,
    told,
)
from tests.world import USD, WORKSPACE, World, records_of

START_MS = 1_800_000_000_000
Change = Callable[[list[Document]], Any]
# Where each record of `told` is.
CREATED, DENIED, REQUESTED, ONE, TWO, PAID, CAPTURED = range(7)


class Told:
    """Sessions of one world, whose records are decoded to be forged."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.keys = [new_key(world) for _ in range(2)]

    def session(self, **changes: Any) -> SessionView:
        """A session that requires both keys."""
        return self.world.session(ABOVE_50, approvals_required=2, **changes)

    def records(self, view: SessionView) -> list[Document]:
        """The records of a session, to be changed."""
        return [canonical.decode_object(record.raw) for record in records_of(self.world, view)]

    def replay(self, view: SessionView, records: list[Document]) -> Replay:
        """Replay other records of a session."""
        replay = Replay(view.grant, view.grant_hash)
        replay.feed([decode_record(raw) for raw in chained(records)])
        return replay


@pytest.fixture(scope="module")
def told_of(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    world = World(tmp_path_factory.mktemp("approvals") / "data", ManualClock(START_MS))
    yield Told(world)
    world.engine.close()


@pytest.fixture(scope="module")
def paid(told_of: Told) -> SessionView:
    """A session that paid $60 with two grants."""
    view = told_of.session()
    waiting = asked_for(told_of.world, view)
    for key in told_of.keys:
        grant(told_of.world, waiting, key)
    assert told(told_of.world, view) == [
        "payment.decided",
        "approval.requested",
        "approval.granted",
        "approval.granted",
        "payment.decided",
        "payment.captured",
    ]
    return view


def body(place: int, **values: Any) -> Change:
    return lambda records: records[place]["body"].update(values)


def without(*places: int) -> Change:
    def change(records: list[Document]) -> list[Document]:
        return [record for place, record in enumerate(records) if place not in places]

    return change


def times(*places: int, by_ms: int) -> Change:
    def change(records: list[Document]) -> None:
        for place in places:
            records[place]["time_ms"] += by_ms
            if records[place]["body"].get("hold_expires_ms"):
                records[place]["body"]["hold_expires_ms"] += by_ms

    return change


def between(place: int, *inserted: Callable[[list[Document]], Document]) -> Change:
    def change(records: list[Document]) -> list[Document]:
        return [*records[:place], *(make(records) for make in inserted), *records[place:]]

    return change


def record(like: int, kind: str, **values: Any) -> Callable[[list[Document]], Document]:
    """One more record, of the time of another."""

    def make(records: list[Document]) -> Document:
        about = {name: records[REQUESTED]["body"][name] for name in ("approval", "digest")}
        shown = about if kind.startswith("approval.") else {}
        return {**deepcopy(records[like]), "kind": kind, "body": shown | values}

    return make


def again(place: int, **values: Any) -> Callable[[list[Document]], Document]:
    def make(records: list[Document]) -> Document:
        copy = deepcopy(records[place])
        copy["body"].update(values)
        return copy

    return make


def both(*changes: Change) -> Change:
    def change(records: list[Document]) -> list[Document]:
        for each in changes:
            records = each(records) or records
        return records

    return change


def paid_twice(records: list[Document]) -> list[Document]:
    """A third key grants what is used up, and the payment is made once more."""
    more = again(ONE, key="key_third"), again(PAID), again(CAPTURED)
    return [*records, *(each(records) for each in more)]


def other_request(records: list[Document]) -> None:
    """As much to another merchant, under the digest that was approved."""
    records[PAID]["body"]["request"]["merchant"] = "casino"


RESTRICTED = record(
    TWO,
    "session.restricted",
    by="test",
    state="active",
    restrictions=["never merchant casino"],
    policy_version=2,
)
FORGED: list[tuple[str, Change, str]] = [
    ("no approval", body(PAID, approval=None), "the policy decides APPROVAL_REQUIRED"),
    ("one that never was", body(PAID, approval="apr_x_0"), "apr_x_0 does not wait"),
    ("nothing but the payment", without(DENIED, REQUESTED, ONE, TWO), "does not wait"),
    ("never asked for", without(REQUESTED), "approval.requested of apr_.* must follow"),
    ("never granted", without(ONE, TWO), "was not granted right before it"),
    ("granted once", without(ONE), "granted by 1 of 2 keys"),
    ("granted once, first", without(TWO), "granted by 1 of 2 keys"),
    (
        "granted twice by one key",
        lambda records: records[TWO]["body"].update(key=records[ONE]["body"]["key"]),
        "has granted apr_.* before",
    ),
    ("granted by nobody", body(TWO, key=""), "does not name a key"),
    ("granted by no text", body(TWO, key=["a"]), "does not name a key"),
    ("granted for another request", body(TWO, digest="0" * 64), "waits for another request"),
    ("used for another digest", body(PAID, request_digest="0" * 64), "waits for another request"),
    ("used for another request", other_request, "waits for another request"),
    ("used twice", paid_twice, "does not wait"),
    (
        "granted at its end",
        times(TWO, PAID, CAPTURED, by_ms=TTL_MS),
        "was over",
    ),
    ("used later", times(PAID, CAPTURED, by_ms=1), "was not granted right before it"),
    (
        "used after something else",
        between(PAID, record(TWO, "session.registered", state="active")),
        "was not granted right before it",
    ),
    ("used under another policy", between(PAID, RESTRICTED), "the policy has changed"),
    ("granted under another policy", between(TWO, RESTRICTED), "the policy has changed"),
    ("asked for under another policy", body(REQUESTED, policy_version=2), "another policy"),
    ("asked for with no policy", body(REQUESTED, policy_version=True), "not an integer"),
    ("asked for another request", body(REQUESTED, digest="0" * 64), "another request"),
    ("with no end", body(REQUESTED, expires_ms=2**53 - 1), "not one that an approval can have"),
    ("over at once", body(REQUESTED, expires_ms=START_MS), "not one that an approval can have"),
    ("asked for later", times(REQUESTED, ONE, TWO, PAID, CAPTURED, by_ms=1), "can have"),
    (
        "denied by an operator",
        between(TWO, record(TWO, "approval.denied", key="key_x", reason=None)),
        "does not wait",
    ),
    (
        "over",
        both(
            times(TWO, PAID, CAPTURED, by_ms=TTL_MS), between(TWO, record(TWO, "approval.expired"))
        ),
        "does not wait",
    ),
    ("over too soon", between(TWO, record(TWO, "approval.expired")), "was not over yet"),
    (
        "refused for no reason",
        between(TWO, record(TWO, "approval.refused", code="POLICY_CHANGED", payment=None)),
        "the policy has not changed",
    ),
    (
        "refused by no decision",
        between(TWO, record(TWO, "approval.refused", code="LIMIT_EXCEEDED", payment=None)),
        "no decision refuses it",
    ),
    ("of an unknown kind", between(TWO, record(TWO, "approval.blessed", key="k")), "no such kind"),
    (
        "asked for twice",
        between(ONE, again(REQUESTED)),
        "no denial asks for it",
    ),
    ("requires nothing", body(CREATED, approvals_required=0), "cannot require 0"),
    ("requires too much", body(CREATED, approvals_required=11), "cannot require 11"),
    ("requires more than granted", body(CREATED, approvals_required=3), "2 of 3 keys"),
    ("requires what is no number", body(CREATED, approvals_required="1"), "not an integer"),
]


def test_what_happened_replays(told_of: Told, paid: SessionView) -> None:
    replay = told_of.replay(paid, told_of.records(paid))
    assert (replay.decisions, len(replay.allowed_ms)) == (2, 1)
    assert replay.captured_micro_usd == 60 * USD


@pytest.mark.parametrize(("change", "said"), [f[1:] for f in FORGED], ids=[f[0] for f in FORGED])
def test_no_forged_approval_replays(
    told_of: Told, paid: SessionView, change: Change, said: str
) -> None:
    records = told_of.records(paid)
    with pytest.raises(ReplayError, match=said):
        told_of.replay(paid, change(records) or records)


@pytest.fixture(scope="module")
def refused(told_of: Told) -> SessionView:
    """A session whose approved payment was denied, because the day was used up meanwhile."""
    view = told_of.session()
    waiting = asked_for(told_of.world, view)
    grant(told_of.world, waiting, told_of.keys[0])
    for _ in range(3):
        told_of.world.pay(view, 50)
    grant(told_of.world, waiting, told_of.keys[1])
    assert told(told_of.world, view)[-2:] == ["payment.decided", "approval.refused"]
    return view


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda records: [*records[:-1], again(ONE, key="key_x")(records)], "must follow"),
        (body(-1, code="SESSION_REVOKED"), "something else than was decided"),
        (body(-1, payment=None), "something else than was decided"),
        (body(-2, approval=None), "no decision refuses it"),
    ],
    ids=["nothing ends it", "another code", "no payment", "a denial of its own"],
)
def test_a_refusal_is_the_decisions(
    told_of: Told, refused: SessionView, change: Change, said: str
) -> None:
    records = told_of.records(refused)
    assert not told_of.replay(refused, told_of.records(refused)).open_until_ms
    with pytest.raises(ReplayError, match=said):
        told_of.replay(refused, change(records) or records)


@pytest.fixture(scope="module")
def asked_twice(told_of: Told) -> SessionView:
    """A session that asked for the same twice, and for something else."""
    view = told_of.session()
    for dollars in (60, 60, 61):
        told_of.world.pay(view, dollars)
    return view


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda records: records[3]["body"].update(approval=records[4]["body"]["approval"]),
            "does not wait",
        ),
        (
            lambda records: records[4]["body"].update(approval=records[1]["body"]["approval"]),
            "waits for another request",
        ),
        (
            lambda records: records[3]["body"].update(
                approval=records[3]["body"]["payment"].replace("pay_", "apr_")
            ),
            "waits already",
        ),
        (lambda records: records[3].update(time_ms=records[3]["time_ms"] + TTL_MS), "was over"),
    ],
    ids=["one to come", "that of another request", "a second one", "one that is over"],
)
def test_a_denial_names_the_approval_it_waits_for(
    told_of: Told, asked_twice: SessionView, change: Change, said: str
) -> None:
    records = told_of.records(asked_twice)
    told_of.replay(asked_twice, told_of.records(asked_twice))
    change(records)
    for later in records[4:]:
        later["time_ms"] = max(later["time_ms"], records[3]["time_ms"])
    with pytest.raises(ReplayError, match=said):
        told_of.replay(asked_twice, records)


def test_a_denial_that_is_not_about_the_threshold_names_none(
    told_of: Told, refused: SessionView
) -> None:
    records = told_of.records(refused)
    place = next(n for n, each in enumerate(records) if each["kind"] == "payment.decided" and n > 1)
    records[place]["body"]["approval"] = records[1]["body"]["approval"]
    with pytest.raises(ReplayError, match="waits for another request"):
        told_of.replay(refused, records)


def test_grants_that_did_not_count_replay(told_of: Told, tmp_path: Path) -> None:
    """Two keys granted it and one of them was revoked in between: a third was needed."""
    world = told_of.world
    lost, view = new_key(world), told_of.session()
    waiting = asked_for(world, view)
    grant(world, waiting, lost)
    revoke_key(world, lost)
    assert grant(world, waiting, told_of.keys[0]).state == "waiting"
    assert grant(world, waiting, told_of.keys[1]).state == "granted"
    assert len(told_of.replay(view, told_of.records(view)).allowed_ms) == 1


def test_every_end_replays(told_of: Told) -> None:
    world, view = told_of.world, told_of.session()
    clock = world.clock
    assert isinstance(clock, ManualClock)
    denied = asked_for(world, view)
    world.engine.approvals.deny(WORKSPACE, denied.id, by=first_key(world), reason="no")
    changed = asked_for(world, view)
    world.engine.sessions.restrict(WORKSPACE, view.id, ("never merchant casino",), by="test")
    grant(world, changed, told_of.keys[0])
    asked_for(world, view)
    clock.advance(TTL_MS)
    world.engine.tick()
    kinds = [kind for kind in told(world, view) if kind.startswith("approval.")]
    assert kinds[1::2] == ["approval.denied", "approval.refused", "approval.expired"]
    records = told_of.records(view)
    assert told_of.replay(view, records).decisions == 3
    for place, each in enumerate(records):
        if each["kind"] in kinds[1::2]:
            with pytest.raises(ReplayError):
                told_of.replay(view, [*records[: place + 1], *records[place:]])
