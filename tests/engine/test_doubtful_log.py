"""While the chain holds what the log did not lead to, nothing is decided, at no start."""

import contextlib
import copy
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from engine.chain import contracts, sender
from engine.chain.embedded import EmbeddedChain
from engine.chain.gateway import ChainUnavailable
from engine.db.claim import DirectoryLock
from engine.engine import open_engine
from engine.errors import CannotStart, Unavailable
from engine.ledger.payment import Payment
from engine.policy.limits import Limits
from engine.sessions.session import SessionView
from tests.anvil_world import AnvilWithContracts, anvil_with_contracts, tick_until
from tests.ledger.oracle import query
from tests.world import USD, World

DAY = Limits(None, 100 * USD, None, None, None)
MEMO = {"description": None, "metadata_json": "{}"}


@pytest.fixture(scope="module")
def anvil() -> Iterator[AnvilWithContracts]:
    """A chain that is not in the data directory."""
    with anvil_with_contracts() as running:
        yield running


@pytest.fixture(params=["embedded", "anvil"])
def installed(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    """An installation on either chain."""
    if request.param == "embedded":
        opened = World(tmp_path / "data")
        yield opened
        opened.engine.close()
        return
    anvil: AnvilWithContracts = request.getfixturevalue("anvil")
    with anvil.world(tmp_path / "data") as opened:
        yield opened


def no_answer(*_arguments: Any, **_named: Any) -> Any:
    raise ChainUnavailable("no answer")


def code(world: World, view: SessionView) -> str:
    """What a payment of one dollar is answered now."""
    return str(world.pay(view, 1).decision["code"])


def anchored(world: World) -> int:
    """Anchor all there is; returns the size once it is final."""
    world.engine.anchor()
    records = int(world.engine.ready()["records"])
    tick_until(world, lambda: world.engine.ready()["anchored"] == records)
    return records


# An older copy of the database


def stopped_copy(world: World, name: str) -> Path:
    """What a back-up of the installation holds, taken while it is stopped."""
    world.engine.close()
    data_dir = world.settings.data_dir
    kept = Path(shutil.copytree(data_dir, data_dir.parent / name))
    world.engine = open_engine(world.settings, clock=world.clock)
    return kept


def all_of_it(old: Path, _new: Path) -> Path:
    """The old directory; its chain, being elsewhere, went on."""
    return old


def ledger_alone(old: Path, new: Path) -> Path:
    """The new directory with the old ledger, and whatever SQLite kept beside that."""
    for file in new.glob("ledger.sqlite3*"):
        file.unlink()
    for file in old.glob("ledger.sqlite3*"):
        shutil.copy2(file, new)
    return new


def opened_at(world: World, data_dir: Path) -> World:
    """The same installation in another directory."""
    other = copy.copy(world)
    other.settings = world.settings.model_copy(update={"data_dir": data_dir})
    other.engine = open_engine(other.settings, clock=other.clock)
    return other


def decisions(data_dir: Path) -> int:
    """How many were ever made, read past the engine."""
    return int(query(data_dir / "ledger.sqlite3", "SELECT count(*) FROM decisions")[0][0])


def refusal(world: World, data_dir: Path, *views: SessionView) -> str:
    """Start there; returns why nothing is decided, or fails if anything is."""
    before = decisions(data_dir)
    try:
        started = opened_at(world, data_dir)
    except (CannotStart, Unavailable) as error:
        return error.message
    try:
        with contextlib.suppress(Unavailable):
            started.engine.tick()
        reasons = {undecided(started, view) for view in views}
        assert not started.engine.ready()["ready"]
    finally:
        started.engine.close()
    assert decisions(data_dir) == before
    [reason] = reasons
    return reason


def undecided(world: World, view: SessionView) -> str:
    """Why a payment is not decided."""
    with pytest.raises(Unavailable) as refused:
        world.pay(view, 1)
    return refused.value.message


OLDER = pytest.mark.parametrize(
    ("installed", "put_back"),
    [
        ("embedded", ledger_alone),  # its chain is in the directory, and would go back with it
        ("anvil", ledger_alone),
        ("anvil", all_of_it),
    ],
    indirect=["installed"],
)


@OLDER
def test_by_an_older_copy_under_an_anchored_log_nothing_is_ever_decided(
    installed: World, put_back: Callable[[Path, Path], Path]
) -> None:
    """The budget that was spent since the copy was made must not come back."""
    here, there = installed.session(DAY), installed.session(DAY, mint_pkp=True)
    anchored(installed)
    old = stopped_copy(installed, "old")
    assert installed.pay(here, 100).state == "captured"
    assert installed.pay(there, 100).state == "captured"
    size = anchored(installed)
    data_dir = put_back(old, stopped_copy(installed, "new"))
    assert decisions(data_dir) == 0
    for start in ("first", "second", "third"):
        reason = refusal(installed, data_dir, here, there)
        assert f"anchor of size {size} that is not of the records here" in reason, start


@OLDER
def test_an_older_copy_that_is_not_opened_is_let_go_of(
    installed: World, put_back: Callable[[Path, Path], Path]
) -> None:
    """What `open_engine` may raise is `CannotStart`, and it leaves no thread behind."""
    view = installed.session(DAY)
    old = stopped_copy(installed, "old")
    installed.pay(view, 100)
    size = anchored(installed)
    data_dir = put_back(old, stopped_copy(installed, "new"))
    threads = set(threading.enumerate())
    reason = None
    try:
        opened_at(installed, data_dir).engine.close()
    except CannotStart as error:
        reason = error.message
    assert reason is None or f"anchor of size {size}" in reason
    assert set(threading.enumerate()) <= threads
    DirectoryLock(data_dir).release()


@pytest.mark.parametrize("installed", ["embedded"], indirect=True)
def test_an_older_copy_that_starts_before_the_chain_answers_is_found_out_at_the_first_reading(
    installed: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = installed.session(DAY), installed.session(DAY, mint_pkp=True)
    old = stopped_copy(installed, "old")
    installed.pay(there, 100)
    size = anchored(installed)
    data_dir = ledger_alone(old, stopped_copy(installed, "new"))

    def no_answer(_chain: EmbeddedChain) -> None:
        raise ChainUnavailable("no answer")

    with monkeypatch.context() as line:
        line.setattr(EmbeddedChain, "head", no_answer)
        started = opened_at(installed, data_dir)
        undecided(started, there)
    with contextlib.suppress(Unavailable):
        started.engine.tick()
    for view in (here, there):
        assert f"anchor of size {size}" in undecided(started, view)
    started.engine.close()
    assert decisions(data_dir) == 0
    assert f"anchor of size {size}" in refusal(installed, data_dir, here, there)


@pytest.mark.parametrize("installed", ["anvil"], indirect=True)
@pytest.mark.parametrize("put_back", [ledger_alone, all_of_it])
def test_a_copy_that_nothing_was_anchored_after_goes_on(
    installed: World, put_back: Callable[[Path, Path], Path]
) -> None:
    view = installed.session(DAY, mint_pkp=True)
    installed.pay(view, 40)
    anchored(installed)
    old = stopped_copy(installed, "old")
    restored = opened_at(installed, put_back(old, stopped_copy(installed, "new")))
    restored.engine.tick()
    assert restored.engine.ready()["faults"] == []
    assert restored.pay(view, 60).state == "captured"
    assert code(restored, view) == "LIMIT_EXCEEDED"
    restored.engine.close()


def forge_anchor(world: World, size: int) -> None:
    """Who has the operator's key anchors a root of their own."""
    deployment = world.engine.deployment
    data = contracts.call_data(
        contracts.ANCHOR_REGISTRY, "anchor", deployment.log_id, size, b"\x66" * 32
    )
    sender.send(world.engine.gateway, deployment.operator, to=deployment.anchors, data=data)


@pytest.mark.parametrize("ahead", [-1, 0, 1], ids=["shorter", "of the same size", "longer"])
def test_an_anchor_by_somebody_with_our_key_stops_every_decision_for_good(
    tmp_path: Path, ahead: int
) -> None:
    """While we run, the chain is given a root that our records did not lead to."""
    world = World(tmp_path / "data")
    here, there = world.session(DAY), world.session(DAY, mint_pkp=True)
    assert code(world, there) == "ALLOWED"
    size = int(world.engine.ready()["records"]) + ahead
    forge_anchor(world, size)
    with contextlib.suppress(Unavailable):
        world.engine.tick()
    assert f"anchor of size {size}" in undecided(world, here)
    assert f"anchor of size {size}" in undecided(world, there)
    world.engine.close()
    for start in ("first", "second"):
        reason = refusal(world, world.settings.data_dir, here, there)
        assert f"anchor of size {size}" in reason, start


def test_a_payment_that_waits_behind_the_finding_is_not_decided_either(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both are in the writer's queue at once, the finding first."""
    view = world.session(DAY)
    forge_anchor(world, 1_000_000)
    writer, honest = world.engine.writer, world.engine.writer.submit
    released, queued = threading.Event(), threading.Event()

    def told(command: Callable[[Any], Any], *streams: str) -> "Future[Any]":
        future = honest(command, *streams)
        queued.set()
        return future

    def read() -> None:
        with contextlib.suppress(Unavailable):
            world.engine.tick()

    busy = writer.submit(lambda _batch: released.wait(20))
    monkeypatch.setattr(world.engine.lead, "sequence", lambda: None)  # or that would be what waits
    monkeypatch.setattr(writer, "submit", told)
    reader = threading.Thread(target=read)
    reader.start()
    assert queued.wait(20), "the reading waits in the queue"
    payment: Future[Payment] = world.engine.ledger.authorise(view.id, world.request(1), memo=MEMO)
    released.set()
    assert busy.result()
    with pytest.raises(Unavailable, match="anchor of size 1000000"):
        payment.result(20)
    reader.join(20)
    assert decisions(world.settings.data_dir) == 0


def test_an_older_copy_that_cannot_read_the_chain_decides_nothing_at_all(
    installed: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even for a session that has no on-chain identity: the chain would know the log is old."""
    here, there = installed.session(DAY), installed.session(DAY, mint_pkp=True)
    assert installed.pay(here, 100).state == "captured"
    with monkeypatch.context() as line:
        line.setattr(type(installed.engine.gateway), "head", no_answer)
        installed.reopen()
        for view in (here, there):
            assert "has not been read since the start" in undecided(installed, view)
    installed.engine.tick()
    assert code(installed, here) == "LIMIT_EXCEEDED"
    assert code(installed, there) == "ALLOWED"
