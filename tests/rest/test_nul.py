"""A NUL gets to no statement: on PostgreSQL one would fail, and its whole batch with it."""

import re

from tests.rest.served import Served, document

NUL = "a%00b"


def test_no_path_has_one(api: Served) -> None:
    asked = 0
    for path, operations in document()["paths"].items():
        if not path.startswith("/api/") or "{" not in path:
            continue
        for method in operations:
            place = re.sub(r"\{[a-z_]+\}", NUL, path)
            answer = api.call(method.upper(), place, token=None)
            assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), place
            asked += 1
    assert asked > 30


def test_a_query_with_one_is_told_which(api: Served) -> None:
    for query, field in (
        (f"label={NUL}", "label"),
        (f"status=active&agent_id={NUL}", "agent_id"),
        (f"la%00bel={NUL}", "label"),
        ("%00", "query"),
    ):
        answer = api.get(f"/api/v1/ai/sessions?{query}")
        assert answer.status_code == 422
        assert answer.json()["details"]["field"] == field
    assert api.get("/api/v1/ai/sessions?label=a%2500b").status_code == 200
