"""Lists as files: JSON, NDJSON or CSV, as long as they are, in the memory of one page.

A row is written as soon as it is read, the oldest first. CSV is that of RFC 4180 in UTF-8; a cell
that a spreadsheet would take for a formula begins with an apostrophe (OWASP, "CSV Injection"), and
what is an object or a list is JSON.
"""

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal

from fastapi.responses import StreamingResponse

from engine.policy.money import plain_decimals

Format = Literal["json", "ndjson", "csv"]
Row = Mapping[str, Any]

MEDIA_TYPES: Mapping[Format, str] = {
    "json": "application/json",
    "ndjson": "application/x-ndjson",
    "csv": "text/csv",
}
DOCUMENTED: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {
            "application/json": {"schema": {"type": "array", "items": {"type": "object"}}},
            "application/x-ndjson": {"schema": {"type": "string"}},
            "text/csv": {"schema": {"type": "string"}},
        }
    }
}
"""The answer of an export, for OpenAPI."""
FORMULA_BEGINS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")  # noqa: RUF001
"""The last four are those that a spreadsheet set to Japanese reads like the first."""


def export(
    name: str, wanted: Format, columns: Iterable[str], rows: Iterator[Row]
) -> StreamingResponse:
    """An answer with all rows; `columns` are those of CSV, the others have what a row has."""
    text: dict[Format, Callable[[], Iterator[str]]] = {
        "json": lambda: _json(rows),
        "ndjson": lambda: (_line(row) + "\n" for row in rows),
        "csv": lambda: _csv(list(columns), rows),
    }
    return StreamingResponse(
        text[wanted](),
        media_type=MEDIA_TYPES[wanted],
        headers={
            "Content-Disposition": f'attachment; filename="{name}.{wanted}"',
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
        },
    )


def cell(value: Any) -> str:
    """What stands in a cell of CSV."""
    if value is None:
        return ""
    text = value if isinstance(value, str) else _line(value)
    return f"'{text}" if text.startswith(FORMULA_BEGINS) else text


def _json(rows: Iterator[Row]) -> Iterator[str]:
    before = "[\n"
    for row in rows:
        yield before + _line(row)
        before = ",\n"
    yield "[]\n" if before == "[\n" else "\n]\n"


def _csv(columns: list[str], rows: Iterator[Row]) -> Iterator[str]:
    yield _csv_line(columns)
    for row in rows:
        yield _csv_line([cell(row.get(name)) for name in columns])


def _csv_line(cells: list[str]) -> str:
    line = io.StringIO(newline="")
    csv.writer(line).writerow(cells)
    return line.getvalue()


def _line(value: Any) -> str:
    return plain_decimals(json.dumps(value, ensure_ascii=False, separators=(",", ":")))
