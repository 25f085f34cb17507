"""The simulator finds nothing in the engine, everything that is planted, and can say it again."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.canaries import CANARIES
from tests.simulation.history import Stopped
from tests.simulation.simulate import live, main, plan, simulate
from tests.simulation.workload import TEMPERS

SEED = 7
DECISIONS = 2_000
HERE = Path(__file__).parent
AUDITORS = ("auditor", "approving", "books", "watch", "log", "pools", "terms")


def test_nothing_is_found_and_everything_that_can_happen_did(
    capsys: pytest.CaptureFixture[str],
) -> None:
    processes = min(2, os.cpu_count() or 1)
    result = simulate(SEED, DECISIONS, processes=processes)
    with capsys.disabled():
        sys.stdout.write(f"\nsimulated: seed {SEED}, digest {result.digest}\n")
    assert result.stopped is None, (result.failed, result.stopped)
    figures = result.figures
    assert figures["decisions"] >= DECISIONS
    faults = {
        f"{kind} at {point}"
        for kind, points in {
            "crash": ("statement", "before commit", "after commit", "chain"),
            "torn": ("after commit",),
            "full": ("statement", "before commit", "after commit"),
            "broken": ("statement", "before commit"),
        }.items()
        for point in points
    }
    happened = {name for name, count in figures.items() if count}
    assert happened >= faults | {
        "allowed",
        "approvals denied",
        "approvals expired",
        "approvals granted",
        "batches that happened unheard",
        "captured",
        "budgets of agents",
        "budgets of all",
        "crash while opening",
        "delegation refused: invalid_parameter",
        "delegation refused: parent_not_active",
        "denied: APPROVAL_REQUIRED",
        "denied: LIMIT_EXCEEDED",
        "denied: OUTSIDE_ACTIVE_HOURS",
        "denied: PARAMETERS_MISMATCH",
        "denied: SESSION_REVOKED",
        "denied: agent_budget",
        "denied: ancestor_budget",
        "denied: workspace_budget",
        "expired",
        "refused: key of another question",
        "refused: the chain is silent",
        "reorganisations",
        "replays",
        "roots compared",
        "sessions delegated",
        "sessions lowered",
        "sessions registered",
        "sessions revoked",
        "sessions unlowered",
        "sessions unregistered",
        "voided",
    }


@pytest.mark.parametrize("name", sorted(CANARIES))
def test_what_is_planted_is_found_and_named(name: str) -> None:
    canary = CANARIES[name]
    stopped = live(canary.seed, 0, canary.decisions, canary=name)
    assert isinstance(stopped, Stopped), f"nobody noticed: {canary.plant.__doc__}"
    assert stopped.finding.promise == canary.named, stopped


def test_what_another_process_finds_is_told_as_well() -> None:
    alone, together = (
        simulate(SEED, 700, canary="dropped-record", processes=processes) for processes in (1, 2)
    )
    assert str(alone.stopped) == str(together.stopped) != "None"
    assert alone.failed == together.failed


def test_a_canary_leaves_nothing_behind() -> None:
    before = live(SEED, 0, 30)
    for canary in CANARIES.values():
        with canary.plant():
            pass
    assert live(SEED, 0, 30) == before


def test_the_same_seed_is_the_same_history_whatever_python_hashes_to() -> None:
    def digest(seed: int, hash_seed: str) -> str:
        command = ("-m", "tests.simulation.simulate", "--seed", str(seed), "--decisions", "60")
        run = subprocess.run(
            [sys.executable, *command, "--processes", "1"],
            cwd=HERE.parents[1],
            env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(HERE.parents[1])},
            capture_output=True,
            text=True,
            check=True,
        )
        found = re.search(r"^digest ([0-9a-f]{64})$", run.stdout, re.MULTILINE)
        assert found, run.stdout
        return found[1]

    found = digest(SEED, "1")
    assert found == simulate(SEED, 60).digest
    assert found != simulate(SEED + 1, 60).digest


def test_the_shortest_prefix_that_fails_is_told_with_how_to_run_it_again(
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = [
        "--seed",
        str(CANARIES["lost-hold"].seed),
        "--canary",
        "lost-hold",
        "--processes",
        "1",
    ]
    assert main(arguments) == 1
    said = capsys.readouterr().out
    again = re.search(r"scripts/simulate (.*)", said)
    assert again, said
    fewest = int(re.findall(r"--steps ([0-9]+)", said)[0])
    assert main(again[1].split()) == 1
    assert main(again[1].replace(f"--steps {fewest}", f"--steps {fewest - 1}").split()) == 0
    assert "limits" in said


def test_a_run_is_cut_into_histories_of_every_temper() -> None:
    histories = list(plan(1_000_000))
    assert sum(decisions for _, decisions in histories) == 1_000_000
    assert [number for number, _ in histories] == list(range(len(histories)))
    assert {TEMPERS[number % len(TEMPERS)] for number, _ in histories} == set(TEMPERS)


@pytest.mark.parametrize("name", [*AUDITORS, "../audit/committed"])
def test_the_auditor_shares_no_code_with_the_engine(name: str) -> None:
    tree = ast.parse((HERE / f"{name}.py").read_text())
    imported = {
        module
        for node in ast.walk(tree)
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for module in (
            [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else [a.name for a in node.names]
        )
    }
    ours = {"tests.audit.committed", *(f"tests.simulation.{other}" for other in AUDITORS)}
    assert {m for m in imported if m.split(".")[0] not in sys.stdlib_module_names} <= ours
