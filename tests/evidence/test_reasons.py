"""What a report says of a file that is not right: in the file's own terms, and truly."""

import re
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import pytest
from msgspec.structs import replace

from engine.audit import canonical
from engine.audit.evidence import EvidenceError, parse_evidence
from engine.audit.examination import records_of
from engine.audit.record import Record, decode_record
from engine.audit.replay import Replay, ReplayError
from engine.audit.signed import PAYMENT_KINDS, SignedReader
from engine.audit.statement import statement
from engine.audit.verify import Verdict, examine
from engine.clock import ManualClock
from engine.evidence.html_report import render
from engine.grant import Grant
from tests.evidence.story import Document, Story, failed, read, replaced, story
from tests.ledger.asking import START_MS
from tests.ledger.paying import three_signed
from tests.world import World
from tests.world import records_of as stored_records

WRONG: tuple[Any, ...] = (None, True, -1, "x", "é", [], [None], {}, {"x": None})
MISSING = object()
PYTHONS = re.compile(
    r"\b(None|True|False|NoneType|int|str|dict|bool|tuple|argument|attribute|subscriptable|operand"
    r"|hashable|unhashable|iterable|codec|fromhex|unpack|Expected)\b|Error|\(\)|: '|<|^'|object at"
)
"""What Python and its libraries say of what they cannot do."""


@pytest.fixture(scope="module")
def told() -> Story:
    return story()


@pytest.fixture(scope="module")
def paid(tmp_path_factory: pytest.TempPathFactory) -> tuple[Grant, list[Record]]:
    """A session that signed, and what the chain or an operator made of that."""
    world = World(tmp_path_factory.mktemp("paid") / "data", ManualClock(START_MS))
    view = three_signed(world)
    records = stored_records(world, view)
    world.engine.close()
    return view.grant, records


def spoilt(value: Any, before: tuple[Any, ...] = ()) -> Iterator[Any]:
    """Copies of what it holds, in each of which one thing is of another kind, or is missing."""
    within = value.items() if isinstance(value, dict) else enumerate(value)
    for step, item in list(within):
        for wrong in (*WRONG, MISSING):
            changed = deepcopy(value)
            if wrong is MISSING:
                del changed[step]
            else:
                changed[step] = wrong
            yield changed
        if isinstance(item, dict | list):
            for inner in spoilt(item):
                yield (
                    {**value, step: inner}
                    if isinstance(value, dict)
                    else [
                        *value[:step],
                        inner,
                        *value[step + 1 :],
                    ]
                )


def reasons(grant: Grant, records: list[Record]) -> set[str]:
    """Why the records do not replay, with each body spoilt in every way; and what that leaves of
    signed payments."""
    found, seen = set(), set()
    for place, record in enumerate(records):
        if record.kind in seen:
            continue
        seen.add(record.kind)
        for body in spoilt(dict(record.body)):
            changed = [*records[:place], replace(record, body=body), *records[place + 1 :]]
            try:
                Replay(grant, grant.hash()).feed(changed)
            except ReplayError as error:
                found.add(str(error))
            reader = SignedReader()
            for each in changed:
                if each.kind in PAYMENT_KINDS:
                    reader.feed(each)
            found |= set(reader.payments(grant.session_key).faults)
    return found


def python_in(said: set[str]) -> list[str]:
    return sorted(each for each in said if PYTHONS.search(each))


def test_a_malformed_record_is_told_of_in_no_words_of_python(
    told: Story, paid: tuple[Grant, list[Record]]
) -> None:
    evidence = parse_evidence(told.full)
    said = reasons(evidence.grant, list(records_of(evidence))) | reasons(*paid)
    assert "record 3 (payment.decided): chain_time_ms is missing" in said
    assert "record 3 (payment.decided): null is not an integer" in said
    assert python_in(said) == []


@pytest.mark.parametrize("which", ["small", "small_blind"])
def test_a_malformed_file_is_told_of_in_no_words_of_python(told: Story, which: str) -> None:
    said = set()
    for document in spoilt(read(getattr(told, which))):
        try:
            for entry in parse_evidence(canonical.encode(document) + b"\n").entries():
                decode_record(entry.raw, entry.openings)
        except (EvidenceError, canonical.CanonicalError) as error:
            said.add(str(error))
    for entry in parse_evidence(getattr(told, which)).entries():
        for record in spoilt(canonical.decode_object(entry.raw)):
            try:
                decode_record(canonical.encode(record), entry.openings)
            except canonical.CanonicalError as error:
                said.add(str(error))
    prefix = "a field is missing or malformed: "
    assert prefix + "records[0]: an index is not an integer" in said
    assert prefix + "not a grant: owner is not lower-case hexadecimal of its length" in said
    assert python_in(said) == []


def test_what_is_not_the_file_s_own_place_is_not_told_as_one(told: Story) -> None:
    """The parts of a file are decoded one by one; where in a part is of no use to anybody."""
    for place in range(told.small.index(b'"log":'), len(told.small) - 1, 13):
        file = bytearray(told.small)
        file[place] ^= 0x80
        reason = told.verify(bytes(file)).reason
        assert reason.startswith("format: ")
        assert not re.search(r"(byte|character) \d", reason)


def test_an_unknown_consent_can_be_shown(told: Story) -> None:
    document = read(told.unsigned)
    document["session"]["consent"] = "fine"
    examined = examine(told.seal(document), told.chain, registry=told.registry)
    assert examined.report.reason == (
        'consent: the file names the consent "fine" without a signature; '
        'that of a grant without a parent is then "none"'
    )
    assert "fine" in render(statement(examined), "evidence.json")


def test_a_consent_that_the_chain_alone_has_is_named(told: Story) -> None:
    document = told.document
    document["session"].update(consent="none", owner_signature=None)
    report = told.verify(told.seal(document))
    assert report.reason == "consent: the chain records consent: eip712; the file shows none"


DIFFERENCES: list[tuple[int, Document, str]] = [
    (5, {"code": "ALLOWED"}, 'code is "LIMIT_EXCEEDED", the record says "ALLOWED"'),
    (3, {"allowed": 1}, "allowed is true, the record says 1"),
    (5, {"note": "x"}, "note is not to be in the record"),
    (5, {"evidence": {}}, "evidence.limit is 50000000, and not in the record"),
]


@pytest.mark.parametrize(("place", "changes", "said"), DIFFERENCES)
def test_the_first_field_that_differs_is_named_with_both_values(
    told: Story, place: int, changes: Document, said: str
) -> None:
    def change(records: list[Document]) -> None:
        records[place]["body"]["decision"].update(changes)

    report = told.verify(*told.relogged(change))
    assert failed(report) == "replay"
    assert f"): decision.{said}" in report.reason


def test_a_difference_within_is_named_and_a_long_value_is_cut(told: Story) -> None:
    def change(records: list[Document]) -> None:
        records[3]["body"]["decision"]["remaining"]["per_day"] = "9" * 1_000

    report = told.verify(*told.relogged(change))
    assert '(all): decision.remaining.per_day is 75000000, the record says "99999' in report.reason
    assert report.reason.endswith("999…")
    assert len(report.reason) < 300


def test_what_is_withheld_is_not_shown_where_a_decision_differs(told: Story) -> None:
    def change(records: list[Document]) -> None:
        records[6]["body"]["decision"].update(rule="merchants", code="ALLOWED")

    file, chain = told.relogged(change, withhold=("merchant",))
    reason = told.verify(file, chain).reason
    assert 'decision.code is "MERCHANT_NOT_ALLOWED", the record says "ALLOWED"' in reason
    assert "casino" not in reason


def test_one_is_not_told_as_many(told: Story) -> None:
    file, chain = told.relogged(lambda records: records[:1])
    document = read(file)
    document["tail"] = [{"index": 10_000, "record": told.document["records"][1]["record"]}]
    token = bytes.fromhex(document["session"]["token_id"])
    chain = replaced(chain, revocations={(told.registry, token): None})
    rows = {check.name: check.reason for check in told.verify(told.seal(document), chain).checks}
    assert rows["inclusion"] == "1 record"
    assert rows["tail"] == "the last record is not anchored yet"
    assert told.verify(told.seal(document), chain).verdict is not Verdict.VERIFIED
