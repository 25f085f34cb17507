"""What the workers wrote down, and whether it is the truth by the records."""

import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.durability.worker import Question, read_journal
from tests.ledger.oracle import Records, query, require

NEVER_CHANGES = ("id", "amount", "decided_ms", "expires_ms", "allowed", "code", "rule")
ENDED = {"captured": "payment.captured", "voided": "payment.voided", "expired": "payment.expired"}

_DOWN = re.compile(
    r"TALLYSTICK_DATABASE cannot be used|could not be made durable|"
    r"psycopg\.(OperationalError|errors\.(AdminShutdown|CrashShutdown|CannotConnectNow))"
)
"""A database that is gone or just starts; what is wrong with its content is told otherwise."""


@dataclass
class Known:
    """A key: what was asked with it, the first answer that anybody heard, and all ends heard of."""

    question: Question
    answer: dict[str, Any] | None = None
    firsts: int = 0
    closed: dict[str, Any] | None = None


@dataclass
class Journals:
    """Follows the journals of a directory; every method raises `Broken`."""

    directory: Path
    known: dict[str, Known] = field(default_factory=dict)
    figures: Counter[str] = field(default_factory=Counter)
    lives: Counter[str] = field(default_factory=Counter)
    """How many answers each life gave, by the name of its journal."""
    _read: dict[Path, int] = field(default_factory=dict)
    _payments: dict[str, Known] = field(default_factory=dict)
    _refused: list[tuple[str, str]] = field(default_factory=list)

    def follow(self) -> int:
        """Read what was added; returns how many keys have an answer."""
        for path in sorted(self.directory.glob("worker-*.jsonl")):
            for end, line in read_journal(path, self._read.get(path, 0)):
                self._read[path] = end
                self._take(path.stem, line)
        return self.figures["answers"]

    def unanswered(self) -> list[Question]:
        """What was asked, and nobody heard an answer."""
        return [known.question for known in self.known.values() if known.answer is None]

    def heard(self, key: str, answer: dict[str, Any]) -> None:
        """An answer, whoever heard it: never another one than the first."""
        known = self.known[key]
        known.firsts += not answer["replayed"]
        require(known.firsts <= 1, f"{key}: decided twice")
        if known.answer is None:
            known.answer = answer
            self._payments[answer["id"]] = known
            self.figures["answers"] += 1
            self.figures["allowed" if answer["allowed"] else "denied"] += 1
            require(answer["amount"] == known.question.amount, f"{key}: another amount")
        else:
            self.figures["answers again"] += 1
        for name in NEVER_CHANGES:
            require(answer[name] == known.answer[name], f"{key}: {name} was {known.answer[name]}")
        if answer["state"] in ENDED:
            self._closed(known, answer)

    def _take(self, life: str, line: dict[str, Any]) -> None:
        if "ask" in line:
            question = Question(**line["ask"])
            known = self.known.setdefault(question.key, Known(question))
            require(known.question == question, f"{question.key} is two questions")
        elif "cannot_start" in line:
            self.figures["starts while the database was down"] += 1
            require(_DOWN.search(line["cannot_start"]), f"{life}: {line['cannot_start']}")
        elif "unavailable" in line:
            self.figures["unavailable"] += 1
        elif "reused" in line:
            self.figures["keys used for another body"] += 1
            refused = line.get("refused")
            refusals = ("idempotency_key_reused", "service_unavailable", "chain_unavailable")
            require(refused in refusals, f"{line['reused']} for another body: {line}")
        elif "end" in line:
            self._ended(line)
        else:
            self.lives[life] += 1
            self.heard(line["key"], line["answer"])

    def _ended(self, line: dict[str, Any]) -> None:
        if (refused := line.get("refused")) is not None:
            self.figures[f"ends refused: {refused}"] += 1
            self._refused.append((line["end"], refused))
            return
        ended = line["ended"]
        state, captured = ("captured", line["part"]) if line["way"] == "capture" else ("voided", 0)
        require((ended["state"], ended["captured"]) == (state, captured), f"{line}: ended so")
        self.figures[state] += not ended["replayed"]
        self._closed(self._payments[ended["id"]], ended)

    def _closed(self, known: Known, answer: dict[str, Any]) -> None:
        facts = {name: answer[name] for name in ("state", "captured", "closed_ms")}
        known.closed = known.closed or facts
        require(known.closed == facts, f"{answer['id']} ended as {known.closed} and as {facts}")

    # Against the records

    def check(self, records: Records) -> None:
        """What was answered is in the records, and what is in the records was asked once."""
        require(not self.unanswered(), "everything has an answer")
        for known in self.known.values():
            self._check(known, records)
        require(records.decided.keys() == self._payments.keys(), "one decision for each key")
        for payment, code in self._refused:
            state = code.removeprefix("payment_")
            if state in ENDED:
                kind = records.ended[payment]["kind"]
                require(kind == ENDED[state], f"{payment}: refused as {state}, but it is {kind}")

    def _check(self, known: Known, records: Records) -> None:
        answer = known.answer
        assert answer is not None
        decided, ended = records.decided[answer["id"]], records.ended.get(answer["id"])
        request, decision = decided["request"], decided["decision"]
        said = [answer[name] for name in NEVER_CHANGES[1:]]
        stored = [request["amount_micro_usd"], decided["time_ms"], decided["hold_expires_ms"]]
        stored += [decision[name] for name in ("allowed", "code", "rule")]
        require(said == stored, f"{answer['id']}: said {said}, recorded {stored}")
        require((ended is not None) == answer["allowed"], f"{answer['id']}: its hold")
        if known.closed is not None and ended is not None:
            facts = (ENDED[known.closed["state"]], known.closed["captured"])
            facts = (*facts, known.closed["closed_ms"])
            recorded = (ended["kind"], ended["captured_micro_usd"], ended["time_ms"])
            require(facts == recorded, f"{answer['id']}: said {facts}, recorded {recorded}")

    def check_keys(self, url: str) -> None:
        """The keys lead to the payments that were answered, by the database's own rows."""
        rows = query(url, "SELECT idempotency_key, session_id, number FROM decisions")
        require(len(rows) == len(self.known), f"{len(rows)} payments, {len(self.known)} keys")
        for key, session, number in rows:
            known = self.known[key]
            assert known.answer is not None
            found = f"pay_{session.removeprefix('sess_')}_{number}"
            require(found == known.answer["id"], f"{key} leads to {found}")
