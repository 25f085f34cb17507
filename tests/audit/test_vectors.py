"""The vectors are what the script makes today, and every file in them is judged as they say."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from engine.audit import canonical
from engine.audit.delegation import DEPTH_MAX
from engine.audit.disclosure import Opening
from engine.audit.record import decode_record, record_hash
from engine.audit.verify import verify
from tests.audit.make_vectors import VECTORS, made
from tests.audit.test_disclosure import by_javascript
from tests.audit.vector_sessions import snapshot
from tests.evidence.story import failed, read

SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "evidence.schema.json").read_bytes())
INDEX = json.loads((VECTORS / "evidence.json").read_bytes())
RECORDS = json.loads((VECTORS / "records.json").read_bytes())["records"]
WELL_FORMED = [name for name, told in INDEX["files"].items() if told["check"] != "format"]


def test_the_script_makes_exactly_the_vectors_that_are_here() -> None:
    here = [*VECTORS.glob("evidence/*"), VECTORS / "records.json", VECTORS / "evidence.json"]
    found = {str(path.relative_to(VECTORS)): path.read_bytes() for path in here}
    assert found == made()


def file(name: str) -> bytes:
    return (VECTORS / "evidence" / f"{name}.json").read_bytes()


@pytest.mark.parametrize("name", INDEX["files"])
def test_a_file_is_judged_as_the_vectors_say(name: str) -> None:
    told = INDEX["files"][name]
    chain = INDEX["chains"][told["chain"]]
    report = verify(file(name), snapshot(chain), registry=chain["registry"])
    assert (report.verdict.name.lower(), failed(report)) == (told["verdict"], told["check"])


def test_there_are_good_files_and_bad_ones_of_every_check_on_records() -> None:
    good = {told["chain"] for told in INDEX["files"].values() if told["verdict"] == "verified"}
    assert good == {"eip712", "passkey", "erc1271", "delegated"}
    checks = {told["check"] for told in INDEX["files"].values() if told["verdict"] == "tampered"}
    assert checks == {"format", "seal", "chain", "consent", "anchor", "inclusion", "sequence"}


@pytest.mark.parametrize("vector", RECORDS, ids=lambda vector: json.loads(vector["whole"])["kind"])
def test_a_record_its_committed_form_and_its_openings_are_one(vector: dict[str, Any]) -> None:
    whole, committed = vector["whole"].encode(), vector["committed"].encode()
    openings = {
        name: Opening(bytes.fromhex(told["salt"]), told["value"])
        for name, told in vector["openings"].items()
    }
    hashed = bytes.fromhex(vector["leaf_hash"])
    assert record_hash(whole) == decode_record(committed, {}).hash == hashed
    opened = decode_record(committed, openings)
    assert (opened.body, opened.withheld) == (decode_record(whole).body, set())
    lines = by_javascript(
        [
            json.dumps({"record": vector["whole"]}),
            json.dumps({"record": vector["committed"], "openings": vector["openings"]}),
        ]
    )
    assert [json.loads(line)["hash"] for line in lines] == [vector["leaf_hash"]] * 2


# The schema


def validator(definition: str | None = None) -> Any:
    schema = (
        SCHEMA if definition is None else {**SCHEMA["$defs"][definition], "$defs": SCHEMA["$defs"]}
    )
    return jsonschema_rs.Draft202012Validator(schema)


def test_the_schema_lets_a_line_be_as_long_as_the_verifier_does() -> None:
    ancestors = SCHEMA["properties"]["session"]["properties"]["ancestors"]
    assert ancestors["maxItems"] == DEPTH_MAX - 1


def test_the_schema_is_one() -> None:
    jsonschema_rs.meta.validate(SCHEMA)
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"


@pytest.mark.parametrize("name", WELL_FORMED)
def test_every_file_of_the_vectors_and_every_record_in_it_fits_the_schema(name: str) -> None:
    document = read(file(name))
    check_schema(document)
    assert document["records"] or document["tail"]


def check_schema(document: dict[str, Any]) -> None:
    """The document fits the schema, and so do the records, each of its form."""
    validator().validate(document)
    for entry in (*document["records"], *document["tail"]):
        definition = "committed_record" if "openings" in entry else "whole_record"
        validator(definition).validate(canonical.decode_object(entry["record"].encode()))


def objects(value: Any) -> Iterator[dict[str, Any]]:
    """The objects whose fields the format fixes: not the value of an opening."""
    if isinstance(value, dict):
        yield value
    for name, inner in value.items() if isinstance(value, dict) else enumerate(value):
        if isinstance(inner, dict | list) and name != "value":
            yield from objects(inner)


OPTIONAL = ("openings", "label", "merchant", "user_wallet")


@pytest.mark.parametrize("name", ["whole", "label-withheld", "all-withheld", "tail"])
def test_the_schema_refuses_a_field_too_many_or_too_few_anywhere(name: str) -> None:
    original = read(file(name))
    for place, told in enumerate(objects(original)):
        document = read(file(name))
        list(objects(document))[place]["x"] = None
        assert not validator().is_valid(document)
        for field in told:
            document = read(file(name))
            del list(objects(document))[place][field]
            optional = field in OPTIONAL and told is not original["session"]
            assert validator().is_valid(document) == optional, field
