"""Medians, spreads and ratios of the rounds, and the file that holds all of it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from bench.contenders import COMPARISONS
from bench.run import Measured, Turn

FORMAT = "tallystick.bench/1"


def summary(values: Sequence[float]) -> dict[str, Any]:
    """Median and spread over the rounds, and the rounds themselves."""
    return {
        "median": median(values),
        "min": min(values),
        "max": max(values),
        "rounds": list(values),
    }


def document(
    measured: Sequence[Measured], missing: Mapping[str, str], about: Mapping[str, Any]
) -> dict[str, Any]:
    """Everything that one run found, as JSON.

    `about` says what was run where, `missing` why a contender has not taken part.
    """
    return {
        "format": FORMAT,
        **about,
        "contenders": {one.kind.name: _contender(one) for one in measured if one.fault is None},
        "ratios": _ratios(measured),
        "missing": dict(missing),
        "failed": {one.kind.name: one.fault for one in measured if one.fault is not None},
    }


def write(document: Mapping[str, Any], path: Path) -> None:
    """Write it for people and programs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")


def _contender(one: Measured) -> dict[str, Any]:
    return {
        "says": one.kind.says,
        "unit": one.kind.unit,
        "higher_is_better": one.kind.higher_is_better,
        "prepared": dict(one.prepared),
        **{name: summary(values) for name, values in _series(one.turns).items()},
        "turns": [asdict(turn) for turn in one.turns],
    }


def _series(turns: Sequence[Turn]) -> dict[str, list[float]]:
    """The rounds of what every turn has."""
    series = {
        name: [getattr(turn, name) for turn in turns]
        for name in ("figure", "p50_ms", "p99_ms", "client_busy")
    }
    return {name: values for name, values in series.items() if None not in values}


def _ratios(measured: Sequence[Measured]) -> list[dict[str, Any]]:
    """Round by round, since both were measured within the same minutes."""
    series = {one.kind: _series(one.turns) for one in measured if one.fault is None}
    return [
        {
            "name": comparison.name,
            **summary(
                [
                    of / by
                    for of, by in zip(
                        series[comparison.of][comparison.what],
                        series[comparison.by][comparison.what],
                        strict=True,
                    )
                ]
            ),
        }
        for comparison in COMPARISONS
        if comparison.of in series and comparison.by in series
    ]
