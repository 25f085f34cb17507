"""Lists as files: every row of the list, whatever is in it, in the memory of a page."""

import csv
import io
import json
from typing import Any

import pytest

from api.rest.exports import FORMULA_BEGINS, cell
from engine.db import database
from tests.rest.served import PAYMENTS, Served, refused

ACTS = "/api/v1/audit"
TEXTS = ("=1+1", "+1", "-1", "@SUM(A1)", 'a "b", c', "\uff1d1", "\u2028 =1", "plain")


@pytest.fixture
def paid(tenant: Served, monkeypatch: pytest.MonkeyPatch) -> Served:
    """Payments of two sessions with descriptions that a spreadsheet may misread."""
    monkeypatch.setattr(database, "ROWS_TOGETHER", 4)
    for token in (tenant.session()["session_token"], tenant.session()["session_token"]):
        for description in TEXTS:
            tenant.hold(token, 1, description=description)
    return tenant


def rows(served: Served, path: str, form: str) -> list[Any]:
    answer = served.get(path + ("&" if "?" in path else "?") + f"format={form}")
    assert answer.status_code == 200, answer.text
    assert answer.headers["Content-Disposition"].endswith(f'.{form}"')
    if form == "json":
        found: list[Any] = answer.json()
        return found
    if form == "ndjson":
        return [json.loads(line) for line in answer.text.split("\n")[:-1]]
    return list(csv.DictReader(io.StringIO(answer.text, newline="")))


def test_an_export_has_the_rows_of_the_list_in_each_form(paid: Served) -> None:
    listed = paid.get(f"{PAYMENTS}?limit=100").json()["data"][::-1]
    assert len(listed) == 2 * len(TEXTS)
    assert rows(paid, f"{PAYMENTS}/export", "json") == listed
    assert rows(paid, f"{PAYMENTS}/export", "ndjson") == listed
    cells = rows(paid, f"{PAYMENTS}/export", "csv")
    assert [each["id"] for each in cells] == [payment["id"] for payment in listed]
    assert [each["description"] for each in cells] == [cell(text) for text in TEXTS] * 2
    assert [json.loads(each["decision"]) for each in cells] == [p["decision"] for p in listed]
    acts = paid.get(f"{ACTS}?limit=100").json()["data"][::-1]
    assert rows(paid, f"{ACTS}/export", "json") == rows(paid, f"{ACTS}/export", "ndjson") == acts
    assert [each["id"] for each in rows(paid, f"{ACTS}/export", "csv")] == [a["id"] for a in acts]


def test_no_cell_is_a_formula(paid: Served) -> None:
    for path in (f"{PAYMENTS}/export", f"{ACTS}/export"):
        for row in rows(paid, path, "csv"):
            assert not [text for text in row.values() if text.startswith(FORMULA_BEGINS)]
    assert [cell(text) for text in ("=1", "\t1", "\r1", "-1", "1-1")] == [
        "'=1",
        "'\t1",
        "'\r1",
        "'-1",
        "1-1",
    ]


def test_the_filters_are_those_of_the_list(paid: Served) -> None:
    first = rows(paid, f"{PAYMENTS}/export", "json")[0]["session_id"]
    some = rows(paid, f"{PAYMENTS}/export?session_id={first}", "json")
    assert len(some) == len(TEXTS)
    assert {payment["session_id"] for payment in some} == {first}
    assert rows(paid, f"{ACTS}/export?action=session.created&end_date=2020-01-01", "json") == []
    made = rows(paid, f"{ACTS}/export?action=session.created", "ndjson")
    assert [act["action"] for act in made] == ["session.created"] * 2
    for path in (f"{PAYMENTS}/export?format=xlsx", f"{ACTS}/export?format="):
        refused(paid.get(path), 422, "invalid_parameter", "format")
    refused(paid.get(f"{PAYMENTS}/export?session_id=sess_x"), 404, "session_not_found")


def test_a_session_exports_its_own_and_a_tenant_nothing_of_another(
    api: Served, paid: Served
) -> None:
    token = paid.session()["session_token"]
    own = paid.hold(token)["id"]
    for named in ("", "?session_id=self"):
        answer = paid.call("GET", f"{PAYMENTS}/export{named}", token=token)
        assert [payment["id"] for payment in answer.json()] == [own]
        listed = paid.call("GET", PAYMENTS + named, token=token).json()["data"]
        assert [payment["id"] for payment in listed] == [own]
    other = api.tenant("another-tenant")
    assert rows(other, f"{PAYMENTS}/export", "json") == []
    assert {act["stream"] for act in rows(other, f"{ACTS}/export", "json")} == {"another-tenant"}
