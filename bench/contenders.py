"""Who is measured, in the order of the turns, and who is compared with whom."""

from dataclasses import dataclass
from typing import Literal

from bench.anvil_allowance import AnvilAllowance
from bench.audit_log import InclusionProof, LogAppend, Verify
from bench.contender import Contender
from bench.growth import FewSessions, ManySessions, OneSession, OneSessionPrior
from bench.http_floor import FastapiNoop, HttpFloor
from bench.limits_library import LimitsMemory, LimitsValkey
from bench.ours import (
    EnginePostgres,
    EnginePostgresAlone,
    EnginePostgresCallers,
    EngineSqlite,
    EngineSqliteAlone,
    EngineSqliteCallers,
)
from bench.parties import EnginePostgresProcesses
from bench.postgres import PgPlpgsql, PgPlpgsqlAlone, PgPlpgsqlPrior, PgStatements
from bench.served import (
    HttpPostgres,
    HttpPostgresFastapi,
    HttpSqlite,
    HttpSqliteFastapi,
    ReadyAfterKill,
)
from bench.sqlite_raw import SqliteRaw
from bench.store import (
    FreeRead,
    PlainDict,
    PlainValkey,
    StoreMemory,
    StoreSqlite,
    StoreValkey,
)
from bench.valkey_lua import ValkeyLua

CONTENDERS: tuple[type[Contender], ...] = (
    EngineSqlite,
    EngineSqliteCallers,
    EngineSqliteAlone,
    EnginePostgres,
    EnginePostgresCallers,
    EnginePostgresAlone,
    EnginePostgresProcesses,
    SqliteRaw,
    PgPlpgsql,
    PgPlpgsqlAlone,
    PgPlpgsqlPrior,
    PgStatements,
    ValkeyLua,
    LimitsMemory,
    LimitsValkey,
    AnvilAllowance,
    HttpSqlite,
    HttpSqliteFastapi,
    HttpPostgres,
    HttpPostgresFastapi,
    FastapiNoop,
    HttpFloor,
    OneSession,
    OneSessionPrior,
    FewSessions,
    ManySessions,
    LogAppend,
    InclusionProof,
    Verify,
    ReadyAfterKill,
    StoreMemory,
    PlainDict,
    StoreSqlite,
    StoreValkey,
    PlainValkey,
    FreeRead,
)


@dataclass(frozen=True, slots=True)
class Comparison:
    """`of` divided by `by`, round by round: their figures, or their latencies' 99th percentile."""

    of: type[Contender]
    by: type[Contender]
    what: Literal["figure", "p99_ms"] = "figure"

    @property
    def name(self) -> str:
        """As it is shown."""
        p99 = "p99 of " if self.what == "p99_ms" else ""
        return f"{p99}{self.of.name} ÷ {self.by.name}"


COMPARISONS = (
    Comparison(EngineSqlite, SqliteRaw),
    *(
        Comparison(ours, theirs)
        for ours in (EngineSqlite, EnginePostgres, EnginePostgresProcesses)
        for theirs in (PgPlpgsql, PgPlpgsqlPrior, PgStatements)
    ),
    Comparison(EngineSqliteCallers, PgPlpgsql),
    Comparison(EnginePostgresCallers, PgPlpgsql),
    Comparison(EngineSqliteAlone, PgPlpgsqlAlone),
    Comparison(EnginePostgresAlone, PgPlpgsqlAlone),
    Comparison(EngineSqlite, ValkeyLua),
    Comparison(EngineSqlite, LimitsValkey),
    Comparison(EngineSqlite, LimitsMemory),
    Comparison(EngineSqlite, AnvilAllowance),
    Comparison(HttpSqlite, FastapiNoop),
    Comparison(HttpSqliteFastapi, FastapiNoop),
    Comparison(HttpPostgres, FastapiNoop),
    Comparison(HttpPostgresFastapi, FastapiNoop),
    Comparison(HttpFloor, FastapiNoop),
    Comparison(OneSessionPrior, OneSession),
    Comparison(ManySessions, FewSessions),
    Comparison(StoreMemory, PlainDict),
    Comparison(StoreSqlite, PlainValkey),
    Comparison(StoreValkey, PlainValkey),
    Comparison(FreeRead, StoreSqlite),
    Comparison(EngineSqliteCallers, PgPlpgsql, "p99_ms"),
    Comparison(EnginePostgresCallers, PgPlpgsql, "p99_ms"),
    Comparison(HttpSqlite, FastapiNoop, "p99_ms"),
    Comparison(HttpSqliteFastapi, FastapiNoop, "p99_ms"),
)
