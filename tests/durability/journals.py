"""What the workers wrote down, and whether it is the truth by the records."""

import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.durability.facts import Facts
from tests.durability.payers import Question
from tests.durability.worker import read_journal
from tests.ledger.oracle import query_each, require

ANSWER = ("amount", "decided_ms", "expires_ms", "allowed", "code", "rule")
"""What never changes of an answer, beside the payment that it is about."""
END = ("state", "captured", "closed_ms")
ENDED = ("captured", "voided", "expired")

_DOWN = re.compile(
    r"TALLYSTICK_DATABASE cannot be used|could not be made durable|the database does not answer|"
    r"store's database cannot be used: (connect|consuming|terminating|the (connection|database))|"
    r"psycopg\.(OperationalError|errors\.(AdminShutdown|CrashShutdown|CannotConnectNow))"
)
"""A database that is gone or just starts; what is wrong with its content is told otherwise."""


@dataclass
class Journals:
    """Follows the journals of a directory; every method raises `Broken`."""

    directory: Path
    facts: Facts = field(default_factory=Facts)
    figures: Counter[str] = field(default_factory=Counter)
    lives: Counter[str] = field(default_factory=Counter)
    """How many answers each life gave, by the name of its journal."""
    _read: dict[Path, int] = field(default_factory=dict)
    _over: set[Path] = field(default_factory=set)

    def follow(self) -> int:
        """Read what was added; returns how many keys have an answer."""
        for path in sorted(set(self.directory.glob("worker-*.jsonl")) - self._over):
            for end, line in read_journal(path, self._read.get(path, 0)):
                self._read[path] = end
                self._take(path.stem, line)
        return self.figures["answers"]

    def over(self, journal: Path) -> None:
        """Whoever wrote this is dead: read what is left, and look no more."""
        self.follow()
        self._over.add(journal)
        self._read.pop(journal, None)

    def heard(self, key: str, answer: dict[str, Any]) -> None:
        """An answer, whoever heard it: never another one than the first."""
        said = [answer[name] for name in ANSWER]
        if self.facts.answered(key, answer["id"], said, replayed=answer["replayed"]):
            self.figures["answers"] += 1
            self.figures["allowed" if answer["allowed"] else "denied"] += 1
        else:
            self.figures["answers again"] += 1
        if answer["state"] in ENDED:
            self.facts.closed(answer["id"], [answer[name] for name in END])

    def _take(self, life: str, line: dict[str, Any]) -> None:
        if "ask" in line:
            self.facts.asked(Question(**line["ask"]))
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
        elif "answer" in line:
            self.lives[life] += 1
            self.heard(line["key"], line["answer"])
        else:
            require("took_over" in line, f"{life}: {line}")

    def _ended(self, line: dict[str, Any]) -> None:
        if (refused := line.get("refused")) is not None:
            self.figures[f"ends refused: {refused}"] += 1
            if (state := refused.removeprefix("payment_")) in ENDED:
                self.facts.refused(line["end"], state)
            return
        ended = line["ended"]
        state, captured = ("captured", line["part"]) if line["way"] == "capture" else ("voided", 0)
        require((ended["state"], ended["captured"]) == (state, captured), f"{line}: ended so")
        self.figures[state] += not ended["replayed"]
        self.facts.closed(ended["id"], [ended[name] for name in END])

    def check_keys(self, store: Path | str) -> None:
        """The keys lead to the payments that were answered, by the database's own rows."""
        count = 0
        for key, session, number in query_each(
            store, "SELECT idempotency_key, session_id, number FROM decisions"
        ):
            found = f"pay_{session.removeprefix('sess_')}_{number}"
            said = self.facts.rows("SELECT payment FROM answered WHERE key = ?", key)
            require(said == [(found,)], f"{key} leads to {found}, not to {said}")
            count += 1
        keys = self.facts.count("asked")
        require(count == keys, f"{count} payments, {keys} keys")
