"""By a chain that was not read, or only in part, or too long ago, nothing is decided."""

from collections.abc import Callable
from typing import Any

import pytest
from eth_utils.address import to_checksum_address

from engine.chain import contracts, sender
from engine.chain.embedded import EmbeddedChain
from engine.chain.gateway import ChainUnavailable
from engine.clock import ManualClock, system_clock
from engine.engine import open_engine
from engine.errors import Unavailable
from engine.ledger.chain_watch import CHAIN_SILENCE_MAX_MS
from engine.policy.limits import Limits
from engine.sessions.session import SessionView
from tests.evidence.thief import SHOP, Thief
from tests.ledger.oracle import query
from tests.world import USD, World

HOUR_MS = 3_600_000
WEEK_MS = 168 * HOUR_MS


def code(world: World, view: SessionView) -> str:
    """What a payment of one dollar is answered now."""
    return str(world.pay(view, 1).decision["code"])


# A silent chain, and two clocks


class TwoClocks:
    """An installation whose wall clock anybody may set, and whose stopwatch nobody can."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.wall = ManualClock(system_clock())
        self.stopwatch = ManualClock(1_000)
        world.engine.close()
        self.open()

    def open(self) -> None:
        self.world.engine = open_engine(
            self.world.settings, clock=self.wall, stopwatch=self.stopwatch
        )
        self.world.engine.tick()


@pytest.fixture
def timed(world: World) -> TwoClocks:
    return TwoClocks(world)


def no_answer(*_arguments: Any, **_named: Any) -> Any:
    raise ChainUnavailable("no answer")


@pytest.mark.parametrize(
    "step_ms", [-30 * 24 * HOUR_MS, -1, 0, 1, CHAIN_SILENCE_MAX_MS + 1, 100 * HOUR_MS]
)
def test_silence_is_measured_by_the_stopwatch_whatever_the_wall_clock_does(
    timed: TwoClocks, monkeypatch: pytest.MonkeyPatch, step_ms: int
) -> None:
    world = timed.world
    here = world.session(duration_ms=WEEK_MS)
    there = world.session(mint_pkp=True, duration_ms=WEEK_MS)
    world.engine.tick()
    monkeypatch.setattr(world.engine.gateway, "head", no_answer)
    timed.wall.advance(step_ms)
    world.engine.tick()
    assert world.engine.ready()["faults"] == ["no answer"]
    assert code(world, there) == "ALLOWED", "not before"
    timed.stopwatch.advance(CHAIN_SILENCE_MAX_MS)
    assert code(world, there) == "ALLOWED", "not before"
    timed.stopwatch.advance(1)
    for step_back_ms in (0, -step_ms, -30 * 24 * HOUR_MS):
        timed.wall.advance(step_back_ms)
        world.engine.tick()
        with pytest.raises(Unavailable) as refused:
            world.pay(there, 1)
        assert refused.value.code == "chain_unavailable"
    assert code(world, here) == "ALLOWED"
    monkeypatch.undo()
    world.engine.tick()
    assert code(world, there) == "ALLOWED"


def test_a_restart_does_not_count_as_having_read_the_chain(
    timed: TwoClocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = timed.world
    here, there = world.session(), world.session(mint_pkp=True)
    assert code(world, there) == "ALLOWED"
    world.engine.close()
    monkeypatch.setattr(EmbeddedChain, "head", no_answer)
    timed.open()
    for view in (here, there):
        with pytest.raises(Unavailable) as refused:
            world.pay(view, 1)
        assert refused.value.code == "chain_unavailable"
    monkeypatch.undo()
    world.engine.tick()
    assert (code(world, here), code(world, there)) == ("ALLOWED", "ALLOWED")


# A chain that is only read in part


class Faltering:
    """A gateway's question that is answered so many times, and then no more."""

    def __init__(self, answer: Callable[..., Any], times: int) -> None:
        self._answer = answer
        self._left = times

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        self._left -= 1
        return self._answer(*arguments, **named) if self._left >= 0 else no_answer()


def height_read(world: World) -> int:
    ledger = world.settings.data_dir / "ledger.sqlite3"
    return int(query(ledger, "SELECT max(number) FROM chain_blocks")[0][0])


@pytest.fixture
def far_behind(timed: TwoClocks, monkeypatch: pytest.MonkeyPatch) -> tuple[TwoClocks, SessionView]:
    """Twenty blocks that were not read, the owner's revocation in the last; five are a portion."""
    world = timed.world
    chain = world.engine.gateway
    assert isinstance(chain, EmbeddedChain)
    view = world.session(mint_pkp=True)
    world.engine.tick()
    chain.mine(18)
    chain.fund(world.owner.address.lower(), 10**18)
    data = contracts.revoking(view.grant, view.token_id)
    sender.send(chain, world.owner, to=world.engine.deployment.registry, data=data)
    monkeypatch.setattr("engine.chain.indexer.BLOCKS_PER_READ_MAX", 5)
    return timed, view


@pytest.mark.parametrize("restarted", [False, True], ids=["running", "restarted"])
@pytest.mark.parametrize(
    ("question", "answers"), [("logs", 1), ("logs", 3), ("head", 1), ("head", 2), ("headers", 2)]
)
def test_a_chain_that_was_read_in_part_was_not_read(
    far_behind: tuple[TwoClocks, SessionView],
    monkeypatch: pytest.MonkeyPatch,
    question: str,
    answers: int,
    restarted: bool,
) -> None:
    timed, view = far_behind
    world, head = timed.world, timed.world.engine.gateway.head().number
    before = height_read(world)
    timed.stopwatch.advance(CHAIN_SILENCE_MAX_MS)
    with monkeypatch.context() as line:
        if restarted:
            world.engine.close()
            line.setattr(EmbeddedChain, "head", no_answer)  # the start reads too
            timed.open()
            line.undo()
        gateway = world.engine.gateway
        line.setattr(gateway, question, Faltering(getattr(gateway, question), answers))
        world.engine.tick()
        assert world.engine.ready()["faults"] == ["no answer"]
        assert before < height_read(world) < head, "it was read in part"
        timed.stopwatch.advance(1)
        with pytest.raises(Unavailable) as refused:
            world.pay(view, 1)
        assert refused.value.code == "chain_unavailable"
    world.engine.tick()
    assert height_read(world) == head
    assert code(world, view) == "SESSION_REVOKED"


# Somebody else's tokens


def fake_transfer(sender_word: bytes, receiver_word: bytes, amount: int) -> bytes:
    """Init code that emits an ERC-20 Transfer of `amount` and creates nothing."""
    return (
        b"\x7f" + amount.to_bytes(32) + b"\x5f\x52"  # MSTORE(0, amount)
        b"\x7f" + receiver_word + b"\x7f" + sender_word + b"\x7f" + contracts.ERC20_TRANSFER
        + b"\x60\x20\x5f\xa3\x00"  # LOG3(0, 32, Transfer, from, to)
    )  # fmt: skip


def test_a_strangers_transfer_that_names_the_sessions_key_disturbs_nobody(world: World) -> None:
    view = world.session(Limits(None, 100 * USD, None, None, None), mint_pkp=True)
    world.pay(view, 10)
    thief = Thief(world)
    chain, key = thief.gateway, to_checksum_address(view.grant.session_key)
    before = chain.head().number
    words = (bytes(12) + bytes.fromhex(key[2:]), bytes(12) + bytes.fromhex(SHOP[2:]))
    sender.send(chain, thief.stranger, to=None, data=fake_transfer(*words, 1_000_000 * USD))
    thief.send(thief.stranger, "transferFrom", key, to_checksum_address(SHOP), 0)
    logs = chain.logs(from_block=before + 1, to_block=chain.head().number)
    assert [log.topics for log in logs] == [(contracts.ERC20_TRANSFER, *words)] * 2
    for spent in (10, 11):
        world.engine.tick()
        assert world.engine.ready()["faults"] == []
        assert world.engine.remaining(view).per_day == (100 - spent) * USD
        assert code(world, view) == "ALLOWED"
        world.reopen()
