"""Holds every answer against every record, and both against what was asked and what the chain said.

It shares no code with the engine: what it knows of it are the words in its records. Everything is
done once, in order: each question has to be explained by the records it must have led to and by no
others, so that nothing can be there that nobody asked for, and nothing be missing.

    auditor.burst(questions, answers, …)     # answers None: nobody heard them
    auditor.sessions.ticked(seen)            # what expired, and what the chain changed
    auditor.end(data_file)                   # everything once more, from the file alone
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.simulation.books import HOLD_TTL_MS, Account, Books, Known, Question
from tests.simulation.log import Finding, Record, require, rows
from tests.simulation.terms import CODE, USED_UP, Spend
from tests.simulation.watch import SessionWatch

STANDING = {
    "registering": "pending",
    "active": "active",
    "expired": "active",
    "revoked": "revoked",
    "mismatch": "mismatch",
}


class Auditor:
    """See the module. `confirmations` is how many blocks make a registration count."""

    def __init__(self, confirmations: int) -> None:
        self.books = Books()
        self.sessions = SessionWatch(self.books, confirmations)

    # What the driver reports

    def burst(
        self,
        questions: Sequence[Question],
        answers: Sequence[Any] | None,
        known: Known,
        clock_ms: int,
    ) -> bool:
        """A batch of questions was asked; says whether it happened.

        Without `answers` nobody heard them, and all or none of it may have happened.
        """
        self.books.at(clock_ms)
        if answers is None:
            ours = ("payment.decided", "payment.captured", "payment.voided")
            if not any(record.kind in ours for record in self.books.log.unexplained):
                return False
            answers = [None] * len(questions)
            self.books.figures["batches that happened unheard"] += 1
        for question, answer in zip(questions, answers, strict=True):
            getattr(self, f"_{question.what}")(question, answer, known)
        return True

    def restarted(self, clock_ms: int) -> None:
        """The engine was opened again: its memory of the time is what the records say."""
        self.books.time_ms = self.books.log.time_ms
        self.books.chain_ms = (0, self.books.chain_ms[1])
        self.books.at(clock_ms)

    def end(self, data_file: Path) -> None:
        """Everything once more from the file alone."""
        require(
            not self.books.log.unexplained, "answers", "there are records that nobody asked for"
        )
        self.books.log.reread(data_file)
        spends = {
            (account.session, number): (spend.state, spend.amount)
            for account in self.books.accounts.values()
            for number, spend in account.spends.items()
        }
        sql = "SELECT session_id, number, state, amount, captured FROM decisions"
        count = 0
        for session, number, state, amount, captured in rows(data_file, sql):
            count += 1
            held = amount if state == "held" else captured
            expected = spends.get((session, number), ("denied", 0))
            require((state, held) == expected, "rows", f"{session} {number}: {state} {held}")
        require(count == self.books.figures["decisions"], "rows", f"{count} rows of decisions")
        sql = "SELECT stream, seq, event FROM outbox"
        found = {(stream, seq): event for stream, seq, event in rows(data_file, sql)}
        wrong = dict(found.items() ^ self.books.events.items())
        require(not wrong, "events", f"{len(wrong)} events too few or too many: {list(wrong)[:3]}")
        self.books.figures["records"] = len(self.books.log.leaves)

    # Questions

    def _pay(self, asked: Question, answer: Any, known: Known) -> None:
        account = self.books.accounts.get(asked.session)
        if account is None:
            _refused(answer, "session_not_found", asked)
            return
        first = account.keys.get(asked.key) if asked.key is not None else None
        if first is not None:
            self._replay(account, asked, *first, answer)
            return
        if self._chain_refuses(account, asked, answer, known):
            _refused(answer, "chain_unavailable", asked)
            self.books.figures["refused: the chain is silent"] += 1
            return
        self.books.expire_due(account)
        early = self.books.comes("payment.expired", account.session)
        require(not early, "holds", f"a hold of {account.session} expired too early")
        require(
            self.books.comes("payment.decided", account.session),
            "durability",
            f"{asked.key} was answered and no record says so",
        )
        record = self.books.take("payment.decided", account.session)
        number, body = record.seq, record.body
        require(
            body["request_digest"] == _digest(asked) and body["request"] == asked.body,
            "answers",
            f"{asked.key}: the record is of another question",
        )
        require(body["payment"] == account.payment(number), "answers", f"{body['payment']}")
        account.decisions[number] = record
        self.books.figures["decisions"] += 1
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
        low, high = self.books.chain_ms if account.on_chain else (0, 0)
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
        self.books.figures["allowed" if allowed else f"denied: {CODE[rule]}"] += 1
        if not allowed:
            require(body["hold_expires_ms"] is None, "holds", f"{where}: a hold that was denied")
            if rule in USED_UP:
                self._used_up(account, record, where)
            return
        require(decision["evidence"]["used"] == account.terms.used(), "limits", f"{where}: used")
        spend = Spend(record.time_ms, amount, request["merchant"], request["token"])
        spend.held, spend.expires_ms = amount, record.time_ms + HOLD_TTL_MS
        require(body["hold_expires_ms"] == spend.expires_ms, "holds", f"{where}: expires")
        capture = asked.memo["capture"]
        if not capture:
            self.books.tell(record, "payment.created")
        self.books.allowed(account, number, spend, capture=capture)

    def _used_up(self, account: Account, record: Record, where: str) -> None:
        """A denial for a limit says which it is, and the first instant that would allow it."""
        evidence = record.body["decision"]["evidence"]
        fields = ("limit", "used", "requested", "window_ms", "retry_at_ms")
        told = tuple(evidence[name] for name in fields)
        expected = account.terms.first_over(record.body["request"], record.body["decision"]["rule"])
        require(told == expected, "limits", f"{where}: {told} is not {expected}")
        if not account.used_up:
            self.books.tell(record, "agent.session.limit_reached")
        account.used_up = True

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
            self.books.figures["refused: key of another question"] += 1
            return
        require("error" not in answer, "key", f"{asked.key}: {answer} in place of the same answer")
        self._same(account, number, answer, "key", replayed=True)
        self.books.figures["replays"] += 1

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

    def _capture(self, asked: Question, answer: Any, known: Known) -> None:
        self._end_of("captured", asked, answer)

    def _void(self, asked: Question, answer: Any, known: Known) -> None:
        self._end_of("voided", asked, answer)

    def _end_of(self, state: str, asked: Question, answer: Any) -> None:
        account = self.books.accounts[asked.session]
        number = int(asked.payment.rpartition("_")[2])
        if number not in account.decisions:
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
        elif self.books.time_ms >= spend.expires_ms:
            _refused(answer, "payment_expired", asked)
        else:
            require(
                self.books.comes(f"payment.{state}", account.session),
                "durability",
                f"{asked.payment} was said to be {state} and no record says so",
            )
            self.books.ended(account, number, state, amount)
            if answer is not None:
                require("error" not in answer, "holds", f"{asked.payment}: {answer}")
                self._same(account, number, answer, "holds", replayed=False)

    def _remaining(self, asked: Question, answer: Any, known: Known) -> None:
        account = self.books.accounts[asked.session]
        self.books.expire_due(account)
        for window in account.terms.all_windows():
            window.slide(self.books.time_ms)
        left = account.terms.left(0, None, None)
        require(answer in (None, left), "limits", f"{asked.session}: {answer} is left, not {left}")

    # The chain

    def _chain_refuses(self, account: Account, asked: Question, answer: Any, known: Known) -> bool:
        sure = {known.read, known.fresh} if account.on_chain else {known.read}
        if False in sure:
            return True
        if None not in sure:
            return False
        if answer is not None:
            return bool(answer.get("error") == "chain_unavailable")
        digest = _digest(asked)
        return not any(
            record.kind == "payment.decided" and record.body["request_digest"] == digest
            for record in self.books.log.unexplained
        )


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
