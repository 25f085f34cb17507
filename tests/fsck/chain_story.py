"""What happens to sessions on the chain, in a story for `fsck`: lower limits, a rotation, owners of
every kind, the end of a workspace, and blocks that are replaced."""

import shutil
from dataclasses import replace

import sqlalchemy as sa
from eth_account import Account
from eth_account.signers.local import LocalAccount

from engine.audit.consent import passkey_owner
from engine.chain import contracts, sender
from engine.chain.indexer import REORG_DEPTH_MAX
from engine.clock import ManualClock
from engine.db.tables import Session, table
from engine.policy.limits import Limits
from engine.sessions.session import SessionView
from tests.contracts.passkey import Passkey
from tests.contracts.wallet import deploy_wallet
from tests.evidence.story import pass_time
from tests.sessions.hands import ETHER_WEI, chain_of, code, discrepancies, lower, now, send
from tests.sessions.test_rotation import rotate
from tests.world import USD, WORKSPACE, World, records_of

_sessions = table(Session)

MINUTE_MS = 60_000
GRANTED = Limits(50 * USD, 90 * USD, None, None, None)
LOWERED = Limits(20 * USD, 60 * USD, None, None, None)


def replaced_blocks(world: World) -> SessionView:
    """More blocks than are followed are replaced: an operator has all of the chain read again.

    One session's limits were lowered in them, another one was registered. Returns the first.
    """
    view = world.session(GRANTED, mint_pkp=True, label="lowered")
    file = world.settings.data_dir / "chain.sqlite3"
    before = file.with_suffix(".before")
    world.engine.close()
    shutil.copy(file, before)
    world.engine = world._open()
    lower(world, view, LOWERED)
    assert len(now(world, view).lowered) == 1
    late = world.session(mint_pkp=True)
    chain_of(world).mine(REORG_DEPTH_MAX + 1)
    world.engine.tick()
    world.engine.close()
    before.replace(file)
    world.engine = world._open()
    chain_of(world).mine(REORG_DEPTH_MAX + 2)
    world.engine.resume_chain(by="somebody")
    world.engine.tick()
    assert now(world, view).lowered == ()
    assert "session.unlowered" in [record.kind for record in records_of(world, view.id)]
    assert "session.unregistered" in [record.kind for record in records_of(world, late.id)]
    assert code(world, late) == "ALLOWED"
    return view


def lowered_limits(world: World, view: SessionView) -> None:
    """Twice, and once by somebody who thinks of more than the grant."""
    for limits in (LOWERED, replace(LOWERED, per_transaction=10 * USD)):
        lower(world, view, limits)
    assert code(world, view, 11) == "LIMIT_EXCEEDED"
    assert code(world, view, 10) == "ALLOWED"


def rotated(world: World) -> None:
    """A session takes the place of another: past the engine, and by it."""
    old = world.create(await_consent=False)
    new = world.create(await_consent=False, wait_s=0)
    rotate(world, old, new)
    newest = world.session(mint_pkp=True, await_consent=False, rotates_id=new.id)
    codes = [code(world, each) for each in (old, new, newest)]
    assert codes == ["SESSION_REVOKED", "SESSION_REVOKED", "ALLOWED"]


def owners_of_every_kind(world: World) -> None:
    """A passkey, and a wallet that is a contract."""
    payer, key = Account.create(), Account.create()
    chain_of(world).fund(payer.address.lower(), ETHER_WEI)
    wallet = deploy_wallet(chain_of(world), payer, key.address)
    passkey = Passkey(0x9A55)
    by_passkey = passkey_owner(passkey.x.to_bytes(32), passkey.y.to_bytes(32))
    for kind, owner in (("passkey", by_passkey), ("erc1271", wallet)):
        view = world.create(user_wallet=owner, owner=owner)
        digest = view.grant.digest(world.engine.sessions.domain)
        by_key = bytes(key.unsafe_sign_hash(digest).signature)
        signature = passkey.sign(digest) if kind == "passkey" else by_key
        view = world.engine.consent(WORKSPACE, view.id, signature, kind=kind, wait_s=10)
        assert (view.state, view.consent) == ("active", kind)
        world.engine.revoke_session(WORKSPACE, view.id, by="somebody")


def closed_workspace(world: World, workspace: str) -> None:
    """The end of a workspace, and a session after it was opened again."""
    operator = world.engine.deployment.operator
    ended = world.create(mint_pkp=True, await_consent=False, workspace=workspace, agent_id="guest")
    for data in (contracts.closing(workspace), contracts.opening(workspace)):
        send(world, operator, data)
        world.engine.tick()
    assert now(world, ended).state == "revoked"
    world.create(mint_pkp=True, await_consent=False, workspace=workspace, agent_id="guest")


def differing(world: World, clock: ManualClock) -> None:
    """Discrepancies: of a registration, of a row, and of a session that nobody here knows."""
    operator = world.engine.deployment.operator
    theirs = world.create(GRANTED, await_consent=False, wait_s=0, label="differs")
    other = replace(theirs.grant, salt=bytes(32))
    send(world, operator, contracts.registering(other, theirs.public_key))
    world.engine.tick()
    assert now(world, theirs).state == "mismatch"
    stranger: LocalAccount = Account.create()
    unknown = replace(theirs.grant, session_key=stranger.address.lower())
    public_key = b"\x04" + stranger._key_obj.public_key.to_bytes()
    send(world, operator, contracts.registering(unknown, public_key))
    world.engine.tick()
    damaged = world.session(label="damaged")
    for _ in range(2):
        _damaged_for_a_moment(world, clock, damaged)
    pass_time(world, clock, MINUTE_MS)
    world.engine.reconciler.run()
    found = world.engine.reconciler.open()
    kinds = ["parameters_differ", "session_unknown_here", "settlement_missing"]
    assert sorted(each.kind for each in found) == kinds


def _damaged_for_a_moment(world: World, clock: ManualClock, view: SessionView) -> None:
    """Its row was changed behind the engine's back, and is put back."""
    assert code(world, view) == "ALLOWED"
    _write_lowered(world, view, "nothing")
    world.engine.tick()
    assert [each.kind for each in discrepancies(world, view)] == ["session_damaged"]
    pass_time(world, clock, MINUTE_MS)
    _write_lowered(world, view, "[]")
    world.engine.reconciler.run()
    assert discrepancies(world, view) == []


def _write_lowered(world: World, view: SessionView, lowered: str) -> None:
    change = sa.update(_sessions).where(_sessions.c.id == view.id).values(lowered_json=lowered)
    world.engine.writer.call(lambda batch: batch.update(change))


def anchored_elsewhere(world: World) -> None:
    """Somebody with the operator's key anchors the records here, and that is adopted."""
    engine = world.engine
    size = engine.lead.sequence()
    deployment, root = engine.deployment, engine._log.tree.root(size)
    data = contracts.call_data(contracts.ANCHOR_REGISTRY, "anchor", deployment.log_id, size, root)
    sender.send(engine.gateway, deployment.operator, to=deployment.anchors, data=data)
    engine.tick()
    latest = engine.lead.anchorer.latest()
    assert latest is not None
    assert (latest.size, latest.state != "sent") == (size, True)
