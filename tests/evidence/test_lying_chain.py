"""An endpoint that is down, prunes, lags or lies: nothing false is verified."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest

from engine.audit.verify import Report, Verdict, verify
from engine.chain import contracts
from engine.chain.gateway import CallReverted, ChainUnavailable, Log
from engine.evidence.chain_view import GatewayView
from tests.evidence.story import failed
from tests.world import WORKSPACE, World

METHODS = ("chain_id", "head", "block", "logs", "call", "code", "transaction_count")
ANCHORS, SESSIONS = contracts.ANCHOR_REGISTRY, contracts.SESSION_REGISTRY
EVENTS = {
    name: contracts.event_topic(contract, name)
    for contract, name in (
        (SESSIONS, "SessionRegistered"),
        (SESSIONS, "SessionRevoked"),
        (ANCHORS, "LogOpened"),
        (ANCHORS, "Anchored"),
    )
}


@dataclass
class Installation:
    """A world with a revoked session, anchored before and after its revocation was logged."""

    world: World
    file: bytes
    unrevoked: bytes

    def verify(self, gateway: Any = None, file: bytes | None = None) -> Report:
        engine = self.world.engine
        view = GatewayView(gateway or engine.gateway)
        return verify(file or self.file, view, registry=engine.deployment.registry)


class Endpoint:
    """A gateway that asks `lie` about every answer of the real one."""

    def __init__(self, gateway: Any, lie: Callable[[str, tuple[Any, ...], Any], Any]) -> None:
        self._gateway = gateway
        self._lie = lie
        self.asked: list[str] = []

    @property
    def chain_id(self) -> int:
        self.asked.append("chain_id")
        answer: int = self._lie("chain_id", (), self._gateway.chain_id)
        return answer

    def __getattr__(self, name: str) -> Any:
        def ask(*arguments: Any, **named: Any) -> Any:
            self.asked.append(name)
            answer = getattr(self._gateway, name)(*arguments, **named)
            return self._lie(name, (*arguments, *named.values()), answer)

        return ask


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    world = World(tmp_path_factory.mktemp("chain") / "data")
    view = world.session(mint_pkp=True)
    other = world.session(mint_pkp=True)
    world.pay(view, 5)
    world.engine.anchor()
    unrevoked = world.engine.evidence(WORKSPACE, view.id)
    world.pay(other, 5)
    for session in (view, other):
        world.engine.revoke_session(WORKSPACE, session.id, by="operator")
    world.engine.anchor()
    yield Installation(world, world.engine.evidence(WORKSPACE, view.id), unrevoked)
    world.engine.close()


def honest(_name: str, _arguments: tuple[Any, ...], answer: Any) -> Any:
    return answer


def test_the_truth_is_verified_and_every_method_is_needed(here: Installation) -> None:
    endpoint = Endpoint(here.world.engine.gateway, honest)
    assert here.verify(endpoint).verdict is Verdict.VERIFIED
    assert set(endpoint.asked) == set(METHODS)


def test_an_older_file_is_still_verified_and_names_what_came_since(here: Installation) -> None:
    report = here.verify(file=here.unrevoked)
    assert report.verdict is Verdict.VERIFIED
    assert report.checks[6].reason.endswith("; 1 newer anchor not in this file")
    assert "revoked on the chain in block " in report.checks[10].reason
    assert report.checks[10].reason.endswith("not yet in this file")


def test_an_endpoint_that_fails_at_any_one_call_makes_the_file_unavailable(
    here: Installation,
) -> None:
    counted = Endpoint(here.world.engine.gateway, honest)
    here.verify(counted)
    calls = len(counted.asked)
    assert calls > 15
    for k in range(calls):
        endpoint = Endpoint(here.world.engine.gateway, honest)

        def fail(_: str, __: Any, answer: Any, k: int = k, e: Endpoint = endpoint) -> Any:
            if len(e.asked) == k + 1:
                raise ChainUnavailable("connection refused")
            return answer

        endpoint._lie = fail
        report = here.verify(endpoint)
        assert report.verdict is Verdict.UNAVAILABLE, counted.asked[k]


def about(event: str, change: Callable[[list[Log]], list[Log]]) -> Callable[..., Any]:
    """A lie about the logs of one event, or of every event."""

    def lie(name: str, arguments: tuple[Any, ...], answer: Any) -> Any:
        if name != "logs":
            return answer
        topics = arguments[-1]
        return change(answer) if event == "all" or topics[0] == EVENTS[event] else answer

    return lie


def changed(**fields: Any) -> Callable[[list[Log]], list[Log]]:
    return lambda logs: [replace(log, **fields) for log in logs]


GARBAGE = random.Random(7)
LOG_LIES: dict[str, Callable[[list[Log]], list[Log]]] = {
    "nothing": lambda logs: [],
    "twice": lambda logs: logs * 2,
    "no data": changed(data=b""),
    "half the data": lambda logs: [
        replace(log, data=log.data[: len(log.data) // 2]) for log in logs
    ],
    "garbage data": changed(data=GARBAGE.randbytes(320)),
    "large numbers": changed(data=b"\xff" * 640),
    "no topics": changed(topics=()),
    "another event's topic": changed(topics=(b"\x00" * 32,)),
    "topics of one too few": lambda logs: [replace(log, topics=log.topics[:-1]) for log in logs],
    "the oldest only": lambda logs: logs[:1],
}


# There is only one of each of these, or nothing in its data.
NO_LIES = {
    *((event, "the oldest only") for event in EVENTS if event != "Anchored"),
    *(
        (event, lie)
        for event in ("SessionRevoked", "LogOpened")
        for lie in ("no data", "half the data", "garbage data", "large numbers")
    ),
}


@pytest.mark.parametrize("event", [*EVENTS, "all"])
@pytest.mark.parametrize("lie", LOG_LIES)
def test_a_lie_about_events_is_never_verified(here: Installation, event: str, lie: str) -> None:
    endpoint = Endpoint(here.world.engine.gateway, about(event, LOG_LIES[lie]))
    verdict = here.verify(endpoint).verdict
    if (event, lie) in NO_LIES:
        assert verdict is Verdict.VERIFIED
    else:
        assert verdict in (Verdict.UNAVAILABLE, Verdict.TAMPERED)


@pytest.mark.parametrize("event", ["SessionRegistered", "SessionRevoked", "Anchored"])
def test_an_endpoint_that_leaves_out_events_contradicts_the_contracts_and_is_not_believed(
    here: Installation, event: str
) -> None:
    """Pruned or lagging: nothing is said against the file, and nothing for it."""
    endpoint = Endpoint(here.world.engine.gateway, about(event, lambda logs: []))
    assert here.verify(endpoint).verdict is Verdict.UNAVAILABLE


def test_a_hidden_revocation_does_not_pass_for_none(here: Installation) -> None:
    endpoint = Endpoint(here.world.engine.gateway, about("SessionRevoked", lambda logs: []))
    report = here.verify(endpoint, here.unrevoked)
    assert report.verdict is Verdict.UNAVAILABLE
    assert failed(report) == "life"


def test_another_consent_than_there_is_is_not_believed(here: Installation) -> None:
    def lie(logs: list[Log]) -> list[Log]:
        return [replace(log, data=(200).to_bytes(32) + log.data[32:]) for log in logs]

    endpoint = Endpoint(here.world.engine.gateway, about("SessionRegistered", lie))
    assert here.verify(endpoint).verdict is Verdict.UNAVAILABLE


def about_method(method: str, lie: Callable[[Any], Any]) -> Callable[..., Any]:
    return lambda name, _, answer: lie(answer) if name == method else answer


def refuse(_: Any) -> Any:
    raise CallReverted(b"", "no")


@pytest.mark.parametrize(
    ("method", "lie", "verdict"),
    [
        pytest.param("chain_id", lambda _: 1, Verdict.TAMPERED, id="another chain"),
        pytest.param("code", lambda _: b"", Verdict.UNAVAILABLE, id="no code"),
        pytest.param("call", lambda _: b"", Verdict.UNAVAILABLE, id="an empty answer"),
        pytest.param("call", lambda _: b"\xff" * 32, Verdict.UNAVAILABLE, id="nonsense"),
        pytest.param("call", lambda _: bytes(128), Verdict.TAMPERED, id="all zero"),
        pytest.param("call", refuse, Verdict.UNAVAILABLE, id="a revert"),
        pytest.param("block", lambda _: None, Verdict.UNAVAILABLE, id="no such block"),
        pytest.param("transaction_count", lambda _: 2, Verdict.TAMPERED, id="transactions"),
    ],
)
def test_a_lie_about_the_rest_is_never_verified(
    here: Installation, method: str, lie: Callable[[Any], Any], verdict: Verdict
) -> None:
    endpoint = Endpoint(here.world.engine.gateway, about_method(method, lie))
    assert here.verify(endpoint).verdict is verdict


def test_an_endpoint_that_lags_behind_the_anchor_never_verifies(here: Installation) -> None:
    gateway = here.world.engine.gateway
    for number in range(gateway.head().number):
        older = gateway.block(number)
        endpoint = Endpoint(gateway, about_method("head", lambda _, older=older: older))
        assert here.verify(endpoint).verdict is not Verdict.VERIFIED


def test_verification_asks_the_auditor_s_registry_and_no_other(here: Installation) -> None:
    addresses: set[str] = set()

    def note(name: str, arguments: tuple[Any, ...], answer: Any) -> Any:
        if name in ("call", "code"):
            addresses.add(arguments[0].lower())
        return answer

    here.verify(Endpoint(here.world.engine.gateway, note))
    deployment = here.world.engine.deployment
    assert addresses == {deployment.registry, deployment.anchors}
