"""What is asked in a simulated history: workers who pay, operators, owners, a clock, bad luck.

Everything is drawn from one generator, so that a seed and a number of steps say all of it. Where to
add what the engine learns to do: a parameter of sessions in `policy`, a sentence in `CONDITIONS`, a
question beside `_pay` with a weight in `question` (and a method of its name in the auditor), a
fault in `fault`, something that operators or chains do in the driver's `STEPS` and `_happen`.
"""

import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from engine.policy.limits import Limits
from tests.simulation.books import APPROVAL_TTL_MS, HOLD_TTL_MS, Question
from tests.simulation.faults import Fault, Point
from tests.simulation.terms import HOUR_MS, LENGTH_MS

USD = 1_000_000
HERE, ELSEWHERE = "eip155:31337", "eip155:1"
TOKENS = (
    f"{HERE}/erc20:0x{'11' * 20}",
    f"{HERE}/erc20:0x{'12' * 20}",
    f"{ELSEWHERE}/erc20:0x{'13' * 20}",
)
UNPRICED = TOKENS[1]
AGENTS = ("bot", "bot", "shopper")
MERCHANTS = tuple(f"m{number}" for number in range(6))
WORKERS = 64
HOLDS_KEPT = 200
WAITS_KEPT = 24
MINUTE_MS = 60_000
DAY_MS = LENGTH_MS["day"]

CONDITIONS = (
    "at most {few} payments per hour",
    "at most {some} payments per day",
    "at most {many} payments per lifetime",
    "lifetime at most {many} USD",
    "merchant m1 at most {some} USD per day",
    "merchant m2 at most 40 USD per transaction",
    "merchant m3 at most {some} USD per week",
    f"token {TOKENS[0]} at most {{some}} USD per hour",
    f"token {TOKENS[0]} at most {{many}} USD per month",
    f"token {TOKENS[2]} at most 60 USD per transaction",
    "never merchant m4",
    f"never chain {ELSEWHERE}",
    f"never token {TOKENS[2]}",
    "only 06:00-22:00 UTC on Mon Tue Wed Thu Fri",
    "only 00:00-12:30 UTC on Sat",
)


@dataclass(frozen=True)
class Hold:
    """A payment that was held, and when it was decided."""

    session: str
    payment: str
    amount: int
    decided_ms: int


@dataclass(frozen=True)
class Wait:
    """A payment that was denied and waits for an approval."""

    session: str
    approval: str
    asked: Question
    requested_ms: int


@dataclass
class Worker:
    """Somebody who pays, and what it asked so far."""

    name: str
    asked: list[Question] = field(default_factory=list)
    again: list[Question] = field(default_factory=list)
    """Questions whose answers never came."""


@dataclass(frozen=True)
class Temper:
    """What a history is like. `faults` is how often a step has a fault wait for it."""

    decisions: int
    bursts: tuple[int, ...]
    faults: float


CALM = Temper(20_000, (64, 512, 512, 512), 0.015)
BUSY = Temper(4_000, (8, 64, 256), 0.04)
NERVOUS = Temper(600, (1, 2, 8, 32, 64), 0.3)
TEMPERS = (NERVOUS, NERVOUS, NERVOUS, NERVOUS, BUSY, CALM, CALM, CALM, CALM, CALM)
"""Of the histories of a run, in turn. A crash costs as much as there is to read again afterwards,
so there are many of them in short histories and few in long ones."""


class Workload:
    """Draws what happens next. The driver tells it what was answered."""

    def __init__(self, draw: random.Random, temper: Temper) -> None:
        self.draw, self.temper = draw, temper
        self.workers = [Worker(f"w{number}") for number in range(WORKERS)]
        self.sessions: list[str] = []
        self.decided: list[tuple[str, int]] = []
        """Session and instant of what was allowed, by which the edges of windows are found."""
        self.holds: deque[Hold] = deque(maxlen=HOLDS_KEPT)
        """Not ended yet, as far as anybody heard."""
        self.focus: str | None = None
        self.waits: deque[Wait] = deque(maxlen=WAITS_KEPT)
        self.urgent: Wait | None = None
        """An approval at whose edge the clock is."""
        self._count = 0

    # Sessions

    def policy(self) -> dict[str, Any]:
        """The limits, lists and conditions of a new session."""
        draw = self.draw
        scale = draw.choice((30, 300, 3_000))

        def limit(times: int) -> int | None:
            return None if draw.random() < 0.3 else draw.randint(scale, scale * times) * USD

        numbers = {"few": scale // 10 + 2, "some": scale, "many": scale * 8}
        sentences = [sentence.format(**numbers) for sentence in CONDITIONS if draw.random() < 0.1]
        return {
            "limits_micro_usd": {
                "per_transaction": limit(2),
                "per_day": limit(4),
                "per_week": limit(12),
                "per_month": limit(30),
                "approval_above": draw.randint(0, 60) * USD if draw.random() < 0.4 else None,
            },
            "permissions": draw.choices(([], ["pay"], ["read"]), weights=(20, 9, 1))[0],
            "merchants": sorted(draw.sample(MERCHANTS, 4)) if draw.random() < 0.2 else [],
            "tokens": sorted(draw.sample(TOKENS, 2)) if draw.random() < 0.2 else [],
            "chains": [HERE] if draw.random() < 0.2 else [],
            "conditions": sorted(sentences),
            "agent_id": draw.choice(AGENTS),
        }

    def beneath(self, parent: dict[str, Any]) -> dict[str, Any]:
        """The same beneath a session that delegates: as narrow as that one, or too wide."""
        draw, own = self.draw, self.policy()
        limits = {
            name: own["limits_micro_usd"][name] if most is None else draw.choice((most, most // 2))
            for name, most in parent["limits_micro_usd"].items()
        }
        found = {**own, **parent, "limits_micro_usd": limits, "agent_id": own["agent_id"]}
        for name in ("merchants", "tokens"):
            if not parent[name]:
                found[name] = own[name]
            elif draw.random() < 0.5:
                found[name] = sorted(draw.sample(parent[name], len(parent[name]) - 1))
        if draw.random() < 0.2:
            found["conditions"] = sorted({*parent["conditions"], "never merchant m5"})
        if draw.random() < 0.15:
            wide = draw.choice(("permissions", "merchants", "tokens", "conditions", "limits"))
            if wide == "limits":
                name = draw.choice(list(limits))
                limits[name] = None if limits[name] is None else limits[name] * 2 + 1
            else:
                found[wide] = [] if wide == "conditions" else own[wide]
        return found

    def budget(self) -> dict[str, int | None] | None:
        """What an agent or the workspace may spend from now on; None: whatever it is."""
        draw = self.draw
        scale = draw.choice((100, 1_000, 10_000))
        limits = {
            "payments_per_hour": scale // 10,
            "payments_per_day": scale,
            "per_day": scale * USD,
            "per_week": scale * 3 * USD,
            "per_month": scale * 8 * USD,
            "lifetime": scale * 30 * USD,
        }
        chosen: dict[str, int | None] = {
            name: most if draw.random() < 0.3 else None for name, most in limits.items()
        }
        return chosen if any(chosen.values()) else None

    def lower(self, granted: Limits) -> Limits:
        """Limits that an owner lowers a session's to."""
        draw = self.draw
        names = ("per_transaction", "per_day", "per_week", "per_month", "approval_above")

        def limit(most: int | None) -> int | None:
            if draw.random() < 0.5:
                return most
            return draw.randint(1, 2_000) * USD if most is None else draw.randint(0, most)

        return Limits(*(limit(getattr(granted, name)) for name in names))

    # Questions

    def burst(self) -> list[tuple[Worker, Question]]:
        """What many workers ask at the same time, in the order in which it arrives."""
        draw = self.draw
        size = draw.choice(self.temper.bursts)
        if size > 1:
            size = draw.randint(size // 2, size)
        found = [self.question(draw.choice(self.workers)) for _ in range(size)]
        self.focus = None
        return found

    def question(self, worker: Worker) -> tuple[Worker, Question]:
        """The next of one worker."""
        if worker.again:
            return worker, worker.again.pop()
        kinds: Sequence[Callable[[Worker], Question | None]] = (
            self._pay, self._replay, self._other_body, self._end, self._end_of_old, self._remaining,
            self._wait_too,
        )  # fmt: skip
        [kind] = self.draw.choices(kinds, weights=(80, 5, 2, 10, 2, 1, 1))
        return worker, kind(worker) or self._pay(worker)

    def _session(self) -> str:
        if self.focus is not None:
            return self.focus
        if self.draw.random() < 0.002:
            return "sess_" + "0" * 26
        return self.draw.choice(self.sessions)

    def _pay(self, worker: Worker) -> Question:
        draw = self.draw
        self._count += 1
        token = draw.choices(TOKENS, weights=(8, 1, 2))[0]
        [whole] = draw.choices((1, 5, 20, 60, 200, 2_000), weights=(30, 30, 20, 10, 4, 1))
        body = {
            "amount_micro_usd": draw.randint(1, whole * USD),
            "merchant": draw.choice((*MERCHANTS, None)),
            "token": token,
            "chain": token.partition("/")[0],
            "permission": "pay" if draw.random() < 0.98 else "read",
            "token_priced": token != UNPRICED,
        }
        # The key stands in the memo too, so that a record names the question it answers.
        name = f"{worker.name}-{self._count}"
        memo = {
            "description": name,
            "metadata_json": "{}",
            "capture": draw.random() < 0.85,
        }
        key = None if draw.random() < 0.03 else name
        asked = Question("pay", self._session(), key=key, body=body, memo=memo)
        if key is not None:
            worker.asked.append(asked)
        return asked

    def _earlier(self, worker: Worker) -> Question | None:
        if not worker.asked:
            return None
        return self.draw.choice(worker.asked[-4:] if self.draw.random() < 0.7 else worker.asked)

    def _replay(self, worker: Worker) -> Question | None:
        return self._earlier(worker)

    def _other_body(self, worker: Worker) -> Question | None:
        asked = self._earlier(worker)
        if asked is None:
            return None
        if self.draw.random() < 0.5:
            body = asked.body | {"amount_micro_usd": asked.body["amount_micro_usd"] + 1}
            return replace(asked, body=body)
        return replace(asked, memo=asked.memo | {"capture": not asked.memo["capture"]})

    def _end(self, worker: Worker) -> Question | None:
        if not self.holds:
            return None
        self.holds.rotate(self.draw.randrange(len(self.holds)))
        hold = self.holds.pop()
        return self._end_of(hold.session, hold.payment, hold.amount)

    def _end_of(self, session: str, payment: str, amount: int) -> Question:
        part = self.draw.choice((None, None, amount, 1, self.draw.randint(1, amount), amount + 1))
        what = self.draw.choice(("capture", "capture", "void"))
        return Question(what, session, payment=payment, amount=part if what == "capture" else None)

    def _end_of_old(self, worker: Worker) -> Question | None:
        """Of something that has ended, was denied, or never was."""
        if not self.decided:
            return None
        session, _ = self.draw.choice(self.decided)
        number = self.draw.randint(0, 300)
        return self._end_of(session, f"pay_{session.removeprefix('sess_')}_{number}", USD)

    def _wait_too(self, worker: Worker) -> Question | None:
        """The same as something that waits for an approval, with another key."""
        if not self.waits:
            return None
        self._count += 1
        asked = replace(self.draw.choice(self.waits).asked, key=f"{worker.name}-{self._count}")
        worker.asked.append(asked)
        return asked

    def _remaining(self, worker: Worker) -> Question:
        return Question("remaining", self.draw.choice(self.sessions))

    def heard(self, worker: Worker, asked: Question, answer: dict[str, Any]) -> None:
        """An answer came."""
        if asked.what == "pay" and answer.get("approval") and not answer["replayed"]:
            wait = Wait(asked.session, answer["approval"], asked, answer["decided_ms"])
            if wait.approval not in {each.approval for each in self.waits}:
                self.waits.append(wait)
        if asked.what != "pay" or answer.get("state") not in ("held", "captured"):
            return
        if answer["replayed"]:
            return
        self.decided.append((asked.session, answer["decided_ms"]))
        if answer["state"] == "held":
            amount = asked.body["amount_micro_usd"]
            self.holds.append(Hold(asked.session, answer["id"], amount, answer["decided_ms"]))

    def unheard(self, burst: Sequence[tuple[Worker, Question]]) -> None:
        """No answer came: whoever has a key asks again, most of the time."""
        for worker, asked in burst:
            if asked.key is not None and self.draw.random() < 0.8:
                worker.again.append(asked)

    # Time and bad luck

    def later(self, now_ms: int) -> int:
        """How far the clock moves; below zero when somebody sets it back."""
        draw = self.draw
        luck = draw.random()
        if luck < 0.5:
            return draw.choice((0, 1, draw.randint(0, 5_000)))
        if luck < 0.65:
            return draw.randint(0, 40 * MINUTE_MS)
        if luck < 0.95:
            return self._to_an_edge(now_ms)
        if luck < 0.97:
            return -draw.randint(1, 2 * DAY_MS)
        return draw.randint(0, 2 * DAY_MS)

    def _to_an_edge(self, now_ms: int) -> int:
        """To an instant at which something leaves a window or a hold ends, or to one beside it."""
        draw = self.draw
        beside_ms = draw.choice((-1, 0, 1))
        if self.waits and draw.random() < 0.15:
            self.urgent = draw.choice(self.waits)
            return max(0, self.urgent.requested_ms + APPROVAL_TTL_MS + beside_ms - now_ms)
        if self.holds and draw.random() < 0.3:
            hold = draw.choice(self.holds)
            if draw.random() < 0.5:
                end = self._end_of(hold.session, hold.payment, hold.amount)
                draw.choice(self.workers).again.append(end)
            self.focus = hold.session
            return max(0, hold.decided_ms + HOLD_TTL_MS + beside_ms - now_ms)
        lengths = ("hour", "day", "week", "month")
        length_ms = LENGTH_MS[draw.choices(lengths, weights=(3, 5, 2, 1))[0]]
        some = draw.choices(self.decided, k=12) if self.decided else []
        ahead = [
            (decided_ms + length_ms, session)
            for session, decided_ms in some
            if decided_ms + length_ms > now_ms
        ]
        if not ahead:
            return draw.randint(0, HOUR_MS)
        edge_ms, self.focus = min(ahead)
        return max(0, edge_ms + beside_ms - now_ms)

    def fault_while_opening(self) -> Fault:
        """A crash of an engine that just starts."""
        points: tuple[Point, ...] = ("statement", "before commit", "after commit", "chain")
        return Fault("crash", self.draw.choice(points), self.draw.randint(0, 6))

    def fault(self) -> Fault:
        """The next thing that goes wrong at the database's door, or on the way to the chain."""
        draw = self.draw
        after = int(draw.expovariate(0.1))
        return draw.choice(
            (
                Fault("crash", "statement", after),
                Fault("crash", "before commit", after % 3),
                Fault("crash", "after commit", after % 3),
                Fault("torn", "after commit", after % 3, torn=draw.random()),
                Fault("crash", "chain", after),
                Fault("full", "statement", after),
                Fault("full", "before commit", after % 3),
                Fault("full", "after commit", after % 3),
                Fault("broken", "statement", after),
                Fault("broken", "before commit", after % 3),
                Fault("silent", "chain", after),
                Fault("silent", "chain", after),
            )
        )
