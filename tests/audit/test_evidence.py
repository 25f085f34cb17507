"""The evidence file has one form, and says in it what it does not prove."""

import hashlib
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.audit import canonical
from engine.audit.canonical import INTEGER_MAX
from engine.audit.evidence import (
    FORMAT,
    NOT_PROVEN,
    Evidence,
    EvidenceError,
    log_salt,
    parse_evidence,
    render_evidence,
    seal_message,
)
from engine.audit.verify import Report, Verdict
from tests.evidence.story import Document, Story, read, story


@pytest.fixture(scope="module")
def told() -> Story:
    return story()


def test_a_file_is_its_canonical_document_and_a_newline(told: Story) -> None:
    document = told.document
    assert told.full == canonical.encode(document) + b"\n"
    assert (document["format"], document["not_proven"]) == (FORMAT, list(NOT_PROVEN))


def test_a_file_reads_back(told: Story) -> None:
    evidence, document = parse_evidence(told.full), told.document
    session = document["session"]
    assert (evidence.session_id, evidence.workspace) == (session["id"], session["workspace"])
    assert evidence.grant.to_json() == session["grant"]
    assert [entry.raw.decode() for entry in evidence.records] == [
        entry["record"] for entry in document["records"]
    ]
    assert evidence.signature.hex() == document.pop("signature")
    assert evidence.sealed() == seal_message(document)
    assert render_evidence(document, evidence.signature) == told.full


def test_the_seal_covers_everything_but_itself_under_a_name_of_its_own(told: Story) -> None:
    evidence = parse_evidence(told.full)
    document = told.document
    del document["signature"]
    message = evidence.sealed()
    digest = hashlib.sha256(canonical.encode(document)).digest()
    assert message == b"tallystick/evidence/2\n" + digest
    told.log_key.public_key().verify(evidence.signature, message)


def test_the_log_s_salt_is_the_hash_of_its_verifier_key() -> None:
    assert log_salt("a+b+c") == hashlib.sha256(b"a+b+c").digest()


def paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    if isinstance(value, dict):
        for name in value:
            yield from paths(value[name], (*path, name))
    elif isinstance(value, list):
        for place, item in enumerate(value):
            yield from paths(item, (*path, place))


def at(value: Any, path: tuple[Any, ...]) -> Any:
    for step in path:
        value = value[step]
    return value


def objects(document: Document) -> list[tuple[Any, ...]]:
    """Where the objects of the file are; the value of an opening is for its record to judge."""
    return [
        path
        for path in paths(document)
        if isinstance(at(document, path), dict) and "value" not in path
    ]


WHICH = pytest.mark.parametrize("which", ["full", "small_blind"])


@WHICH
def test_no_field_can_be_added_anywhere(told: Story, which: str) -> None:
    file = getattr(told, which)
    for path in objects(read(file)):
        document = read(file)
        at(document, path)["x"] = None
        with pytest.raises(EvidenceError):
            parse_evidence(canonical.encode(document) + b"\n")


@WHICH
def test_no_field_can_be_left_out_anywhere(told: Story, which: str) -> None:
    """But an opening: whether it must be there is for its record to say."""
    file = getattr(told, which)
    for path in objects(read(file)):
        for name in at(read(file), path):
            if name == "openings" or path[-1:] == ("openings",):
                continue
            document = read(file)
            del at(document, path)[name]
            with pytest.raises(EvidenceError):
                parse_evidence(canonical.encode(document) + b"\n")


@pytest.mark.parametrize("wrong", [None, True, 1, -1, "", "x", [], {}, [1], {"x": 1}], ids=repr)
@WHICH
def test_every_field_has_one_type(told: Story, wrong: object, which: str) -> None:
    """What is taken is of the type that was there, or one of the fields that can be null."""
    nullable = {"checkpoint", "label", "owner_signature"}
    file = getattr(told, which)
    for path in paths(read(file)):
        original = at(read(file), path)
        if not path or type(original) is type(wrong) or "limits_micro_usd" in path:
            continue
        if (wrong is None and path[-1] in nullable) or "value" in path[:-1]:
            continue
        if path[-1] == "label" and type(wrong) is str:
            continue
        document = read(file)
        at(document, path[:-1])[path[-1]] = wrong
        with pytest.raises(EvidenceError):
            parse_evidence(canonical.encode(document) + b"\n")


NOTED = {
    "kind": "parameters_differ",
    "severity": "critical",
    "evidence": {},
    "first_seen_ms": 1,
    "last_seen_ms": 2,
    "resolved_ms": None,
}


def test_a_discrepancy_reads_back(told: Story) -> None:
    document = told.document
    document["discrepancies"] = [NOTED, {**NOTED, "resolved_ms": 3}]
    assert parse_evidence(told.seal(document)).discrepancies == tuple(document["discrepancies"])
    report = told.verify(told.seal(document))
    assert report.verdict is Verdict.VERIFIED
    assert report.checks[1].reason.endswith("; the operator's server noted discrepancies (2)")


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda d: d["log"].update(id="AB" * 32), id="upper-case hash"),
        pytest.param(lambda d: d["log"].update(id="ab" * 31), id="31 bytes of hash"),
        pytest.param(lambda d: d.update(signature="00" * 63), id="63 bytes of signature"),
        pytest.param(lambda d: d["session"].update(owner_signature="00" * 64), id="64 bytes"),
        pytest.param(
            lambda d: d["session"].update(public_key="04" + "00" * 63), id="64 bytes of key"
        ),
        pytest.param(lambda d: d["chain"].update(chain_id="-1"), id="negative chain id"),
        pytest.param(lambda d: d["chain"].update(chain_id="+1"), id="signed chain id"),
        pytest.param(lambda d: d["chain"].update(chain_id="1_000"), id="chain id with underscore"),
        pytest.param(
            lambda d: d["chain"].update(chain_id="\u0661"), id="chain id in Arabic digits"
        ),
        pytest.param(lambda d: d["chain"].update(chain_id="9" * 5000), id="endless chain id"),
        pytest.param(lambda d: d["records"][0]["proof"].append("00"), id="one byte of proof"),
        pytest.param(lambda d: d["records"][0].update(proof=None), id="no proof"),
        pytest.param(lambda d: d["tail"].append(d["records"][0]), id="proof in the tail"),
        pytest.param(lambda d: d["not_proven"].reverse(), id="not proven, in another order"),
        pytest.param(lambda d: d.update(made_ms=-1), id="made before time"),
        pytest.param(lambda d: d["registration"].update(log_index=-1), id="a negative log index"),
        pytest.param(lambda d: d["registration"].update(tx_hash="00" * 31), id="31 bytes of hash "),
        pytest.param(lambda d: d["anchors"][0].update(size=-1), id="a negative size"),
        pytest.param(lambda d: d["anchors"][0].update(root="0x" + "00" * 32), id="0x of a root"),
        pytest.param(lambda d: d.update(withheld=["x"]), id="withheld that cannot be"),
        pytest.param(lambda d: d["records"][0].update(openings=[]), id="openings in a list"),
        pytest.param(lambda d: d["records"][0].update(openings={"x": {}}), id="opening of x"),
        pytest.param(lambda d: d.update(discrepancies=[{}]), id="a discrepancy without a field"),
        pytest.param(
            lambda d: d.update(discrepancies=[{**NOTED, "severity": "bad"}]), id="a severity"
        ),
        pytest.param(
            lambda d: d.update(discrepancies=[{**NOTED, "evidence": None}]), id="no evidence"
        ),
        pytest.param(
            lambda d: d.update(discrepancies=[NOTED], withheld=["label"]), id="evidence withheld"
        ),
        pytest.param(
            lambda d: d.update(discrepancies=[{**NOTED, "resolved_ms": -1}]), id="resolved early"
        ),
    ],
)
def test_a_file_of_another_form_is_refused(told: Story, change: Any) -> None:
    document = told.document
    change(document)
    with pytest.raises(EvidenceError):
        parse_evidence(canonical.encode(document) + b"\n")


@pytest.mark.parametrize(
    "file",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\n", id="newline"),
        pytest.param(b"{}\n", id="empty object"),
        pytest.param(b"[]\n", id="list"),
        pytest.param(b"null\n", id="null"),
        pytest.param(b"\xff\n", id="not UTF-8"),
        pytest.param(b"[" * 200_000 + b"\n", id="very deep"),
        pytest.param(b'{"a":' * 40 + b"1" + b"}" * 40 + b"\n", id="deep objects"),
        pytest.param(b"1" * 200_000 + b"\n", id="very long number"),
        pytest.param(b'{"format":"tallystick.evidence/2"}\n', id="only the format"),
        pytest.param(b'{"format":["tallystick.evidence/2"]}\n', id="format in a list"),
    ],
)
def test_what_is_no_file_is_tampered_and_never_an_exception(told: Story, file: bytes) -> None:
    report = told.verify(file)
    assert report.verdict is Verdict.TAMPERED
    assert [check.name for check in report.checks] == ["format"]


@pytest.mark.parametrize(
    "file",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR", id="a picture"),
        pytest.param(b'{"name":"tallystick","version":"1"}\n', id="another JSON"),
        pytest.param(b"# Tallystick\n", id="a text"),
    ],
)
def test_what_is_not_evidence_at_all_is_called_that(told: Story, file: bytes) -> None:
    report = told.verify(file)
    assert (report.verdict, report.reason) == (
        Verdict.TAMPERED,
        "format: this is not an evidence file",
    )


def test_evidence_that_was_damaged_is_not_called_something_else(told: Story) -> None:
    for file in (told.full[:-1], told.full[:900], told.full[5000:], told.full.replace(b",", b", ")):
        assert b"tallystick.evidence/" not in file or "not an" not in told.verify(file).reason
    other = told.full.replace(b"tallystick.evidence/2", b"tallystick.evidence/9")
    assert told.verify(other).reason == "format: not of format tallystick.evidence/2"


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda file: file[:-1], id="no newline"),
        pytest.param(lambda file: file + b"\n", id="two newlines"),
        pytest.param(lambda file: file[:-1] + b"\r\n", id="carriage return"),
        pytest.param(lambda file: b"\xef\xbb\xbf" + file, id="byte order mark"),
        pytest.param(lambda file: file.replace(b":", b": ", 1), id="a space"),
        pytest.param(lambda file: file.decode().encode("utf-16-le"), id="UTF-16"),
        pytest.param(lambda file: file * 2, id="twice"),
        pytest.param(lambda file: file[: len(file) // 2], id="half"),
        pytest.param(
            lambda file: file.replace(b',"chain"', b',"chain":{},"chain"', 1), id="a key twice"
        ),
        pytest.param(lambda file: file.replace("≤".encode(), rb"\u2264"), id="an escape"),
    ],
)
def test_the_same_document_in_other_bytes_is_tampered(told: Story, change: Any) -> None:
    changed = change(told.full)
    assert changed != told.full
    assert told.verify(changed).verdict is Verdict.TAMPERED


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-INTEGER_MAX, INTEGER_MAX)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
    | st.sampled_from(["", "0" * 64, "0x" + "0" * 40, "\x00", str(10**70)]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3)
    ),
    max_leaves=6,
)


IDLE = ("made_ms", "signature")


def mutate(data: st.DataObject, document: Document) -> None:
    """Put anything in the place of anything."""
    path = data.draw(st.sampled_from([path for path in paths(document) if path]))
    value = at(document, path)
    same = [st.just(value)]
    if isinstance(value, list):
        same = [st.just(value * 2), st.just(value[1:]), st.just(value[::-1])]
    elif isinstance(value, int):
        same = [st.just(min(value + 1, INTEGER_MAX)), st.just(-value), st.just(INTEGER_MAX)]
    elif isinstance(value, str):
        same = [st.just(value[::-1]), st.just(value + value), st.just(value[:-1])]
    at(document, path[:-1])[path[-1]] = data.draw(st.one_of(anything, *same))


@settings(max_examples=200)
@given(data=st.data(), sealed=st.booleans())
def test_whatever_stands_in_the_document_verification_answers(
    data: st.DataObject, sealed: bool
) -> None:
    told = story()
    document = read(told.small)
    for _ in range(data.draw(st.integers(1, 3))):
        mutate(data, document)
    file = told.seal(document) if sealed else canonical.encode(document) + b"\n"
    report = told.verify(file)
    assert isinstance(report, Report)
    if report.verdict is Verdict.VERIFIED:
        assert sealed or file == told.small
        found, meant = meaning(file), meaning(told.small)
        # The session is not over, so its last records can be left out: every file says so.
        assert found["records"] == meant["records"][: len(found["records"])]
        assert {**found, "records": ()} == {**meant, "records": ()}


def meaning(file: bytes) -> Document:
    """What a seal vouches for, but for the time of making, which is on no chain."""
    return {name: value for name, value in read(file).items() if name not in IDLE}


@settings(max_examples=200)
@given(data=st.data())
def test_whatever_stands_in_an_anchored_record_verification_answers(data: st.DataObject) -> None:
    told = story()

    def change(records: list[Document]) -> None:
        mutate(data, data.draw(st.sampled_from(records)))

    file, chain = told.relogged(change, told.small)
    assert isinstance(told.verify(file, chain), Report)


def test_parsing_gives_what_the_types_say(told: Story) -> None:
    evidence = parse_evidence(told.full)
    assert isinstance(evidence, Evidence)
    assert [type(entry.index) for entry in evidence.records] == [int] * len(evidence.records)
    assert (len(evidence.log_id), len(evidence.signature)) == (32, 64)
