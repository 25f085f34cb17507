"""A session that takes the place of another on the chain: the records name each other."""

import pytest
import sqlalchemy as sa

from engine.audit.verify import Verdict
from engine.chain import contracts
from engine.db.tables import ChainTransaction, table
from engine.errors import InvalidInput, NotFound
from engine.sessions.session import SessionView
from tests.sessions.hands import code, now, replayed, send, verified
from tests.world import USD, WORKSPACE, World, records_of


def rotate(world: World, old: SessionView, new: SessionView) -> None:
    """The operator rotates on the chain, past the engine, and the engine looks."""
    session = int.from_bytes(old.token_id), old.grant.abi_tuple()[0], old.grant_hash
    x, y = new.public_key[1:33], new.public_key[33:]
    registration = (new.grant.abi_tuple(), x, y, False, contracts.CONSENT.index("none"), b"")
    data = contracts.call_data(contracts.SESSION_REGISTRY, "rotate", session, registration)
    send(world, world.engine.deployment.operator, data)
    world.engine.tick()


def test_a_rotation_ends_the_one_and_begins_the_other_and_links_them(own: World) -> None:
    old = own.create(await_consent=False)
    assert code(own, old) == "ALLOWED"
    bystander = own.create(await_consent=False)
    new = own.create(await_consent=False, wait_s=0)
    rotate(own, old, new)
    assert (code(own, old), code(own, new)) == ("SESSION_REVOKED", "ALLOWED")
    assert code(own, bystander) == "ALLOWED"
    [revoked] = [r.body for r in records_of(own, old.id) if r.kind == "session.revoked"]
    [registered] = [r.body for r in records_of(own, new.id) if r.kind == "session.registered"]
    assert revoked["rotated_to"] == "0x" + new.token_id.hex()
    assert registered["rotated_from"] == "0x" + old.token_id.hex()
    assert revoked["tx_hash"] == registered["tx_hash"]
    for view in (old, new):
        replayed(own, view)
        report = verified(own, view)
        assert report.verdict is Verdict.VERIFIED, report.reason


def test_what_no_rotation_began_or_ended_is_linked_to_nothing(own: World) -> None:
    view = own.session(mint_pkp=True)
    send(own, own.owner, contracts.revoking(view.grant, view.token_id))
    own.engine.tick()
    assert now(own, view).state == "revoked"
    told = {name for record in records_of(own, view.id) for name in record.body}
    assert not told & {"rotated_from", "rotated_to"}


def transaction(world: World, view: SessionView, action: str) -> bool:
    """Whether one was sent for a session."""
    sent = table(ChainTransaction)
    query = sa.select(sent.c.tx_hash).where(sent.c.session_id == view.id, sent.c.action == action)
    with world.engine.database.reading() as connection:
        return connection.execute(query).first() is not None


def linked(world: World, old: SessionView, new: SessionView) -> list[str | None]:
    """What the records of both tell of a rotation: each the other's token id, or None."""
    sides = (old, "session.revoked", "rotated_to"), (new, "session.registered", "rotated_from")
    return [
        [record.body for record in records_of(world, view.id) if record.kind == kind][-1].get(side)
        for view, kind, side in sides
    ]


def test_the_owner_s_signature_of_the_new_grant_ends_the_old_one_in_one_transaction(
    own: World,
) -> None:
    old = own.session(mint_pkp=True)
    held = own.pay(old, 3, hold=True)
    new = own.create(rotates_id=old.id)
    assert (now(own, old).state, new.state) == ("active", "awaiting_consent")
    new = own.consent(new)
    assert (now(own, old).state, new.state, new.consent) == ("revoked", "active", "eip712")
    assert (code(own, old), code(own, new)) == ("SESSION_REVOKED", "ALLOWED")
    assert linked(own, old, new) == ["0x" + each.token_id.hex() for each in (new, old)]
    assert records_of(own, new.id)[0].body["rotates"] == old.id
    own.engine.ledger.capture(WORKSPACE, held.id, 3 * USD).result()
    own.engine.tick()  # nothing is left to be told to the chain
    own.engine.reconciler.run()
    assert own.engine.reconciler.open() == []
    for view in (old, new):
        replayed(own, view)
        report = verified(own, view)
        assert report.verdict is Verdict.VERIFIED, report.reason
        sent = [each for each in ("register", "revoke") if transaction(own, view, each)]
        assert sent == ["register"]


def test_what_ended_before_its_rotation_is_not_rotated_and_the_new_one_is_registered_alone(
    own: World,
) -> None:
    old = own.session(mint_pkp=True)
    new = own.create(rotates_id=old.id)
    own.engine.revoke_session(WORKSPACE, old.id, by="key_x")
    own.engine.tick()
    assert own.consent(new).state == "active"
    assert linked(own, old, new) == [None, None]


def test_only_what_the_registry_would_rotate_is_to_be(own: World) -> None:
    signed = own.session(mint_pkp=True)
    ended = own.session(mint_pkp=True)
    own.engine.revoke_session(WORKSPACE, ended.id, by="key_x")
    nowhere = own.session()
    how = {"await_consent": False, "duration_ms": 3_600_000}
    child = own.session(mint_pkp=True, parent_id=signed.id, **how)
    stranger = "0x" + "5a" * 20
    for old, changes, why in (
        (signed, {"owner": stranger, "user_wallet": stranger}, "the signature of 0x.* would be"),
        (signed, {"await_consent": False}, "its owner signed it"),
        (signed, {"mint_pkp": False, "await_consent": True}, "the new one needs an identity"),
        (ended, {}, "it is revoked"),
        (nowhere, {}, "it has no identity"),
        (child, {}, "it is delegated"),
    ):
        with pytest.raises(InvalidInput, match=f"^rotates: .*{why}"):
            own.create(**{"rotates_id": old.id, **changes})
    own.engine.access.create_workspace("other", "Another tenant")
    for session_id, workspace in (("sess_nobody", WORKSPACE), (signed.id, "other")):
        with pytest.raises(NotFound):
            own.create(rotates_id=session_id, workspace=workspace)
    assert code(own, signed) == "ALLOWED"
