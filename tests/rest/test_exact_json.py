import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from api.rest.exact_json import Number, loads
from engine.errors import InvalidInput

_names = st.sampled_from(["amount", "a", "b", '"', "\\", "é", ""])
_values = st.none() | st.booleans() | st.text(max_size=4) | st.integers() | st.lists(st.text())


@given(st.lists(st.tuples(_names, _values), max_size=4), st.booleans(), st.booleans())
@example([("a", "1"), ("a", "2")], False, False)
@example([("a", None), ("b", True)], True, False)
def test_an_object_is_read_whole_or_refused_for_a_name_that_is_there_twice(
    members: list[tuple[str, Any]], spaced: bool, escaped: bool
) -> None:
    colon, comma = (" : ", " ,\n") if spaced else (":", ",")
    written = comma.join(
        colon.join(json.dumps(part, ensure_ascii=escaped) for part in member) for member in members
    )
    body = ("{" + written + "}").encode()
    if len(dict(members)) == len(members):
        assert loads(body) == dict(members)
    else:
        with pytest.raises(InvalidInput, match="duplicate"):
            loads(body)


def test_a_number_beside_texts_keeps_its_digits() -> None:
    assert loads(b'{"a":"x","amount":0.10}') == {"a": "x", "amount": Number("0.10")}
