"""Records of every kind, with every field that one can have, as the engine writes them."""

import contextlib
from dataclasses import replace
from pathlib import Path

import sqlalchemy as sa

from engine.audit.record import Record, decode_record
from engine.chain import contracts
from engine.clock import ManualClock, system_clock
from engine.db import tables
from engine.payments.gate import NoUsableOffer
from engine.policy.limits import Limits
from engine.sessions.session import SessionView
from tests.evidence.story import pass_time
from tests.fsck.story import tell
from tests.ledger.approving import first_key
from tests.ledger.paying import SHOP, accepted, ask_gate, offer, signed
from tests.sessions.hands import lower, now, send
from tests.world import USD, WORKSPACE, World

HOUR_MS = 3_600_000
GRANTED = Limits(50 * USD, 90 * USD, None, None, None)
LOWERED = Limits(5 * USD, 60 * USD, 70 * USD, 80 * USD, 4 * USD)

_records = tables.table(tables.Record)
_sessions = tables.table(tables.Session)
Sessions = dict[str, tuple[SessionView, list[Record]]]


def all_records(directory: Path) -> Sessions:
    """Sessions by their ids, each with all its records."""
    clock = ManualClock(system_clock())
    world = World(directory, clock)
    tell(world, clock)
    by = first_key(world)
    _above(world, by)
    _otherwise_registered(world)
    _paid(world, by)
    _consented(world, by)
    for minted in (False, True):
        world.session(duration_ms=HOUR_MS, mint_pkp=minted)
    pass_time(world, clock, 2 * HOUR_MS)
    with world.engine.database.reading() as connection:
        ids = connection.execute(sa.select(_sessions.c.id, _sessions.c.workspace_id)).all()
        query = sa.select(_records.c.stream, _records.c.body).order_by(_records.c.seq)
        found: Sessions = {
            each.id: (world.engine.sessions.get(each.workspace_id, each.id), []) for each in ids
        }
        for stream, raw in connection.execute(query):
            if stream in found:
                found[stream][1].append(decode_record(bytes(raw)))
    world.engine.close()
    return found


def _above(world: World, by: str) -> None:
    """What is set, lowered, unlowered and revoked for a session is so for the one beneath."""
    parent = world.session(GRANTED, mint_pkp=True)
    child = world.session(
        GRANTED, mint_pkp=True, await_consent=False, parent_id=parent.id, by=parent.id
    )
    for restrictions in (("at most 50 payments per day",), ()):
        world.engine.sessions.restrict(WORKSPACE, parent.id, restrictions, by=by)
    lower(world, parent, LOWERED)
    parent = now(world, parent)
    [lowering], tip = parent.lowered, world.engine.gateway.head()
    gone = {"block_number": tip.number, "block_hash": "0x" + tip.hash.hex()}
    sessions = world.engine.sessions
    world.engine.writer.call(lambda batch: sessions.unlowered(batch, parent, lowering, gone))
    world.engine.revoke_session(WORKSPACE, parent.id, by=by)
    assert now(world, child).state == "revoked"


def _otherwise_registered(world: World) -> None:
    """A rotation registers other parameters than the engine's."""
    old = world.create(await_consent=False)
    new = world.create(GRANTED, await_consent=False, wait_s=0)
    other = replace(new.grant, salt=bytes(32))
    data = contracts.rotating(old.grant, old.token_id, other, new.public_key)
    send(world, world.engine.deployment.operator, data)
    world.engine.tick()
    assert (now(world, old).state, now(world, new).state) == ("revoked", "mismatch")


def _paid(world: World, by: str) -> None:
    """Caps of every kind, a transfer, an accepted payment, and refusals."""
    usdc = world.engine.token("USDC", None)
    assert usdc is not None
    view = world.session(
        Limits(None, 500 * USD, 600 * USD, 700 * USD, None),
        mint_pkp=True,
        by=by,
        conditions=(
            "at most 20 payments per day",
            "lifetime at most 400 USD",
            "merchant books at most 100 USD per day",
            f"token {usdc.asset} at most 300 USD per week",
        ),
    )
    world.pay(view, 1)
    asked = {"resource": "https://api.shop.test/order", "method": "POST", "body_sha256": "5a" * 32}
    accepted(world, signed(world, view, **asked))
    world.engine.networks.transfers.execute(view.id, SHOP, USD, usdc)
    for key in (None, "refused"):
        with contextlib.suppress(NoUsableOffer):
            ask_gate(world, view, offer(world, scheme="upto"), key=key, **asked)


def _consented(world: World, by: str) -> None:
    """The owner's signature, brought by an operator."""
    view = world.create()
    typed = view.grant.typed_data(world.engine.sessions.domain)
    signature = bytes(world.owner.sign_typed_data(full_message=typed).signature)
    world.engine.consent(WORKSPACE, view.id, signature, by=by, wait_s=10)
