"""Somebody who has the database and the keys writes a history that agrees with itself."""

import contextlib
import json
import shutil
import sqlite3
from pathlib import Path

import pytest

from engine.audit.canonical import encode
from engine.audit.merkle import HASH_BYTES
from engine.chain.embedded import EmbeddedChain
from engine.fsck.check import Chain, Report, check
from engine.fsck.snapshot import CannotRead
from tests.fsck.conftest import Told
from tests.fsck.story import OTHER
from tests.world import World


def against_chain_of(ledger: Path, directory: Path, registry: str) -> Report:
    """Check a ledger against the embedded chain of a directory that nobody has open."""
    chain = EmbeddedChain(directory / "chain.sqlite3")
    try:
        return check(ledger, chain=Chain(chain, registry), patience_s=0)
    finally:
        chain.close()


def anchored(world: World) -> int:
    """Anchor everything; returns its size."""
    anchor = world.engine.anchor()
    assert anchor is not None
    return anchor.size


def change(file: Path, *statements: str) -> None:
    """Change a data file that nobody has open."""
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as raw:
        for statement in statements:
            raw.execute(statement)


def test_another_history_that_agrees_with_itself_is_not_the_chains(tmp_path: Path) -> None:
    """An older copy of everything goes another way: the first size that differs is named."""
    true, forged = tmp_path / "true", tmp_path / "forged"
    world = World(true)
    view = world.session(mint_pkp=True)
    world.pay(view, 1)
    sizes = [anchored(world)]
    world.engine.close()
    shutil.copytree(true, forged)
    for directory, dollars in ((true, 20), (forged, 2)):
        world.settings = world.settings.model_copy(update={"data_dir": directory})
        world.engine = world._open()
        for amount in (dollars, 1):
            world.pay(view, amount)
            sizes.append(anchored(world))
        registry = world.engine.deployment.registry
        world.engine.close()
    agreed, differs = sizes[:2]
    ledger = forged / "ledger.sqlite3"
    assert check(ledger, patience_s=0).clean
    assert against_chain_of(ledger, forged, registry).clean
    [named] = [
        finding
        for finding in against_chain_of(ledger, true, registry).findings
        if finding.table == "records"
    ]
    assert named.row == f"the first {differs}"
    assert f"among the records from {agreed} to {differs - 1}" in named.says


def test_a_tail_that_is_cut_off_is_missed_by_the_chain(tmp_path: Path) -> None:
    world = World(tmp_path / "data")
    view = world.session()
    world.pay(view, 1)
    world.engine.anchor()
    world.engine.close()
    ledger = tmp_path / "data" / "ledger.sqlite3"
    older = tmp_path / "older.sqlite3"
    shutil.copy(ledger, older)
    world.engine = world._open()
    world.pay(view, 2)
    world.engine.anchor()
    registry = world.engine.deployment.registry
    world.engine.close()
    assert check(older, patience_s=0).clean
    report = against_chain_of(older, tmp_path / "data", registry)
    [named] = [finding for finding in report.findings if finding.table == "records"]
    assert f"but the log ends at {report.size}" in named.says


def test_a_log_that_is_gone_is_missed(told: Told, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.sqlite3"
    shutil.copy(told.file, ledger)
    with contextlib.closing(sqlite3.connect(ledger)) as raw:
        query = "SELECT name FROM sqlite_master WHERE type = 'table'"
        tables = [name for (name,) in raw.execute(query)]
    kept = ("meta", "alembic_version", "shared")
    change(ledger, *(f"DELETE FROM {name}" for name in tables if name not in kept))
    with pytest.raises(CannotRead, match=r"there is no record .* if it was, all of it is gone"):
        check(ledger, patience_s=0)
    report = check(ledger, chain=told.chain, patience_s=0)
    [named] = [each for each in report.findings if each.row == f"the first {told.anchored[0].size}"]
    assert named.says.endswith("but the log ends at 0")


def test_a_workspace_whose_log_is_gone_is_missed_by_the_chain(told: Told, tmp_path: Path) -> None:
    """All its rows and records are gone, and every trace of what was signed over them."""
    ledger = tmp_path / "ledger.sqlite3"
    shutil.copy(told.file, ledger)
    owned = (
        *("sessions", "session_keys", "chain_transactions", "api_keys", "agents", "decisions"),
        *("agent_keys", "acts", "outbox", "records"),
    )
    batch = "SELECT id - id % 1048576 FROM records"
    change(
        ledger,
        *(f"DELETE FROM {name} WHERE workspace_id = '{OTHER}'" for name in owned),
        f"DELETE FROM workspaces WHERE id = '{OTHER}'",
        f"DELETE FROM log_batches WHERE id NOT IN ({batch})",
        "UPDATE log_batches SET first_leaf = -id",
        f"""
        UPDATE log_batches SET first_leaf = coalesce(
            (SELECT sum(length(leaf_hashes)) / {HASH_BYTES} FROM log_batches AS b
             WHERE b.id < log_batches.id), 0)
        """,
        "DELETE FROM checkpoints",
        "DELETE FROM anchors",
        "DELETE FROM chain_events WHERE name = 'Anchored'",
    )
    alone = check(ledger, patience_s=0)
    assert alone.clean, alone.findings
    report = check(ledger, chain=told.chain, patience_s=0)
    [named] = [finding for finding in report.findings if finding.table == "records"]
    assert named.row == f"the first {told.anchored[0].size}"
    assert "the chain holds another root at this size" in named.says


def test_records_of_another_form_do_not_end_the_check(told: Told, tmp_path: Path) -> None:
    """Each field of a first record is left out once."""
    for kind in ("session.created", "workspace.created"):
        with contextlib.closing(sqlite3.connect(told.file)) as raw:
            [(record_id, body), *_] = [
                (row[0], json.loads(row[1]))
                for row in raw.execute("SELECT id, body FROM records WHERE seq = 0 ORDER BY id")
                if json.loads(row[1])["kind"] == kind
            ]
        for name in body["body"]:
            ledger = tmp_path / "ledger.sqlite3"
            shutil.copy(told.file, ledger)
            less = {**body, "body": {key: body["body"][key] for key in body["body"] if key != name}}
            with contextlib.closing(sqlite3.connect(ledger)) as raw:
                raw.execute("UPDATE records SET body = ? WHERE id = ?", (encode(less), record_id))
                raw.commit()
            findings = check(ledger, patience_s=0).findings
            assert any((each.table, each.row) == ("records", str(record_id)) for each in findings)
