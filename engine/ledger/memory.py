"""What memory holds of sessions and of budgets above them: when it is read, and when forgotten."""

from collections.abc import Collection, Iterable
from functools import partial

from engine.ledger.accounts import Accounts, examine
from engine.ledger.batch import Batch
from engine.ledger.budgets import Budgets
from engine.ledger.writer import Writer

RECHECKS = 8
"""So often some accounts are looked at, one after the other: payments are decided in between."""


class Memory:
    """The accounts and budgets that one process knows, which belong to the writer's thread."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self.accounts = Accounts()
        self.budgets = Budgets()
        writer.on_turn(self.budgets.learn)
        writer.on_batch(self._begin)
        for memory in (self.accounts, self.budgets):
            writer.on_abandoned_batch(memory.forget)
            writer.on_forgotten(memory.forget_of)

    def recheck(self) -> None:
        """Hold some accounts against their rows, and note what differs. On any other thread."""
        for _ in range(RECHECKS):
            if suspects := self._writer.call(self.accounts.suspects):
                self._writer.call(partial(examine, session_ids=suspects), *suspects)
            if self.accounts.were_all_checked:
                return

    def streams(self, session_ids: Iterable[str]) -> set[str]:
        """What has to be held to decide for these, as far as it is known. On any thread."""
        known = {stream for each in session_ids for stream in self.budgets.streams(each)}
        return known.union(session_ids)

    def prepare(self, batch: Batch, streams: Collection[str]) -> None:
        """Read at once what many decisions need, and hold the budgets that they are under."""
        self.accounts.prepare(batch, streams)
        known = map(self.accounts.known.get, streams)
        self.budgets.hold(batch, (account for account in known if account is not None))

    def _begin(self, batch: Batch, streams: Collection[str]) -> None:
        self.budgets.follow(batch)
        self.prepare(batch, streams)
