"""Between which instants a payment must have been decided, by the two clocks that tell of it."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from engine.audit.chain import CLOCKS_DIFFER_MS
from engine.audit.verify import Verdict, verify
from engine.clock import system_clock
from engine.evidence.chain_view import GatewayView
from tests.evidence.story import HOUR_MS, Document, Snapshot, Story, failed, replaced, story
from tests.world import WORKSPACE, World


@pytest.fixture(scope="module")
def told() -> Story:
    return story()


def later(chain: Snapshot, by_ms: int) -> Snapshot:
    """Everything was on the chain later than it was."""
    return replaced(chain, times_s={n: s + by_ms // 1000 for n, s in chain.times_s.items()})


def with_chain_time(add_ms: int) -> Callable[[list[Document]], None]:
    def change(records: list[Document]) -> None:
        for record in records:
            if record["kind"] == "payment.decided":
                record["body"]["chain_time_ms"] += add_ms

    return change


@pytest.mark.parametrize("which", ["small", "unsigned", "full"])
def test_a_payment_that_is_dated_before_the_registration_is_tampering(
    told: Story, which: str
) -> None:
    chain = later(told.chain, CLOCKS_DIFFER_MS + 60_000)
    report = told.verify(getattr(told, which), chain)
    assert (report.verdict, failed(report)) == (Verdict.TAMPERED, "life")
    assert report.reason.endswith("payments are dated before the block of the registration")


def test_clocks_may_differ_a_little(told: Story) -> None:
    report = told.verify(told.full, later(told.chain, CLOCKS_DIFFER_MS - 60_000))
    assert report.verdict is Verdict.VERIFIED


def test_a_server_that_knew_the_chain_to_be_further_has_a_wrong_clock_or_lies(told: Story) -> None:
    """Its own records say that the session was registered by then: that can be honest."""
    file, chain = told.relogged(with_chain_time(HOUR_MS))
    assert told.verify(file, chain).verdict is Verdict.VERIFIED
    report = told.verify(file, later(chain, HOUR_MS))
    assert (report.verdict, failed(report)) == (Verdict.PENDING, "life")
    assert "5 payments dated before the block of the registration" in report.reason


def test_a_doubt_about_clocks_hides_no_tampering(told: Story) -> None:
    """The revocation is as old as the session: all payments came after it."""
    file, chain = told.relogged(with_chain_time(4 * HOUR_MS))
    doubtful = later(chain, HOUR_MS)
    assert told.verify(file, doubtful).verdict is Verdict.PENDING
    token = bytes.fromhex(told.document["session"]["token_id"])
    revocation = told.chain.revocations[told.registry, token]
    assert revocation is not None
    early = replace(revocation, block_time_s=revocation.block_time_s - 2 * HOUR_MS // 1000)
    revoked = replaced(doubtful, revocations={(told.registry, token): early})
    report = told.verify(file, revoked)
    assert (report.verdict, failed(report)) == (Verdict.TAMPERED, "life")
    assert report.reason.endswith("after the session was revoked on the chain")


def test_a_single_payment_that_no_clock_allows_is_enough(told: Story) -> None:
    def change(records: list[Document]) -> None:
        with_chain_time(HOUR_MS)(records)
        records[3]["body"]["chain_time_ms"] -= HOUR_MS

    file, chain = told.relogged(change)
    report = told.verify(file, later(chain, HOUR_MS))
    assert (report.verdict, failed(report)) == (Verdict.TAMPERED, "life")


def test_what_was_allowed_by_a_registration_that_was_undone_is_not_called_tampering(
    told: Story,
) -> None:
    """A reorganisation took it away and it was mined again, an hour later."""

    def change(records: list[Document]) -> list[Document]:
        undone = {**records[1], "kind": "session.unregistered", "body": {"state": "registering"}}
        undone["time_ms"] = records[4]["time_ms"]
        again = {**records[2], "time_ms": records[4]["time_ms"]}
        return [*records[:5], undone, again]

    file, chain = told.relogged(change)
    report = told.verify(file, later(chain, HOUR_MS))
    assert (report.verdict, failed(report)) == (Verdict.PENDING, "life")


@pytest.mark.parametrize("ahead_ms", [0, CLOCKS_DIFFER_MS, 2 * HOUR_MS])
def test_an_honest_log_on_a_chain_whose_clock_runs_ahead_is_never_tampered(
    world: World, ahead_ms: int
) -> None:
    """Blocks that come faster than one a second, or a developer who moves the chain's time."""
    mined = world.engine.gateway
    mined.mine(timestamp_s=(system_clock() + ahead_ms) // 1000 + 60)  # type: ignore[attr-defined]
    world.engine.tick()
    view = world.session(mint_pkp=True)
    assert world.pay(view, 5).state == "captured"
    world.engine.anchor()
    file = world.engine.evidence(WORKSPACE, view.id)
    report = verify(file, GatewayView(mined), registry=world.engine.deployment.registry)
    assert report.verdict is (Verdict.PENDING if ahead_ms else Verdict.VERIFIED)
