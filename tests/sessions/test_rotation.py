"""A session that takes the place of another on the chain: the records name each other."""

from engine.audit.verify import Verdict
from engine.chain import contracts
from engine.sessions.session import SessionView
from tests.sessions.hands import code, now, records_of, replayed, send, verified
from tests.world import World


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
