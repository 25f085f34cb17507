"""The parts of a page: sections, lists, tables and their cells. Every value is escaped."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from markupsafe import Markup

from engine.policy.money import format_usd

YEAR_10000_MS = 253_402_300_800_000


def time_text(time_ms: int) -> str:
    """A time for people, to the second where it is one: `2026-11-21 22:43:26`.

    A file can tell of times after the year 9999, for which there is no calendar here.
    """
    if time_ms >= YEAR_10000_MS:
        return f"{time_ms} ms"
    moment = datetime.fromtimestamp(time_ms // 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
    return f"{moment}.{time_ms % 1000:03}" if time_ms % 1000 else moment


def amount_text(micro_usd: int | None) -> str:
    """An amount for people; a limit that is None is not there."""
    return "no limit" if micro_usd is None else format_usd(micro_usd)


def section(title: str, content: Markup) -> Markup:
    """A part of the page under a heading."""
    return Markup('<section class="{}">\n<h2>{}</h2>\n{}\n</section>').format(
        title.partition(" ")[0].lower(), title, content
    )


def facts(pairs: Iterable[tuple[str, Any]]) -> Markup:
    """Names and what they are."""
    rows = Markup("").join(Markup("<dt>{}</dt><dd>{}</dd>").format(*fact) for fact in pairs)
    return Markup("<dl>{}</dl>").format(rows)


def bullets(items: Iterable[Any]) -> Markup:
    """A list."""
    rows = Markup("").join(Markup("<li>{}</li>").format(item) for item in items)
    return Markup("<ul>{}</ul>").format(rows)


def table(heads: Sequence[str], rows: Sequence[Sequence[Any]]) -> Markup:
    """A table; what stands above amounts is aligned as they are."""
    plain, aligned = Markup("<th>{}</th>"), Markup('<th class="amount">{}</th>')
    top = Markup("").join(
        (aligned if any(isinstance(row[place], Cell) for row in rows) else plain).format(head)
        for place, head in enumerate(heads)
    )
    body = Markup("\n").join(
        Markup("<tr>{}</tr>").format(
            Markup("").join(
                cell if isinstance(cell, Cell) else Markup("<td>{}</td>").format(cell)
                for cell in row
            )
        )
        for row in rows
    )
    return Markup("<table>\n<thead><tr>{}</tr></thead>\n<tbody>\n{}\n</tbody>\n</table>").format(
        top, body
    )


class Cell(Markup):
    """A whole cell of a table."""


def amount(micro_usd: int | None) -> Cell:
    """A cell with an amount in micro-USD."""
    return Cell('<td class="amount">{}</td>').format(amount_text(micro_usd))


def number(value: int) -> Cell:
    """A cell with a number."""
    return Cell('<td class="amount">{}</td>').format(value)


def time(time_ms: int) -> Markup:
    """A time that does not break."""
    return Markup('<span class="time">{}</span>').format(time_text(time_ms))


def code(text: str) -> Markup:
    """A hash, key or address."""
    return Markup("<code>{}</code>").format(text)
