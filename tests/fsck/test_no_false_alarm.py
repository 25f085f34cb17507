"""Nothing is found where nothing is wrong: beside a running server (after one was killed: see
`tests/ledger/test_killed.py`)."""

import threading
from pathlib import Path

import pytest

from engine.chain.embedded import EmbeddedChain
from engine.chain.json_rpc import JsonRpcChain
from engine.errors import TallystickError
from engine.fsck.check import Chain, check
from engine.fsck.snapshot import CannotRead
from engine.policy.budgets import BudgetLimits
from engine.policy.limits import Limits
from tests.world import USD, WORKSPACE, World

CHECKS = 6


def test_beside_traffic_and_a_chain_that_goes_on(tmp_path: Path) -> None:
    world = World(tmp_path / "data")
    world.engine.budgets.set(WORKSPACE, None, BudgetLimits(per_day=10_000 * USD), by="test")
    parent = world.session(Limits(None, 5_000 * USD, None, None, None), mint_pkp=True)
    rpc = world.engine.serve_embedded_chain()
    assert rpc is not None
    world.engine.start()
    over = threading.Event()
    failures: list[BaseException] = []

    def traffic(caller: int) -> None:
        number = 0
        while not over.is_set():
            number += 1
            try:
                view = parent
                if number % 10 == 0:
                    view = world.session(
                        Limits(None, 100 * USD, None, None, None),
                        mint_pkp=True,
                        await_consent=False,
                        parent_id=parent.id,
                        duration_ms=3_600_000,
                    )
                held = world.pay(view, 1, hold=True, key=f"{caller} {number}")
                if held.state == "held":
                    world.engine.ledger.capture(WORKSPACE, held.id, USD // 2).result()
                if number % 20 == 0:
                    world.engine.revoke_session(WORKSPACE, view.id, by="test") if (
                        view is not parent
                    ) else None
                    world.engine.anchor()
            except TallystickError as error:
                failures.append(error)
                return

    threads = [threading.Thread(target=traffic, args=(caller,)) for caller in range(2)]
    for thread in threads:
        thread.start()
    gateway = JsonRpcChain(rpc.url)
    chain = Chain(gateway, world.engine.deployment.registry)
    seen = []
    try:
        for turn in range(CHECKS):
            with_chain = chain if turn % 2 else None
            report = check(world.settings.data_dir / "ledger.sqlite3", chain=with_chain)
            assert report.findings == ()
            seen.append(report.records)
    finally:
        over.set()
        for thread in threads:
            thread.join()
        gateway.close()
        rpc.stop()
        world.engine.close()
    assert failures == []
    assert seen == sorted(seen)
    assert seen[0] < seen[-1]
    assert len(seen) == CHECKS


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(CannotRead, match="there is no ledger at"):
        check(tmp_path / "ledger.sqlite3")
    assert list(tmp_path.iterdir()) == []
    chain = EmbeddedChain(tmp_path / "chain.sqlite3")
    chain.close()
    with pytest.raises(CannotRead, match="is not a Tallystick database"):
        check(tmp_path / "chain.sqlite3")
    (tmp_path / "text").write_text("no database at all, but longer than a header of SQLite is" * 9)
    with pytest.raises(CannotRead, match="cannot be read"):
        check(tmp_path / "text")
