"""Holds every answer against every record, and both against what was asked and what the chain said.

It shares no code with the engine: what it knows of it are the words in its records. Everything is
done once, in order: each question has to be explained by the records it must have led to and by no
others, so that nothing can be there that nobody asked for, and nothing be missing.

    auditor.burst(questions, answers, now)   # answers None: nobody heard them
    auditor.ticked(seen)                     # what expired, and what the chain changed
    auditor.end(data_file)                   # everything once more, from the file alone
"""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from pathlib import Path
from typing import Any

from tests.simulation.log import Finding, LogFollower, Record, require, rows
from tests.simulation.terms import CODE, USED_UP, Spend, Terms

STANDING = {
    "registering": "pending",
    "active": "active",
    "expired": "active",
    "revoked": "revoked",
    "mismatch": "mismatch",
}
HOLD_TTL_MS = 900_000


@dataclass(frozen=True, slots=True)
class Question:
    """One question to the ledger. `body` is a payment's, `amount` a capture's (None: all)."""

    what: str
    session: str = ""
    key: str | None = None
    body: dict[str, Any] = field(default_factory=dict)
    memo: dict[str, Any] = field(default_factory=dict)
    payment: str = ""
    amount: int | None = None


@dataclass(frozen=True, slots=True)
class Now:
    """The clock, and how well the engine knows the chain: True, False, or None if nobody can say.

    `read` is about whether it was ever read since the start, `fresh` whether lately enough.
    """

    clock_ms: int
    read: bool | None = True
    fresh: bool | None = True


@dataclass(frozen=True, slots=True)
class Seen:
    """The chain as it is: by address the registrations, the newest block, its time, the anchors.

    `whole` says that the engine read all of it and did all that follows from it.
    """

    clock_ms: int
    whole: bool
    sessions: dict[str, dict[str, Any]]
    tip: int
    time_ms: int
    time_max_ms: int
    anchored: list[tuple[int, bytes]]
    log_size: int = 0
    log_root: bytes = b""


class Account:
    """One session by its records."""

    def __init__(self, session: str, body: dict[str, Any]) -> None:
        self.session, self.state = session, body["state"]
        self.terms, self.grant_hash = Terms(body["grant"]), body["grant_hash"]
        self.address, self.on_chain = body["grant"]["session_key"], body["mint_pkp"]
        self.decisions: list[Record] = []
        self.spends: dict[int, Spend] = {}
        self.due: list[tuple[int, int]] = []
        self.keys: dict[str, tuple[int, Question]] = {}
        self.revoked_on_chain = False
        self.used_up = False

    def payment(self, number: int) -> str:
        return f"pay_{self.session.removeprefix('sess_')}_{number}"


class Auditor:
    """See the module. `confirmations` is how many blocks make a registration count."""

    def __init__(self, confirmations: int) -> None:
        self.log = LogFollower()
        self.accounts: dict[str, Account] = {}
        self.figures: Counter[str] = Counter()
        self._confirmations = confirmations
        self._time_ms = 0
        self._chain_ms = (0, 0)
        self._events: dict[tuple[str, int], str] = {}

    # What the driver reports

    def burst(self, questions: Sequence[Question], answers: Sequence[Any] | None, now: Now) -> bool:
        """A batch of questions was asked; says whether it happened.

        Without `answers` nobody heard them, and all or none of it may have happened.
        """
        self._at(now.clock_ms)
        if answers is None:
            ours = ("payment.decided", "payment.captured", "payment.voided")
            if not any(record.kind in ours for record in self.log.unexplained):
                return False
            answers = [None] * len(questions)
            self.figures["batches that happened unheard"] += 1
        for question, answer in zip(questions, answers, strict=True):
            getattr(self, f"_{question.what}")(question, answer, now)
        return True

    def created(self, asked: dict[str, Any], session: str | None, clock_ms: int) -> str | None:
        """A session was asked for; `session` is its id if that was heard. Returns its id."""
        self._at(clock_ms)
        if self._next("agent.registered"):  # beside the first of its sessions
            self._take("agent.registered", None)
        if session is None and not self._next("session.created"):
            return None
        record = self._take("session.created", session)
        grant = record.body["grant"]
        for name, value in asked.items():
            require(grant[name] == value, "parameters", f"{name} is {grant[name]}, not {value}")
        require(
            record.body["state"] == ("registering" if record.body["mint_pkp"] else "active"),
            "registration",
            f"{record.stream} begins {record.body['state']}",
        )
        self.accounts[record.stream] = Account(record.stream, record.body)
        self._tell(record, "agent.session.created")
        self.figures["sessions"] += 1
        return record.stream

    def revoked(self, session: str, heard: bool, clock_ms: int) -> None:
        """An operator asked for the end of a session."""
        self._at(clock_ms)
        account = self.accounts[session]
        if account.state == "revoked":
            return
        if heard:
            require(
                self._next("session.revoked", session),
                "revocation",
                f"{session} was said to be revoked, and no record says so",
            )
        elif not self._next("session.revoked", session):
            return
        self._moved(self._take("session.revoked", session), account, None)

    def ticked(self, seen: Seen) -> None:
        """The engine looked after what is due and read the chain."""
        self._at(seen.clock_ms)
        if seen.whole:
            self._chain_ms = (seen.time_ms, self._chain_ms[1])
        ended = max(
            (a.terms.until_ms for a in self.accounts.values() if a.state == "expired"), default=0
        )
        self._chain_ms = (self._chain_ms[0], max(seen.time_max_ms, ended))
        while self.log.unexplained:
            record = self.log.unexplained[0]
            account = self.accounts.get(record.stream)
            require(account is not None, "answers", f"nobody asked for {record}")
            if record.kind == "payment.expired":
                self._expired(account)
            else:
                self._moved(self._take(record.kind, record.stream), account, seen)
        if seen.whole:
            self._all_followed(seen)

    def restarted(self, clock_ms: int) -> None:
        """The engine was opened again: its memory of the time is what the records say."""
        self._time_ms = self.log.time_ms
        self._chain_ms = (0, self._chain_ms[1])
        self._at(clock_ms)

    def end(self, data_file: Path) -> None:
        """Everything once more from the file alone."""
        require(not self.log.unexplained, "answers", "there are records that nobody asked for")
        self.log.reread(data_file)
        spends = {
            (account.session, number): (spend.state, spend.amount)
            for account in self.accounts.values()
            for number, spend in account.spends.items()
        }
        sql = "SELECT session_id, number, state, amount, captured FROM decisions"
        count = 0
        for session, number, state, amount, captured in rows(data_file, sql):
            count += 1
            held = amount if state == "held" else captured
            expected = spends.get((session, number), ("denied", 0))
            require((state, held) == expected, "rows", f"{session} {number}: {state} {held}")
        require(count == self.figures["decisions"], "rows", f"{count} rows of decisions")
        sql = "SELECT stream, seq, event FROM outbox"
        found = {(stream, seq): event for stream, seq, event in rows(data_file, sql)}
        wrong = dict(found.items() ^ self._events.items())
        require(not wrong, "events", f"{len(wrong)} events too few or too many: {list(wrong)[:3]}")
        self.figures["records"] = len(self.log.leaves)

    # Questions

    def _pay(self, asked: Question, answer: Any, now: Now) -> None:
        account = self.accounts.get(asked.session)
        if account is None:
            _refused(answer, "session_not_found", asked)
            return
        known = account.keys.get(asked.key) if asked.key is not None else None
        if known is not None:
            self._replay(account, asked, *known, answer)
            return
        if self._chain_refuses(account, asked, answer, now):
            _refused(answer, "chain_unavailable", asked)
            self.figures["refused: the chain is silent"] += 1
            return
        self._expire_due(account)
        early = self._next("payment.expired", account.session)
        require(not early, "holds", f"a hold of {account.session} expired too early")
        require(
            self._next("payment.decided", account.session),
            "durability",
            f"{asked.key} was answered and no record says so",
        )
        record = self._take("payment.decided", account.session)
        number = len(account.decisions)
        body = record.body
        require(
            body["request_digest"] == _digest(asked) and body["request"] == asked.body,
            "answers",
            f"{asked.key}: the record is of another question",
        )
        require(body["payment"] == account.payment(number), "answers", f"{body['payment']}")
        account.decisions.append(record)
        self.figures["decisions"] += 1
        if asked.key is not None:
            account.keys[asked.key] = number, asked
        self._decided(account, number, record, asked)
        if answer is not None:
            require("error" not in answer, "answers", f"{asked.key}: {answer}, but it was decided")
            self._same(account, number, answer, "durability", replayed=False)

    def _decided(self, account: Account, number: int, record: Record, asked: Question) -> None:
        """The decision is what the grant and all before it make it."""
        body, decision = record.body, record.body["decision"]
        request, chain_ms = body["request"], body["chain_time_ms"]
        where = f"{body['payment']} at {record.time_ms}"
        standing = STANDING[account.state]
        low, high = self._chain_ms if account.on_chain else (0, 0)
        require(low <= chain_ms <= high, "chain time", f"{where}: {chain_ms} is not {low}..{high}")
        rule = account.terms.verdict(standing, record.time_ms, chain_ms, request)
        told = decision["rule"]
        if rule != told:
            require("revoked" not in (rule, told), "revocation", f"{where}: {told}, not {rule}")
            promise = "limits" if {rule, told} & USED_UP else "rules"
            raise Finding(promise, f"{where}: {told}, but it is {rule}")
        allowed = rule == "all"
        require((decision["code"], decision["allowed"]) == (CODE[rule], allowed), "rules", where)
        require(body["standing"] == standing, "rules", f"{where}: {body['standing']}")
        require(body["grant_hash"] == account.grant_hash, "parameters", where)
        amount = request["amount_micro_usd"]
        left = account.terms.left(amount if allowed else 0, request["token"], request["merchant"])
        require(
            decision["remaining"] == left, "limits", f"{where}: {decision['remaining']}, {left}"
        )
        self.figures["allowed" if allowed else f"denied: {CODE[rule]}"] += 1
        if not allowed:
            require(body["hold_expires_ms"] is None, "holds", f"{where}: a hold that was denied")
            if rule in USED_UP and not account.used_up:
                self._tell(record, "agent.session.limit_reached")
                account.used_up = True
            return
        require(decision["evidence"]["used"] == account.terms.used(), "limits", f"{where}: used")
        spend = Spend(record.time_ms, amount, request["merchant"], request["token"])
        spend.held, spend.expires_ms = amount, record.time_ms + HOLD_TTL_MS
        require(body["hold_expires_ms"] == spend.expires_ms, "holds", f"{where}: expires")
        account.terms.add(spend)
        account.spends[number] = spend
        account.used_up = False
        if asked.memo["capture"]:
            self._ended(account, number, "captured", amount)
        else:
            heappush(account.due, (spend.expires_ms, number))
            self._tell(record, "payment.created")

    def _replay(
        self, account: Account, asked: Question, number: int, first: Question, answer: Any
    ) -> None:
        """The same question has the same answer, another one with its key has none."""
        differs = sorted(
            name
            for name in {**asked.body, **asked.memo}
            if name != "token_priced"
            and {**asked.body, **asked.memo}[name] != {**first.body, **first.memo}[name]
        )
        if answer is None:
            return
        if differs:
            _refused(answer, "idempotency_key_reused", asked)
            require(answer["field"] == differs[0], "key", f"{asked.key}: {answer['field']} differs")
            self.figures["refused: key of another question"] += 1
            return
        require("error" not in answer, "key", f"{asked.key}: {answer} in place of the same answer")
        self._same(account, number, answer, "key", replayed=True)
        self.figures["replays"] += 1

    def _same(
        self, account: Account, number: int, answer: Any, promise: str, *, replayed: bool
    ) -> None:
        record, spend = account.decisions[number], account.spends.get(number)
        state = "denied" if spend is None else spend.state
        captured = 0 if spend is None or state != "captured" else spend.amount
        expected = {
            "id": account.payment(number),
            "decision": record.body["decision"],
            "state": state,
            "captured": captured,
            "decided_ms": record.time_ms,
            "replayed": replayed,
        }
        if answer != expected:
            wrong = {name: answer[name] for name in expected if answer[name] != expected[name]}
            raise Finding(promise, f"{expected['id']} ({state}): the answer says {wrong}")

    def _capture(self, asked: Question, answer: Any, now: Now) -> None:
        self._end_of("captured", asked, answer)

    def _void(self, asked: Question, answer: Any, now: Now) -> None:
        self._end_of("voided", asked, answer)

    def _end_of(self, state: str, asked: Question, answer: Any) -> None:
        account = self.accounts[asked.session]
        number = int(asked.payment.rpartition("_")[2])
        if number >= len(account.decisions):
            _refused(answer, "payment_not_found", asked)
            return
        spend = account.spends.get(number)
        before = "denied" if spend is None else spend.state
        if spend is None or before != "held":
            counts = 0 if spend is None else spend.amount
            full = account.decisions[number].body["request"]["amount_micro_usd"]
            wanted = (full if asked.amount is None else asked.amount) if state == "captured" else 0
            if before != state or counts != wanted:
                _refused(answer, f"payment_{before}", asked)
            elif answer is not None:
                self._same(account, number, answer, "holds", replayed=True)
            return
        amount = spend.held if asked.amount is None else asked.amount
        if state == "voided":
            amount = 0
        if amount > spend.held:
            _refused(answer, "invalid_parameter", asked)
        elif self._time_ms >= spend.expires_ms:
            _refused(answer, "payment_expired", asked)
        else:
            require(
                self._next(f"payment.{state}", account.session),
                "durability",
                f"{asked.payment} was said to be {state} and no record says so",
            )
            self._ended(account, number, state, amount)
            if answer is not None:
                require("error" not in answer, "holds", f"{asked.payment}: {answer}")
                self._same(account, number, answer, "holds", replayed=False)

    def _remaining(self, asked: Question, answer: Any, now: Now) -> None:
        account = self.accounts[asked.session]
        self._expire_due(account)
        for window in account.terms.all_windows():
            window.slide(self._time_ms)
        left = account.terms.left(0, None, None)
        require(answer in (None, left), "limits", f"{asked.session}: {answer} is left, not {left}")

    # Holds

    def _ended(self, account: Account, number: int, state: str, amount: int) -> None:
        record = self._take(f"payment.{state}", account.session)
        spend, payment = account.spends[number], account.payment(number)
        late = record.time_ms >= spend.expires_ms
        require(spend.state == "held", "holds", f"{payment} was {spend.state} before")
        require(late == (state == "expired"), "holds", f"{payment} {state} at {record.time_ms}")
        require(
            record.body
            == {"payment": payment, "held_micro_usd": spend.held, "captured_micro_usd": amount},
            "holds",
            f"{record.body} is not {payment} {state} of {amount}",
        )
        account.terms.reduce(spend, amount, record.time_ms)
        spend.state = state
        account.used_up = False
        self._tell(record, "payment.confirmed" if state == "captured" else f"payment.{state}")
        self.figures[state] += 1

    def _expire_due(self, account: Account) -> None:
        """Whoever asks a session anything finds its holds expired that are over."""
        while account.due and account.due[0][0] <= self._time_ms:
            _, number = heappop(account.due)
            if account.spends[number].state == "held":
                require(
                    self._next("payment.expired", account.session),
                    "holds",
                    f"{account.payment(number)} is over and did not expire",
                )
                self._ended(account, number, "expired", 0)

    def _expired(self, account: Account) -> None:
        while account.due and account.spends[account.due[0][1]].state != "held":
            heappop(account.due)
        over = account.due and account.due[0][0] <= self._time_ms
        require(bool(over), "holds", f"a hold of {account.session} expired too early")
        self._ended(account, heappop(account.due)[1], "expired", 0)

    # The chain

    def _chain_refuses(self, account: Account, asked: Question, answer: Any, now: Now) -> bool:
        sure = {now.read, now.fresh} if account.on_chain else {now.read}
        if False in sure:
            return True
        if None not in sure:
            return False
        if answer is not None:
            return bool(answer.get("error") == "chain_unavailable")
        digest = _digest(asked)
        return not any(
            record.kind == "payment.decided" and record.body["request_digest"] == digest
            for record in self.log.unexplained
        )

    def _moved(self, record: Record, account: Account, seen: Seen | None) -> None:
        """A session changed its state, for a reason that the chain or a clock gives."""
        kind, state = record.kind.partition(".")[2], record.body["state"]
        found = None if seen is None else seen.sessions.get(account.address)
        where = f"{account.session} {kind} at {record.time_ms}"
        if kind == "revoked":
            by_chain = record.body["by"] == "chain"
            told = by_chain == (seen is not None) and (not by_chain or (found or {}).get("revoked"))
            require(bool(told) and state == "revoked", "revocation", where)
        else:
            require(account.state != "revoked", "revocation", f"{where}: it was revoked")
            self._check_move(kind, state, where, account, found, seen)
        if kind in ("revoked", "expired"):
            self._tell(record, f"agent.session.{kind}")
        account.state = state
        self.figures[f"sessions {kind}"] += 1

    def _check_move(
        self, kind: str, state: str, where: str, account: Account, found: Any, seen: Seen | None
    ) -> None:
        ours = found is not None and found["grant_hash"] == account.grant_hash
        if kind == "registered":
            deep = ours and seen is not None and found["block"] + self._confirmations <= seen.tip
            require(deep and state == "active", "registration", f"{where}: {found}")
        elif kind == "unregistered":
            require(found is None and state == "registering", "registration", f"{where}: {found}")
        elif kind == "mismatched":
            wrong = found is not None and not ours and state == "mismatch"
            require(wrong, "registration", f"{where}: {found}")
        else:
            now_ms = max(self._time_ms, self._chain_ms[1] if account.on_chain else 0)
            over = kind == "expired" and account.terms.until_ms <= now_ms
            require(over and state == "expired", "expiry", where)

    def _all_followed(self, seen: Seen) -> None:
        """After a whole look at the chain every session is as the chain has it."""
        for account in self.accounts.values():
            found, where = seen.sessions.get(account.address), f"{account.session} {account.state}"
            now_ms = max(self._time_ms, seen.time_ms if account.on_chain else 0)
            if account.terms.until_ms <= now_ms:
                over = ("expired", "revoked", "mismatch")
                require(account.state in over, "expiry", f"{where} though it is over")
            open_due = [d for d in account.due if account.spends[d[1]].state == "held"]
            if open_due:
                require(min(open_due)[0] > self._time_ms, "holds", f"{where}: one did not expire")
            account.due = sorted(open_due)
            if not account.on_chain:
                continue
            if found is not None and found["revoked"]:
                require(account.state == "revoked", "revocation", f"{where}: the chain revoked it")
            elif found is None:
                require(account.state not in ("active", "mismatch"), "registration", where)
            elif found["grant_hash"] != account.grant_hash:
                require(account.state != "active", "registration", f"{where}: a wrong grant")
            elif found["block"] + self._confirmations <= seen.tip:
                require(account.state in ("active", "expired", "revoked"), "registration", where)
        root = self.log.roots.get(seen.log_size)
        require(root == seen.log_root, "roots", f"the log's root at size {seen.log_size}")
        for size, anchored in seen.anchored:
            require(self.log.roots.get(size) == anchored, "roots", f"the anchor of size {size}")
        self.figures["roots compared"] += 1 + len(seen.anchored)

    # Small things

    def _at(self, clock_ms: int) -> None:
        self._time_ms = max(self._time_ms, clock_ms)

    def _next(self, kind: str, session: str | None = None) -> bool:
        if not self.log.unexplained:
            return False
        record = self.log.unexplained[0]
        return record.kind == kind and session in (None, record.stream)

    def _take(self, kind: str, session: str | None) -> Record:
        require(bool(self.log.unexplained), "durability", f"no record of {kind} for {session}")
        record = self.log.unexplained.popleft()
        found = (record.kind, record.stream if session is not None else None)
        require(found == (kind, session), "answers", f"{found} in place of {(kind, session)}")
        require(
            record.time_ms == self._time_ms,
            "time",
            f"{kind} of {record.stream} is of {record.time_ms}, not of {self._time_ms}",
        )
        return record

    def _tell(self, record: Record, event: str) -> None:
        self._events[record.stream, record.seq] = event


def _refused(answer: Any, code: str, asked: Question) -> None:
    if answer is None:
        return
    promise = "key" if code == "idempotency_key_reused" else "answers"
    require(answer.get("error") == code, promise, f"{asked}: {answer}, but it is {code}")


def _digest(asked: Question) -> str:
    return hashlib.sha256(_canonical(asked.body) + _canonical(asked.memo)).hexdigest()


def _canonical(value: dict[str, Any]) -> bytes:
    """RFC 8785 for ASCII keys and integers."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
