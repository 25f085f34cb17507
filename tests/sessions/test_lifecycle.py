"""created → awaiting consent → registering → active → revoked | expired, and what may be paid."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa
from eth_account import Account
from eth_account.signers.local import LocalAccount

from engine.audit.record import decode_record
from engine.chain import contracts, sender
from engine.chain.embedded import EmbeddedChain
from engine.clock import ManualClock, system_clock
from engine.db.tables import OutboxEvent, Record, table
from engine.errors import Conflict, InvalidInput, NotFound
from engine.grant import Domain
from engine.policy.limits import Limits
from engine.sessions.session import SessionView
from tests.sessions.seen import events
from tests.world import NO_LIMITS, USD, WORKSPACE, World

HOUR_MS = 3_600_000


@pytest.fixture
def timed(tmp_path: Path) -> Iterator[World]:
    """A world whose clock we turn; its chain follows the real one."""
    opened = World(tmp_path / "data", ManualClock(system_clock()))
    yield opened
    opened.engine.close()


def clock_of(world: World) -> ManualClock:
    assert isinstance(world.clock, ManualClock)
    return world.clock


def chain_of(world: World) -> EmbeddedChain:
    assert isinstance(world.engine.gateway, EmbeddedChain)
    return world.engine.gateway


def state(world: World, view: SessionView) -> str:
    return world.engine.sessions.get(view.workspace_id, view.id).state


def code(world: World, view: SessionView) -> str:
    """What a payment of one dollar is answered now."""
    return str(world.pay(view, 1).decision["code"])


def signature(view: SessionView, signer: LocalAccount, domain: Domain) -> bytes:
    typed_data = view.grant.typed_data(domain)
    return bytes(signer.sign_typed_data(full_message=typed_data).signature)


def kinds(world: World, view: SessionView) -> list[str]:
    """The kinds of the session's records, in order."""
    rows = table(Record)
    query = sa.select(rows.c.body).where(rows.c.stream == view.id).order_by(rows.c.seq)
    with world.engine.database.reading() as connection:
        return [decode_record(body).kind for body in connection.execute(query).scalars()]


def told(world: World, view: SessionView) -> list[str]:
    """The events that listeners will hear of the session, in order."""
    rows = table(OutboxEvent)
    query = sa.select(rows.c.event).where(rows.c.stream == view.id).order_by(rows.c.seq)
    with world.engine.database.reading() as connection:
        return list(connection.execute(query).scalars())


def test_a_session_lives_from_its_creation_to_its_revocation(world: World) -> None:
    view = world.create()
    assert (view.state, view.consent, view.owner_signature) == ("awaiting_consent", "none", None)
    assert code(world, view) == "SESSION_NOT_ANCHORED"
    view = world.consent(view, wait_s=0)
    assert (view.state, view.consent) == ("registering", "eip712")
    assert code(world, view) == "SESSION_NOT_ANCHORED"
    world.engine.tick()
    assert state(world, view) == "active"
    assert code(world, view) == "ALLOWED"
    ended = world.engine.revoke_session(WORKSPACE, view.id, by="somebody")
    assert ended.state == "revoked"
    assert ended.ended_ms is not None
    assert code(world, view) == "SESSION_REVOKED"
    life = [kind for kind in kinds(world, view) if kind.startswith("session.")]
    assert life == ["session.created", "session.consented", "session.registered", "session.revoked"]
    tellings = [name for name in told(world, view) if name.startswith("agent.")]
    assert tellings == ["agent.session.created", "agent.session.revoked"]


def test_without_an_identity_on_the_chain_it_is_active_at_once_and_nothing_is_sent(
    world: World,
) -> None:
    world.engine.tick()
    height = chain_of(world).head().number
    view = world.create(mint_pkp=False)
    assert view.state == "active"
    assert view.pkp_address is None
    assert code(world, view) == "ALLOWED"
    world.engine.revoke_session(WORKSPACE, view.id, by="somebody")
    world.engine.tick()
    assert chain_of(world).head().number == height


def test_without_an_identity_it_still_waits_for_the_consent_that_was_asked_for(
    world: World,
) -> None:
    view = world.create(mint_pkp=False, await_consent=True)
    assert code(world, view) == "SESSION_NOT_ANCHORED"
    assert world.consent(view).state == "active"
    assert code(world, view) == "ALLOWED"


def test_without_a_signature_the_operator_registers_it_and_the_chain_says_so(world: World) -> None:
    view = world.create(await_consent=False)
    assert (view.state, view.consent) == ("active", "none")
    [registered] = events(world.engine, "SessionRegistered", view)
    assert contracts.CONSENT[registered.args["consent"]] == "none"
    signed = world.session(mint_pkp=True)
    [registered] = events(world.engine, "SessionRegistered", signed)
    assert contracts.CONSENT[registered.args["consent"]] == "eip712"


def test_consent_is_refused_to_everybody_but_the_owner(world: World) -> None:
    view, stranger = world.create(), Account.create()
    given = signature(view, stranger, world.engine.sessions.domain)
    with pytest.raises(InvalidInput, match=stranger.address.lower()) as refused:
        world.engine.consent(WORKSPACE, view.id, given)
    assert refused.value.field == "owner_signature"
    assert state(world, view) == "awaiting_consent"
    assert world.engine.sessions.get(WORKSPACE, view.id).owner_signature is None


def test_consent_to_anything_but_exactly_this_grant_is_refused(world: World) -> None:
    view, domain = world.create(), world.engine.sessions.domain
    twin = world.create()  # the same parameters, but another key and salt
    other_chain = Domain(domain.chain_id + 1, domain.registry)
    other_registry = Domain(domain.chain_id, world.engine.deployment.anchors)
    good = signature(view, world.owner, domain)
    order = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
    high_s = good[:32] + (order - int.from_bytes(good[32:64])).to_bytes(32)
    bad = {
        "of a twin": signature(twin, world.owner, domain),
        "for another chain": signature(view, world.owner, other_chain),
        "for another registry": signature(view, world.owner, other_registry),
        "with a high s": high_s + bytes([55 - good[64]]),
        "with v 0 or 1": good[:64] + bytes([good[64] - 27]),
        "too short": good[:64],
        "too long": good + b"\x00",
        "empty": b"",
        "zero": bytes(64) + b"\x1b",
    }
    accepted = []
    for what, given in bad.items():
        try:
            world.engine.consent(WORKSPACE, view.id, given)
        except InvalidInput:
            continue
        accepted.append(what)
    assert accepted == []
    assert state(world, view) == "awaiting_consent"
    assert world.engine.consent(WORKSPACE, view.id, good, wait_s=10).state == "active"


def test_the_same_consent_again_changes_nothing_and_another_is_a_conflict(world: World) -> None:
    view = world.session(mint_pkp=True)
    assert view.owner_signature is not None
    before = kinds(world, view)
    assert world.engine.consent(WORKSPACE, view.id, view.owner_signature) == view
    with pytest.raises(Conflict, match="active") as refused:
        world.engine.consent(WORKSPACE, view.id, bytes(65))
    assert refused.value.code == "consent_not_awaited"
    assert kinds(world, view) == before
    assert len(events(world.engine, "SessionRegistered", view)) == 1


@pytest.mark.parametrize("end", ["revoked", "expired"])
def test_a_session_that_ended_takes_no_consent(timed: World, end: str) -> None:
    view = timed.create(duration_ms=HOUR_MS)
    given = signature(view, timed.owner, timed.engine.sessions.domain)
    if end == "revoked":
        timed.engine.revoke_session(WORKSPACE, view.id, by="somebody")
    else:
        clock_of(timed).advance(2 * HOUR_MS)
        timed.engine.tick()
    with pytest.raises(Conflict, match=end):
        timed.engine.consent(WORKSPACE, view.id, given)
    assert state(timed, view) == end


def test_revoking_again_changes_nothing(world: World) -> None:
    view = world.session(mint_pkp=True)
    first = world.engine.revoke_session(WORKSPACE, view.id, by="somebody")
    before = kinds(world, view)
    assert world.engine.revoke_session(WORKSPACE, view.id, by="somebody else") == first
    world.engine.tick()
    world.engine.tick()
    assert kinds(world, view) == before
    assert len(events(world.engine, "SessionRevoked", view)) == 1


def test_a_session_that_was_revoked_before_its_registration_never_becomes_active(
    world: World,
) -> None:
    view = world.create()
    world.engine.revoke_session(WORKSPACE, view.id, by="somebody")
    world.engine.tick()
    assert state(world, view) == "revoked"
    assert events(world.engine, "SessionRegistered", view) == []


@pytest.mark.parametrize("mint_pkp", [False, True], ids=["off the chain", "on the chain"])
def test_a_session_expires_on_time_without_any_request(timed: World, mint_pkp: bool) -> None:
    view = timed.session(mint_pkp=mint_pkp, duration_ms=HOUR_MS)
    clock = clock_of(timed)
    clock.now_ms = view.expires_ms - 1
    timed.engine.tick()
    assert state(timed, view) == "active"
    assert code(timed, view) == "ALLOWED"
    clock.now_ms = view.expires_ms
    timed.engine.tick()
    ended = timed.engine.sessions.get(WORKSPACE, view.id)
    assert (ended.state, ended.ended_ms) == ("expired", view.expires_ms)
    assert code(timed, view) == "SESSION_EXPIRED"
    assert kinds(timed, view).count("session.expired") == 1
    assert "agent.session.expired" in told(timed, view)


def test_a_payment_is_denied_from_the_millisecond_of_expiry_before_any_tick(timed: World) -> None:
    view = timed.session(duration_ms=HOUR_MS)
    clock_of(timed).now_ms = view.expires_ms
    assert code(timed, view) == "SESSION_EXPIRED"


def test_the_background_tick_expires_by_itself(timed: World) -> None:
    view = timed.session(duration_ms=HOUR_MS)
    timed.engine.start()
    clock_of(timed).now_ms = view.expires_ms
    condition = timed.engine.lead.ticked
    with condition:
        assert condition.wait_for(lambda: state(timed, view) == "expired", timeout=20)


def test_a_chain_whose_clock_is_ahead_ends_what_lives_on_it_and_nothing_else(own: World) -> None:
    here = own.session(mint_pkp=False, duration_ms=HOUR_MS)
    there = own.session(mint_pkp=True, duration_ms=HOUR_MS)
    later = own.session(mint_pkp=True, duration_ms=3 * HOUR_MS)
    chain_of(own).mine(timestamp_s=there.expires_ms // 1000 - 1)
    own.engine.tick()
    assert state(own, there) == "active"
    assert code(own, there) == "ALLOWED"
    chain_of(own).mine(timestamp_s=there.expires_ms // 1000)
    own.engine.tick()
    assert [state(own, view) for view in (here, there, later)] == ["active", "expired", "active"]
    assert [code(own, view) for view in (here, there, later)] == [
        "ALLOWED",
        "SESSION_EXPIRED",
        "ALLOWED",
    ]


def test_a_dry_run_goes_by_the_chains_clock_as_a_payment_does(own: World) -> None:
    here, there = (own.session(mint_pkp=each, duration_ms=HOUR_MS) for each in (False, True))
    own.engine.chain_watch.seen(there.expires_ms)
    for view, expected in ((here, "ALLOWED"), (there, "SESSION_EXPIRED")):
        foreseen = own.engine.ledger.simulate(view.id, own.request(1)).result().decision
        assert foreseen.code == expected
        assert foreseen.to_json() == own.pay(view, 1).decision


def test_what_the_chains_clock_ended_stays_ended_when_that_clock_goes_back(own: World) -> None:
    view = own.session(mint_pkp=True, duration_ms=HOUR_MS)
    # What a reorganisation can do to the newest block's time, and a restart to our memory of it.
    own.engine.chain_watch.seen(view.expires_ms)
    own.engine.tick()
    assert state(own, view) == "expired"
    own.reopen()
    assert code(own, view) == "SESSION_EXPIRED"


@pytest.mark.parametrize("when", ["before the consent", "after the consent"])
def test_parameters_that_the_chain_holds_otherwise_are_never_enforced(
    world: World, when: str
) -> None:
    """Somebody with the operator's key registers more than the owner was asked to sign."""
    view = world.create(Limits(USD, USD, None, None, None))
    if when == "after the consent":
        view = world.consent(view, wait_s=0)
    wider = replace(view.grant, limits=NO_LIMITS)
    data = contracts.registering(wider, view.public_key)
    deployment = world.engine.deployment
    sender.send(chain_of(world), deployment.operator, to=deployment.registry, data=data)
    world.engine.tick()
    if when == "before the consent":
        assert code(world, view) == "SESSION_NOT_ANCHORED"
        world.consent(view)
        world.engine.tick()
    assert state(world, view) == "mismatch"
    assert code(world, view) == "PARAMETERS_MISMATCH"
    with pytest.raises(Conflict, match="mismatch"):
        world.engine.consent(WORKSPACE, view.id, bytes(65))


def test_two_workspaces_never_see_each_others_sessions(world: World) -> None:
    world.engine.access.create_workspace("other", "Another tenant")
    ours = world.create(mint_pkp=False)
    theirs = world.create(mint_pkp=False, workspace="other")
    listed = [view.id for view in world.engine.sessions.page(WORKSPACE, offset=0, limit=1000)[0]]
    assert ours.id in listed
    assert theirs.id not in listed
    assert [view.id for view in world.engine.sessions.page("other", offset=0, limit=1000)[0]] == [
        theirs.id
    ]
    paid = world.pay(theirs, 1, hold=True)
    attempts = {
        "get": lambda: world.engine.sessions.get(WORKSPACE, theirs.id),
        "consent": lambda: world.engine.consent(WORKSPACE, theirs.id, bytes(65)),
        "revoke": lambda: world.engine.revoke_session(WORKSPACE, theirs.id, by="somebody"),
        "evidence": lambda: world.engine.evidence(WORKSPACE, theirs.id),
        "payment": lambda: world.engine.payments.get(WORKSPACE, paid.id),
        "capture": lambda: world.engine.ledger.capture(WORKSPACE, paid.id).result(),
        "void": lambda: world.engine.ledger.void(WORKSPACE, paid.id).result(),
    }
    heard = {}
    for what, attempt in attempts.items():
        with pytest.raises(NotFound) as refused:
            attempt()
        heard[what] = str(refused.value)
    absent = theirs.id[:-1] + ("0" if theirs.id[-1] != "0" else "1")
    with pytest.raises(NotFound) as refused:
        world.engine.sessions.get(WORKSPACE, absent)
    assert heard["get"] == str(refused.value), "absent and foreign look the same"
    for session_id in (None, theirs.id):
        seen, _ = world.engine.payments.page(WORKSPACE, session_id=session_id, offset=0, limit=999)
        assert paid.id not in [payment.id for payment in seen]
    assert state(world, theirs) == "active"
    assert world.engine.payments.get("other", paid.id).state == "held"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"duration_ms": 0}, "duration_hours"),
        ({"duration_ms": 168 * HOUR_MS + 1}, "duration_hours"),
        ({"agent_id": ""}, "agent_id"),
        ({"agent_id": "two words"}, "agent_id"),
        ({"agent_id": "b" * 129}, "agent_id"),
        ({"agent_id": "bоt"}, "agent_id"),  # noqa: RUF001 (a Cyrillic letter, which is the point)
        ({"owner": None}, "user_wallet"),
    ],
    ids=["no time", "too long", "no agent", "a space", "a long id", "a homoglyph", "no wallet"],
)
def test_what_cannot_be_a_session_is_refused_and_names_the_field(
    world: World, changes: dict[str, object], field: str
) -> None:
    before = world.engine.sessions.page(WORKSPACE, offset=0, limit=1000)[0]
    with pytest.raises(InvalidInput) as refused:
        world.create(**changes)
    assert refused.value.field == field
    assert world.engine.sessions.page(WORKSPACE, offset=0, limit=1000)[0] == before
