"""The results for people: a table of text, and a picture."""

from collections.abc import Mapping, Sequence
from html import escape
from itertools import groupby
from math import ceil, floor, log10
from typing import Any

WIDTH = 920
ROW = 24
LABEL_WIDTH = 360
PLOT_WIDTH = 440
_PLOT_RIGHT = LABEL_WIDTH + PLOT_WIDTH
_STYLE = """
:root { color-scheme: light dark }
svg { background: #ffffff; font: 13px system-ui, sans-serif }
text { fill: #1f2328 } .note, .tick { fill: #59636e } .tick { font-size: 11px }
.title { font-weight: 600 } .grid { stroke: #d1d9e0 } .even { stroke: #59636e }
.ours { fill: #0a6640; stroke: #0a6640 } .theirs { fill: #57606a; stroke: #57606a }
@media (prefers-color-scheme: dark) {
  svg { background: #0d1117 }
  text { fill: #f0f6fc } .note, .tick { fill: #9198a1 } .grid { stroke: #3d444d }
  .even { stroke: #9198a1 }
  .ours { fill: #3fb950; stroke: #3fb950 } .theirs { fill: #9198a1; stroke: #9198a1 }
}
"""


def table(document: Mapping[str, Any]) -> str:
    """Medians, spreads and ratios as text."""
    lines = [f"{'':24} {'median':>12} {'min':>12} {'max':>12}   {'p50 ms':>9} {'p99 ms':>9}"]
    for name, one in document["contenders"].items():
        latencies = [
            f"{one[p]['median']:>9.3f}" if p in one else f"{'':9}" for p in ("p50_ms", "p99_ms")
        ]
        lines.append(f"{name:24} {_spread(one['figure'])}   {' '.join(latencies)}  {one['unit']}")
    if document["ratios"]:
        lines += ["", f"{'ratio of the same round':48} {'median':>12} {'min':>12} {'max':>12}"]
        lines += [f"{ratio['name']:48} {_spread(ratio)}" for ratio in document["ratios"]]
    lines += [f"{name}: not run: {reason}" for name, reason in document["missing"].items()]
    lines += [f"{name}: FAILED" for name in document["failed"]]
    return "\n".join(lines)


def picture(document: Mapping[str, Any]) -> str:
    """An SVG: the median of each contender as a dot, its spread as a line, one plot a unit.

    The axes are logarithmic. It has no script and follows the reader's light or dark scheme.
    """
    contenders = sorted(document["contenders"].items(), key=lambda item: item[1]["unit"])
    body: list[str] = []
    top = 28
    for unit, group in groupby(contenders, key=lambda item: item[1]["unit"]):
        rows = [(name, one["figure"], _class(one["says"])) for name, one in group]
        top = _plot(body, top, unit, rows)
    ratios = [(ratio["name"], ratio, "ours") for ratio in document["ratios"]]
    if ratios:
        top = _plot(body, top, "ratio, of the same round", ratios, even=True)
    settings = document["settings"]
    note = (
        f"{settings['rounds']} rounds of {settings['seconds']:g} s, commit "
        f"{document['commit'][:12]}. Dot: median; line: least to most; green: Tallystick. "
        "Logarithmic."
    )
    body.append(_text(12, top, note, "note"))
    height = top + 16
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'width="{WIDTH}" height="{height}" role="img">\n'
        f"<title>Tallystick beside what one would use instead</title>\n<style>{_STYLE}</style>\n"
        + "\n".join(body)
        + "\n</svg>\n"
    )


def _plot(
    body: list[str],
    top: int,
    title: str,
    rows: Sequence[tuple[str, Mapping[str, Any], str]],
    *,
    even: bool = False,
) -> int:
    """Append one plot that begins at `top`; return where the next may begin."""
    low = floor(log10(min(one["min"] for _, one, _ in rows)))
    high = ceil(log10(max(one["max"] for _, one, _ in rows)))
    high = max(high, low + 1)

    def across(value: float) -> float:
        return LABEL_WIDTH + (log10(value) - low) / (high - low) * PLOT_WIDTH

    bottom = top + 14 + ROW * len(rows)
    body.append(_text(12, top, title, "title"))
    for exponent in range(low, high + 1):
        x = across(10.0**exponent)
        kind = "even" if even and exponent == 0 else "grid"
        body.append(_line(x, top + 8, x, bottom, kind))
        body.append(_text(x, bottom + 14, _power(exponent), "tick", anchor="middle"))
    for number, (name, one, kind) in enumerate(rows):
        y = top + 14 + ROW * number + ROW / 2
        body.append(_text(LABEL_WIDTH - 10, y + 4, name, "", anchor="end"))
        body.append(_line(across(one["min"]), y, across(one["max"]), y, kind, width=2))
        body.append(f'<circle cx="{across(one["median"]):.1f}" cy="{y}" r="4.5" class="{kind}"/>')
        body.append(_text(_PLOT_RIGHT + 14, y + 4, _rounded(one["median"]), ""))
    return bottom + 48


def _power(exponent: int) -> str:
    return f"{10**exponent:,}" if exponent >= 0 else f"{10.0**exponent:.{-exponent}f}"


def _class(says: str) -> str:
    return "ours" if says.startswith("Ours") else "theirs"


def _spread(one: Mapping[str, float]) -> str:
    return " ".join(f"{_rounded(one[name]):>12}" for name in ("median", "min", "max"))


def _rounded(value: float) -> str:
    """Three digits that mean something; more would promise what the spread denies."""
    digits = max(0, 2 - floor(log10(value)))
    return f"{round(value, 2 - floor(log10(value))):,.{digits}f}"


def _text(x: float, y: float, text: str, kind: str, *, anchor: str = "start") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{kind}">{escape(text)}</text>'
    )


def _line(x1: float, y1: float, x2: float, y2: float, kind: str, *, width: int = 1) -> str:
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" '
        f'stroke-width="{width}" class="{kind}"/>'
    )
