"""Delegation: a session opens narrower ones, and they end with it."""

import contextlib
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from eth_account import Account

from engine.chain import contracts, sender
from engine.chain.embedded import EmbeddedChain
from engine.clock import ManualClock
from engine.errors import Conflict, InvalidInput, NotFound, TallystickError, Unavailable
from engine.grant import NO_PARENT
from engine.policy.limits import Limits
from engine.sessions import delegation
from engine.sessions.delegation import ancestors, descendants
from engine.sessions.session import SessionView
from tests.sessions.seen import events, grant_of
from tests.world import NO_LIMITS, USD, WORKSPACE, World, records_of

HOUR_MS = 3_600_000
LIMITS = Limits(10 * USD, 20 * USD, 30 * USD, 40 * USD, 5 * USD)
CHAIN = "eip155:1"
TOKEN = f"{CHAIN}/erc20:0x" + "ab" * 20
NARROW: dict[str, Any] = {
    "limits": LIMITS,
    "permissions": ("pay", "refund"),
    "merchants": ("books", "data"),
    "tokens": (TOKEN,),
    "chains": (CHAIN,),
    "conditions": (
        "at most 9 payments per day",
        "never merchant casino",
        "only 09:00-17:00 UTC on Mon Tue",
    ),
    "duration_ms": 10 * HOUR_MS,
}


@pytest.fixture
def timed(tmp_path: Path) -> Iterator[World]:
    """A world whose clock we turn."""
    opened = World(tmp_path / "data", ManualClock(1_800_000_000_000))
    yield opened
    opened.engine.close()


def child_of(world: World, parent: SessionView, **changes: Any) -> SessionView:
    """A child with the same parameters, on the chain if its parent is, for half the time."""
    same = {
        "limits": parent.grant.limits,
        "permissions": parent.grant.permissions,
        "merchants": parent.grant.merchants,
        "tokens": parent.grant.tokens,
        "chains": parent.grant.chains,
        "conditions": parent.grant.conditions,
        "mint_pkp": parent.mint_pkp,
        "agent_id": parent.agent_id,
        "duration_ms": (parent.expires_ms - parent.created_ms) // 2,
        "await_consent": False,
        "workspace": parent.workspace_id,
    }
    return world.create(parent_id=parent.id, **(same | changes))


def line_of(world: World, view: SessionView) -> list[SessionView]:
    with world.engine.database.reading() as connection:
        return ancestors(connection.execute, view)


def state(world: World, view: SessionView) -> str:
    return world.engine.sessions.get(view.workspace_id, view.id).state


def refusal(world: World, parent: SessionView, **changes: Any) -> TallystickError:
    """How a child is refused, without a record."""
    before = world.engine.ready()["records"]
    with pytest.raises(TallystickError) as refused:
        child_of(world, parent, **changes)
    assert world.engine.ready()["records"] == before
    return refused.value


def field_of(error: TallystickError) -> str:
    assert isinstance(error, InvalidInput), error
    return error.field


def test_a_child_names_its_parent_by_its_grant_and_has_its_owner(world: World) -> None:
    parent = world.session(LIMITS)
    child = child_of(world, parent)
    assert (parent.parent_id, parent.grant.parent) == (None, NO_PARENT)
    assert (child.parent_id, child.grant.parent) == (parent.id, parent.grant_hash)
    assert (child.grant.owner, child.user_wallet) == (parent.grant.owner, parent.user_wallet)
    assert (child.state, child.consent) == ("active", "delegated")
    [created] = records_of(world, child)
    assert (created.body["consent"], created.body["parent_id"]) == ("delegated", parent.id)
    assert world.pay(child, 5).state == "captured"
    assert records_of(world, parent)[0].body["consent"] == "none"


def test_on_the_chain_a_child_has_an_identity_of_its_own(world: World) -> None:
    parent = world.session(mint_pkp=True)
    child = child_of(world, parent)
    assert child.pkp_address not in (None, parent.pkp_address)
    [registered] = events(world.engine, "SessionRegistered", child)
    assert grant_of(registered) == child.grant.abi_tuple()
    assert registered.args["grant"]["parent"] == parent.grant_hash
    assert registered.args["consent"] == 0  # nobody signed this one
    # A parent may have been revoked on a chain that a child without an identity does not wait for.
    assert field_of(refusal(world, parent, mint_pkp=False)) == "mint_pkp"


def test_the_owner_can_sign_a_childs_grant_too(world: World) -> None:
    parent = world.session(mint_pkp=True)
    child = child_of(world, parent, await_consent=True)
    assert (child.state, child.consent) == ("awaiting_consent", "none")
    child = world.consent(child)
    assert (child.state, child.consent) == ("active", "eip712")


def test_the_owner_is_the_parents_and_nobody_else(world: World) -> None:
    parent = world.session()
    stranger = Account.create().address
    error = refusal(world, parent, user_wallet=stranger, owner=stranger.lower())
    assert field_of(error) == "user_wallet"
    without = world.session(user_wallet="sol1", owner=None)
    assert child_of(world, without, user_wallet="sol1", owner=None).grant.owner == "0x" + "00" * 20
    for wallet, owner in (("SOL1", None), ("sol1 ", None), (stranger, stranger.lower())):
        error = refusal(world, without, user_wallet=wallet, owner=owner)
        assert field_of(error) == "user_wallet"
    upper = "0x" + world.owner.address[2:].upper()
    assert child_of(world, parent, user_wallet=upper).user_wallet == world.owner.address


def test_the_agent_is_the_parents_or_a_registered_one_of_the_workspace(world: World) -> None:
    parent = world.session()
    world.engine.access.create_workspace("other", "Other")
    world.engine.agents.register("other", "theirs", None)
    for agent_id in ("nobody", "theirs", "workspace", "Bot"):
        assert field_of(refusal(world, parent, agent_id=agent_id)) == "agent_id"
    world.engine.agents.register(WORKSPACE, "helper", None)
    assert child_of(world, parent, agent_id="helper").agent_id == "helper"


def test_who_holds_a_session_spends_from_no_other_agents_budget(world: World) -> None:
    parent = world.session()
    world.engine.agents.register(WORKSPACE, "helper", None)
    answers = {
        str(refusal(world, parent, agent_id=agent_id, by=parent.id))
        for agent_id in ("helper", "nobody")
    }
    assert answers == {"agent_id: is not the parent's: only operators name another"}
    child = child_of(world, parent, by=parent.id)
    assert field_of(refusal(world, child, agent_id="helper", by=parent.id)) == "agent_id"
    assert child_of(world, child, agent_id="helper", by="key_1").agent_id == "helper"


WIDER: list[tuple[str, dict[str, Any]]] = [
    *(
        (f"limits.{caller}", {"limits": replace(LIMITS, **{name: value})})
        for name, caller in (
            ("per_transaction", "max_per_transaction"),
            ("per_day", "max_per_day"),
            ("per_week", "max_per_week"),
            ("per_month", "max_per_month"),
            ("approval_above", "require_approval_above"),
        )
        for value in (40 * USD + 1, None)
    ),
    ("permissions", {"permissions": ("pay", "trade")}),
    ("allowed_merchants", {"merchants": ("books", "casino")}),
    ("allowed_merchants", {"merchants": ()}),
    ("allowed_tokens", {"tokens": ()}),
    ("allowed_tokens", {"tokens": (TOKEN, f"{CHAIN}/slip44:60")}),
    ("allowed_chains", {"chains": ()}),
    ("allowed_chains", {"chains": (CHAIN, "eip155:2")}),
    ("conditions", {"conditions": ()}),
    ("conditions", {"conditions": NARROW["conditions"][:2]}),
    ("conditions", {"conditions": ("at most 10 payments per day", *NARROW["conditions"][1:])}),
    (
        "conditions",
        {"conditions": (*NARROW["conditions"][:2], "only 08:59-17:00 UTC on Mon Tue")},
    ),
    ("duration_hours", {"duration_ms": 10 * HOUR_MS + 1001}),
]


@pytest.mark.parametrize(("field", "wider"), WIDER)
def test_a_child_that_may_more_than_its_parent_is_refused_by_the_field(
    world: World, field: str, wider: dict[str, Any]
) -> None:
    parent = world.session(**NARROW)
    assert field_of(refusal(world, parent, **wider)) == field
    assert child_of(world, parent).state == "active"


def test_what_an_operator_restricts_a_child_must_have_in_its_grant(world: World) -> None:
    top = world.session()
    middle = child_of(world, top)
    world.engine.sessions.restrict(WORKSPACE, top.id, ["never merchant casino"], by="key_1")
    for parent in (top, middle):  # what is above binds, although it came later
        assert field_of(refusal(world, parent)) == "conditions"
        child_of(world, parent, conditions=("never merchant casino",))
    [above] = line_of(world, middle)
    assert above.policy.in_force.never == {("merchant", "casino")}


def test_a_line_is_four_sessions_long_at_most(world: World) -> None:
    line = [world.session()]
    for _ in range(3):
        line.append(child_of(world, line[-1]))
    error = refusal(world, line[-1])
    assert (type(error), error.code) == (Conflict, "delegation_too_deep")
    assert [view.id for view in line_of(world, line[-1])] == [v.id for v in reversed(line[:-1])]
    assert line_of(world, line[0]) == []


def test_there_is_an_end_to_descendants(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delegation, "DESCENDANTS_MAX", 2)
    top = world.session()
    middle = child_of(world, top)
    child_of(world, middle)
    for parent in (top, middle):
        assert refusal(world, parent).code == "too_many_descendants"
    child_of(world, world.session())


def test_only_an_active_session_delegates(timed: World) -> None:
    awaiting = timed.create()
    revoked, over = timed.session(), timed.session(duration_ms=HOUR_MS)
    timed.engine.revoke_session(WORKSPACE, revoked.id, by="somebody")
    assert isinstance(timed.clock, ManualClock)
    timed.clock.advance(HOUR_MS)  # nobody has marked it as expired yet
    for parent in (awaiting, revoked, over):
        assert refusal(timed, parent).code == "parent_not_active"


def test_a_parent_that_is_anothers_does_not_exist(world: World) -> None:
    world.engine.access.create_workspace("another", "Another")
    parent = world.session()
    for parent_id, workspace in ((parent.id, "another"), ("sess_" + "0" * 26, WORKSPACE)):
        with pytest.raises(NotFound):
            world.create(parent_id=parent_id, workspace=workspace, mint_pkp=False)


# They end with it


def family(world: World, **changes: Any) -> dict[str, SessionView]:
    """A session with two children, one of which has a child, and a session beside it."""
    top = world.session(**changes)
    one, two = child_of(world, top), child_of(world, top)
    return {"top": top, "one": one, "two": two, "below": child_of(world, one)} | {
        "beside": world.session(**changes)
    }


def states(world: World, members: dict[str, SessionView]) -> dict[str, str]:
    return {name: state(world, view) for name, view in members.items()}


def test_who_revokes_a_session_revokes_all_beneath_it_at_once(world: World) -> None:
    members = family(world)
    before = world.engine.ready()["records"]
    world.engine.revoke_session(WORKSPACE, members["top"].id, by="somebody")
    ended = ("top", "one", "two", "below")
    assert states(world, members) == dict.fromkeys(ended, "revoked") | {"beside": "active"}
    assert world.engine.ready()["records"] == before + 4
    for name in ended:
        last = records_of(world, members[name])[-1]
        assert last.kind == "session.revoked"
        top = {"by": "ancestor", "ancestor_id": members["top"].id, "state": "revoked"}
        assert last.body == (top if name != "top" else {"by": "somebody", "state": "revoked"})
        assert world.pay(members[name], 1).decision["code"] == "SESSION_REVOKED"
    assert world.pay(members["beside"], 1).state == "captured"


def test_what_is_above_and_beside_a_revoked_child_lives_on(world: World) -> None:
    members = family(world)
    world.engine.revoke_session(WORKSPACE, members["one"].id, by="somebody")
    alive = dict.fromkeys(("top", "two", "beside"), "active")
    assert states(world, members) == alive | dict.fromkeys(("one", "below"), "revoked")
    world.engine.revoke_session(WORKSPACE, members["top"].id, by="somebody")
    assert state(world, members["two"]) == "revoked"
    kinds = [record.kind for record in records_of(world, members["below"])]
    assert kinds.count("session.revoked") == 1


def test_all_of_it_or_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The transaction fails at the last of them."""
    members = family(world)
    tell = world.engine.sessions._tell

    def fail(batch: Any, view: SessionView, name: str) -> None:
        if view.id == members["below"].id:
            raise ValueError("at the last")
        tell(batch, view, name)

    monkeypatch.setattr(world.engine.sessions, "_tell", fail)
    with pytest.raises(Unavailable):
        world.engine.revoke_session(WORKSPACE, members["top"].id, by="somebody")
    assert set(states(world, members).values()) == {"active"}
    assert world.pay(members["below"], 1).state == "captured"


def test_the_owners_revocation_on_the_chain_ends_them_and_the_chain_hears_of_each(
    world: World,
) -> None:
    members = family(world, mint_pkp=True)
    top, chain = members["top"], world.engine.gateway
    assert isinstance(chain, EmbeddedChain)
    chain.fund(world.owner.address.lower(), 10**18)
    data = contracts.revoking(top.grant, top.token_id)
    sender.send(chain, world.owner, to=world.engine.deployment.registry, data=data)
    world.engine.lead._read_chain()
    assert [state(world, members[name]) for name in ("top", "below")] == ["revoked", "revoked"]
    assert records_of(world, members["below"])[-1].body["ancestor_id"] == top.id
    while world.engine.lead.registrar.tick():
        world.engine.tick()
    for name in ("top", "one", "two", "below"):
        assert len(events(world.engine, "SessionRevoked", members[name])) == 1
    assert events(world.engine, "SessionRevoked", members["beside"]) == []


def test_a_child_is_over_when_its_parent_is(timed: World) -> None:
    parent = timed.session(duration_ms=HOUR_MS)
    child = child_of(timed, parent, duration_ms=HOUR_MS)
    assert child.expires_ms <= parent.expires_ms
    assert isinstance(timed.clock, ManualClock)
    timed.clock.advance(HOUR_MS)
    assert timed.pay(child, 1).decision["code"] == "SESSION_EXPIRED"


# Nobody makes a circle


def change(world: World, *statements: str) -> None:
    """Change the database while the engine is stopped."""
    world.engine.close()
    with contextlib.closing(sqlite3.connect(world.settings.data_dir / "ledger.sqlite3")) as raw:
        for statement in statements:
            assert raw.execute(statement).rowcount == 1
        raw.commit()
    world.engine = world._open()


@pytest.mark.parametrize("circle", ["itself", "two", "a line", "a stranger", "nobody", "an orphan"])
def test_rows_that_tell_of_another_line_than_the_grants_are_not_believed(
    world: World, circle: str
) -> None:
    top = world.session()
    middle = child_of(world, top)
    last = child_of(world, middle)
    stranger = world.session()

    def moved(view: SessionView, parent: str) -> str:
        return f"UPDATE sessions SET parent_id = {parent} WHERE id = '{view.id}'"

    statements = {
        "itself": (moved(last, f"'{last.id}'"),),
        "two": (moved(middle, f"'{last.id}'"),),
        "a line": (moved(top, f"'{last.id}'"),),
        "a stranger": (moved(middle, f"'{stranger.id}'"),),
        "nobody": (moved(middle, "'sess_x'"),),
        "an orphan": (moved(middle, "NULL"),),
    }
    change(world, *statements[circle])
    now = world.engine.sessions.get(WORKSPACE, last.id)
    with pytest.raises(Unavailable) as refused:
        line_of(world, now)
    assert refused.value.code == "session_damaged"
    assert refusal(world, now).code == "session_damaged"
    world.engine.revoke_session(WORKSPACE, last.id, by="somebody")  # it ends, circle or not
    assert state(world, last) == "revoked"
    with world.engine.database.reading() as connection:
        assert len(descendants(connection.execute, top.id)) <= 2


def test_a_damaged_child_does_not_stand_in_the_way_of_the_others(world: World) -> None:
    members = family(world)
    damaged = members["one"]
    change(world, f"UPDATE sessions SET grant_json = '{{}}' WHERE id = '{damaged.id}'")
    world.engine.revoke_session(WORKSPACE, members["top"].id, by="somebody")
    assert state(world, members["two"]) == state(world, members["below"]) == "revoked"
    with pytest.raises(Unavailable):
        world.pay(damaged, 1)


def test_the_grants_own_hash_stands_in_the_way_of_a_circle(world: World) -> None:
    """Whoever changes which parent a grant names, changes the hash that its children name."""
    top = world.session(NO_LIMITS)
    child = child_of(world, top)
    circular = replace(top.grant, parent=child.grant_hash)
    assert circular.hash() != child.grant.parent
