"""The accounts in memory, and sessions whose rows, records and chain do not say the same.

Memory rests on rows that somebody could change behind its back: a few accounts at a time are held
against them, and what differs is read again and written down as a discrepancy.
"""

from collections.abc import Collection, Mapping

import sqlalchemy as sa

from engine.db.database import of_its_rows
from engine.db.tables import Session, table
from engine.errors import NotFound, Unavailable
from engine.ledger.account import Account
from engine.ledger.account_loading import (
    changed_behind,
    follow_account,
    load_account,
    load_accounts,
)
from engine.ledger.account_rows import bare_row
from engine.ledger.batch import Batch
from engine.ledger.discrepancies import (
    PARAMETERS_DIFFER,
    SESSION_DAMAGED,
    note,
    open_subjects,
    resolve,
)
from engine.ledger.stream import SESSION_PREFIX, Stream
from engine.policy.decision import Standing

ACCOUNTS_MAX = 20_000
"""So many accounts are kept in memory; any other is read from the database when needed."""
RECHECKED_MAX = 25
"""So many of them are held against their rows at once, and so many sessions examined."""

_sessions = table(Session)


class Accounts:
    """Belongs to the writer's thread."""

    def __init__(self) -> None:
        self.known: dict[str, Account] = {}
        self._unchecked: list[str] = []
        self._doubted: set[str] = set()
        """Sessions to examine."""
        self._noted: set[str] = set()
        """Sessions with a discrepancy that may be open, whoever noted it."""

    def forget(self) -> None:
        """Read everything again when it is next needed."""
        self.known.clear()

    def forget_of(self, batch: Batch, workspace_id: str, session_id: str | None = None) -> None:
        """Read what is of one workspace, or this session of it, again when it is next needed."""
        theirs = [
            each
            for each, account in self.known.items()
            if account.stream.workspace_id == workspace_id and session_id in (None, each)
        ]
        for each in theirs:
            del self.known[each]
            batch.forget_end(each)

    def prepare(self, batch: Batch, streams: Collection[str]) -> None:
        """Read the accounts that are not in memory of all these sessions at once.

        Of those that cannot be read nothing is said here: they are asked for by `get`.
        """
        sessions = [each for each in streams if each.startswith(SESSION_PREFIX)]
        unknown = [each for each in sessions if each not in self.known]
        if unknown:
            for account in _loaded(batch, unknown):
                if isinstance(account, Account):
                    self._keep(batch, account)

    def get(self, batch: Batch, session_id: str) -> Account:
        """A session's account, as its records are now.

        Raises:
            NotFound: there is no such session.
            Unavailable: rows and records of the session contradict each other.
        """
        account = self.known.get(session_id)
        head = batch.head(session_id)
        if account is not None and account.records == head.seq:
            return account
        self.known.pop(session_id, None)  # until it is known again
        try:
            if account is None:
                account = load_account(batch, session_id)
            else:
                account = follow_account(batch, account)
        except Unavailable:
            self._doubted.add(session_id)
            raise
        self._keep(batch, account)
        return account

    def _keep(self, batch: Batch, account: Account) -> None:
        session_id = account.stream.id
        if session_id in self._noted:
            self._doubted.add(session_id)  # it may be mended
        if len(self.known) >= ACCOUNTS_MAX:
            oldest = next(iter(self.known))
            del self.known[oldest]
            batch.forget_end(oldest)
        self.known[session_id] = account

    @property
    def were_all_checked(self) -> bool:
        """Whether every account was looked at since the last time that this was so, and every
        session examined that had to be."""
        return not (self._unchecked or self._doubted)

    def suspects(self, batch: Batch) -> list[str]:
        """Sessions to examine: those whose rows are not what was read, and that could not be read.

        At most `RECHECKED_MAX` accounts are looked at, and the next time others.
        """
        noted = open_subjects(batch.read, (PARAMETERS_DIFFER, SESSION_DAMAGED))
        self._doubted.update(noted - self._noted)  # by another process, or before the start
        self._noted = noted
        if not self._unchecked:
            self._unchecked = list(self.known)
        checked, self._unchecked = (
            self._unchecked[:RECHECKED_MAX],
            self._unchecked[RECHECKED_MAX:],
        )
        accounts = {each: self.known[each] for each in checked if each in self.known}
        for each in _changed(batch, accounts):
            del self.known[each]
            self._doubted.add(each)
        suspects = sorted(self._doubted)[:RECHECKED_MAX]
        self._doubted.difference_update(suspects)
        self._noted.update(suspects)
        return suspects


def examine(batch: Batch, session_ids: Collection[str]) -> None:
    """Read these sessions again, and note or resolve what is found. Their streams are held."""
    for session_id in session_ids:
        try:
            account = load_account(batch, session_id)
        except NotFound:
            continue
        except Unavailable as error:
            row = bare_row(batch.read, session_id)
            stream = Stream(row.workspace_id, session_id, row.type, row.label)
            note(
                batch,
                SESSION_DAMAGED,
                session_id,
                "critical",
                {"reason": error.message},
                stream,
            )
            continue
        resolve(batch, SESSION_DAMAGED, session_id)
        if account.differs is not None:
            note_differing(batch, account)
        elif account.standing is not Standing.MISMATCH:  # that one the chain alone can end
            resolve(batch, PARAMETERS_DIFFER, session_id)


def _loaded(batch: Batch, session_ids: Collection[str]) -> Collection[Account | Unavailable]:
    """Nobody, if rows cannot be read together: who they are is found by reading one at a time."""
    try:
        return load_accounts(batch, session_ids).values()
    except sa.exc.StatementError as error:
        if not of_its_rows(error):
            raise
        return ()


def _changed(batch: Batch, accounts: Mapping[str, Account]) -> Collection[str]:
    try:
        return changed_behind(batch, accounts)
    except sa.exc.StatementError as error:
        if not of_its_rows(error):
            raise
        return tuple(accounts)  # one of them, and each is looked at by itself


def note_differing(batch: Batch, account: Account) -> None:
    """Its parameters are not those of its row, of its first record and of the chain."""
    assert account.differs is not None
    stream = account.stream
    note(batch, PARAMETERS_DIFFER, stream.id, "critical", account.differs, stream)
