"""A log in which something else was signed, twice, too early or unbound does not replay."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from msgspec.structs import replace

from engine.audit.record import Record
from engine.audit.replay import Replay, ReplayError
from engine.clock import ManualClock
from engine.sessions.session import SessionView
from tests.ledger.asking import START_MS
from tests.ledger.paying import CENT, OTHER_SHOP, three_signed
from tests.world import World, records_of

Change = Callable[[list[Record]], None]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[SessionView, list[Record]]]:
    """A session that signed three payments, and its records."""
    world = World(tmp_path_factory.mktemp("signed") / "data", ManualClock(START_MS))
    view = three_signed(world)
    yield view, records_of(world, view)
    world.engine.close()


def body(at: int, **changes: Any) -> Change:
    def change(records: list[Record]) -> None:
        records[at] = replace(records[at], body={**records[at].body, **changes})

    return change


def settlement(at: int, **changes: Any) -> Change:
    def change(records: list[Record]) -> None:
        body(at, settlement={**records[at].body["settlement"], **changes})(records)

    return change


def terms(at: int, **changes: Any) -> Change:
    def change(records: list[Record]) -> None:
        request = records[at].body["request"]
        body(at, request={**request, "terms": {**request["terms"], **changes}})(records)

    return change


def again(at: int, place: int) -> Change:
    return lambda records: records.insert(place, records[at])


def gone(at: int, *names: str) -> Change:
    def change(records: list[Record]) -> None:
        kept = {name: value for name, value in records[at].body.items() if name not in names}
        records[at] = replace(records[at], body=kept)

    return change


def kind(at: int, named: str) -> Change:
    def change(records: list[Record]) -> None:
        records[at] = replace(records[at], kind=named)

    return change


LIES: dict[str, tuple[Change, str]] = {
    "another amount": (body(2, amount=str(CENT + 1)), "not what was allowed"),
    "another payee": (body(2, to=OTHER_SHOP), "not what was allowed"),
    "another network": (body(2, network="eip155:1"), "not what was allowed"),
    "another key": (body(2, **{"from": OTHER_SHOP}), "another key"),
    "another nonce": (body(2, nonce="00" * 32), "not bound to its decision"),
    "another salt": (body(2, salt="00" * 32), "not bound to its decision"),
    "valid for longer": (body(2, valid_before_s=START_MS // 1000 + 302), "for longer"),
    "valid too late": (body(2, valid_after_s=START_MS // 1000 + 9), "not valid when"),
    "one field more": (body(2, memo="x"), "nothing of that payment"),
    "signed twice": (again(2, 3), "signed already"),
    "signed before it was held": (again(2, 1), "not held"),
    "signed after it ended": (again(2, 6), "not held"),
    "terms of another token": (terms(1, asset="eip155:1/erc20:" + OTHER_SHOP), "another token"),
    "terms with another payee": (terms(1, pay_to=OTHER_SHOP), "not what was allowed"),
    "terms for ten years": (terms(1, timeout_s=315_360_000), "timeout"),
    "captured without the chain": (gone(5, "settlement"), "only the chain"),
    "voided": (lambda r: (kind(6, "payment.voided")(r), gone(6, "settlement")(r))[0], "only the"),
    "settled to another": (settlement(5, to=OTHER_SHOP), "another to"),
    "settled for less": (settlement(5, amount="1"), "another amount"),
    "captured in part": (body(5, captured_micro_usd=1), "as a whole"),
    "expired too early": (settlement(6, block_time_s=START_MS // 1000), "still valid"),
    "accepted too early": (settlement(9, block_time_s=START_MS // 1000), "still valid"),
    "accepted by nobody": (settlement(9, accepted_by=""), "without its accepted_by"),
    "accepted for no reason": (settlement(9, reason=None), "without its reason"),
    "accepted elsewhere": (settlement(9, network="eip155:1"), "its network"),
    "accepted in part": (body(9, captured_micro_usd=1), "as a whole"),
    "accepted with a place": (settlement(9, log_index=1), "not of its form"),
    "accepted by the score": (settlement(9, transactions=["0x" + "7a" * 32] * 17), "a long one"),
    "accepted as nothing": (settlement(9, transactions=["0x7a"]), "is no hash"),
    "given back by an operator": (kind(9, "payment.voided"), "amounts|only the chain"),
}


def test_what_really_happened_replays(told: tuple[SessionView, list[Record]]) -> None:
    view, records = told
    replay = Replay(view.grant, view.grant.hash())
    replay.feed(records[:5])
    assert len(replay.signatures.open) == 2
    assert replay.open_until_ms is None
    replay.feed(records[5:])
    assert (replay.signatures.open, replay.captured_micro_usd) == ({}, 4 * CENT)


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_about_what_was_signed_does_not_replay(
    told: tuple[SessionView, list[Record]], lie: str
) -> None:
    view, records = told[0], list(told[1])
    change, says = LIES[lie]
    change(records)
    with pytest.raises(ReplayError, match=says):
        Replay(view.grant, view.grant.hash()).feed(records)


def test_a_hold_can_be_signed_until_the_millisecond_before_it_ends(
    told: tuple[SessionView, list[Record]],
) -> None:
    view, records = told[0], told[1][:3]
    expires_ms = records[1].time_ms + 1000
    body(1, hold_expires_ms=expires_ms)(records)

    def sign_at(time_ms: int) -> None:
        signed = replace(records[2], time_ms=time_ms)
        Replay(view.grant, view.grant.hash()).feed([*records[:2], signed])

    sign_at(expires_ms - 1)
    with pytest.raises(ReplayError, match="not held"):
        sign_at(expires_ms)
