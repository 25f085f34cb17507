"""Whether a session's life, as its records tell it, fits what the chain says of it, and when.

Two clocks are compared that nobody keeps in step: the server's, by which records are dated, and the
chain's. They may differ by `CLOCKS_DIFFER_MS`, and the chain's may run ahead by more where blocks
are made faster than one a second. So only what no honest server can have written is tampering.

How long before the first anchor over it a record was made cannot be told: a checkpoint is older
than the block that holds it by as long as its transaction waited, and that can be hours.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from engine.audit.chain import Anchoring, ChainView, Registration, Revocation
from engine.audit.record import Record
from engine.audit.replay import Replay
from engine.audit.report import Finding, Verdict, tampered

CLOCKS_DIFFER_MS = 15 * 60_000
"""How far the clocks of an honest operator and of the chain may be apart."""
REVOCATION_SEEN_MS = 10 * 60_000
"""An engine that has not read the chain for five minutes decides no more; blocks may be late."""
END_RECORDED_MS = 24 * 3_600_000
"""By then the log holds the end of a session, and of a hold, that is over."""


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

    def check_dates(
        self, records: Iterable[tuple[Record, int]], anchors: Sequence[Anchoring]
    ) -> None:
        """A record was made before the first anchor over it, so it cannot be dated after it.

        `records` are in order, each with its index in the log; `anchors` are ordered by size.
        """
        latest_ms = 0
        for record, index in records:
            if record.time_ms <= latest_ms:
                continue
            first = bisect_right(anchors, index, key=lambda found: found.size)
            if first < len(anchors):
                latest_ms = self._time_ms(anchors[first].block_number) + CLOCKS_DIFFER_MS
                if record.time_ms > latest_ms:
                    raise tampered(f"record {record.seq} is dated after the anchor that holds it")

    def check_revoked(self, revocation: Revocation | None) -> str:
        """No payment was allowed long after the revocation; returns how it stands."""
        if revocation is None:
            return "not revoked on the chain"
        replay, revoked_ms = self.replay, revocation.block_time_s * 1000
        late = len(replay.allowed_ms) - bisect_right(replay.allowed_ms, revoked_ms)
        if late and replay.allowed_ms[-1] > revoked_ms + REVOCATION_SEEN_MS + CLOCKS_DIFFER_MS:
            raise tampered("payments were allowed after the session was revoked on the chain")
        known = "and" if replay.state == "revoked" else "not yet"
        said = f"revoked on the chain in block {revocation.block_number}, {known} in the log"
        if late:
            said += f"; {late} payments were allowed before the server had seen it"
        return said

    def check_end(self, over_ms: int, anchored_in: int) -> None:
        """Left-out records are noticed at the latest when the session is over.

        `over_ms` is when it was, `anchored_in` the block of the anchor over the records.
        """
        replay = self.replay
        due_ms = [] if replay.state in ("revoked", "expired") else [over_ms]
        if replay.open_until_ms is not None:
            due_ms.append(replay.open_until_ms)
        if due_ms and min(due_ms) + END_RECORDED_MS < self._time_ms(anchored_in):
            what = "the session" if min(due_ms) == over_ms else "a hold"
            raise Finding(
                Verdict.PENDING, f"{what} was over before the anchor, but the records do not end it"
            )

    def check_clocks(self) -> None:
        """What is dated before the registration, and may be honest all the same, is in doubt.

        To be asked last: a doubt must not stand in the way of what is certain.
        """
        early, _ = self._early()
        if early:
            raise Finding(
                Verdict.PENDING,
                f"{early} payments are dated before the block of the registration: the server's "
                "clock was behind the chain's, or the block was replaced",
            )

    def _early(self) -> tuple[int, int]:
        """How many allowed decisions are dated too early, and what is not too early."""
        if not self.replay.allowed_ms:
            return 0, 0
        earliest_ms = self._time_ms(self.registration.block_number) - CLOCKS_DIFFER_MS
        return bisect_left(self.replay.allowed_ms, earliest_ms), earliest_ms

    def _time_ms(self, block_number: int) -> int:
        return self.chain.block_time_s(block_number) * 1000
