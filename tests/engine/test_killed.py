"""SIGKILL between writing a transaction down, sending it and hearing of it: it happens once."""

import contextlib
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa
from eth_account.typed_transactions.typed_transaction import TypedTransaction
from hexbytes import HexBytes

from engine.chain import contracts
from engine.db.tables import Anchor, ChainTransaction, table
from tests.sessions.seen import events
from tests.world import WORKSPACE, World

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def graves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directories of all engines that were killed."""
    directory = tmp_path_factory.mktemp("killed")
    done = subprocess.run(
        [sys.executable, "-m", "tests.engine.killed_engine", str(directory)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return directory


def reopened(directory: Path) -> World:
    """The installation after the kill; what was about to be sent had been written down."""
    with contextlib.closing(
        sqlite3.connect(f"file:{directory / 'ledger.sqlite3'}?mode=ro", uri=True)
    ) as raw:
        written = raw.execute(
            "SELECT tx_hash FROM anchors WHERE state = 'sent' UNION ALL "
            "SELECT tx_hash FROM chain_transactions"
        ).fetchall()
    assert len(written) >= 1
    return World(directory)


def nothing_was_sent_after(world: World, raw_tx: bytes) -> bool:
    """Whether this is the operator's last transaction, so that no second one was tried."""
    nonce = TypedTransaction.from_bytes(HexBytes(raw_tx)).as_dict()["nonce"]
    operator = world.engine.deployment.operator.address.lower()
    return bool(world.engine.gateway.transaction_count(operator) == nonce + 1)


def settle(world: World) -> None:
    for _ in range(3):
        world.engine.tick()


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("action", ["register", "revoke"])
def test_a_session_is_registered_and_revoked_once(graves: Path, action: str, moment: str) -> None:
    world = reopened(graves / f"{action} {moment}")
    [view] = world.engine.sessions.page(WORKSPACE, offset=0, limit=1000)[0]
    settle(world)
    name = {"register": "SessionRegistered", "revoke": "SessionRevoked"}[action]
    [event] = events(world.engine, name, view)
    rows = table(ChainTransaction)
    with world.engine.database.reading() as connection:
        [row] = connection.execute(sa.select(rows).where(rows.c.action == action)).all()
    assert row.tx_hash == event.log.tx_hash
    assert nothing_was_sent_after(world, row.raw_tx)
    state = world.engine.sessions.get(WORKSPACE, view.id).state
    assert state == {"register": "active", "revoke": "revoked"}[action]
    world.engine.close()


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_size_is_anchored_once(graves: Path, moment: str) -> None:
    world = reopened(graves / f"anchor {moment}")
    settle(world)
    deployment, gateway = world.engine.deployment, world.engine.gateway
    anchored = gateway.logs(
        from_block=0,
        to_block=gateway.head().number,
        addresses=[deployment.anchors],
        topics=[contracts.event_topic(contracts.ANCHOR_REGISTRY, "Anchored"), deployment.log_id],
    )
    [event] = [contracts.decode_log(contracts.ANCHOR_REGISTRY, log) for log in anchored]
    assert event is not None
    rows = table(Anchor)
    with world.engine.database.reading() as connection:
        [row] = connection.execute(sa.select(rows)).all()
    assert (row.state, row.size, row.root) == ("final", event.args["size"], event.args["root"])
    assert row.tx_hash == event.log.tx_hash
    assert nothing_was_sent_after(world, row.raw_tx)
    world.engine.close()
