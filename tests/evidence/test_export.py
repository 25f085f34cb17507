"""What the exporter writes: everything of the session, proven as far as it is anchored for good."""

import tracemalloc

import pytest
import sqlalchemy as sa

from engine.audit.proofs import verify_inclusion
from engine.audit.verify import Report, Verdict, verify
from engine.clock import ManualClock, system_clock
from engine.db.tables import Anchor, table
from engine.errors import Conflict, NotFound
from engine.evidence.chain_view import GatewayView
from engine.sessions.session import SessionView
from tests.audit.committed import leaf
from tests.evidence.story import HOUR_MS, Document, pass_time, read, told_anchors
from tests.world import WORKSPACE, World, settings_for


def exported(world: World, view: SessionView) -> tuple[Document, Report]:
    file = world.engine.evidence(WORKSPACE, view.id)
    return read(file), checked(world, file)


def checked(world: World, file: bytes) -> Report:
    gateway, registry = world.engine.gateway, world.engine.deployment.registry
    return verify(file, GatewayView(gateway), registry=registry)


def anchor(world: World) -> None:
    found = world.engine.anchor()
    assert found is not None


def test_before_anything_is_anchored_all_is_pending(world: World) -> None:
    view = world.session(mint_pkp=True)
    world.pay(view, 5)
    document, report = exported(world, view)
    assert (document["checkpoint"], document["records"]) == (None, [])
    assert report.verdict is Verdict.PENDING
    assert {check.name for check in report.checks if check.verdict is Verdict.PENDING} == {
        "anchor",
        "tail",
    }
    assert report.checks[12].reason == "the last 5 records are not anchored yet"


def test_what_came_after_the_anchor_is_pending_and_counted(world: World) -> None:
    view = world.session(mint_pkp=True)
    world.pay(view, 5)
    anchor(world)
    assert exported(world, view)[1].verdict is Verdict.VERIFIED
    world.pay(view, 6)
    world.pay(view, 7, hold=True)
    document, report = exported(world, view)
    assert (len(document["records"]), len(document["tail"])) == (5, 3)
    assert report.verdict is Verdict.PENDING
    assert report.reason == "tail: the last 3 records are not anchored yet"
    anchor(world)
    document, report = exported(world, view)
    assert (len(document["records"]), len(document["tail"])) == (8, 0)
    assert report.verdict is Verdict.VERIFIED


def test_an_anchor_that_is_not_final_proves_nothing_yet(world: World) -> None:
    """A reorganisation could take it away, and an honest file would look forged."""
    view = world.session(mint_pkp=True)
    world.settings = settings_for(world.settings.data_dir, confirmations=2)
    world.reopen()
    found = world.engine.anchor()
    assert found is not None
    assert found.state == "mined"
    document, report = exported(world, view)
    assert (document["checkpoint"], document["records"]) == (None, [])
    assert report.verdict is Verdict.PENDING
    for _ in range(2):
        world.engine.gateway.fund("0x" + "5a" * 20, 1)  # type: ignore[attr-defined]
    world.engine.tick()
    assert exported(world, view)[1].verdict is Verdict.VERIFIED


def test_every_proof_stands_alone(world: World) -> None:
    views = [world.session(mint_pkp=True) for _ in range(3)]
    for dollars in range(1, 6):
        for view in views:
            world.pay(view, dollars)
    found = world.engine.anchor()
    assert found is not None
    seen: set[int] = set()
    for view in views:
        document, report = exported(world, view)
        assert report.verdict is Verdict.VERIFIED
        for entry in document["records"]:
            proof = [bytes.fromhex(node) for node in entry["proof"]]
            hashed = leaf(entry["record"].encode())
            verify_inclusion(hashed, entry["index"], found.size, proof, found.root)
            seen.add(entry["index"])
    assert len(seen) == sum(len(exported(world, view)[0]["records"]) for view in views)


def test_it_holds_nothing_of_another_session(world: World) -> None:
    mine, other = (world.session(mint_pkp=True, label=label) for label in ("mine", "hidden"))
    world.pay(other, 7, merchant="secret")
    world.engine.anchor()
    file = world.engine.evidence(WORKSPACE, mine.id)
    for trace in (other.id, "hidden", "secret", other.grant.session_key):
        assert trace.encode() not in file


def test_it_does_not_hold_what_the_agent_said_about_a_payment(world: World) -> None:
    """Only its digest: a memo can be personal, and the log cannot forget."""
    view = world.session(mint_pkp=True)
    world.engine.ledger.authorise(
        view.id,
        world.request(5),
        memo={"description": "for Alice's birthday", "metadata_json": '{"gift":"book"}'},
    ).result()
    world.engine.anchor()
    file = world.engine.evidence(WORKSPACE, view.id)
    assert b"Alice" not in file
    assert b"gift" not in file
    assert checked(world, file).verdict is Verdict.VERIFIED


def test_it_says_where_on_the_chain_everything_is(world: World) -> None:
    view = world.session(mint_pkp=True)
    for dollars in (1, 2):
        world.pay(view, dollars)
        anchor(world)
    document, report = exported(world, view)
    assert report.verdict is Verdict.VERIFIED
    deployment, chain = world.engine.deployment, GatewayView(world.engine.gateway)
    found = chain.registration(deployment.registry, view.token_id)
    assert found is not None
    assert document["registration"] == {
        "block_number": found.block_number,
        "log_index": found.log_index,
        "tx_hash": found.tx_hash.hex(),
    }
    anchored = chain.anchorings(deployment.anchors, deployment.log_id)
    assert document["anchors"] == told_anchors(*anchored[-2:])


def test_a_session_without_an_identity_on_the_chain_has_no_evidence(world: World) -> None:
    view = world.session()
    with pytest.raises(Conflict) as refused:
        world.engine.evidence(WORKSPACE, view.id)
    assert refused.value.code == "session_not_registered"


def test_another_workspace_s_session_is_not_found(world: World) -> None:
    view = world.session(mint_pkp=True)
    with pytest.raises(NotFound):
        world.engine.evidence("other", view.id)


def test_a_session_that_ran_out_is_verified(tmp_path_factory: pytest.TempPathFactory) -> None:
    clock = ManualClock(system_clock())
    world = World(tmp_path_factory.mktemp("expired") / "data", clock)
    view = world.session(mint_pkp=True, duration_ms=12 * HOUR_MS + 60_000)
    world.pay(view, 5)
    pass_time(world, clock, 12 * HOUR_MS + 120_000)
    assert world.pay(view, 5).decision["code"] == "SESSION_EXPIRED"
    world.engine.anchor()
    document, report = exported(world, view)
    assert "session.expired" in {read_kind(entry) for entry in document["records"]}
    assert report.verdict is Verdict.VERIFIED
    world.engine.close()


def read_kind(entry: Document) -> str:
    return str(read(entry["record"].encode() + b"\n")["kind"])


def test_after_every_restart_the_file_is_verified_and_old_files_still_are(world: World) -> None:
    view = world.session(mint_pkp=True)
    files = []
    for dollars in range(1, 5):
        world.pay(view, dollars)
        world.engine.anchor()
        files.append(world.engine.evidence(WORKSPACE, view.id))
        world.reopen()
        for file in files:
            assert checked(world, file).verdict is Verdict.VERIFIED
    assert len(set(files)) == 4


def test_the_same_state_gives_the_same_file(tmp_path_factory: pytest.TempPathFactory) -> None:
    clock = ManualClock(system_clock())
    world = World(tmp_path_factory.mktemp("same") / "data", clock)
    view = world.session(mint_pkp=True)
    world.engine.anchor()
    first = world.engine.evidence(WORKSPACE, view.id)
    world.reopen()
    assert world.engine.evidence(WORKSPACE, view.id) == first
    world.engine.close()


def test_a_thousand_records_are_verified_in_bounded_memory(world: World) -> None:
    view = world.session(mint_pkp=True)
    memo = {"description": None, "metadata_json": "{}"}
    asked = [
        world.engine.ledger.authorise(view.id, world.request(1), memo=memo, capture=True)
        for _ in range(500)
    ]
    assert {future.result().state for future in asked} == {"captured"}
    world.engine.anchor()
    file = world.engine.evidence(WORKSPACE, view.id)
    tracemalloc.start()
    report = checked(world, file)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert report.verdict is Verdict.VERIFIED
    assert report.checks[8].reason == "1003 records, unbroken"
    assert report.checks[9].reason == "500 decisions, 500 allowed, $500.00 captured"
    assert peak < 20 * len(file)


def test_an_anchor_that_is_on_the_chain_is_proven_though_it_was_given_up(world: World) -> None:
    """Taken for lost and replaced, and then mined after all: the chain is the truth."""
    view = world.session(mint_pkp=True)
    for dollars in (1, 2, 3):
        world.pay(view, dollars)
        anchor(world)
    world.engine.tick()
    anchors = table(Anchor)
    oldest = sa.select(sa.func.min(anchors.c.size)).scalar_subquery()
    world.engine.writer.call(
        lambda batch: batch.update(sa.delete(anchors).where(anchors.c.size == oldest))
    )
    document, report = exported(world, view)
    assert len(document["consistency"]) == 2
    assert report.verdict is Verdict.VERIFIED
