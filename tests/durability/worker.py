"""One of many processes on one database: it pays until it is told to stop, or is killed.

What it asks and what it is answered goes into a journal, one line at a time and each with one
write: a SIGKILL takes nothing back that was written. A journal belongs to one life of a worker; the
next life reads those of the earlier ones and asks again what was never answered.
"""

import contextlib
import json
import multiprocessing
import os
import random
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.engine import Engine, open_engine
from engine.errors import CannotStart, TallystickError, Unavailable
from engine.ledger.payment import Payment
from engine.policy.decision import PaymentRequest
from engine.settings import Settings

USD = 1_000_000
BURSTS = (1, 4, 16, 48)
COMMON_QUESTIONS = 40
"""So many questions of each era are asked by every worker, with the same keys."""
START_AGAIN_S = 60
UNAVAILABLE_WAIT_S = 0.01


@dataclass(frozen=True)
class Target:
    """A session, and whether it pays dollars one by one, so that its limits can be hit exactly."""

    session: str
    workspace: str
    by_dollars: bool


@dataclass(frozen=True)
class Work:
    """What a worker is given. The eras follow each other; `board` says which it is, -1: stop."""

    number: int
    life: int
    seed: int
    settings: Settings
    directory: Path
    eras: tuple[tuple[Target, ...], ...]
    always: tuple[Target, ...]
    board: Any

    @property
    def journal(self) -> Path:
        """Where this life writes."""
        return self.directory / f"worker-{self.number}-{self.life}.jsonl"


@dataclass(frozen=True)
class Question:
    """A payment to ask for."""

    key: str
    session: str
    amount: int
    hold: bool


def read_journal(path: Path, start: int = 0) -> Iterator[tuple[int, dict[str, Any]]]:
    """The (end, line) of the complete lines of a journal, from the byte `start` on."""
    if not path.exists():
        return
    with path.open("rb") as file:
        file.seek(start)
        for raw in file:
            if not raw.endswith(b"\n"):
                return
            start += len(raw)
            yield start, json.loads(raw)


def told(payment: Payment) -> dict[str, Any]:
    """What a caller is told of a payment."""
    return {
        "id": payment.id,
        "state": payment.state,
        "amount": payment.amount,
        "captured": payment.captured,
        "decided_ms": payment.decided_ms,
        "expires_ms": payment.expires_ms,
        "closed_ms": payment.closed_ms,
        "allowed": payment.decision["allowed"],
        "code": payment.decision["code"],
        "rule": payment.decision["rule"],
        "replayed": payment.replayed,
    }


def submit(engine: Engine, asked: Question) -> "Future[Payment]":
    """Ask an engine for a payment, without waiting for the answer."""
    usdc = engine.token("USDC", None)
    assert usdc is not None
    return engine.ledger.authorise(
        asked.session,
        PaymentRequest(
            amount=asked.amount,
            merchant="books",
            token=usdc.asset,
            chain=usdc.chain,
            token_priced=True,
        ),
        memo={"description": None, "metadata_json": "{}"},
        key=asked.key,
        capture=not asked.hold,
    )


class Worker:
    """One life."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self.random = random.Random(f"{work.seed}/{work.number}/{work.life}")
        self.fd = os.open(work.journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self.again: list[Question] = []
        self.answered: deque[Question] = deque(maxlen=200)
        self.holds: deque[tuple[str, str, int]] = deque(maxlen=400)
        self.common: set[str] = set()
        self.count = 0

    def write(self, **line: Any) -> None:
        """One line, with one write."""
        os.write(self.fd, json.dumps(line, separators=(",", ":")).encode() + b"\n")

    def remember(self) -> None:
        """Find out what earlier lives asked and were not answered."""
        asked: dict[str, Question] = {}
        for life in range(self.work.life):
            path = self.work.directory / f"worker-{self.work.number}-{life}.jsonl"
            for _, line in read_journal(path):
                if "ask" in line:
                    asked[line["ask"]["key"]] = Question(**line["ask"])
                elif "answer" in line and line.get("key") in asked:
                    self.answered.append(asked.pop(line["key"]))
        self.again = list(asked.values())

    def run(self) -> None:
        """Pay until told to stop."""
        self.remember()
        engine = self.open()
        parent = multiprocessing.parent_process()
        while (era := self.work.board[0]) >= 0 and parent is not None and parent.is_alive():
            self.burst(engine, era)
        while self.again:
            self.ask(engine, self.again[:48])
        engine.close()

    def open(self) -> Engine:
        """The database may be starting again itself."""
        deadline = time.monotonic() + START_AGAIN_S
        while True:
            try:
                engine = open_engine(self.work.settings)
                try:
                    engine.start()
                except CannotStart:
                    engine.close()
                    raise
                else:
                    return engine
            except CannotStart as error:
                self.write(cannot_start=error.message)
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    # What is asked

    def burst(self, engine: Engine, era: int) -> None:
        """Ask for some payments at once, and end some holds among them."""
        choose = self.random
        questions = [self.question(era) for _ in range(choose.choice(BURSTS))]
        for other in self.in_common(era):
            questions.insert(choose.randrange(len(questions) + 1), other)
        self.ask(engine, questions)
        self.end(engine)
        if self.answered and choose.random() < 0.3:
            self.ask_with_another_body(engine, choose.choice(self.answered))

    def question(self, era: int) -> Question:
        """An earlier one again, or a new one."""
        choose = self.random
        if self.again:
            return self.again.pop()
        if self.answered and choose.random() < 0.06:
            return choose.choice(self.answered)
        self.count += 1
        key = f"{self.work.number}.{self.work.life}-{self.count}"
        return self.draw(choose, key, era)

    def draw(self, choose: random.Random, key: str, era: int) -> Question:
        """A payment of one of the era's sessions, or of one that is always there."""
        targets = self.work.always if choose.random() < 0.02 else self.work.eras[era]
        target = choose.choice(targets)
        if target.by_dollars:
            return Question(key, target.session, USD, hold=False)
        amount = choose.randint(1, 30 * USD)
        return Question(key, target.session, amount, choose.random() < 0.5)

    def in_common(self, era: int) -> list[Question]:
        """Some of what every worker asks, each with the same key."""
        found = []
        for number in range(COMMON_QUESTIONS):
            key = f"common-{era}-{number}"
            if key not in self.common and self.random.random() < 0.1:
                self.common.add(key)
                choose = random.Random(f"{self.work.seed}/{key}")
                found.append(self.draw(choose, key, era))
        return found

    # Asking

    def ask(self, engine: Engine, questions: list[Question]) -> None:
        """Ask all at once; what is not answered is asked again later."""
        self.again = [other for other in self.again if other not in questions]
        for asked in questions:
            self.write(ask=vars(asked))
        waiting = [(asked, submit(engine, asked)) for asked in questions]
        for asked, future in waiting:
            try:
                payment = future.result()
            except Unavailable as error:
                self.write(key=asked.key, unavailable=error.message)
                self.again.append(asked)
                time.sleep(UNAVAILABLE_WAIT_S)
                continue
            self.write(key=asked.key, answer=told(payment))
            self.answered.append(asked)
            if payment.state == "held":
                workspace = payment.stream.workspace_id
                self.holds.append((workspace, payment.id, payment.amount))

    def end(self, engine: Engine) -> None:
        """Capture and void some holds, now and then one of them in two ways at once."""
        choose = self.random
        waiting = []
        while self.holds and choose.random() < 0.8:
            workspace, payment, amount = self.holds.popleft()
            ways = choose.choices(
                (("capture",), ("void",), ("void", "capture"), ()), weights=(5, 2, 1, 2)
            )[0]
            for way in ways:
                part = choose.randint(1, amount)
                if way == "capture":
                    future = engine.ledger.capture(workspace, payment, part)
                else:
                    future = engine.ledger.void(workspace, payment)
                waiting.append((payment, way, part, future))
        for payment, way, part, future in waiting:
            line: dict[str, Any] = {"end": payment, "way": way, "part": part}
            try:
                self.write(**line, ended=told(future.result()))
            except TallystickError as error:
                self.write(**line, refused=error.code)

    def ask_with_another_body(self, engine: Engine, asked: Question) -> None:
        """The same key for another amount."""
        other = Question(asked.key, asked.session, asked.amount + 1, asked.hold)
        try:
            payment = submit(engine, other).result()
        except TallystickError as error:
            self.write(reused=asked.key, refused=error.code)
        else:
            self.write(reused=asked.key, answer=told(payment))


def work(given: Work) -> None:
    """Run one life, with whatever it says in a file of its own."""
    said = os.open(
        given.journal.with_suffix(".said"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600
    )
    os.setpgrp()
    for stream in (1, 2):
        os.dup2(said, stream)
    with contextlib.suppress(BrokenPipeError):
        Worker(given).run()
