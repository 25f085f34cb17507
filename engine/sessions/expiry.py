"""What is over is ended, a slice at a time, whether or not anybody asks for it."""

from engine.ledger.approvals import Approvals
from engine.ledger.intents import Intents
from engine.ledger.ledger import Ledger
from engine.sessions.lifecycle import Sessions

ROUNDS_MAX = 4
"""So many slices of each kind are ended at once: about a second's work."""


class Expiry:
    """Holds, approvals, intents and sessions that are over."""

    def __init__(
        self, ledger: Ledger, approvals: Approvals, intents: Intents, sessions: Sessions
    ) -> None:
        self._of_payments = (ledger.expire_holds, approvals.expire_due, intents.expire_due)
        self._sessions = sessions

    def run(self, chain_time_ms: int, rounds: int) -> bool:
        """End some of each kind, so often; whether there may be more.

        `chain_time_ms` is the chain's clock.
        """
        for _ in range(rounds):
            ended = [end() for end in self._of_payments]
            ended.append(self._sessions.expire_due(chain_time_ms))
            if not any(ended):
                return False
        return True
