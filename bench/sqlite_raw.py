"""SQLite alone, storing what we store."""

import sqlite3
import time
from collections.abc import Mapping

from bench.clone import connect, renamed, stored, templates
from bench.contender import Contender, Rate
from bench.ours import BATCH_ASKS, Installation
from engine.db.sqlite import PRAGMAS


class SqliteRaw(Contender):
    """`executemany` of rows that the engine wrote for one decision, and a commit."""

    name = "sqlite-raw"
    says = (
        "Python's sqlite3 and nothing else: executemany of the very rows that one of our "
        "decisions writes, into our schema with its indexes and spread over as many sessions, "
        f"{BATCH_ASKS} decisions a commit, on a connection that is set as the engine's. Decides, "
        "reads and hashes nothing; the rows are made while the clock stands still. No engine on "
        "SQLite that stores the same can be faster."
    )

    def prepare(self) -> Mapping[str, str]:
        installation = Installation(self.workload)
        self.sessions = installation.create_sessions(self.workload.sessions)
        self.session = self.sessions[0]
        asks = installation.asks([self.session], "template")
        installation.pay(asks, lambda count: count > 0)
        before = stored(installation.data_file)
        installation.ledger.authorise_many([next(asks)]).result()
        self.templates = templates(installation.data_file, before)
        installation.close()
        self.connection = connect(installation.data_file)
        self.number = 0
        rows = {template.table: len(template.rows) for template in self.templates}
        return {
            "SQLite": sqlite3.sqlite_version,
            "rows a decision": ", ".join(f"{count} of {table}" for table, count in rows.items()),
            "pragmas": "; ".join(PRAGMAS),
            "sessions": str(len(self.sessions)),
        }

    def run(self, seconds: float) -> Rate:
        self.runs += 1
        draw = self.workload.draw(self.runs)
        count = 0
        taken = 0.0
        while taken < seconds:
            self.number += BATCH_ASKS
            spread = {
                number: {self.session: draw.choice(self.sessions)}
                for number in range(self.number, self.number + BATCH_ASKS)
            }
            batch = [
                (
                    template.statement,
                    [
                        renamed(row, names)
                        for number, names in spread.items()
                        for row in template.clones(number)
                    ],
                )
                for template in self.templates
            ]
            started = time.perf_counter()  # to make the rows is not SQLite's work
            self.connection.execute("BEGIN IMMEDIATE")
            for statement, rows in batch:
                self.connection.executemany(statement, rows)
            self.connection.execute("COMMIT")
            taken += time.perf_counter() - started
            count += BATCH_ASKS
        return Rate(count, taken)

    def close(self) -> None:
        if hasattr(self, "connection"):
            self.connection.close()
