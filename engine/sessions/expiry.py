"""What is over is ended, a slice at a time, whether or not anybody asks for it."""

from engine.ledger.approvals import SWEEP_APPROVALS_MAX, Approvals
from engine.ledger.intents import SWEEP_INTENTS_MAX, Intents
from engine.ledger.ledger import SWEEP_HOLDS_MAX, Ledger
from engine.sessions.lifecycle import SWEEP_SESSIONS_MAX, Sessions

ROUNDS_MAX = 4
"""So many slices of each kind are ended at once: of one kind about a second's work."""


class Expiry:
    """Holds, approvals, intents and sessions that are over."""

    def __init__(
        self, ledger: Ledger, approvals: Approvals, intents: Intents, sessions: Sessions
    ) -> None:
        self._of_payments = (
            (ledger.expire_holds, SWEEP_HOLDS_MAX),
            (approvals.expire_due, SWEEP_APPROVALS_MAX),
            (intents.expire_due, SWEEP_INTENTS_MAX),
        )
        self._sessions = sessions

    def run(self, chain_time_ms: int, rounds: int) -> bool:
        """End some of each kind, so often; whether more of any was over by then.

        `chain_time_ms` is the chain's clock.
        """
        for _ in range(rounds):
            full = [end() >= slice_max for end, slice_max in self._of_payments]
            full.append(self._sessions.expire_due(chain_time_ms) >= SWEEP_SESSIONS_MAX)
            if not any(full):
                return False
        return True
