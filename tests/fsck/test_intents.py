"""Records of intents that tell another story than the payments do are found, whoever wrote them."""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa

from engine.audit.record import Record, decode_record
from engine.db.tables import Record as RecordRow
from engine.db.tables import table
from engine.fsck.finding import Finding, Findings
from engine.fsck.intents import IntentRows
from engine.ledger.intent import LINK
from tests.ledger.intending import confirm, intent
from tests.ledger.oracle import alter, query
from tests.world import USD, WORKSPACE, World

_records = table(RecordRow)
Rewrite = Callable[[list[Record]], Sequence[Record]]


def rewritten(number: int, **body: Any) -> Rewrite:
    """Another body of one record."""

    def rewrite(records: list[Record]) -> Sequence[Record]:
        changed = msgspec.structs.replace(records[number], body=records[number].body | body)
        return [*records[:number], changed, *records[number + 1 :]]

    return rewrite


def left_out(*numbers: int) -> Rewrite:
    """Without some records."""
    return lambda records: [each for n, each in enumerate(records) if n not in numbers]


REWRITES: dict[str, Rewrite] = {
    "the end is left out": left_out(2),
    "all of it is left out": left_out(0, 1, 2),
    "it was never made": left_out(0),
    "it was never confirmed": left_out(1),
    "it ended twice": lambda records: [*records, records[2]],
    "it was made twice": lambda records: [records[0], *records],
    "another amount": rewritten(0, amount_micro_usd=6 * USD),
    "another amount was spent": rewritten(2, captured_micro_usd=3 * USD),
    "another payment": rewritten(1, payment="pay_" + "0" * 26 + "_1"),
    "another payment was spent": rewritten(2, payment="pay_" + "0" * 26 + "_1"),
    "another session": rewritten(1, session="sess_" + "0" * 26),
    "its time was over": rewritten(0, expires_ms=1),
    "it says why it succeeded": rewritten(2, code="payment_voided"),
}


def paid(world: World) -> list[Record]:
    """The records of an intent that was held and captured."""
    made, secret = intent(world, 5, capture="manual")
    held = confirm(world, made, secret, world.session()).payment
    world.engine.ledger.capture(WORKSPACE, held.id, 4 * USD).result()
    ours = sa.select(_records.c.body).where(_records.c.stream == WORKSPACE)
    with world.engine.database.reading() as connection:
        bodies = connection.execute(ours.order_by(_records.c.seq)).scalars()
        return [each for each in map(decode_record, bodies) if each.kind.startswith("intent.")]


def found(world: World, records: Sequence[Record]) -> list[Finding]:
    """What does not agree with these records."""
    with world.engine.database.reading() as connection:
        findings = Findings()
        rows = IntentRows(connection, findings, WORKSPACE)
        for record in records:
            rows.follow(record, record.kind.partition(".")[2])
        rows.finish()
        return list(findings)


def test_each_other_story_is_found(world: World) -> None:
    records = paid(world)
    assert len(records) == 3
    assert found(world, records) == []
    for name, rewrite in REWRITES.items():
        try:
            findings = found(world, rewrite(records))
        except (KeyError, ValueError):
            continue  # `check` tells of it as a record that cannot be followed
        assert {each.table for each in findings} == {"payment_intents"}, name


def test_a_payment_that_is_another_than_its_intent_says_is_found(world: World) -> None:
    records = paid(world)
    another = f'replace(memo_json, \'"{LINK}":"pi_\', \'"{LINK}":"px_\')'
    for change, says in (
        ("state = 'voided'", "state of"),
        ("captured = 5000000", "captured of"),
        ("amount = 6000000", "amount of"),
        (f"memo_json = {another}", "its records do not tell"),
        ("memo_json = '{}'", "there is no payment"),
    ):
        before = query(world.store, "SELECT state, captured, amount, memo_json FROM decisions")
        assert alter(world.store, f"UPDATE decisions SET {change}") == 1
        assert any(says in each.says for each in found(world, records)), change
        put_back = "UPDATE decisions SET state = ?, captured = ?, amount = ?, memo_json = ?"
        alter(world.store, put_back, *before[0])
    assert found(world, records) == []
