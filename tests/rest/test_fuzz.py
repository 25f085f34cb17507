"""A short run of what `scripts/fuzz` does at length: every operation, the same every time."""

import pytest

from tests.rest.fuzzing import OPERATIONS, REACHED, fuzz
from tests.rest.served import Served, document

EXAMPLES_WITH_BODY = 20
EXAMPLES_WITHOUT = 10
"""What takes no body has little that can be made up."""


@pytest.mark.parametrize(
    ("method", "path"), OPERATIONS, ids=[" ".join(pair) for pair in OPERATIONS]
)
def test_made_up_requests_hear_what_is_documented(api: Served, method: str, path: str) -> None:
    takes_a_body = "requestBody" in document()["paths"][path][method.lower()]
    heard = fuzz(api, method, path, EXAMPLES_WITH_BODY if takes_a_body else EXAMPLES_WITHOUT)
    assert heard.keys() & REACHED, "no request was good enough to be looked at"
