"""Many sessions are revoked together: counted and shown first, then all of them or none."""

from pathlib import Path
from typing import Any

import pytest

from engine.clock import ManualClock
from engine.errors import Unavailable
from engine.ledger.batch import Batch
from engine.sessions.inventory import Filter, Inventory, digest
from engine.sessions.lifecycle import Wanted
from engine.sessions.session import SessionView
from tests.rest.served import SESSIONS, Served, refused
from tests.world import WORKSPACE, World

MANY = SESSIONS + "/revoke-many"


def preview(api: Served, **wanted: Any) -> dict[str, Any]:
    """What would be revoked."""
    answer = api.post(MANY, {"filter": wanted, "preview": True})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    assert (found["preview"], found["revoked"]) == (True, 0)
    return found


def states(api: Served) -> dict[str, str]:
    """Of every session of the workspace."""
    return {each["id"]: each["status"] for each in api.get(SESSIONS).json()}


def test_what_was_shown_is_revoked_and_nothing_else(tenant: Served) -> None:
    daily = [tenant.session(label="daily")["id"] for _ in range(3)]
    weekly = tenant.session(label="weekly")["id"]
    shown = preview(tenant, label="daily")
    assert shown["count"] == 3
    assert sorted(each["id"] for each in shown["sessions"]) == sorted(daily)
    assert set(states(tenant).values()) == {"active"}
    done = tenant.post(MANY, {"filter": {"label": "daily"}, "selection": shown["selection"]})
    assert done.json() == shown | {"preview": False, "revoked": 3}
    assert states(tenant) == dict.fromkeys(daily, "revoked") | {weekly: "active"}
    assert preview(tenant, label="daily")["count"] == 0


def test_if_another_matches_by_then_none_is_revoked(tenant: Served) -> None:
    tenant.session(label="daily")
    shown = preview(tenant, label="daily")
    tenant.session(label="daily")
    again = tenant.post(MANY, {"filter": {"label": "daily"}, "selection": shown["selection"]})
    refused(again, 409, "selection_changed")
    assert set(states(tenant).values()) == {"active"}


def test_every_part_of_the_filter_counts(tenant: Served) -> None:
    there = {"allowed_chains": ["eip155:8453"]}
    one = tenant.session(agent_id="ann", label="a", type="app", **there)["id"]
    other = tenant.session(agent_id="bob", label="b", allowed_chains=["eip155:1"])["id"]
    tenant.post(f"{SESSIONS}/{other}/pause")
    for wanted, found in (
        ({}, {one, other}),
        ({"agent_id": "ann"}, {one}),
        ({"label": "b"}, {other}),
        ({"type": "app"}, {one}),
        ({"chain": "eip155:8453"}, {one}),
        ({"search": "BOB"}, {other}),
        ({"search": "b_b"}, set()),  # no wildcards
        ({"search": "%"}, set()),
        ({"search": "bob' OR '1'='1"}, set()),
        ({"label": "%"}, set()),
        ({"status": "paused"}, {other}),
        ({"status": "active", "agent_id": "bob"}, set()),
    ):
        assert {each["id"] for each in preview(tenant, **wanted)["sessions"]} == found, wanted


def test_nothing_is_revoked_that_nobody_looked_at(tenant: Served) -> None:
    tenant.session()
    refused(tenant.post(MANY, {"filter": {}}), 422, "invalid_parameter", "selection")
    refused(tenant.post(MANY, {"preview": True}), 422, "missing_required_field", "filter")
    unknown = tenant.post(MANY, {"filter": {"agent": "bot"}, "preview": True})
    refused(unknown, 422, "invalid_parameter", "filter.agent")
    assert set(states(tenant).values()) == {"active"}


def test_if_one_cannot_be_revoked_none_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path / "data")
    engine = world.engine
    inventory = Inventory(engine.database, engine.writer, engine.sessions)
    views = [world.session(label="daily") for _ in range(3)]
    sought, revoked, seen = Filter(Wanted(engine.clock())), engine.sessions.revoked, digest(views)
    done: list[str] = []

    def fails_in_the_middle(batch: Batch, view: SessionView, told: Any) -> SessionView:
        done.append(view.id)
        if len(done) == 2:
            raise Unavailable("no more")
        return revoked(batch, view, told)

    with monkeypatch.context() as patch:
        patch.setattr(engine.sessions, "revoked", fails_in_the_middle)
        with pytest.raises(Unavailable):
            inventory.revoke(WORKSPACE, sought, seen, by="key_x")
    assert len(done) == 2
    for view in views:
        assert engine.sessions.get(WORKSPACE, view.id).state == "active"
        assert world.pay(view, 1).state == "captured"
    assert inventory.revoke(WORKSPACE, sought, seen, by="key_x") == 3
    engine.close()


def test_what_is_over_by_the_clock_is_not_live_whether_or_not_that_is_recorded(
    tmp_path: Path,
) -> None:
    clock = ManualClock(1_800_000_000_000)
    world = World(tmp_path / "data", clock)
    engine, hour = world.engine, 3_600_000
    inventory = Inventory(engine.database, engine.writer, engine.sessions)
    world.session(duration_ms=hour)
    later = world.session(duration_ms=2 * hour)
    for moved, live in ((hour - 1, 2), (1, 1)):
        clock.advance(moved)
        found = inventory.to_revoke(WORKSPACE, Filter(Wanted(clock())))
        assert len(found) == live
    assert [view.id for view in found] == [later.id]
    engine.close()
