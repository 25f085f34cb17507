"""Limits that were lowered on the chain, and workspaces that were closed there, bind records."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from eth_account.signers.local import LocalAccount
from eth_utils.crypto import keccak

from engine.audit.chain import Lowering, Revocation
from engine.audit.life import SEEN_MS
from engine.audit.verify import Report, Verdict, verify
from engine.chain import contracts, sender
from engine.evidence.chain_view import GatewayView
from engine.policy.limits import Limits
from tests.evidence.story import Snapshot, Story, failed, read, replaced, story
from tests.evidence.test_lying_chain import Endpoint
from tests.world import USD, WORKSPACE, World

REGISTRY = contracts.SESSION_REGISTRY


@pytest.fixture(scope="module")
def told() -> Story:
    return story()


def token(told: Story) -> bytes:
    return bytes.fromhex(told.document["session"]["token_id"])


def decided_ms(told: Story, dollars: int) -> int:
    """When the story allowed this amount."""
    for entry in told.document["records"]:
        record = read(entry["record"].encode() + b"\n")
        if (
            record["kind"] == "payment.decided"
            and record["body"]["decision"]["allowed"]
            and record["body"]["request"]["amount_micro_usd"] == dollars * USD
        ):
            return int(record["time_ms"])
    raise AssertionError(dollars)


def lowered_at(told: Story, time_ms: int, limits: Limits) -> Snapshot:
    lowering = Lowering(limits, 3, time_ms // 1000, b"\1" * 32)
    return replaced(told.chain, lowered={(told.registry, token(told)): (lowering,)})


OVER = {
    "per transaction": Limits(44 * USD, None, None, None, None),
    "per day": Limits(None, 89 * USD, None, None, None),
    "per week": Limits(None, None, 89 * USD, None, None),
    "per month": Limits(None, None, None, 89 * USD, None),
}


@pytest.mark.parametrize("limit", OVER)
def test_a_payment_long_after_limits_that_it_is_over_is_tampering(told: Story, limit: str) -> None:
    """The payment of $45 came with $45 spent: 90 in the day, week and month."""
    long_before = decided_ms(told, 45) - SEEN_MS - 1000
    report = told.verify(told.full, lowered_at(told, long_before, OVER[limit]))
    assert (report.verdict, failed(report)) == (Verdict.TAMPERED, "life"), report.reason
    assert "allows more than the limits that were lowered in block 3" in report.reason


@pytest.mark.parametrize("limit", OVER)
def test_the_server_may_not_have_seen_it_yet(told: Story, limit: str) -> None:
    just_before = decided_ms(told, 45) - SEEN_MS + 1000
    report = told.verify(told.full, lowered_at(told, just_before, OVER[limit]))
    assert report.verdict is Verdict.VERIFIED, report.reason
    assert report.checks[10].reason.endswith("; limits lowered on the chain in block 3")


def test_limits_that_every_payment_keeps_are_no_reproach(told: Story) -> None:
    limits = Limits(45 * USD, 90 * USD, 90 * USD, 90 * USD, 44 * USD)
    report = told.verify(told.full, lowered_at(told, 0, limits))
    assert report.verdict is Verdict.VERIFIED, report.reason


def test_a_payment_above_the_lowered_threshold_needs_its_approval(told: Story) -> None:
    """Of $45 there was one, of $25 there was not."""
    keeps = Limits(None, None, None, None, 25 * USD)
    assert told.verify(told.full, lowered_at(told, 0, keeps)).verdict is Verdict.VERIFIED
    over = Limits(None, None, None, None, 24 * USD)
    report = told.verify(told.full, lowered_at(told, 0, over))
    assert (report.verdict, failed(report)) == (Verdict.TAMPERED, "life"), report.reason


def test_the_lowest_of_several_counts_from_its_own_block(told: Story) -> None:
    begun = decided_ms(told, 45) - SEEN_MS - 1000
    chain = lowered_at(told, 0, Limits(50 * USD, None, None, None, None))
    [first] = chain.lowered[told.registry, token(told)]
    second = Lowering(Limits(44 * USD, None, None, None, None), 4, begun // 1000, b"\2" * 32)
    both = replaced(chain, lowered={(told.registry, token(told)): (first, second)})
    report = told.verify(told.full, both)
    assert "lowered in block 4" in report.reason


def closed_at(told: Story, time_ms: int) -> Snapshot:
    closing = Revocation(3, time_ms // 1000, b"\1" * 32)
    return replaced(told.chain, closings={(told.registry, WORKSPACE): closing})


def test_a_payment_long_after_the_workspace_was_closed_is_tampering(told: Story) -> None:
    last = decided_ms(told, 45)
    report = told.verify(told.full, closed_at(told, last - SEEN_MS - 1000))
    assert (report.verdict, failed(report)) == (Verdict.TAMPERED, "life")
    assert "payments were allowed after its workspace was closed on the chain" in report.reason
    report = told.verify(told.full, closed_at(told, last - SEEN_MS + 1000))
    assert report.verdict is Verdict.VERIFIED, report.reason
    assert "; closed on the chain in block 3, " in report.checks[10].reason


def test_a_session_whose_workspace_was_closed_must_end_in_its_records(told: Story) -> None:
    small = told.verify(told.small, closed_at(told, 1_000_000))
    assert (small.verdict, failed(small)) == (Verdict.TAMPERED, "life")


# And on a real chain.


@dataclass
class Bound:
    """Two sessions: one whose limits were lowered twice, one of a workspace that was closed."""

    world: World
    lowered: bytes
    closed: bytes

    def verify(self, file: bytes, gateway: Any = None) -> Report:
        engine = self.world.engine
        view = GatewayView(gateway or engine.gateway)
        return verify(file, view, registry=engine.deployment.registry)


def transact(world: World, function: str, *arguments: Any) -> None:
    operator: LocalAccount = world.engine.deployment.operator
    data = contracts.call_data(REGISTRY, function, *arguments)
    gateway, registry = world.engine.gateway, world.engine.deployment.registry
    assert sender.wait(gateway, sender.send(gateway, operator, to=registry, data=data)).succeeded


@pytest.fixture(scope="module")
def bound(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bound]:
    directory: Path = tmp_path_factory.mktemp("bound")
    world = World(directory / "data")
    lowered = world.session(mint_pkp=True)
    closed = world.session(mint_pkp=True)
    for view in (lowered, closed):
        world.pay(view, 5)
    world.engine.anchor()
    files = [world.engine.evidence(WORKSPACE, view.id) for view in (lowered, closed)]
    token_id, grant = int.from_bytes(lowered.token_id), lowered.grant.abi_tuple()
    for micro_usd in (50, 30):
        limits = (micro_usd * USD, *[2**64 - 1] * 4)
        transact(world, "lowerLimits", token_id, grant, limits)
    transact(world, "closeWorkspace", keccak(text=WORKSPACE))
    transact(world, "openWorkspace", keccak(text=WORKSPACE))
    yield Bound(world, *files)
    world.engine.close()


def test_what_the_chain_lowered_and_closed_is_told(bound: Bound) -> None:
    for file, said in (
        (bound.lowered, "; limits lowered on the chain in block "),
        (bound.closed, ""),
    ):
        report = bound.verify(file)
        assert report.verdict is Verdict.VERIFIED, report.reason
        life = report.checks[10].reason
        assert life.startswith("not revoked on the chain; closed on the chain in block ")
        assert said in life
    view, engine = GatewayView(bound.world.engine.gateway), bound.world.engine
    document = read(bound.lowered)
    token_id = bytes.fromhex(document["session"]["token_id"])
    session = engine.sessions.get(WORKSPACE, document["session"]["id"])
    found = view.lowerings(engine.deployment.registry, token_id, session.grant)
    assert [lowering.limits.per_transaction for lowering in found] == [50 * USD, 30 * USD]
    assert [lowering.limits.per_day for lowering in found] == [None, None]


def test_a_session_of_a_later_epoch_is_not_over(bound: Bound) -> None:
    world = bound.world
    view = world.session(mint_pkp=True)
    registry = world.engine.deployment.registry
    chain = GatewayView(world.engine.gateway)
    assert chain.workspace_closing(registry, view.token_id, WORKSPACE) is None


@pytest.mark.parametrize("event", ["LimitsLowered", "WorkspaceClosed"])
def test_an_endpoint_that_leaves_it_out_contradicts_the_contract(bound: Bound, event: str) -> None:
    topic = contracts.event_topic(REGISTRY, event)

    def hide(name: str, arguments: tuple[Any, ...], answer: Any) -> Any:
        hidden = name == "logs" and arguments[-1][0] == topic
        return answer[:-1] if hidden else answer

    report = bound.verify(bound.lowered, Endpoint(bound.world.engine.gateway, hide))
    assert (report.verdict, failed(report)) == (Verdict.UNAVAILABLE, "life")
    assert event in report.reason
