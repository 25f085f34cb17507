"""Many processes on one PostgreSQL, killed again and again (see `hammer_postgres`), and whether the
checks of that would hear a lie."""

import json
import secrets
from pathlib import Path
from typing import Any

import pytest

from engine.policy.budgets import BudgetLimits
from engine.policy.limits import Limits
from tests.durability.facts import Facts
from tests.durability.hammer import Size
from tests.durability.hammer_postgres import hammer
from tests.durability.journals import Journals
from tests.durability.pools import Pool, SharedRecords, read_log
from tests.ledger.oracle import Broken
from tests.world import USD, WORKSPACE, World

KILLS = 5


def test_what_any_process_acknowledged_survives_every_kill(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    size = Size(secrets.randbelow(10**9), processes=4, decisions=500, kills=KILLS)
    try:
        figures = hammer(tmp_path, size, server_kills=1)
    except BaseException:
        options = " ".join(f"--{name} {value}" for name, value in vars(size).items())
        with capsys.disabled():
            print(f"\nscripts/hammer-postgres {options} --server-kills 1")  # noqa: T201
        raise
    assert figures["kills"] == KILLS
    assert figures["kills of the database"] == 1
    assert figures["answers"] >= size.decisions
    assert figures["sessions used up exactly"] + figures["budgets used up exactly"] > 0
    assert min(figures[name] for name in ("allowed", "denied", "captured", "voided")) > 0


@pytest.fixture
def paid(world: World) -> tuple[World, list[str]]:
    """Two sessions of one agent, whose budget of 100 dollars refuses the last payment."""
    limits = Limits(None, 90 * USD, None, None, None)
    world.engine.agents.register(WORKSPACE, "bot", None)
    world.engine.budgets.set(WORKSPACE, "bot", BudgetLimits(per_day=100 * USD), by="test")
    views = [world.session(limits) for _ in range(2)]
    states = [world.pay(views[number % 2], 30, hold=number == 1).state for number in range(4)]
    assert states == ["captured", "held", "captured", "denied"]
    world.engine.lead.sequence()
    return world, [view.id for view in views]


@pytest.mark.parametrize(
    ("limit", "truth"),
    [(100, None), (119, None), (120, "denied|agent_budget"), (89, "agent_budget")],
)
def test_a_pool_is_known_to_the_cent(
    paid: tuple[World, list[str]], limit: int, truth: str | None
) -> None:
    world, sessions = paid
    pool = Pool("agent_budget", limit * USD)
    records = SharedRecords({session: [pool] for session in sessions})
    if truth is None:
        records.feed(read_log(world.store))
        assert pool.used == 90 * USD
        return
    with pytest.raises(Broken, match=truth):
        records.feed(read_log(world.store))


ASKED = {"key": "k", "session": "s", "amount": 5, "hold": False}
ANSWER = {
    "id": "pay_s_0",
    "state": "captured",
    "amount": 5,
    "captured": 5,
    "decided_ms": 1,
    "expires_ms": 2,
    "closed_ms": 1,
    "allowed": True,
    "code": "ALLOWED",
    "rule": "all",
    "replayed": False,
}


def journals(directory: Path, *lines: dict[str, Any], torn: bytes = b"") -> Journals:
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (directory / "worker-0-0.jsonl").write_bytes(text.encode() + torn)
    found = Journals(directory)
    found.follow()
    return found


def test_a_line_that_a_kill_tore_is_no_answer(tmp_path: Path) -> None:
    line = json.dumps({"key": "k", "answer": ANSWER}).encode()
    assert journals(tmp_path, {"ask": ASKED}, torn=line).facts.unanswered()
    assert not journals(tmp_path, {"ask": ASKED}, torn=line + b"\n").facts.unanswered()


@pytest.mark.parametrize(
    "second",
    [
        {"key": "k", "answer": ANSWER},
        {"key": "k", "answer": ANSWER | {"replayed": True, "decided_ms": 2}},
        {"key": "k", "answer": ANSWER | {"replayed": True, "state": "voided", "captured": 0}},
        {"end": "pay_s_0", "way": "void", "part": 0, "ended": ANSWER},
        {"reused": "k", "answer": ANSWER | {"replayed": True}},
        {"ask": ASKED | {"amount": 6}},
        {"cannot_start": "audit log: record 7 is missing or was changed"},
    ],
    ids=["twice", "another time", "another end", "not void", "another body", "two", "damaged"],
)
def test_an_answer_that_contradicts_another_is_heard(
    tmp_path: Path, second: dict[str, Any]
) -> None:
    first = {"key": "k", "answer": ANSWER}
    journals(tmp_path, {"ask": ASKED}, first, {"key": "k", "answer": ANSWER | {"replayed": True}})
    with pytest.raises(Broken):
        journals(tmp_path, {"ask": ASKED}, first, second)


@pytest.mark.parametrize(
    ("said", "down"),
    [
        ("TALLYSTICK_DATABASE cannot be used: connection failed: Connection refused", True),
        ("the store's database cannot be used: connection failed: Connection refused", True),
        ("the store's database cannot be used: consuming input failed: server closed it", True),
        ("the store's database cannot be used: the database system is starting up", True),
        ('the store\'s database cannot be used: relation "entries" does not exist', False),
    ],
)
def test_a_database_that_is_gone_is_known_from_one_that_is_damaged(
    tmp_path: Path, said: str, down: bool
) -> None:
    first = {"key": "k", "answer": ANSWER}
    told = [{"ask": ASKED}, first, {"cannot_start": said}]
    if down:
        assert journals(tmp_path, *told).figures["starts while the database was down"] == 1
    else:
        with pytest.raises(Broken, match="does not exist"):
            journals(tmp_path, *told)


def test_a_payment_that_nobody_heard_of_is_heard(paid: tuple[World, list[str]]) -> None:
    world, sessions = paid
    pool = Pool("agent_budget", 100 * USD)
    facts = Facts()
    records = SharedRecords({session: [pool] for session in sessions}, facts)
    records.feed(read_log(world.store))
    with pytest.raises(Broken, match=r"one decision for each key: \(4, 0\)"):
        facts.check()


def test_an_answer_that_is_not_recorded_is_heard(tmp_path: Path) -> None:
    answer = {"key": "k", "answer": ANSWER}
    facts = journals(tmp_path, {"ask": ASKED}, answer).facts
    with pytest.raises(Broken, match=r"pay_s_0: said .*, recorded None"):
        facts.check_answers(0)
    facts.decided("pay_s_0", [5, 1, 2, True, "ALLOWED", "all"], allowed=True)
    assert facts.check_answers(0) == 1
    with pytest.raises(Broken, match="said to have ended"):
        facts.check()
    facts.ended("pay_s_0", ["captured", 5, 1])
    facts.check()
    facts.refused("pay_s_0", "voided")
    with pytest.raises(Broken, match="refused as voided, but it is captured"):
        facts.check()
