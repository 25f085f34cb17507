"""Every cell of a small database is changed, every row removed, doubled and exchanged for another:
it is found, and the finding names what was changed, unless it is declared that nothing checks it.

`scripts/every-cell` does that; without its `--every-cell` one row of each table stands for all.
"""

import json
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import sqlalchemy as sa
from eth_account import Account
from sqlmodel import SQLModel

from engine.chain import sender
from engine.fsck.check import check
from engine.fsck.finding import Finding
from engine.fsck.unchecked import NOTHING_CHECKS, NOTHING_MISSES, ONLY_THE_CHAIN_CHECKS
from tests.fsck.conftest import Told
from tests.fsck.copies import Copy, Row, copy_of, delete, insert, others, update
from tests.fsck.story import OTHER
from tests.world import World

TABLES = {name: SQLModel.metadata.tables[name] for name in sorted(SQLModel.metadata.tables)}
EMPTY = {"stream_heads"}
"""Tables that a single writer has no need of."""
FILLED = [name for name in TABLES if name not in EMPTY]
ONE_BY_ONE = ("budget_entries", "decisions", "outbox", "records")
"""Tables with many rows, each compared by itself: all of them are changed at once as well."""
SINGLY = 8
A_FEW = 1
PARTLY = {
    "agent_key_uses": {"key_id"},
    "anchors": {"state", "replaced_json"},
    "chain_events": {"block_hash"},
    "discrepancies": {
        name.partition(".")[2] for name in NOTHING_CHECKS if name.startswith("discrepancies.")
    },
}
"""Of these another value is found here: a key that there is not, any third state, whatever was not
sent for the anchor, a hash while its block is kept, and what does not fit the rest of a
discrepancy."""
OF_THE_CHAIN = ("chain_blocks", "chain_events", "meta")


@pytest.fixture(scope="module")
def copy(told: Told, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Copy]:
    """Examined alone."""
    opened = Copy(copy_of(told.file, tmp_path_factory.mktemp("copy")))
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def with_chain(told: Told, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Copy]:
    """Examined with the chain."""
    engine = copy_of(told.file, tmp_path_factory.mktemp("chained"))
    opened = Copy(engine, told.chain, told.anchored)
    yield opened
    opened.close()


def names(found: list[Finding], of: sa.Table, rows: list[Row], column: str = "") -> bool:
    """Whether a finding names the table and, in it, the column or one of the rows."""
    ours = [finding for finding in found if finding.table == of.name]
    if column and any(column in finding.column.split(", ") for finding in ours):
        return True
    keys = [str(row[key.name]) for row in rows for key in of.primary_key.columns]
    return any(key in finding.row for finding in ours for key in keys)


def unnoticed(
    copy: Copy, of: sa.Table, rows: list[Row], every: bool, columns: Iterable[str] | None = None
) -> dict[str, list[str]]:
    """The changes of one cell that are not found, by column.

    In the first row every value is tried, in the others one that the database takes.
    """
    missed: dict[str, list[str]] = {}
    for place, row in enumerate(rows if every else rows[:A_FEW]):
        for name in columns or of.columns.keys():
            wrong = others(row[name], [other[name] for other in rows])
            turned = wrong[place % len(wrong) :] + wrong[: place % len(wrong)]
            for value in turned:
                with copy.changed(update(of, row, {name: value})) as found:
                    if found is None:
                        continue
                    if not names(found, of, [row, {**row, name: value}], name):
                        missed.setdefault(name, []).append(f"{row} {value!r}: {found}")
                if place > 0 or not every:
                    break
    return missed


def unnoticed_together(
    copy: Copy, of: sa.Table, rows: list[Row], every: bool
) -> dict[str, list[str]]:
    """The same where one column is changed in all rows at once: each of them has to be named."""
    missed: dict[str, list[str]] = {}
    for column in of.columns:
        values = [others(row[column.name], [other[column.name] for other in rows]) for row in rows]
        for turn in range(max(map(len, values)) if every else 1):
            if column.primary_key:
                break
            changes = [
                update(of, row, {column.name: wrong[(place + turn) % len(wrong)]})
                for place, (row, wrong) in enumerate(zip(rows, values, strict=True))
            ]
            with copy.changed(*changes) as found:
                for row in rows if found is not None else ():
                    if not names(found or [], of, [row]):
                        missed.setdefault(column.name, []).append(f"{row}: {found}")
    return missed


def test_the_story_fills_every_table_and_nothing_is_found_in_it(
    copy: Copy, with_chain: Copy
) -> None:
    assert {name for name, of in TABLES.items() if not copy.rows(of)} == EMPTY
    for each in (copy, with_chain):
        with each.changed() as found:
            assert found == []


@pytest.mark.parametrize("table", FILLED)
def test_a_changed_cell_is_found(copy: Copy, table: str, every: bool) -> None:
    of = TABLES[table]
    rows = copy.rows(of)
    if table in ONE_BY_ONE:
        missed = unnoticed(copy, of, rows[:SINGLY], every)
        for name, told in unnoticed_together(copy, of, rows, every).items():
            missed.setdefault(name, []).extend(told)
    else:
        # By turns, so that some of each table's columns are changed each time.
        some = None if every else of.columns.keys()[FILLED.index(table) % 2 :: 2]
        missed = unnoticed(copy, of, rows, every, some)
    declared = {
        name.partition(".")[2]
        for name in (*NOTHING_CHECKS, *ONLY_THE_CHAIN_CHECKS)
        if name.startswith(f"{table}.")
    }
    assert {name: told for name, told in missed.items() if name not in declared} == {}
    if every:
        assert declared - PARTLY.get(table, set()) <= missed.keys()


@pytest.mark.parametrize("value", ["", "0x", "0x" + "g" * 40])
def test_an_address_of_the_registry_that_is_none_is_found(copy: Copy, value: str) -> None:
    of = TABLES["meta"]
    [row] = (row for row in copy.rows(of) if row["key"] == "registry")
    with copy.changed(update(of, row, {"value": value})) as found:
        assert found is not None
        assert names(found, of, [row], "value")


def test_of_an_anchor_it_is_known_whether_it_is_mined(copy: Copy) -> None:
    of = TABLES["anchors"]
    row = copy.rows(of)[-1]
    for state, known in (("mined", False), ("final", False), ("sent", True), ("lost", True)):
        with copy.changed(update(of, row, {"state": state})) as found:
            assert found is not None
            assert [(each.table, each.column) for each in found] == [("anchors", "state")] * known


def test_of_an_anchor_that_was_hurried_every_transaction_is_looked_at(tmp_path: Path) -> None:
    world = World(tmp_path / "data")
    engine = world.engine
    engine.anchor()
    world.session()
    engine.anchor()
    of, operator = TABLES["anchors"], engine.deployment.operator
    with engine.database.reading() as connection:
        raws = [row.raw_tx for row in connection.execute(sa.select(of).order_by(of.c.size))]
    higher, another = (sender.sign_again(engine.gateway, operator, raw).raw for raw in raws[::-1])
    by_another = sender.sign_again(engine.gateway, Account.create(), raws[1]).raw
    engine.close()
    copy = Copy(copy_of(engine.settings.data_dir / "ledger.sqlite3", tmp_path))
    row = copy.rows(of)[1]
    for replaced, known in (
        ([higher], True),
        ([raws[1]], False),
        ([higher, higher], False),
        ([another], False),
        ([by_another], False),
        ([higher[:-1]], False),
    ):
        told = json.dumps([raw.hex() for raw in replaced])
        with copy.changed(update(of, row, {"replaced_json": told})) as found:
            assert found is not None
            named = {(each.table, each.column) for each in found}
            assert named == (set() if known else {("anchors", "replaced_json")})
    for told in ("{}", "[[]]", '[""]', json.dumps([higher.hex()], indent=1)):
        with copy.changed(update(of, row, {"replaced_json": told})) as found:
            assert found is not None
            assert [(each.table, each.column) for each in found] == [("anchors", "replaced_json")]
    copy.close()


def test_what_was_sent_for_an_anchor_that_waits_is_missed(copy: Copy) -> None:
    of = TABLES["anchors"]
    values = {"raw_tx": b"", "state": "sent", "block_number": None, "block_hash": None}
    with copy.changed(update(of, copy.rows(of)[0], values)) as found:
        assert found is not None
        assert ("anchors", "raw_tx") in [(each.table, each.column) for each in found]


def test_a_discrepancy_is_of_a_session_and_once_at_a_time(copy: Copy) -> None:
    """Of what nothing else tells, it is checked that it fits together."""
    of = TABLES["discrepancies"]
    resolved, again = (row for row in copy.rows(of) if row["kind"] == "session_damaged")
    for row, values in (
        (again, {"workspace_id": OTHER}),
        (again, {"subject": "token 0x"}),
        (again, {"kind": "nothing"}),
        (again, {"kind": "anchor_stuck"}),
        (again, {"evidence_json": "{ }"}),
        (again, {"first_seen_ms": resolved["resolved_ms"] - 1}),
        (again, {"last_seen_ms": again["resolved_ms"] + 1}),
        (again, {"last_seen_ms": again["first_seen_ms"] - 1}),
        (again, {"resolved_ms": again["last_seen_ms"] - 1}),
        (resolved, {"resolved_ms": again["first_seen_ms"] + 1}),
    ):
        with copy.changed(update(of, row, values)) as found:
            assert found is not None
            assert {each.table for each in found} == {"discrepancies"}, values
    [unknown] = (row for row in copy.rows(of) if row["kind"] == "session_unknown_here")
    for row, values in (
        (again, {"id": "dsc_another"}),
        (again, {"kind": "parameters_differ"}),
        (again, {"evidence_json": "{}"}),
        (resolved, {"first_seen_ms": resolved["first_seen_ms"] - 1}),
        (again, {"last_seen_ms": again["last_seen_ms"] + 1}),
        (again, {"resolved_ms": again["resolved_ms"] + 1}),
        (unknown, {"workspace_id": None}),
        (unknown, {"subject": "token 0x"}),
    ):
        assert f"discrepancies.{min(values)}" in NOTHING_CHECKS
        with copy.changed(update(of, row, values)) as found:
            assert found == [], values


@pytest.mark.parametrize("table", OF_THE_CHAIN)
def test_a_changed_cell_that_only_the_chain_knows_is_found_with_it(
    with_chain: Copy, table: str, every: bool
) -> None:
    of = TABLES[table]
    assert unnoticed(with_chain, of, with_chain.rows(of), every) == {}


@pytest.mark.parametrize("table", FILLED)
def test_a_row_that_is_gone_is_missed(
    copy: Copy, with_chain: Copy, table: str, every: bool
) -> None:
    of = TABLES[table]
    unmissed = []
    for row in copy.rows(of) if every or table in NOTHING_MISSES else copy.rows(of)[:A_FEW]:
        with (with_chain if table in OF_THE_CHAIN else copy).changed(delete(of, row)) as found:
            assert found is not None
            if not names(found, of, [row]):
                unmissed.append(f"{row}: {found}")
                if not every:
                    break
    # Every checkpoint of the story was anchored.
    assert bool(unmissed) == (table in NOTHING_MISSES and table != "checkpoints"), unmissed


@pytest.mark.parametrize("table", FILLED)
def test_a_row_too_many_is_found(copy: Copy, with_chain: Copy, table: str, every: bool) -> None:
    of = TABLES[table]
    doubled = 0
    for row in copy.rows(of) if every else copy.rows(of)[:A_FEW]:
        double = dict(row)
        for column in of.columns:
            if column.primary_key or column.unique:
                double[column.name] = others(double[column.name], ())[0]
        if table == "records":
            double["seq"] += 1_000
        with (with_chain if table in OF_THE_CHAIN else copy).changed(insert(of, double)) as found:
            if found is not None:
                doubled += 1
                assert names(found, of, [row, double]), f"{double}: {found}"
    assert doubled or not every


@pytest.mark.parametrize("table", FILLED)
def test_two_rows_that_changed_places_are_found(
    copy: Copy, with_chain: Copy, table: str, every: bool
) -> None:
    """Each row has what another one had, but for its key and what nothing checks."""
    of = TABLES[table]
    payload = [
        column.name
        for column in of.columns
        if not (column.primary_key or column.unique or f"{table}.{column.name}" in NOTHING_CHECKS)
    ]
    pairs = [
        (pair, *({name: row[name] for name in payload} for row in pair))
        for pair in pairwise(copy.rows(of))
    ]
    differing = [each for each in pairs if each[1] != each[2]]
    for pair, first, second in differing if every else differing[:A_FEW]:
        changes = update(of, pair[0], second), update(of, pair[1], first)
        with (with_chain if table in OF_THE_CHAIN else copy).changed(*changes) as found:
            if found is not None:
                assert names(found, of, list(pair)), f"{pair}: {found}"


def test_a_table_beside_ours_and_a_trigger_are_found(copy: Copy) -> None:
    statements = (
        "CREATE TABLE more (x)",
        "CREATE TRIGGER t AFTER INSERT ON records BEGIN DELETE FROM anchors; END",
    )
    with copy.changed(*map(sa.text, statements)) as found:
        assert found is not None
        named = [(finding.table, finding.row) for finding in found]
        assert named == [("more", "(table)"), ("t", "(trigger)")]


def test_nothing_is_written_and_nothing_is_made(told: Told) -> None:
    before = {path.name: path.read_bytes() for path in told.file.parent.iterdir()}
    report = check(told.file, chain=told.chain, patience_s=0)
    assert (report.clean, report.anchors) == (True, len(told.anchored))
    assert {path.name: path.read_bytes() for path in told.file.parent.iterdir()} == before
