"""Reconciliation of a real installation: nothing is found where nothing is wrong, what is wrong is
found, filed, acted on and resolved, and a chain that does not answer well says nothing."""

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa
from eth_keys.datatypes import PrivateKey
from eth_utils.crypto import keccak

from engine.audit.replay import LIVE_STATES
from engine.chain import contracts, sender
from engine.chain.embedded import EmbeddedChain
from engine.chain.gateway import BLOOM_BYTES, BlockHeader, ChainUnavailable, Log
from engine.db.tables import Anchor, ChainEvent, Session, table
from engine.ledger.discrepancies import Discrepancy
from engine.policy.limits import Limits
from engine.sessions.chain_facts import workspace_hash
from engine.sessions.session import SessionView
from tests.reconcile.story import story
from tests.sessions.seen import events
from tests.world import USD, WORKSPACE, World

HOUR_MS = 3_600_000
anchors, sessions, index = table(Anchor), table(Session), table(ChainEvent)


def reconcile(world: World) -> list[tuple[str, str]]:
    """What is open after a reconciliation: kinds and subjects."""
    world.engine.reconciler.run()
    return [(found.kind, found.subject) for found in world.engine.reconciler.open()]


def the_only(world: World) -> Discrepancy:
    [found] = world.engine.reconciler.open()
    return found


def edit(world: World, statement: Any) -> None:
    """Change the database behind the engine's back, over the one connection that may."""
    world.engine.writer.call(lambda batch: batch.update(statement))


def state(world: World, view: SessionView) -> str:
    return world.engine.sessions.get(WORKSPACE, view.id).state


def code(world: World, view: SessionView) -> str:
    return str(world.pay(view, 1).decision["code"])


def chain_of(world: World) -> EmbeddedChain:
    assert isinstance(world.engine.gateway, EmbeddedChain)
    return world.engine.gateway


@pytest.fixture
def deaf(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """Call it, and the engine indexes events and does not listen to them any more."""
    with monkeypatch.context() as ears:
        yield lambda: ears.setattr(world.engine.lead, "_listener", lambda *_: None)


def by_owner(world: World, data: bytes) -> None:
    """The owner, who has ether, tells the registry something."""
    chain_of(world).fund(world.owner.address.lower(), 10**18)
    tx_hash = sender.send(
        world.engine.gateway, world.owner, to=world.engine.deployment.registry, data=data
    )
    assert sender.wait(world.engine.gateway, tx_hash, timeout_s=20).succeeded


def by_operator(world: World, data: bytes) -> None:
    deployment = world.engine.deployment
    tx_hash = sender.send(
        world.engine.gateway, deployment.operator, to=deployment.registry, data=data
    )
    assert sender.wait(world.engine.gateway, tx_hash, timeout_s=20).succeeded


# Nothing is wrong


def test_where_nothing_is_wrong_nothing_is_found(world: World) -> None:
    assert reconcile(world) == []
    last = world.engine.reconciler.last
    assert last is not None
    assert last.block == world.engine.gateway.head()
    assert (last.filed, last.resolved, last.acted, last.left_out) == (0, 0, 0, 0)
    assert set(last.found.values()) == {0}


def test_traffic_is_no_discrepancy(world: World) -> None:
    """Sessions are opened, paid from and revoked and the log is anchored while it is compared."""
    world.engine.start()
    stop = threading.Event()
    failures: list[Exception] = []

    def busy() -> None:
        try:
            while not stop.is_set():
                story(world)
        except Exception as error:  # noqa: BLE001 (told below)
            failures.append(error)

    busy_one = threading.Thread(target=busy)
    busy_one.start()
    try:
        for _ in range(12):
            assert reconcile(world) == []
    finally:
        stop.set()
        busy_one.join()
    assert failures == []
    assert reconcile(world) == []


# What is wrong is found


def test_another_limit_in_the_database_is_found_and_put_right_resolved(
    world: World, view: SessionView
) -> None:
    row = sa.update(sessions).where(sessions.c.id == view.id)
    grant = json.dumps(
        replace(view.grant, limits=Limits(1, 2, 3, 4, 5)).to_json(),
        sort_keys=True,
        separators=(",", ":"),
    )
    edit(world, row.values(grant_json=grant))
    assert reconcile(world) == [("parameters_differ", view.id)]
    found = the_only(world)
    assert (found.severity, found.session_id, found.workspace_id) == (
        "critical",
        view.id,
        WORKSPACE,
    )
    first = found.first_seen_ms
    assert reconcile(world) == [("parameters_differ", view.id)]
    assert the_only(world).first_seen_ms == first
    assert code(world, view) != "ALLOWED"
    original = json.dumps(view.grant.to_json(), sort_keys=True, separators=(",", ":"))
    edit(world, row.values(grant_json=original))
    assert reconcile(world) == []
    assert code(world, view) == "ALLOWED"


def test_an_active_session_that_was_never_registered_is_found(world: World) -> None:
    view = world.create()
    edit(world, sa.update(sessions).where(sessions.c.id == view.id).values(state="active"))
    assert reconcile(world) == [("session_missing_on_chain", view.id)]


def test_a_session_that_the_operators_key_registered_elsewhere_is_found(
    world: World, view: SessionView
) -> None:
    key = PrivateKey(b"\x42" * 32).public_key
    grant = replace(view.grant, session_key=key.to_address(), salt=b"\x42" * 32)
    by_operator(world, contracts.registering(grant, b"\x04" + key.to_bytes()))
    token_id = "0x" + keccak(key.to_bytes()).hex()
    assert reconcile(world) == [("session_unknown_here", f"token {token_id}")]
    assert the_only(world).workspace_id == WORKSPACE


def test_sessions_of_another_log_in_our_workspace_are_an_information(
    world: World, view: SessionView
) -> None:
    key = PrivateKey(b"\x43" * 32).public_key
    grant = replace(view.grant, session_key=key.to_address(), audit_log=b"\x77" * 32)
    by_operator(world, contracts.registering(grant, b"\x04" + key.to_bytes()))
    assert reconcile(world) == [("workspace_shared", f"workspace {WORKSPACE}")]
    assert the_only(world).severity == "info"


def test_a_revocation_that_nobody_heard_of_acts_at_once(
    world: World, view: SessionView, deaf: Callable[[], None]
) -> None:
    deaf()
    by_owner(world, contracts.revoking(view.grant, view.token_id))
    world.engine.tick()
    assert (state(world, view), code(world, view)) == ("active", "ALLOWED")
    assert reconcile(world) == [("revoked_on_chain_only", view.id)]
    assert (state(world, view), code(world, view)) == ("revoked", "SESSION_REVOKED")
    [event] = events(world.engine, "SessionRevoked", view)
    place = the_only(world).evidence["place"]
    assert place["tx_hash"] == "0x" + event.log.tx_hash.hex()
    assert place["block_number"] == event.log.block_number
    assert reconcile(world) == []


def test_a_revoked_session_whose_row_was_made_active_is_revoked_without_another_record(
    world: World,
) -> None:
    view = world.session(mint_pkp=True)
    world.engine.revoke_session(WORKSPACE, view.id, by="somebody")
    world.engine.tick()
    world.engine.tick()
    records = world.engine.ready()["records"]
    edit(world, sa.update(sessions).where(sessions.c.id == view.id).values(state="active"))
    world.engine.reconciler.run()
    assert state(world, view) == "revoked"
    assert world.engine.ready()["records"] == records
    assert reconcile(world) == []


def test_a_closing_that_nobody_heard_of_acts_at_once(
    world: World, view: SessionView, deaf: Callable[[], None]
) -> None:
    deaf()
    by_operator(
        world,
        contracts.call_data(
            contracts.SESSION_REGISTRY, "closeWorkspace", workspace_hash(WORKSPACE)
        ),
    )
    assert ("revoked_on_chain_only", view.id) in reconcile(world)
    assert state(world, view) == "revoked"
    assert reconcile(world) == []


def test_lower_limits_that_nobody_heard_of_act_at_once(
    world: World, deaf: Callable[[], None]
) -> None:
    view = world.session(Limits(None, 100 * USD, None, None, None), mint_pkp=True)
    deaf()
    lowered = (2**64 - 1, 2 * USD, 2**64 - 1, 2**64 - 1, 2**64 - 1)
    by_owner(
        world,
        contracts.call_data(
            contracts.SESSION_REGISTRY,
            "lowerLimits",
            int.from_bytes(view.token_id),
            view.grant.abi_tuple(),
            lowered,
        ),
    )
    world.engine.tick()
    assert world.engine.sessions.get(WORKSPACE, view.id).lowered == ()
    assert ("lowered_on_chain_only", view.id) in reconcile(world)
    [lowering] = world.engine.sessions.get(WORKSPACE, view.id).lowered
    assert lowering.limits.per_day == 2 * USD
    assert [code(world, view) for _ in range(3)] == ["ALLOWED", "ALLOWED", "LIMIT_EXCEEDED"]
    assert reconcile(world) == []


def test_an_end_by_the_chains_clock_acts_at_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    view = world.session(mint_pkp=True, duration_ms=HOUR_MS)
    monkeypatch.setattr(world.engine.expiry.sessions, "run", lambda: 0)
    chain_of(world).mine(timestamp_s=view.expires_ms // 1000)
    assert reconcile(world) == [("expired_on_chain_only", view.id)]
    assert state(world, view) == "expired"
    assert reconcile(world) == []


def test_a_registration_that_nobody_heard_of_is_found(world: World, view: SessionView) -> None:
    edit(
        world,
        sa.update(sessions).where(sessions.c.id == view.id).values(state="awaiting_consent"),
    )
    assert reconcile(world) == [("registered_on_chain_only", view.id)]
    assert state(world, view) in LIVE_STATES


@pytest.mark.parametrize(
    ("name", "statement"),
    [
        ("one is gone", sa.delete(index)),
        ("one is another", sa.update(index).values(args_json="{}")),
    ],
)
def test_a_wrong_index_is_found(world: World, view: SessionView, name: str, statement: Any) -> None:
    [event] = events(world.engine, "SessionRegistered", view)
    place = (event.log.block_number, event.log.log_index)
    at = sa.and_(index.c.block_number == place[0], index.c.log_index == place[1])
    edit(world, statement.where(at))
    assert reconcile(world) == [("index_differs", "event {}/{}".format(*place))], name


def test_an_event_that_only_the_index_has_is_found(world: World, view: SessionView) -> None:
    [event] = events(world.engine, "SessionRegistered", view)
    with world.engine.database.reading() as connection:
        query = sa.select(index).where(index.c.block_number == event.log.block_number)
        row = dict(connection.execute(query).mappings().first() or {})
    row |= {"log_index": 999, "tx_hash": b"\x66" * 32}
    world.engine.writer.call(lambda batch: batch.insert(index, row))
    assert reconcile(world) == [("index_differs", f"event {event.log.block_number}/999")]


def first_anchor(world: World) -> int:
    """The size of the first of several anchors, which nobody follows any more."""
    with world.engine.database.reading() as connection:
        return int(connection.execute(sa.select(sa.func.min(anchors.c.size))).scalar_one())


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("anchor_differs", {"root": b"\x66" * 32}),
        ("anchor_replaced", {"tx_hash": b"\x66" * 32, "raw_tx": b""}),
        ("anchor_reorged", {"block_hash": b"\x66" * 32}),
        ("anchor_reorged", {"block_number": 1}),
        ("anchor_stuck", {"state": "sent", "sent_ms": 0}),
    ],
)
def test_a_wrong_anchor_is_found(world: World, kind: str, values: dict[str, Any]) -> None:
    size = first_anchor(world)
    edit(world, sa.update(anchors).where(anchors.c.size == size).values(**values))
    assert reconcile(world) == [(kind, f"anchor {size}")]


def test_an_anchor_that_the_chain_does_not_hold_is_found(world: World) -> None:
    first_anchor(world)
    with world.engine.database.reading() as connection:
        row = dict(connection.execute(sa.select(anchors)).mappings().first() or {})
    row |= {"size": 1, "root": world.engine._log.tree.root(1), "tx_hash": b"\x66" * 32}
    world.engine.writer.call(lambda batch: batch.insert(anchors, row))
    assert reconcile(world) == [("anchor_missing", "anchor 1")]


# A chain that does not answer well


class Lying:
    """A gateway in front of the world's, in whose way something can be put."""

    def __init__(self, world: World) -> None:
        self._honest = world.engine.gateway
        self.logs: Any = self._honest.logs

    def __getattr__(self, name: str) -> Any:
        return getattr(self._honest, name)


@pytest.fixture
def lying(world: World, monkeypatch: pytest.MonkeyPatch) -> Lying:
    """Only what reconciliation reads is lied about."""
    liar = Lying(world)
    monkeypatch.setattr(world.engine.reconciler._chain, "_gateway", liar)
    return liar


def silent(*_args: Any, **_kwargs: Any) -> Any:
    raise ChainUnavailable("the line was cut")


def no_logs(**_range: Any) -> list[Log]:
    return []


def nothing_is_filed(world: World) -> None:
    before = world.engine.reconciler.open()
    with pytest.raises(ChainUnavailable):
        world.engine.reconciler.run()
    assert world.engine.reconciler.open() == before
    assert world.engine.reconciler.reading is None


@pytest.mark.parametrize("question", ["head", "block", "logs", "call"])
def test_a_silent_chain_says_nothing(
    world: World, view: SessionView, monkeypatch: pytest.MonkeyPatch, question: str
) -> None:
    edit(world, sa.delete(index).where(index.c.subject == view.token_id))
    assert len(reconcile(world)) == 1
    world.engine.reconciler.last = None
    edit(world, sa.delete(index))
    monkeypatch.setattr(world.engine.gateway, question, silent)
    world.engine.reconciler._chain._marks.clear()
    nothing_is_filed(world)
    assert world.engine.reconciler.last is None


def test_an_endpoint_that_leaves_events_out_says_nothing(world: World, lying: Lying) -> None:
    lying.logs = no_logs
    nothing_is_filed(world)
    lying.logs = world.engine.gateway.logs
    world.engine.reconciler._chain._marks.clear()
    assert reconcile(world) == []


def test_an_endpoint_that_leaves_one_event_out_says_nothing(
    world: World, view: SessionView, lying: Lying
) -> None:

    def but_one(**wanted: Any) -> list[Log]:
        return [
            log for log in world.engine.gateway.logs(**wanted) if view.token_id not in log.topics
        ]

    lying.logs = but_one
    nothing_is_filed(world)


def test_an_endpoint_that_makes_events_up_says_nothing(world: World, lying: Lying) -> None:

    def one_more(**wanted: Any) -> list[Log]:
        logs: list[Log] = world.engine.gateway.logs(**wanted)
        topic = contracts.event_topic(contracts.SESSION_REGISTRY, "SessionRegistered")
        [registered, *_] = [log for log in logs if log.topics[0] == topic]
        return [*logs, replace(registered, tx_hash=b"\x66" * 32, log_index=999)]

    lying.logs = one_more
    nothing_is_filed(world)


def test_an_event_of_another_block_says_nothing(world: World, lying: Lying) -> None:
    lying.logs = lambda **wanted: [
        replace(log, block_hash=b"\x66" * 32) for log in world.engine.gateway.logs(**wanted)
    ]
    nothing_is_filed(world)


def test_an_endpoint_that_is_behind_says_nothing(
    world: World, lying: Lying, monkeypatch: pytest.MonkeyPatch
) -> None:
    behind = BlockHeader(1, b"\x66" * 32, b"\x65" * 32, 1, bytes(BLOOM_BYTES))
    monkeypatch.setattr(lying, "head", lambda: behind, raising=False)
    nothing_is_filed(world)


# How it reads


def test_what_was_read_is_not_read_again(world: World, lying: Lying) -> None:
    asked: list[tuple[int, int]] = []

    def heard(**wanted: Any) -> list[Log]:
        asked.append((wanted["from_block"], wanted["to_block"]))
        return list(world.engine.gateway.logs(**wanted))

    lying.logs = heard
    assert reconcile(world) == []
    head = world.engine.gateway.head().number
    assert asked == [(world.engine.deployment.start_block, head)]
    asked.clear()
    assert reconcile(world) == []
    assert asked == []
    story(world)
    assert reconcile(world) == []
    assert asked == [(head + 1, world.engine.gateway.head().number)]


def test_a_long_chain_is_read_in_parts_and_says_how_far_it_is(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(world.engine.reconciler._chain, "_blocks_per_read", 4)
    seen: list[tuple[int, int, int]] = []
    monkeypatch.setattr(world.engine.reconciler, "_reached", lambda *far: seen.append(far))
    assert reconcile(world) == []
    first, last = world.engine.deployment.start_block, world.engine.gateway.head().number
    assert [far[:2] for far in seen] == [(first, last)] * len(seen)
    assert [far[2] for far in seen] == [*range(first + 3, last, 4), last]


def test_from_a_block_on_only_what_is_there_is_compared_and_nothing_is_resolved(
    world: World,
    view: SessionView,
) -> None:
    [event] = events(world.engine, "SessionRegistered", view)
    edit(world, sa.delete(index).where(index.c.subject == view.token_id))
    found = [("index_differs", f"event {event.log.block_number}/{event.log.log_index}")]
    assert reconcile(world) == found
    later = event.log.block_number + 1
    made = world.engine.reconciler.run(from_block=later)
    assert (made.from_block, set(made.found.values())) == (later, {0})
    assert [(d.kind, d.subject) for d in world.engine.reconciler.open()] == found
    made = world.engine.reconciler.run(from_block=event.log.block_number)
    assert made.found == {"critical": 1, "warning": 0, "info": 0}
