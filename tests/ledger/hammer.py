"""Pays over HTTP from several threads, kills the server again and again, and checks every answer.

    scripts/hammer-kill --seed 7 --kills 100

After every restart: what was acknowledged is found by its key with the same answer; the records
re-hash to every signed root; no limit was exceeded at any instant, by the records and by what the
callers were told; what remains is what is left by the records; and the evidence verifies.
"""

import argparse
import json
import random
import secrets
import sys
import tempfile
import threading
import time
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx

from tests.ledger.oracle import query, require
from tests.ledger.recheck import OPERATOR, Asked, Recheck, Session, check_history, micro, read
from tests.ledger.served import HOLD_TTL_S, Served

WALLET = "0x" + "11" * 20
CALLERS = 6
SESSIONS_KEPT = 4
ACKNOWLEDGED_BEFORE_KILL_MAX = 120
KILLED_WHILE_STARTING = 0.2
KILLED_AFTER_MAX_S = 0.03
OLD_ANSWERS_ASKED_AGAIN = 40


class Hammer:
    """One run."""

    def __init__(self, directory: Path, *, seed: int, kills: int, verify_every: int) -> None:
        self.directory = directory
        self.seed, self.kills, self.verify_every = seed, kills, verify_every
        self.random = random.Random(seed)
        self.figures: Counter[str] = Counter()
        self.recheck = Recheck(directory / "ledger.sqlite3", self.figures)
        self.on_chain: list[Session] = []
        self.sessions: list[Session] = []
        self.asked: list[Asked] = []
        self.failures: list[str] = []
        self.lock = threading.Lock()
        self.serving, self.enough = threading.Event(), threading.Event()
        self.target = 0
        self.stopping = self.given_up = False
        self.server = Served(directory)

    def run(self) -> dict[str, Any]:
        """All kills and checks; returns the figures.

        Raises:
            Broken: naming the first promise that does not hold.
        """
        started = time.monotonic()
        self.server.ready()
        self.on_chain = [self.create(per_day=2000 * self.kills, on_chain=True) for _ in range(2)]
        threads = [threading.Thread(target=self.call, args=(n,)) for n in range(CALLERS)]
        for thread in threads:
            thread.start()
        try:
            for kill in range(self.kills):
                known = len(self.asked)
                self.load_then_kill()
                self.restart()
                old = self.random.sample(self.asked[:known], min(known, OLD_ANSWERS_ASKED_AGAIN))
                self.check([*old, *self.asked[known:]])
                if kill % self.verify_every == 0:
                    self.recheck.evidence(self.server, self.random.choice(self.on_chain))
            self.load()
        except BaseException:
            self.given_up = True  # or a caller would insist for ever
            raise
        finally:
            self.stopping = True
            self.serving.set()
            for thread in threads:
                thread.join()
        self.finish()
        self.figures["seconds"] = round(time.monotonic() - started)
        return {"seed": self.seed, "kills": self.kills, **dict(sorted(self.figures.items()))}

    def check(self, answers: list[Asked]) -> None:
        """Everything that must hold after a restart; only `answers` are asked for again."""
        self.recheck.log()
        self.recheck.answers(self.server, answers)
        self.recheck.remaining(self.server, [*self.sessions[-SESSIONS_KEPT:], *self.on_chain])

    def finish(self) -> None:
        """Everything that must hold in the end, when nobody asks and no hold is open any more."""
        require(not self.failures, "; ".join(self.failures))
        data_file = self.recheck.data_file
        deadline = time.monotonic() + HOLD_TTL_S + 30
        while query(data_file, "SELECT 1 FROM decisions WHERE state = 'held' LIMIT 1"):
            require(time.monotonic() < deadline, "every hold ends")
            time.sleep(0.05)
        self.check(self.asked)
        check_history(self.asked)
        records = self.recheck.records
        require(len(records.decided) == len(self.asked), "one decision for each key, no other")
        known = {asked.answer["id"] for asked in self.asked}
        require(known == records.decided.keys(), "every decision is known to its caller")
        allowed = {name for name, body in records.decided.items() if body["decision"]["allowed"]}
        require(records.ended.keys() == allowed, "every hold has ended")
        response = httpx.post(
            self.server.url + "/api/v1/log/anchor", headers=OPERATOR, timeout=60, trust_env=False
        )
        require(response.json()["anchor"]["state"] == "final", response.text)
        for session in self.on_chain:
            require(self.recheck.evidence(self.server, session) == 0, "all of it is anchored")
        require(self.server.stop() == 0, "the server stops when asked")
        integrity = query(data_file, "PRAGMA integrity_check")
        require(integrity == [("ok",)], f"the file is whole: {integrity}")
        self.figures["error lines of the server"] = len(self.server.complaints())

    # The load

    def call(self, number: int) -> None:
        """One caller: pays, holds, captures and voids until told to stop."""
        choose = random.Random(f"{self.seed}/{number}")
        with httpx.Client(trust_env=False, timeout=30) as client:
            turn = 0
            while self.serving.wait() and not self.stopping:
                turn += 1
                try:
                    self.pay(client, choose, f"{number}-{turn}")
                except AssertionError as broken:
                    self.failures.append(str(broken))
                    self.enough.set()
                    return

    def pay(self, client: httpx.Client, choose: random.Random, key: str) -> None:
        session = choose.choice([*self.sessions[-SESSIONS_KEPT:], *self.on_chain])
        hold = choose.random() < 0.6
        amount = f"{choose.randint(1, 500)}.{choose.randint(0, 99):02}"
        body = {
            "amount": amount,
            "capture_method": "manual" if hold else "automatic",
            "description": key,
        }
        asked = Asked(session, key, body)
        response = self.insist(client, "/api/v1/payments", session, body, key)
        require(response.status_code in (201, 402), f"{key}: {response.status_code}")
        asked.status, asked.answer = response.status_code, read(response)
        allowed = asked.answer["decision"]["allowed"]
        require(allowed == (response.status_code == 201), f"{key}: allowed is {allowed}")
        require(micro(asked.answer["amount_usd"]) == micro(amount), f"{key}: another amount")
        self.acknowledged(asked)
        fate = choose.random()
        if not (hold and allowed) or fate < 0.25:
            return  # left to expire
        path = f"/api/v1/payments/{asked.answer['id']}"
        if fate < 0.5:
            response = self.insist(client, f"{path}/void", session, None)
        else:
            part = f"{Decimal(amount) * choose.randint(1, 100) / 100:.2f}"
            capture = {"amount": part if fate < 0.75 and Decimal(part) else amount}
            response = self.insist(client, f"{path}/capture", session, capture)
        answer = read(response)
        late = response.status_code == 409 and answer["code"] == "payment_expired"
        require(late or response.status_code == 200, f"{key}: {response.status_code} {answer}")
        asked.end = {"state": "expired"} if late else answer
        self.figures["ended late" if late else f"ended {answer['state']}"] += 1

    def insist(
        self,
        client: httpx.Client,
        path: str,
        session: Session,
        body: dict[str, Any] | None,
        key: str | None = None,
    ) -> httpx.Response:
        """Ask until there is an answer, however often the server dies meanwhile."""
        headers = {"X-Session-Token": session.token, **({"Idempotency-Key": key} if key else {})}
        unknown = False
        while True:
            self.serving.wait()
            require(not self.given_up, f"{path} {key}: no answer")
            try:
                response = client.post(self.server.url + path, json=body, headers=headers)
            except httpx.TransportError:
                unknown = True
                continue
            if response.status_code != 503:
                break
        with self.lock:
            replayed = response.headers.get("Idempotent-Replayed") == "true"
            self.figures["unknown outcomes"] += unknown
            self.figures["unknown outcomes that had happened"] += unknown and replayed
        require(unknown or not replayed, f"{path} {key}: a replay of nothing")
        return response

    def acknowledged(self, asked: Asked) -> None:
        with self.lock:
            self.asked.append(asked)
            self.figures["acknowledged"] += 1
            self.figures["allowed" if asked.status == 201 else "denied"] += 1
            self.target -= 1
            if self.target <= 0:
                self.enough.set()

    # The kills

    def load(self) -> None:
        """Let the callers go until some number of answers was given."""
        self.sessions.append(self.create(per_day=self.random.randint(200, 4000)))
        self.target = self.random.randint(1, ACKNOWLEDGED_BEFORE_KILL_MAX)
        self.enough.clear()
        self.serving.set()
        require(self.enough.wait(60), "the server answers")

    def load_then_kill(self) -> None:
        """Kill the server under load, at some moment after some answers."""
        self.load()
        time.sleep(self.random.uniform(0, KILLED_AFTER_MAX_S))
        self.server.kill()
        self.serving.clear()
        require(not self.failures, "; ".join(self.failures))

    def restart(self) -> None:
        """Start again, sometimes after more kills while it was starting."""
        while True:
            self.server = Served(self.directory)
            if self.random.random() >= KILLED_WHILE_STARTING:
                break
            time.sleep(self.random.uniform(0, 2.5))
            self.server.kill()
            self.figures["kills while starting"] += 1
        started = time.monotonic()
        self.server.ready()
        taken_ms = round((time.monotonic() - started) * 1000)
        self.figures["slowest start ms"] = max(taken_ms, self.figures["slowest start ms"])

    def create(self, *, per_day: int, on_chain: bool = False) -> Session:
        """A session; its day is tight, its week and month a little more."""
        dollars = {"per_transaction": 450, "per_day": per_day, "per_week": per_day + 100}
        dollars["per_month"] = per_day + 50
        limits = {f"max_{name}": dollars[name] for name in dollars}
        body = {
            "agent_id": "hammer",
            "user_wallet": WALLET,
            "limits": {**limits, "require_approval_above": 400},
            "mint_pkp": on_chain,
        }
        response = httpx.post(
            self.server.url + "/api/v1/ai/sessions",
            json=body,
            headers=OPERATOR,
            timeout=30,
            trust_env=False,
        )
        require(response.status_code == 201, response.text)
        made = response.json()
        require(made["status"] == "active", f"the session is {made['status']}")
        in_micro = {name: amount * 1_000_000 for name, amount in dollars.items()}
        return Session(made["id"], made["session_token"], in_micro)


def main() -> int:
    """Parse the arguments and run."""
    parser = argparse.ArgumentParser(description="Kill a paying server and check what it said.")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**9))
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--verify-every", type=int, default=1, help="evidence: every so many kills")
    arguments = parser.parse_args()
    say = sys.stdout.write
    say(f"seed {arguments.seed}\n")
    sys.stdout.flush()
    with tempfile.TemporaryDirectory(prefix="tallystick-hammer-") as directory:
        hammer = Hammer(Path(directory) / "data", **vars(arguments))
        try:
            figures = hammer.run()
        finally:
            hammer.server.kill()
    say(json.dumps(figures, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
