"""Several endpoints must agree: what one leaves out or makes up is never verified."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest

from engine.audit.verify import Report, Verdict, verify
from engine.chain.gateway import ChainUnavailable, Log
from engine.evidence.agreeing import AgreeingView
from engine.evidence.chain_view import GatewayView
from tests.evidence.story import failed
from tests.evidence.test_lying_chain import Endpoint, about, honest
from tests.world import WORKSPACE, World

ONE, OTHER = "endpoint 1 (http://one)", "endpoint 2 (http://other)"
REGISTERED, ANCHORED = "SessionRegistered", "Anchored"


@dataclass
class Installation:
    """A world with a file, and the blocks after which it had it."""

    world: World
    file: bytes
    paid_in: int

    def verify(self, *gateways: Any) -> Report:
        names = (ONE, OTHER, "endpoint 3 (http://third)")
        views = [GatewayView(g, name=name) for g, name in zip(gateways, names, strict=False)]
        registry = self.world.engine.deployment.registry
        return verify(self.file, AgreeingView(views), registry=registry)

    def lying(self, lie: Callable[..., Any]) -> Endpoint:
        return Endpoint(self.world.engine.gateway, lie)

    @property
    def honest(self) -> Endpoint:
        return self.lying(honest)

    def behind(self, number: int) -> Endpoint:
        """An endpoint that has read up to this block."""
        gateway = self.world.engine.gateway
        return self.lying(
            lambda name, _, answer: gateway.block(number) if name == "head" else answer
        )


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    world = World(tmp_path_factory.mktemp("agree") / "data")
    view = world.session(mint_pkp=True)
    world.pay(view, 5)
    paid_in = world.engine.gateway.head().number
    world.engine.anchor()
    world.pay(world.session(mint_pkp=True), 5)
    world.engine.anchor()
    gateway: Any = world.engine.gateway
    gateway.mine()
    gateway.mine()
    yield Installation(world, world.engine.evidence(WORKSPACE, view.id), paid_in)
    world.engine.close()


def test_endpoints_that_agree_verify(here: Installation) -> None:
    for count in (2, 3):
        report = here.verify(*(here.honest for _ in range(count)))
        assert report.verdict is Verdict.VERIFIED, report.reason


def test_each_is_asked_each_question(here: Installation) -> None:
    endpoints = [here.honest, here.honest]
    here.verify(*endpoints)
    questions = [set(endpoint.asked) for endpoint in endpoints]
    assert questions[0] == questions[1]
    assert {"chain_id", "logs", "call", "transaction_count"} <= questions[0]


def invented(*logs: Log) -> Sequence[Log]:
    return [replace(log, block_number=log.block_number - 1) for log in logs]


LIES: dict[str, tuple[Callable[..., Any], str]] = {
    "another chain": (
        lambda name, _, answer: answer + 1 if name == "chain_id" else answer,
        "the endpoints disagree on the chain id: ",
    ),
    "a registration of another block": (
        about(REGISTERED, lambda logs: list(invented(*logs))),
        "the endpoints disagree on the registration (block number): ",
    ),
    "anchors of another block": (
        about(ANCHORED, lambda logs: list(invented(*logs))),
        "the endpoints disagree on the anchors, number 1 (block number): ",
    ),
    "other times": (
        lambda name, _, answer: (
            replace(answer, timestamp_s=answer.timestamp_s + 1) if name == "block" else answer
        ),
        "the endpoints disagree on the time of block ",
    ),
    "spends made up": (
        lambda name, _, answer: answer + 1 if name == "transaction_count" else answer,
        "the endpoints disagree on what the key moved, number 1: ",
    ),
}


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("lie", LIES)
def test_a_disagreement_names_both_answers_and_who_gave_them(
    here: Installation, lie: str, place: int
) -> None:
    change, said = LIES[lie]
    endpoints = [here.honest, here.honest]
    endpoints[place] = here.lying(change)
    report = here.verify(*endpoints)
    assert report.verdict is Verdict.UNAVAILABLE
    assert said in report.reason
    answers = report.reason.partition(said)[2]
    assert f"{ONE} says " in report.reason
    assert f", {OTHER} says " in report.reason
    one, other = answers.split(" says ", 1)[1].rsplit(f", {OTHER} says ", 1)
    assert one != other


def test_a_head_that_only_one_has_is_no_disagreement(here: Installation) -> None:
    head = here.world.engine.gateway.head().number
    for endpoints in (
        (here.honest, here.behind(head - 1)),
        (here.behind(head - 1), here.honest),
        (here.behind(head - 1), here.behind(head - 2), here.honest),
    ):
        report = here.verify(*endpoints)
        assert report.verdict is Verdict.VERIFIED, report.reason
        lowest = head - 2 if len(endpoints) == 3 else head - 1
        assert report.checks[2].reason.endswith(f", as of block {lowest}")


def test_what_one_has_not_read_yet_is_not_said_to_be_missing(here: Installation) -> None:
    """The anchor is in a later block: an honest file must not look forged."""
    for endpoints in (
        (here.honest, here.behind(here.paid_in)),
        (here.behind(here.paid_in), here.honest),
    ):
        report = here.verify(*endpoints)
        assert (report.verdict, failed(report)) == (Verdict.UNAVAILABLE, "anchor")
        assert f"has read up to block {here.paid_in} only, and " in report.reason
        assert report.reason.endswith(" knows more of the anchors since: ask again when both have")


def test_two_chains_of_one_height_disagree_on_its_last_block(here: Installation) -> None:
    def fork(name: str, _: Any, answer: Any) -> Any:
        return replace(answer, hash=b"\7" * 32) if name in ("head", "block") else answer

    report = here.verify(here.honest, here.lying(fork))
    assert (report.verdict, failed(report)) == (Verdict.UNAVAILABLE, "chain")
    head = here.world.engine.gateway.head()
    assert f"disagree on block {head.number}: {ONE} says 0x{head.hash.hex()}" in report.reason
    assert report.reason.endswith("0x" + "07" * 32)


def test_one_that_fails_at_any_one_call_makes_the_file_unavailable_and_is_named(
    here: Installation,
) -> None:
    counted = here.honest
    here.verify(here.honest, counted)
    assert len(counted.asked) > 15
    for k in range(len(counted.asked)):
        endpoint = here.honest

        def fail(_: str, __: Any, answer: Any, k: int = k, e: Endpoint = endpoint) -> Any:
            if len(e.asked) == k + 1:
                raise ChainUnavailable("connection refused")
            return answer

        endpoint._lie = fail
        report = here.verify(here.honest, endpoint)
        assert report.verdict is Verdict.UNAVAILABLE, counted.asked[k]
        assert f"{OTHER}: connection refused" in report.reason


@pytest.mark.parametrize("event", ["SessionRegistered", "LogOpened", "Anchored"])
def test_events_that_only_one_leaves_out_are_noticed(here: Installation, event: str) -> None:
    report = here.verify(here.honest, here.lying(about(event, lambda logs: [])))
    assert report.verdict is Verdict.UNAVAILABLE
    assert OTHER in report.reason
