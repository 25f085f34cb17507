"""The benchmark runs, does what it says it measures, and reckons right. No figure is looked at."""

import gc
import json
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from api.server import GC_ALLOCATIONS
from bench import results, shown
from bench.clone import stored
from bench.contender import AMOUNT_MICRO_USD, Contender, Rate, Workload
from bench.contenders import COMPARISONS, CONTENDERS
from bench.growth import FewSessions, ManySessions, OneSession, copy_session
from bench.http_floor import FastapiNoop
from bench.ours import BATCH_ASKS, LIMITS, EngineSqlite, EngineSqliteCallers, Installation
from bench.parties import EnginePostgresProcesses
from bench.postgres import PgPlpgsql
from bench.run import Measured, Turn, measure, percentile
from bench.served import HttpSqlite
from bench.sqlite_raw import SqliteRaw
from tests.ledger.oracle import query

ROOT = Path(__file__).parents[1]
SECONDS = 0.2


@pytest.fixture
def workload(tmp_path: Path) -> Workload:
    return Workload(seed=7, size=0.001, directory=tmp_path)


def decisions(workload: Workload) -> int:
    [(count,)] = query(
        workload.directory / "data" / "ledger.sqlite3", "SELECT count(*) FROM decisions"
    )
    return int(count)


def test_a_quick_run_writes_what_every_contender_did(tmp_path: Path) -> None:
    names = ["engine-sqlite", "engine-postgres", "sqlite-raw", "pg-plpgsql", "free-read"]
    output = tmp_path / "results.json"
    done = subprocess.run(
        [
            *(sys.executable, "-W", "error", "-m", "bench", "--quick", "--seconds", str(SECONDS)),
            *(argument for name in names for argument in ("--only", name)),
            *("--seed", "3", "--output", str(output)),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(output.read_text())
    assert sorted(found["contenders"]) == sorted(names)
    assert found["failed"] == found["missing"] == {}
    assert found["settings"] == {"seed": 3, "size": 0.001, "seconds": SECONDS, "rounds": 2}
    assert re.fullmatch(r"[0-9a-f]{40}\+?", found["commit"])
    assert {"processor", "cores", "memory_bytes", "file_system"} <= found["machine"].keys()
    assert found["versions"]["Python"] == sys.version.split()[0]
    for name, one in found["contenders"].items():
        turns = [turn["count"] / turn["seconds"] for turn in one["turns"]]
        assert one["figure"]["rounds"] == pytest.approx(turns)
        assert len(turns) == 2
        assert min(turns) > 0
        assert re.search(rf"^{name} ", done.stdout, re.MULTILINE)
    assert {ratio["name"] for ratio in found["ratios"]} == {
        "engine-sqlite ÷ sqlite-raw",
        "engine-sqlite ÷ pg-plpgsql",
        "engine-postgres ÷ pg-plpgsql",
    }
    drawn = ET.parse(output.with_suffix(".svg")).getroot()
    assert {*names} <= {text.text for text in drawn.iter("{http://www.w3.org/2000/svg}text")}


@pytest.mark.parametrize("kind", [EngineSqlite, EngineSqliteCallers, HttpSqlite, SqliteRaw])
def test_what_is_counted_is_stored(kind: type[Contender], workload: Workload) -> None:
    contender = kind(workload)
    try:
        contender.prepare()
        before = decisions(workload)
        rates = [contender.run(SECONDS) for _ in range(2)]
        assert decisions(workload) - before == sum(rate.count for rate in rates) > 0
    finally:
        contender.close()
    for rate in rates:
        assert rate.seconds >= SECONDS
        assert len(rate.latencies_ms) in (0, rate.count)


def test_what_several_processes_count_is_stored(workload: Workload) -> None:
    contender = EnginePostgresProcesses(workload)
    try:
        contender.prepare()
        rates = [contender.run(SECONDS) for _ in range(2)]
        rows = query(contender.parties.database, "SELECT session_id FROM decisions")
        assert len(rows) == sum(rate.count for rate in rates)
        paid = {session for (session,) in rows}
        assert all(paid.intersection(share) for share in contender.shares)
    finally:
        contender.close()


def test_each_session_that_was_copied_has_a_budget_of_its_own(workload: Workload) -> None:
    installation = Installation(workload)
    installation.create_sessions(1)
    before = stored(installation.data_file)
    [original] = installation.create_sessions(1)
    installation.close()
    copies = copy_session(installation.data_file, before, original, 300)
    assert len({original, *copies}) == 301
    paying = (original, copies[0], copies[-1])
    installation = Installation(workload)  # which reads and checks the whole log
    try:
        for session in paying:
            asks = installation.asks([session], "after")
            assert installation.pay(asks, lambda count: count > 0) == BATCH_ASKS
        left = [installation.ledger.remaining(session).result() for session in (*paying, copies[1])]
    finally:
        installation.close()
    spent = [LIMITS.per_day - one.per_day for one in left]
    assert spent == [BATCH_ASKS * AMOUNT_MICRO_USD] * 3 + [0]


class Elsewhere(FastapiNoop):
    """Asks for what is not there."""

    def requests(self) -> Sequence[str]:
        return [text.replace("POST /", "POST /not") for text in super().requests()]


def test_what_is_refused_is_not_counted(workload: Workload) -> None:
    contender = Elsewhere(workload)
    try:
        contender.prepare()
        with pytest.raises(AssertionError, match=r"it answered .*404"):
            contender.run(SECONDS)
    finally:
        contender.close()


class Counting(Contender):
    """Counts its turns; each is worth one more than the one before."""

    name = "counting"
    says = "Counts."

    def prepare(self) -> Mapping[str, str]:
        return {"directory": self.workload.directory.name}

    def run(self, seconds: float) -> Rate:
        self.runs += 1
        return Rate(self.runs, 1.0, [4.0, 3.0, 2.0, 1.0])

    def close(self) -> None:
        pass


class FailingAtLast(Counting):
    """Fails in its third turn, which is the second that counts."""

    name = "failing"

    def run(self, seconds: float) -> Rate:
        assert self.runs < 2, "denied"
        return super().run(seconds)


def test_who_fails_once_is_out_and_the_others_go_on(workload: Workload) -> None:
    said: list[str] = []
    counting, failing = measure(
        [Counting, FailingAtLast], workload, seconds=SECONDS, rounds=3, say=said.append
    )
    assert [turn.figure for turn in counting.turns] == [2, 3, 4], "the first one warms up"
    assert counting.turns[0] == Turn(2.0, 2, 1.0, 2.0, 4.0, None)
    assert (failing.turns, failing.kind) == ([], FailingAtLast)
    assert failing.fault is not None
    assert "denied" in failing.fault
    found = results.document([counting, failing], {}, {})
    assert list(found["contenders"]) == ["counting"]
    assert list(found["failed"]) == ["failing"]
    assert list(workload.directory.iterdir()) == [], "each has taken its directory away"


def turns(*figures: float) -> list[Turn]:
    return [Turn(figure, 1, 1.0, figure / 2, figure * 10, None) for figure in figures]


def test_ratios_are_of_one_round_and_not_of_medians() -> None:
    ours = Measured(EngineSqliteCallers, turns=turns(10, 40, 90))
    theirs = Measured(PgPlpgsql, turns=turns(10, 20, 30))
    rate, p99 = results.document([ours, theirs], {}, {})["ratios"]
    assert rate["name"] == "engine-sqlite-callers ÷ pg-plpgsql"
    assert (rate["rounds"], rate["median"], rate["min"], rate["max"]) == ([1, 2, 3], 2, 1, 3)
    assert p99["name"] == "p99 of engine-sqlite-callers ÷ pg-plpgsql"
    assert p99["rounds"] == [1, 2, 3]


@pytest.mark.parametrize(
    ("values", "percent", "expected"),
    [
        ([], 99, None),
        ([7.0], 1, 7.0),
        ([3.0, 1.0, 2.0, 4.0], 50, 2.0),
        ([3.0, 1.0, 2.0, 4.0], 51, 3.0),
        (list(range(1, 201)), 99, 198),
        (list(range(1, 201)), 100, 200),
    ],
)
def test_a_percentile_is_one_of_the_values(
    values: list[float], percent: float, expected: float | None
) -> None:
    assert percentile(values, percent) == expected


@pytest.mark.parametrize("figures", [(1.0, 1.0), (0.0123, 4_560_000.0), (999.9, 1000.1)])
def test_the_picture_shows_every_figure_inside_its_frame(figures: tuple[float, ...]) -> None:
    measured = [
        Measured(EngineSqlite, turns=turns(*figures)),
        Measured(SqliteRaw, turns=turns(5, 6)),
    ]
    about: dict[str, Any] = {"settings": {"rounds": 2, "seconds": 1}, "commit": "0" * 40}
    document = results.document(measured, {"x": "<why> & how"}, about)
    svg = "{http://www.w3.org/2000/svg}"
    drawn = ET.fromstring(shown.picture(document))
    dots = drawn.findall(f"{svg}circle")
    assert len(dots) == 3, "two contenders and their ratio"
    assert all(shown.LABEL_WIDTH <= float(dot.attrib["cx"]) <= shown.WIDTH for dot in dots)
    assert all(0 < float(dot.attrib["cy"]) < float(drawn.attrib["height"]) for dot in dots)
    assert "prefers-color-scheme: dark" in "".join(drawn.itertext())
    assert "x: not run: <why> & how" in shown.table(document)
    middle = document["contenders"]["engine-sqlite"]["figure"]["median"]
    assert middle == median(figures)


def test_every_comparison_is_of_contenders_that_are_measured_and_named_apart() -> None:
    assert len({kind.name for kind in CONTENDERS}) == len(CONTENDERS)
    compared = {kind for comparison in COMPARISONS for kind in (comparison.of, comparison.by)}
    assert compared <= {*CONTENDERS}
    assert all(kind.says for kind in CONTENDERS)


@pytest.mark.parametrize("kind", [EngineSqlite, OneSession, FewSessions, ManySessions])
def test_an_engine_is_measured_with_the_collector_of_the_server(
    kind: type[Contender], workload: Workload
) -> None:
    before = gc.get_threshold()
    contender = kind(workload)
    try:
        contender.prepare()
        assert gc.get_threshold()[0] == GC_ALLOCATIONS
    finally:
        contender.close()
    assert gc.get_threshold() == before


def test_every_name_has_room_in_the_picture() -> None:
    named = [kind.name for kind in CONTENDERS] + [comparison.name for comparison in COMPARISONS]
    widest_px = 8 * max(map(len, named))  # of 13 px, in a wide font
    assert widest_px < shown.LABEL_WIDTH
