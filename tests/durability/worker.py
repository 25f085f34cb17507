"""One of many processes that pay until they are told to stop, or are killed.

What it asks and what it is answered goes into a journal, one line at a time and each with one
write: a SIGKILL takes nothing back that was written. A journal belongs to one life of a worker; the
next life reads the one before it and asks again what was never answered.
"""

import contextlib
import json
import multiprocessing
import os
import random
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.engine import open_engine
from engine.errors import CannotStart, TallystickError, Unavailable
from engine.settings import Settings
from tests.durability.payers import USD, OfEngine, OverHttp, Payer, Question, Target

BURSTS = (1, 4, 16, 48)
COMMON_QUESTIONS = 40
"""So many questions of each era are asked by every worker, with the same keys."""
START_AGAIN_S = 60
UNAVAILABLE_WAIT_S = 0.01
ERA, PORT = 0, 1
"""What is on the board: the era, -1 to stop; where a server listens, 0 while nowhere."""


@dataclass(frozen=True)
class Work:
    """What a worker is given: an engine's settings or, if they are None, a server's port on the
    board. The eras follow each other."""

    number: int
    life: int
    seed: int
    settings: Settings | None
    directory: Path
    eras: tuple[tuple[Target, ...], ...]
    always: tuple[Target, ...]
    board: Any

    @property
    def journal(self) -> Path:
        """Where this life writes."""
        return self.journal_of(self.life)

    def journal_of(self, life: int) -> Path:
        """Where some life wrote."""
        return self.directory / f"worker-{self.number}-{life}.jsonl"


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


class Worker:
    """One life."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self.random = random.Random(f"{work.seed}/{work.number}/{work.life}")
        self.fd = os.open(work.journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self.targets = {each.session: each for era in (*work.eras, work.always) for each in era}
        self.again: list[Question] = []
        self.answered: deque[Question] = deque(maxlen=200)
        self.holds: deque[tuple[Target, str, int]] = deque(maxlen=400)
        self.common: set[str] = set()
        self.count = 0

    def write(self, **line: Any) -> None:
        """One line, with one write."""
        os.write(self.fd, json.dumps(line, separators=(",", ":")).encode() + b"\n")

    def remember(self) -> None:
        """Find out what earlier lives asked and were not answered, and ask that in their place.

        A life that wrote that it took over has written down all that was open then, so what is
        before it need not be read.
        """
        asked: dict[str, Question] = {}
        for _, line in self.earlier():
            if "ask" in line:
                asked[line["ask"]["key"]] = Question(**line["ask"])
            elif "answer" in line and line.get("key") in asked:
                self.answered.append(asked.pop(line["key"]))
        self.again = list(asked.values())
        for question in self.again:
            self.write(ask=vars(question))
        self.write(took_over=len(self.again))

    def earlier(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """The journals since the last life that took over."""
        first = self.work.life
        while first > 0:
            first -= 1
            if any("took_over" in line for _, line in read_journal(self.work.journal_of(first))):
                break
        for life in range(first, self.work.life):
            yield from read_journal(self.work.journal_of(life))

    def run(self) -> None:
        """Pay until told to stop."""
        self.remember()
        payer = self.open()
        parent = multiprocessing.parent_process()
        while (era := self.work.board[ERA]) >= 0 and parent is not None and parent.is_alive():
            self.burst(payer, era)
        while self.again:
            self.ask(payer, self.again[:48])
        payer.close()

    def open(self) -> Payer:
        """The database may be starting again itself."""
        if self.work.settings is None:
            return OverHttp(lambda: int(self.work.board[PORT]))
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
                    return OfEngine(engine)
            except CannotStart as error:
                self.write(cannot_start=error.message)
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    # What is asked

    def burst(self, payer: Payer, era: int) -> None:
        """Ask for some payments at once, and end some holds among them."""
        choose = self.random
        questions = [self.question(era) for _ in range(choose.choice(BURSTS))]
        for other in self.in_common(era):
            questions.insert(choose.randrange(len(questions) + 1), other)
        self.ask(payer, questions)
        self.end(payer)
        if self.answered and choose.random() < 0.3:
            self.ask_with_another_body(payer, choose.choice(self.answered))

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

    def ask(self, payer: Payer, questions: list[Question]) -> None:
        """Ask all at once; what is not answered is asked again later."""
        self.again = [other for other in self.again if other not in questions]
        for asked in questions:
            self.write(ask=vars(asked))
        waiting = [(asked, payer.ask(self.targets[asked.session], asked)) for asked in questions]
        for asked, coming in waiting:
            try:
                answer = coming.result()
            except Unavailable as error:
                self.write(key=asked.key, unavailable=error.message)
                self.again.append(asked)
                time.sleep(UNAVAILABLE_WAIT_S)
                continue
            self.write(key=asked.key, answer=answer)
            self.answered.append(asked)
            if answer["state"] == "held":
                self.holds.append((self.targets[asked.session], answer["id"], asked.amount))

    def end(self, payer: Payer) -> None:
        """Capture and void some holds, now and then one of them in two ways at once."""
        choose = self.random
        waiting = []
        while self.holds and choose.random() < 0.8:
            target, payment, amount = self.holds.popleft()
            ways = choose.choices(
                (("capture",), ("void",), ("void", "capture"), ()), weights=(5, 2, 1, 2)
            )[0]
            for way in ways:
                part = choose.randint(1, amount)
                if way == "capture":
                    coming = payer.capture(target, payment, part)
                else:
                    coming = payer.void(target, payment)
                waiting.append((payment, way, part, coming))
        for payment, way, part, coming in waiting:
            line: dict[str, Any] = {"end": payment, "way": way, "part": part}
            try:
                self.write(**line, ended=coming.result())
            except TallystickError as error:
                self.write(**line, refused=error.code)

    def ask_with_another_body(self, payer: Payer, asked: Question) -> None:
        """The same key for another amount."""
        other = Question(asked.key, asked.session, asked.amount + 1, asked.hold)
        try:
            answer = payer.ask(self.targets[asked.session], other).result()
        except TallystickError as error:
            self.write(reused=asked.key, refused=error.code)
        else:
            self.write(reused=asked.key, answer=answer)


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
