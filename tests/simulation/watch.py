"""Whether every session is what operators, the chain and the clocks made of it.

It shares no code with the engine.
"""

from typing import Any

from tests.simulation.approving import Approvals
from tests.simulation.books import Account, Books, Lowering, Seen
from tests.simulation.log import Finding, Record, require
from tests.simulation.pools import wider
from tests.simulation.terms import Terms

LINE_MAX = 4


class SessionWatch:
    """Explains the records of sessions. `confirmations` make a registration count."""

    def __init__(self, books: Books, approvals: Approvals, confirmations: int) -> None:
        self._books, self._approvals, self._confirmations = books, approvals, confirmations

    def created(
        self, asked: dict[str, Any], parent: str | None, days: int, answer: Any, clock_ms: int
    ) -> str | None:
        """A session was asked for, beneath a `parent` if there is one.

        `answer` is its id, a refusal, or None if nobody heard. Returns its id.
        """
        self._books.at(clock_ms)
        above = None if parent is None else self._books.accounts[parent]
        refusal = None if above is None else self._undelegated(asked, above, days)
        if self._books.comes("agent.registered"):  # beside the first of its sessions
            self._books.take("agent.registered", None)
        if refusal is not None:
            where = f"{parent} delegates {asked} for {days} days"
            made = self._books.comes("session.created")
            require(answer in (None, {"error": refusal}) and not made, "delegation", where)
            self._books.figures[f"delegation refused: {refusal}"] += 1
            return None
        require(not isinstance(answer, dict), "delegation", f"{asked}: {answer}")
        if answer is None and not self._books.comes("session.created"):
            return None
        record = self._books.take("session.created", answer)
        grant = record.body["grant"]
        for name, value in asked.items():
            require(grant[name] == value, "parameters", f"{name} is {grant[name]}, not {value}")
        state, parent_hash = "registering" if record.body["mint_pkp"] else "active", "0" * 64
        require(record.body["state"] == state, "registration", f"{record.stream}: {record.body}")
        account = self._books.accounts[record.stream] = Account(record.stream, record.body)
        if above is not None:
            account.line, parent_hash = (above.session, *above.line), above.grant_hash
            self._books.delegates(above)
            self._books.figures["sessions delegated"] += 1
        named = record.body["parent_id"], grant["parent"]
        require(named == (parent, "0x" + parent_hash), "delegation", f"{record.stream}: {named}")
        self._books.tell(record, "agent.session.created")
        self._books.figures["sessions"] += 1
        return record.stream

    def _undelegated(self, asked: dict[str, Any], above: Account, days: int) -> str | None:
        """Why a session may not delegate what is asked."""
        now_ms = self._books.time_ms
        line = [above, *(self._books.accounts[each] for each in above.line)]
        if any(each.state != "active" or now_ms >= each.terms.until_ms for each in line):
            return "parent_not_active"
        agents = {each.agent for each in self._books.accounts.values()}
        if asked["agent_id"] not in agents:
            return "invalid_parameter"
        if len(line) >= LINE_MAX:
            return "delegation_too_deep"
        times = {"valid_from_s": now_ms // 1000, "valid_until_s": -(-now_ms // 1000) + days * 86400}
        child = Terms(asked | times)
        return "invalid_parameter" if any(wider(child, each.terms) for each in line) else None

    def revoked(self, session: str, heard: bool, clock_ms: int) -> None:
        """An operator asked for the end of a session."""
        self._books.at(clock_ms)
        account = self._books.accounts[session]
        if account.state == "revoked":
            return
        if heard:
            require(
                self._books.comes("session.revoked", session),
                "revocation",
                f"{session} was said to be revoked, and no record says so",
            )
        elif not self._books.comes("session.revoked", session):
            return
        self._moved(self._books.take("session.revoked", session), account, None)
        while self._books.comes("session.revoked"):  # all beneath it
            record = self._books.log.unexplained[0]
            if record.body["by"] != "ancestor":
                break
            below = self._books.accounts[record.stream]
            self._moved(self._books.take("session.revoked", below.session), below, None)
        self._beneath_revoked()

    def _beneath_revoked(self) -> None:
        """Whoever descends from a session that is revoked is so, too."""
        for account in self._books.accounts.values():
            if account.state != "revoked":
                above = [s for s in account.line if self._books.accounts[s].state == "revoked"]
                require(not above, "revocation", f"{account.session}: not with {above}")

    def ticked(self, seen: Seen) -> None:
        """The engine looked after what is due and read the chain."""
        self._books.at(seen.clock_ms)
        low_ms, high_ms = self._books.chain_ms
        if seen.whole:
            low_ms = seen.time_ms
        self._books.chain_ms = low_ms, max(high_ms, seen.time_max_ms)
        for account in self._books.accounts.values():
            there = _lowerings(seen.sessions.get(account.address))
            for lowering in account.lowered:
                if lowering in there:
                    account.missing.pop(lowering, None)
                else:
                    # A chain that is shorter for a while has replaced what was newest then.
                    since = account.missing.get(lowering, seen.tip)
                    account.missing[lowering] = min(since, seen.tip)
        while self._books.log.unexplained:
            record = self._books.log.unexplained[0]
            account = self._books.accounts.get(record.stream)
            if account is None:
                raise Finding("answers", f"nobody asked for {record}")
            if record.kind == "payment.expired":
                self._books.expired(account)
            elif record.kind == "approval.expired":
                self._approvals.expired(account)
            else:
                self._moved(self._books.take(record.kind, record.stream), account, seen)
        self._beneath_revoked()
        if seen.whole:
            self._all_followed(seen)
            self._same_roots(seen)

    def _moved(self, record: Record, account: Account, seen: Seen | None) -> None:
        """A session changed its state, for a reason that the chain or a clock gives."""
        kind, state = record.kind.partition(".")[2], record.body["state"]
        found = None if seen is None else seen.sessions.get(account.address)
        where = f"{account.session} {kind} at {record.time_ms}"
        if kind in ("lowered", "unlowered"):
            self._limited(record, account, seen, where)
            self._books.figures[f"sessions {kind}"] += 1
            return
        if kind == "revoked" and record.body["by"] == "ancestor":
            above = record.body["ancestor_id"]
            ended = above in account.line and self._books.accounts[above].state == "revoked"
            require(ended and state == "revoked", "revocation", where)
        elif kind == "revoked":
            by_chain = record.body["by"] == "chain"
            told = by_chain == (seen is not None) and (not by_chain or (found or {}).get("revoked"))
            require(bool(told) and state == "revoked", "revocation", where)
        else:
            require(account.state != "revoked", "revocation", f"{where}: it was revoked")
            self._check_move(kind, state, where, account, found, seen)
        if kind == "expired":  # an engine that is opened later takes the chain to be there
            low_ms, high_ms = self._books.chain_ms
            self._books.chain_ms = low_ms, max(high_ms, account.terms.until_ms)
        if kind in ("revoked", "expired"):
            self._books.tell(record, f"agent.session.{kind}")
        account.state = state
        self._books.figures[f"sessions {kind}"] += 1

    def _limited(self, record: Record, account: Account, seen: Seen | None, where: str) -> None:
        """Limits count at first sight of their event, until it has been gone for long enough."""
        body = record.body
        limits = [body["limits_micro_usd"][name] for name in _LIMITS]
        told = tuple(_UNLIMITED if limit is None else limit for limit in limits)
        lowering = body["tx_hash"], told
        require(seen is not None and body["state"] == account.state, "lowering", where)
        require(account.state in ("registering", "active", "mismatch"), "lowering", where)
        assert seen is not None
        there = _lowerings(seen.sessions.get(account.address))
        if (ancestor := body.get("ancestor_id")) is not None:
            self._inherited(record, account, (ancestor, lowering), where)
        elif record.kind == "session.lowered":
            require(lowering in there, "lowering", f"{where}: it is not on the chain")
            require(lowering not in account.lowered, "lowering", f"{where}: it counts twice")
            account.lowered[lowering] = body["limits_micro_usd"]
        else:
            require(lowering in account.lowered, "lowering", f"{where}: it did not count")
            gone = account.missing.get(lowering, seen.tip + 1)
            require(gone + self._confirmations <= seen.tip, "lowering", f"{where}: too early")
            del account.lowered[lowering], account.missing[lowering]
        account.used_up = False
        self._books.lower(account)

    def _inherited(
        self, record: Record, account: Account, of: tuple[str, Lowering], where: str
    ) -> None:
        """Limits that were lowered for a session above count for as long as they do there."""
        ancestor, lowering = of
        require(ancestor in account.line, "lowering", f"{where}: {ancestor} is not above it")
        counts = lowering in self._books.accounts[ancestor].lowered
        if record.kind == "session.lowered":
            require(counts, "lowering", f"{where}: they do not count for {ancestor}")
            require(of not in account.inherited, "lowering", f"{where}: it counts twice")
            account.inherited[of] = record.body["limits_micro_usd"]
        else:
            require(of in account.inherited, "lowering", f"{where}: it did not count")
            require(not counts, "lowering", f"{where}: they count for {ancestor}")
            del account.inherited[of]

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
            now_ms = max(self._books.time_ms, self._books.chain_ms[1] if account.on_chain else 0)
            over = kind == "expired" and account.terms.until_ms <= now_ms
            require(over and state == "expired", "expiry", where)

    def _all_followed(self, seen: Seen) -> None:
        """After a whole look at the chain every session is as the chain has it."""
        for account in self._books.accounts.values():
            found, where = seen.sessions.get(account.address), f"{account.session} {account.state}"
            now_ms = max(self._books.time_ms, seen.time_ms if account.on_chain else 0)
            if account.terms.until_ms <= now_ms:
                over = ("expired", "revoked", "mismatch")
                require(account.state in over, "expiry", f"{where} though it is over")
            open_due = [d for d in account.due if account.spends[d[1]].state == "held"]
            if open_due:
                require(
                    min(open_due)[0] > self._books.time_ms, "holds", f"{where}: one did not expire"
                )
            account.due = sorted(open_due)
            late = [a.id for a in account.waiting.values() if a.expires_ms <= self._books.time_ms]
            require(not late, "approvals", f"{where}: {late} did not expire")
            if not account.on_chain:
                continue
            if found is not None and found["revoked"]:
                require(account.state == "revoked", "revocation", f"{where}: the chain revoked it")
            elif account.state in ("registering", "active", "mismatch"):
                ignored = _lowerings(found) - account.lowered.keys()
                require(not ignored, "lowering", f"{where}: {ignored} do not count")
            if found is not None and found["revoked"]:
                continue
            if found is None:
                require(account.state not in ("active", "mismatch"), "registration", where)
            elif found["grant_hash"] != account.grant_hash:
                require(account.state != "active", "registration", f"{where}: a wrong grant")
            elif found["block"] + self._confirmations <= seen.tip:
                require(account.state in ("active", "expired", "revoked"), "registration", where)

    def _same_roots(self, seen: Seen) -> None:
        """The tree of the engine, and every root on the chain, is that of the records."""
        root = self._books.log.roots.get(seen.log_size)
        require(root == seen.log_root, "roots", f"the log's root at size {seen.log_size}")
        for size, anchored in seen.anchored:
            require(
                self._books.log.roots.get(size) == anchored, "roots", f"the anchor of size {size}"
            )
        self._books.figures["roots compared"] += 1 + len(seen.anchored)


_UNLIMITED = 2**64 - 1
_LIMITS = ("per_transaction", "per_day", "per_week", "per_month", "approval_above")


def _lowerings(found: dict[str, Any] | None) -> set[Lowering]:
    """What lowered the limits of a session, as the chain is now."""
    return set() if found is None else set(found["lowered"])
