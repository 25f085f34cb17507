"""What must hold of a server that was killed, seen from outside: by its answers and its records."""

import json
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx

from tests.audit import rfc6962
from tests.ledger.oracle import WINDOWS_MS, Records, query, read_records, require
from tests.ledger.served import ADMIN_KEY, Served, verify

OPERATOR = {"Authorization": f"Bearer {ADMIN_KEY}"}


@dataclass
class Session:
    """A session as its creator knows it; limits in micro-USD."""

    id: str
    token: str
    limits: dict[str, int]


@dataclass
class Asked:
    """A payment that was asked for, what was answered, and how its hold ended as far as known."""

    session: Session
    key: str
    body: dict[str, Any]
    status: int = 0
    answer: dict[str, Any] = field(default_factory=dict)
    end: dict[str, Any] | None = None


def read(response: httpx.Response) -> Any:
    """The body of an answer, with decimals for its numbers."""
    return json.loads(response.text, parse_float=Decimal)


def micro(dollars: Any) -> int:
    """Micro-USD of a number or a text in dollars."""
    return int(Decimal(dollars) * 1_000_000)


def milliseconds(text: str) -> int:
    """The instant of an ISO 8601 text."""
    return round(datetime.fromisoformat(text).timestamp() * 1000)


class Recheck:
    """Follows one data file through all restarts; every method raises `Broken`."""

    def __init__(self, data_file: Path, figures: Counter[str]) -> None:
        self.data_file = data_file
        self.figures = figures
        self.records = Records()

    def log(self) -> None:
        """No record was changed or lost; every signed root is that of the records (RFC 6962)."""
        self.records.feed(read_records(self.data_file))
        subtrees = rfc6962.subtrees(self.records.leaves)
        checkpoints = query(self.data_file, "SELECT size, root FROM checkpoints")
        for size, root in checkpoints:
            require(size <= len(self.records.leaves), f"the records end before size {size}")
            require(rfc6962.root(subtrees, size) == root, f"the root at size {size} is another")
        self.figures["records"] = len(self.records.leaves)
        self.figures["checkpoints"] = len(checkpoints)

    def answers(self, server: Served, answers: Sequence[Asked]) -> None:
        """What was acknowledged is found by its key, with the same answer, and is in the log."""
        with httpx.Client(base_url=server.url, trust_env=False, timeout=30) as client:
            for asked in answers:
                self._answer(client, asked)
        self.figures["answers asked for again"] += len(answers)

    def _answer(self, client: httpx.Client, asked: Asked) -> None:
        headers = {"X-Session-Token": asked.session.token, "Idempotency-Key": asked.key}
        response = client.post("/api/v1/payments", json=asked.body, headers=headers)
        again, first = read(response), asked.answer
        require(response.status_code == asked.status, f"{asked.key}: {response.status_code}")
        require(response.headers.get("Idempotent-Replayed") == "true", f"{asked.key}: not a replay")
        for name in ("id", "decision", "amount_usd", "created_at", "expires_at", "description"):
            require(again[name] == first[name], f"{asked.key}: {name} was {first[name]}")
        if asked.end is not None:
            for name in asked.end.keys() & {"state", "captured_usd", "closed_at"}:
                require(again[name] == asked.end[name], f"{asked.key}: {name} was {asked.end}")
        elif first["state"] != "held":
            require(again["state"] == first["state"], f"{asked.key}: was {first['state']}")
        decided = self.records.decided[first["id"]]
        facts = (decided["time_ms"], decided["request"]["amount_micro_usd"])
        require(
            facts == (milliseconds(first["created_at"]), micro(first["amount_usd"])),
            f"{asked.key}: the record says {facts}",
        )
        require(decided["decision"]["code"] == first["decision"]["code"], f"{asked.key}: code")

    def remaining(self, server: Served, sessions: Iterable[Session]) -> None:
        """What the server says is left is what the records leave."""
        with httpx.Client(base_url=server.url, trust_env=False, timeout=30) as client:
            for session in sessions:
                self._remaining(client, session)

    def _remaining(self, client: httpx.Client, session: Session) -> None:
        names = {
            "per_day": "remaining_today",
            "per_week": "remaining_this_week",
            "per_month": "remaining_this_month",
        }
        for _ in range(50):
            self.records.feed(read_records(self.data_file))
            size = len(self.records.leaves)
            response = client.get(f"/api/v1/ai/sessions/{session.id}", headers=OPERATOR)
            shown = read(response)
            self.records.feed(read_records(self.data_file, size))
            if len(self.records.leaves) == size:  # nothing happened between, such as an expiry
                break
        budget = self.records.budgets[session.id]
        require(
            {name: budget.limits[name] for name in session.limits} == session.limits,
            f"{session.id}: limits",
        )
        # All of a run is younger than the shortest window, so nothing has left any since then.
        left = budget.remaining(max((s.decided_ms for s in budget.spends.values()), default=0))
        said = {name: micro(shown[names[name]]) for name in names}
        require(said == left, f"{session.id}: {said} is left, by the records {left}")

    def evidence(self, server: Served, session: Session) -> int:
        """The evidence of a session verifies; 0, or 3 if and only if it has a tail."""
        path = f"{server.url}/api/v1/sessions/{session.id}/evidence"
        response = httpx.get(path, headers=OPERATOR, timeout=30, trust_env=False)
        require(response.status_code == 200, response.text)
        with tempfile.TemporaryDirectory() as directory:
            file = Path(directory) / "evidence.json"
            file.write_bytes(response.content)
            status = verify(file, server)
        require((status == 3) == bool(response.json()["tail"]), f"verify says {status}")
        self.figures[f"verified with status {status}"] += 1
        return status


def check_history(answers: Iterable[Asked]) -> None:
    """By what the callers were told alone: no session was ever over a limit.

    Every payment here is younger than the shortest window, so what counts at an instant is what was
    allowed up to then. Where an end is unknown or in the same millisecond it is taken for the best:
    what is over the limit by this sum was over it for certain.
    """
    changes: dict[str, list[tuple[int, int]]] = {}
    limits: dict[str, int] = {}
    for asked in answers:
        if asked.status != 201:
            continue
        amount, at_ms = micro(asked.answer["amount_usd"]), milliseconds(asked.answer["created_at"])
        limits[asked.session.id] = min(asked.session.limits[window] for window in WINDOWS_MS)
        found = changes.setdefault(asked.session.id, [])
        found.append((at_ms, amount))
        if asked.body["capture_method"] == "automatic":
            continue
        ended = asked.end or {"state": "expired"}
        if ended["state"] == "expired":
            found.append((milliseconds(asked.answer["expires_at"]), -amount))
        else:
            freed = amount - micro(ended["captured_usd"])
            found.append((milliseconds(ended["closed_at"]), -freed))
    for session, found in changes.items():
        used = 0
        for at_ms, change in sorted(found):  # what frees comes before what takes
            used += change
            require(used <= limits[session], f"{session}: {used} used at {at_ms}")
