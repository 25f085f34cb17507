"""What is over is ended, a slice at a time, whether or not anybody asks for it."""

from engine.ledger.approvals import Approvals
from engine.ledger.chain_watch import ChainWatch
from engine.ledger.intents import Intents
from engine.ledger.ledger import Ledger
from engine.ledger.sweep import SWEPT_MAX, Sweep
from engine.ledger.writer import Writer
from engine.sessions.lifecycle import Sessions

ROUNDS_MAX = 4
"""So many slices of each kind are ended at once: of one kind about a second's work."""


class Expiry:
    """Holds, approvals, intents and sessions that are over."""

    def __init__(
        self,
        writer: Writer,
        chain: ChainWatch,
        ledger: Ledger,
        approvals: Approvals,
        intents: Intents,
        sessions: Sessions,
    ) -> None:
        """`chain` knows the chain's clock, by which sessions are over as well."""
        self.holds = Sweep(writer, ledger.holds_over, ledger.end_holds)
        self.approvals = Sweep(writer, approvals.over, approvals.end)
        self.intents = Sweep(writer, intents.over, intents.end)
        self.sessions = Sweep(
            writer,
            lambda batch, but: sessions.over(batch, but, chain.time_ms),
            lambda batch, session_id, _: sessions.end(batch, session_id, chain.time_ms),
        )

    def run(self, rounds: int) -> bool:
        """End some of each kind, so often; whether there may be more."""
        kinds = self.holds, self.approvals, self.intents, self.sessions
        for _ in range(rounds):
            ended = [each.run() for each in kinds]
            if max(ended) < SWEPT_MAX:
                return False
        return True
