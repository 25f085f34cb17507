"""Whether a session's life, as its records tell it, fits what the chain says of it, and when.

Two clocks are compared that nobody keeps in step: the server's, by which records are dated, and the
chain's. They may differ by `CLOCKS_DIFFER_MS`, and the chain's may run ahead by more where blocks
are made faster than one a second. So only what no honest server can have written is tampering.

How long before the first anchor over it a record was made cannot be told: a checkpoint is older
than the block that holds it by as long as its transaction waited, and that can be hours.
"""

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from engine.audit.chain import (
    CLOCKS_DIFFER_MS,
    Anchoring,
    ChainView,
    Lowering,
    Registration,
    Revocation,
)
from engine.audit.evidence import Evidence
from engine.audit.examination import Found, records_of
from engine.audit.record import Record
from engine.audit.replay import ENDS, Replay
from engine.audit.report import Finding, Verdict, counted, tampered
from engine.audit.usage import Usage, decide_again, read_asked
from engine.grant import Grant
from engine.policy.decision import Policy

REVOCATION_SEEN_MS = 10 * 60_000
"""An engine that has not read the chain for five minutes decides no more; blocks may be late."""
SEEN_MS = REVOCATION_SEEN_MS + CLOCKS_DIFFER_MS
"""So long after a block an honest server may not know yet what the block says."""


@dataclass(frozen=True, slots=True)
class Life:
    """A session that replayed, and the chain that must agree with it.

    Every check raises `Finding` for what does not fit, and `ChainSilent` as its chain does.
    """

    replay: Replay
    chain: ChainView
    registration: Registration

    def check_registered(self) -> None:
        """No payment was allowed before the session was on the chain."""
        replay, found = self.replay, self.registration
        if replay.allowed_unregistered:
            raise tampered("payments were allowed before the session was registered")
        recorded = replay.registration or {}
        if recorded and recorded.get("tx_hash") != "0x" + found.tx_hash.hex():
            raise tampered("the records name another registration than the chain's")
        early, earliest_ms = self._early()
        # A reorganisation can put the registration into a later block than the server saw it in.
        if early and recorded.get("block_number") == found.block_number:
            known_ms = replay.allowed_chain_ms[replay.allowed_before_registration : early]
            if any(chain_ms < earliest_ms for chain_ms in known_ms):
                raise tampered("payments are dated before the block of the registration")

    def check_consented(self, evidence: Evidence) -> None:
        """The owner's signature is recorded as the file shows it."""
        recorded, signature = self.replay.consented, evidence.owner_signature
        shown = None if signature is None else (evidence.consent, "0x" + signature.hex())
        told = recorded and (recorded.get("consent"), recorded.get("owner_signature"))
        if told != shown:
            raise tampered("the records tell another consent than the file shows")

    def check_dates(self, records: Iterable[tuple[int, int]], anchors: Sequence[Anchoring]) -> None:
        """A record was made before the first anchor over it, so it cannot be dated after it.

        `records` are the time of each, in order, and its index in the log; `anchors` are ordered by
        size.
        """
        latest_ms = 0
        for seq, (time_ms, index) in enumerate(records):
            if time_ms <= latest_ms:
                continue
            first = bisect_right(anchors, index, key=lambda found: found.size)
            if first < len(anchors):
                latest_ms = self._time_ms(anchors[first].block_number) + CLOCKS_DIFFER_MS
                if time_ms > latest_ms:
                    raise tampered(f"record {seq} is dated after the anchor that holds it")

    def check_ends(self, evidence: Evidence, found: Found, anchored_in: int | None) -> str:
        """No payment was allowed long after the chain ended the session or lowered its limits, or
        those of a session above it.

        Notes what the chain says in `found`, and returns how it stands. `anchored_in` is the block
        of the anchor over the records, if there is one.
        """
        chain, registry, token_id = self.chain, evidence.registry, evidence.token_id
        found.revocation = chain.revocation(registry, token_id)
        found.closing = chain.workspace_closing(registry, token_id, evidence.workspace)
        found.lowerings = chain.lowerings(registry, token_id, evidence.grant)
        ends = [found.revocation, found.closing]
        said = self.check_over(found.revocation, "the session was revoked")
        if found.closing is not None:
            said += "; " + self.check_over(found.closing, "its workspace was closed")
        for ancestor in evidence.ancestors:  # it ends with any of them
            above = ancestor.token_id
            revocation = chain.revocation(registry, above)
            self.check_over(revocation, "the session was revoked")
            closing = chain.workspace_closing(registry, above, evidence.workspace)
            self.check_over(closing, "its workspace was closed")
            ends += [revocation, closing]
        said += self._lowered(evidence, found.lowerings, "limits")
        for ancestor in evidence.ancestors:  # nor does it spend more than they may
            if chain.registration(registry, ancestor.token_id) is not None:
                above_it = chain.lowerings(registry, ancestor.token_id, ancestor.grant)
                said += self._lowered(evidence, above_it, "limits of a session above")
        if anchored_in is not None:
            over_s = [end.block_time_s for end in ends if end is not None]
            self.check_end(min([evidence.grant.valid_until_s, *over_s]) * 1000, anchored_in)
        self.check_clocks()
        return said

    def check_over(self, end: Revocation | None, what: str) -> str:
        """No payment was allowed long after an end of the session; returns how it stands."""
        if end is None:
            return "not revoked on the chain"
        replay, over_ms = self.replay, end.block_time_s * 1000
        if replay.allowed_ms and replay.allowed_ms[-1] > over_ms + SEEN_MS:
            raise tampered(f"payments were allowed after {what} on the chain")
        known = "and in the log" if replay.state == "revoked" else "not yet in this file"
        said = f"{what.rpartition(' was ')[2]} on the chain in block {end.block_number}, {known}"
        # A block is dated to the second: what was allowed within it can have come before.
        late = len(replay.allowed_ms) - bisect_left(replay.allowed_ms, over_ms + 1000)
        if late:
            said += f"; {counted(late, 'payment')} dated after it, before the server had to know"
        return said

    def _lowered(self, evidence: Evidence, lowerings: Sequence[Lowering], what: str) -> str:
        """Hold what was lowered against the records; returns what is said of it, if it was."""
        if not lowerings:
            return ""
        self.check_lowered(evidence.grant, records_of(evidence), lowerings)
        blocks = ", ".join(str(lowering.block_number) for lowering in lowerings)
        return f"; {what} lowered on the chain in block {blocks}"

    def check_lowered(
        self, grant: Grant, records: Iterable[Record], lowerings: Sequence[Lowering]
    ) -> None:
        """No payment was allowed that the limits in force on the chain did not, long after it.

        Only the limits are counted again, from the payments alone: what else the policy asks for
        was replayed. It does not matter whether the records tell of the lowering, nor whether the
        limits are this session's or those of one above: what it paid is part of what that one may.
        """
        whole = grant.policy()
        policy = Policy(
            whole.limits, None, None, None, None, whole.valid_from_ms, whole.valid_until_ms
        )
        usage, due, in_force = Usage(policy), deque(lowerings), None
        for record in records:
            body = record.body
            if record.kind in ENDS:
                usage.end(body["payment"], record.time_ms, body["captured_micro_usd"])
            if record.kind != "payment.decided" or not body["decision"]["allowed"]:
                continue
            while due and record.time_ms > due[0].block_time_s * 1000 + SEEN_MS:
                in_force = due.popleft()
                usage.enforce(replace(policy, limits=in_force.limits))
            asked = read_asked(record)
            if in_force is not None and not (again := decide_again(usage, asked)).allowed:
                raise tampered(
                    f"record {record.seq} allows more than the limits that were lowered in block "
                    f"{in_force.block_number}: {again.reason}"
                )
            usage.hold(body["payment"], record.time_ms, asked.request)

    def check_end(self, over_ms: int, anchored_in: int) -> None:
        """Left-out records are noticed when the session is over.

        `over_ms` is when it was, `anchored_in` the block of the anchor over the records. An honest
        file is made once that block is final, and the server has then read of the end, too: what
        the anchor does not cover of it is in the tail. A hold ends by the server's clock alone.
        """
        replay, anchored_ms, over = self.replay, self._time_ms(anchored_in), None
        if replay.state not in ("revoked", "expired") and over_ms <= anchored_ms:
            over = "the session"
        elif (until_ms := replay.open_until_ms) and until_ms + CLOCKS_DIFFER_MS < anchored_ms:
            over = "a hold"
        if over is not None:
            raise Finding(
                Verdict.PENDING,
                f"{over} was over by the anchor's block, and the records do not end it: ask for a "
                "later file",
            )

    def check_clocks(self) -> None:
        """What is dated before the registration, and may be honest all the same, is in doubt.

        To be asked last: a doubt must not stand in the way of what is certain.
        """
        early, _ = self._early()
        if early:
            raise Finding(
                Verdict.PENDING,
                f"{counted(early, 'payment')} dated before the block of the registration: the "
                "server's clock was behind the chain's, or the block was replaced",
            )

    def _early(self) -> tuple[int, int]:
        """How many allowed decisions are dated too early, and what is not too early."""
        if not self.replay.allowed_ms:
            return 0, 0
        earliest_ms = self._time_ms(self.registration.block_number) - CLOCKS_DIFFER_MS
        return bisect_left(self.replay.allowed_ms, earliest_ms), earliest_ms

    def _time_ms(self, block_number: int) -> int:
        return self.chain.block_time_s(block_number) * 1000
