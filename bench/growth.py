"""The same engine with nothing behind it and with a long past: a decision must not cost more."""

import itertools
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, ClassVar

from bench.clone import connect, stored, templates
from bench.ours import EngineSqlite, Installation

PRIOR_PAYMENTS = 1_000_000
SESSIONS_FEW = 100
SESSIONS_MANY = 1_000_000
_ROWS_AT_ONCE = 10_000


class OneSession(EngineSqlite):
    """All payments in one session that has none yet."""

    name = "one-session"
    says = "Ours: engine-sqlite with one session, which has no payment yet."
    prior: ClassVar[int] = 0

    def prepare(self) -> Mapping[str, str]:
        self.installation = Installation(self.workload)
        self.sessions = self.installation.create_sessions(1)
        prior = self.workload.scaled(self.prior) if self.prior else 0
        asks = self.installation.asks(self.sessions, "prior", capture=True)
        paid = self.installation.pay(asks, lambda count: count >= prior)
        self.installation.begin()
        return {"prior payments": str(paid)}


class OneSessionPrior(OneSession):
    """All payments in one session that has many."""

    name = "one-session-prior"
    says = (
        f"Ours: the same after {PRIOR_PAYMENTS:,} captured payments (at size 1), all of them "
        "inside every window. The engine made them in the same way."
    )
    prior = PRIOR_PAYMENTS


class FewSessions(EngineSqlite):
    """Payments spread over few sessions."""

    name = "few-sessions"
    says = f"Ours: engine-sqlite with {SESSIONS_FEW} sessions."

    def prepare(self) -> Mapping[str, str]:
        self.installation = Installation(self.workload)
        self.sessions = self.installation.create_sessions(SESSIONS_FEW)
        self.installation.begin()
        return {"sessions": str(len(self.sessions))}


class ManySessions(EngineSqlite):
    """Payments spread over more sessions than are kept in memory."""

    name = "many-sessions"
    says = (
        f"Ours: the same with {SESSIONS_MANY:,} sessions (at size 1), of which each payment draws "
        "one: nearly every account has to be read from the database first. One session was made "
        "by the engine, the others are copies of its rows under other ids."
    )

    def prepare(self) -> Mapping[str, str]:
        installation = Installation(self.workload)
        installation.create_sessions(1)  # and with it the agent, which is made once
        before = stored(installation.data_file)
        [original] = installation.create_sessions(1)
        installation.close()
        count = self.workload.scaled(SESSIONS_MANY)
        self.sessions = copy_session(installation.data_file, before, original, count)
        self.installation = Installation(self.workload)
        self.installation.begin()
        return {"sessions": str(len(self.sessions))}


def copy_session(
    path: Path, before: Mapping[str, set[tuple[Any, ...]]], original: str, count: int
) -> list[str]:
    """Store `count` copies of the session that was made since `stored`; return their ids."""
    copies = [f"{original[:-12]}~{number:011x}" for number in range(1, count + 1)]
    found = templates(path, before)
    with closing(connect(path)) as connection:
        numbered = enumerate(copies, 1)
        while chunk := list(itertools.islice(numbered, _ROWS_AT_ONCE)):
            connection.execute("BEGIN IMMEDIATE")
            for template in found:
                connection.executemany(
                    template.statement,
                    (
                        row
                        for number, copy in chunk
                        for row in template.clones(number, {original: copy})
                    ),
                )
            connection.execute("COMMIT")
    return copies
