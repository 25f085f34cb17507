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

from tests.simulation.approving import Approval, Approvals
from tests.simulation.books import HOLD_TTL_MS, WORKSPACE, Account, Books, Known, Question
from tests.simulation.log import Finding, Record, require, rows
from tests.simulation.terms import BUDGETS, CODE, USED_UP, Spend
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
        self.approvals = Approvals(self.books)
        self.sessions = SessionWatch(self.books, self.approvals, confirmations)

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
        approvals = {
            (session, approval.number): approval.state
            for session, account in self.books.accounts.items()
            for approval in account.approvals.values()
        }
        sql = "SELECT session_id, number, state FROM approvals"
        stored = {(session, number): state for session, number, state in rows(data_file, sql)}
        require(stored == approvals, "rows", f"approvals {stored.items() ^ approvals.items()}")
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
        self._end_due(account)
        early = self.books.comes("payment.expired", account.session)
        require(not early, "holds", f"a hold of {account.session} expired too early")
        require(
            self.books.comes("payment.decided", account.session),
            "durability",
            f"{asked.key} was answered and no record says so",
        )
        number = self._decided(account, asked, None)
        if asked.key is not None:
            account.keys[asked.key] = number, asked
        if answer is not None:
            require("error" not in answer, "answers", f"{asked.key}: {answer}, but it was decided")
            self._same(account, number, answer, "durability", replayed=False)

    def _end_due(self, account: Account) -> None:
        self.approvals.end_due(account)
        self.books.expire_due(account)

    def _decided(self, account: Account, asked: Question, approved: str | None) -> int:
        """A payment is decided, with an approval if one was granted; returns its number."""
        record = self.books.take("payment.decided", account.session)
        number, body = record.seq, record.body
        digest = _digest(asked)
        require(
            body["request_digest"] == digest and body["request"] == asked.body,
            "answers",
            f"{asked.key}: the record is of another question",
        )
        require(body["payment"] == account.payment(number), "answers", f"{body['payment']}")
        account.decisions[number] = record
        self.books.figures["decisions"] += 1
        rule = self._judged(account, number, record, asked, approved)
        if rule == "approval_above":
            approved = self.approvals.named(account, digest, number)
        require(body["approval"] == approved, "approvals", f"{body['approval']}, not {approved}")
        if rule == "approval_above":
            self.approvals.denied(account, record, asked, digest)
        return number

    def _judged(
        self,
        account: Account,
        number: int,
        record: Record,
        asked: Question,
        approved: str | None,
    ) -> str:
        """The decision is what the grant and all before it make it; returns the rule."""
        body, decision = record.body, record.body["decision"]
        request, chain_ms = body["request"], body["chain_time_ms"]
        where = f"{body['payment']} at {record.time_ms}"
        standing = STANDING[account.state]
        low, high = self.books.chain_ms if account.on_chain else (0, 0)
        require(low <= chain_ms <= high, "chain time", f"{where}: {chain_ms} is not {low}..{high}")
        over = {}
        for pool in self.books.above(account):
            pool.at(record.time_ms)
            if pool.rule not in over and (told := pool.over(request)) is not None:
                over[pool.rule] = told
        rule = account.terms.verdict(
            standing, record.time_ms, chain_ms, request, above=over, approved=approved is not None
        )
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
                self._used_up(account, record, over.get(rule), where)
            return rule
        require(decision["evidence"]["used"] == account.terms.used(), "limits", f"{where}: used")
        spend = Spend(record.time_ms, amount, request["merchant"], request["token"])
        spend.held, spend.expires_ms = amount, record.time_ms + HOLD_TTL_MS
        require(body["hold_expires_ms"] == spend.expires_ms, "holds", f"{where}: expires")
        capture = asked.memo["capture"]
        if not capture:
            self.books.tell(record, "payment.created")
        self.books.allowed(account, number, spend, capture=capture)
        return rule

    def _used_up(
        self, account: Account, record: Record, above: tuple[Any, ...] | None, where: str
    ) -> None:
        """A denial for a limit says which it is, and the first instant that would allow it.

        `above` is what a budget above the session has to say.
        """
        rule, evidence = record.body["decision"]["rule"], record.body["decision"]["evidence"]
        fields = ("limit", "used", "requested", "window_ms", "retry_at_ms")
        fields = ("budget", "name", *fields) if rule in BUDGETS else fields
        told = tuple(evidence[name] for name in fields)
        expected = above or account.terms.first_over(record.body["request"], rule)
        if rule in BUDGETS:
            self.books.figures[f"denied: {rule}"] += 1
        require(told == expected, "limits", f"{where}: {told} is not {expected}")
        freed = account.frees_ms is not None and record.time_ms >= account.frees_ms
        reached = freed or not account.used_up
        if reached:
            self.books.tell(record, "agent.session.limit_reached")
        if reached or evidence["retry_at_ms"] is not None:
            account.frees_ms = evidence["retry_at_ms"]
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
            "approval": record.body["approval"],
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
        self._end_due(account)
        for window in account.terms.all_windows():
            window.slide(self.books.time_ms)
        left = account.terms.left(0, None, None)
        if (pool := self.books.pools.get(f"session:{asked.session}")) is not None:
            pool.at(self.books.time_ms)
            left = pool.left(left)
        require(answer in (None, left), "limits", f"{asked.session}: {answer} is left, not {left}")

    # Operators

    def keys_are(self, valid: set[str]) -> None:
        """These keys of operators count from now on; how many there are is their own affair."""
        while self.books.comes("key.created"):
            self.books.log.unexplained.popleft()
        self.books.keys = valid

    def budgeted(
        self, name: str, limits: dict[str, int | None] | None, answer: Any, clock_ms: int
    ) -> None:
        """An operator set a budget, or lifted it (`limits` None); `answer` None: nobody heard."""
        self.books.at(clock_ms)
        before = self.books.limits.get(name)
        if limits is None and before is None:
            require(answer in (None, {"error": "budget_not_found"}), "budgets", f"{name}: {answer}")
            return
        if limits == before:
            return
        kind = "budget.cleared" if limits is None else "budget.set"
        if answer is None and not self.books.comes(kind):
            return
        require(self.books.comes(kind), "budgets", f"{name}: no record that it is {limits}")
        body = self.books.take(kind, None).body
        told = body["budget"], body.get("limits")
        require(told == (name, limits), "budgets", f"{told} is not {(name, limits)}")
        self.books.set_budget(name, limits)
        self.books.figures["budgets of " + ("all" if name == WORKSPACE else "agents")] += 1

    def granted(
        self, session: str, named: str, key: str, answer: Any, known: Known, clock_ms: int
    ) -> None:
        """An operator granted an approval; `answer` None: nobody heard."""
        self.books.at(clock_ms)
        account = self.books.accounts[session]
        approval = account.approvals[named]
        if answer is None and not self._happened("approval.granted", named):
            return
        if self._refuses(account, approval, key, answer):
            return
        if key in approval.keys:
            self._stands(account, approval, answer)
            return
        asked = approval.asked
        if answer is not None and self._chain_refuses(account, asked, answer, known):
            require(answer == {"error": "chain_unavailable"}, "approvals", f"{named}: {answer}")
            return
        self._end_due(account)
        if self.approvals.granted(account, approval, key):
            approval.payment = self._decided(account, asked, approval.id)
            decided = account.decisions[approval.payment].body
            if decided["decision"]["allowed"]:
                self.approvals.end(account, approval, "granted")
            else:
                approval.code = decided["decision"]["code"]
                told = {"code": approval.code, "payment": decided["payment"]}
                self.approvals.record(account, approval, "refused", told)
                self.approvals.end(account, approval, "refused")
        else:
            paid = self.books.comes("payment.decided", session)
            require(not paid, "approvals", f"{named}: paid with {approval.keys}")
        self._stands(account, approval, answer)

    def refused(self, session: str, named: str, key: str, answer: Any, clock_ms: int) -> None:
        """An operator denied an approval; `answer` None: nobody heard."""
        self.books.at(clock_ms)
        account = self.books.accounts[session]
        approval = account.approvals[named]
        if answer is None and not self._happened("approval.denied", named):
            return
        if approval.denied_by != key:
            if self._refuses(account, approval, key, answer, denying=True):
                return
            self.approvals.record(account, approval, "denied", {"key": key, "reason": None})
            approval.denied_by = key
            self.approvals.end(account, approval, "denied")
        self._stands(account, approval, answer)

    def _happened(self, kind: str, approval: str) -> bool:
        return any(
            record.kind == kind and record.body["approval"] == approval
            for record in self.books.log.unexplained
        )

    def _refuses(
        self, account: Account, approval: Approval, key: str, answer: Any, *, denying: bool = False
    ) -> bool:
        """Whether nothing can be done about an approval, which the answer then has to say."""
        over = approval.state == "waiting" and approval.expires_ms <= self.books.time_ms
        state = "expired" if over else approval.state
        if key not in self.books.keys:
            code = "invalid_api_key"
        elif state == "waiting" or (
            not denying and key in approval.keys and state in ("granted", "refused")
        ):
            return False
        else:
            code = f"approval_{state}"
        told = answer in (None, {"error": code})
        require(told, "approvals", f"{approval.id} ({state}), {key}: {answer}, but it is {code}")
        return True

    def _stands(self, account: Account, approval: Approval, answer: Any) -> None:
        number = approval.payment
        expected = {
            "state": approval.state,
            "keys": approval.keys,
            "code": approval.code,
            "payment": None if number is None else account.payment(number),
        }
        require(answer in (None, expected), "approvals", f"{approval.id}: {answer} is not this")

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
