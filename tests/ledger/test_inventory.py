"""What is read of a session for people: its life, its records, what it spent and when."""

from engine.clock import ManualClock
from engine.sessions.inventory import Inventory, Milestone
from tests.world import USD, World

HOUR_MS = 3_600_000


def test_a_session_s_life_records_and_spending_are_all_of_it(
    world: World, clock: ManualClock
) -> None:
    engine = world.engine
    inventory = Inventory(engine.database, engine.writer, engine.sessions)
    session, other = world.session(), world.session()
    created_ms = clock()
    clock.advance(HOUR_MS)
    world.pay(session, 10)
    world.pay(other, 1000)
    engine.ledger.void("default", world.pay(session, 7, hold=True).id).result()
    clock.advance(1000)
    engine.ledger.capture("default", world.pay(session, 9, hold=True).id, 4 * USD).result()
    clock.advance(HOUR_MS)
    paid_ms = clock()
    world.pay(session, 5, hold=True)
    engine.sessions.pause("default", session.id, by="test")
    world.pay(session, 3)
    begin_ms = created_ms + HOUR_MS
    apart = [(begin_ms, 10 * USD), (begin_ms + 1000, 4 * USD), (paid_ms, 5 * USD)]
    assert inventory.spent(session.id, created_ms, 1) == apart
    together = [(begin_ms, 14 * USD), (paid_ms, 5 * USD)]
    assert inventory.spent(session.id, created_ms, HOUR_MS // 2) == together
    assert inventory.spent(session.id, begin_ms + 1, HOUR_MS // 2) == [apart[1], apart[2]]
    kinds = ("session.created", "session.paused", "session.revoked")
    assert inventory.life(session.id, kinds) == [
        Milestone("session.created", created_ms),
        Milestone("paid", begin_ms),
        Milestone("session.paused", paid_ms),
        Milestone("refused", paid_ms),
    ]
    newest, total = inventory.records(session.id, offset=0, limit=2)
    rest, _ = inventory.records(session.id, offset=2, limit=100)
    assert [told.record.seq for told in (*newest, *rest)] == list(reversed(range(total)))
    assert rest[-1].record.kind == "session.created"
