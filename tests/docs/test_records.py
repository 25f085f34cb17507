"""docs/records.md tells of every record what the engine writes and what a verifier checks."""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from engine.audit.disclosure import GROUPS, Fields
from engine.audit.evidence import NOT_PROVEN
from engine.audit.record import Record
from engine.audit.replay import Replay, ReplayError
from engine.grant import NO_PARENT
from engine.sessions.session import SessionView
from tests.docs.all_records import Sessions, all_records

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "records.md").read_text()
EVIDENCE = (DOCS / "evidence.md").read_text()
OPAQUE = {"grant", "limits_micro_usd", "decision.evidence"}
"""Objects that have a table of their own."""
TYPES = {
    "text": str,
    "hash": str,
    "0x hash": str,
    "integer": int,
    "true/false": bool,
    "list": list,
    "object": dict,
    "null": type(None),
}
SPELLINGS = {"hash": r"[0-9a-f]{64}", "0x hash": r"0x[0-9a-f]{64}"}
ABSENT = object()
STATES = (
    *("", "awaiting_consent", "registering", "active", "paused"),
    *("mismatch", "expired", "revoked"),
)
OTHER = {"not": "it"}
"""No field has it."""
TRIED_MAX = 12
"""So many records are changed in a field of which nothing is looked at."""


class Row(msgspec.Struct):
    """What the page says of a field."""

    kinds: list[str]
    optional: bool
    group: str
    checked: str


def tables() -> dict[str, dict[str, Row]]:
    """The rows of the tables of records, by kind and field."""
    found: dict[str, dict[str, Row]] = {}
    for part in re.split(r"^### ", PAGE, flags=re.MULTILINE)[1:]:
        part = re.split(r"^## ", part, flags=re.MULTILINE)[0]
        if (title := re.match(r"`(\w+\.\w+)`\n", part)) is None:
            continue
        rows = found[title[1]] = {}
        for line in re.findall(r"^\| (`.*) \|$", part, re.MULTILINE):
            field, kinds, group, _, checked = (cell.strip() for cell in line.split("|"))
            named = kinds.split(" or ")
            rows[field.strip("`")] = Row(
                [each for each in named if each != "absent"],
                "absent" in named,
                group.strip("`"),
                checked,
            )
    return found


TABLES = tables()
FIELDS = [(kind, field) for kind, rows in TABLES.items() for field in rows]
ELSEWHERE = {
    ("session.created", "type"),
    ("session.created", "label"),
    ("session.created", "grant"),
    ("session.created", "grant_hash"),
    ("session.created", "parent_id"),
    ("session.created", "consent"),
    ("session.consented", "consent"),
    ("session.consented", "owner_signature"),
    ("session.registered", "tx_hash"),
}
"""What no replay looks at and other checks do: `tests/evidence` has those."""


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Sessions:
    """A story in which every kind of record occurs, with every field that it can have."""
    return all_records(tmp_path_factory.mktemp("records") / "data")


def test_every_kind_is_on_the_page_and_no_other(told: Sessions) -> None:
    assert set(TABLES) == {record.kind for _, records in told.values() for record in records}


@pytest.mark.parametrize("kind", TABLES)
def test_every_field_is_on_the_page_and_no_other(told: Sessions, kind: str) -> None:
    found: dict[str, list[Any]] = defaultdict(list)
    for body in bodies(told, kind):
        for path, value in paths(body, set(TABLES[kind])):
            found[path].append(value)
    assert set(found) == set(TABLES[kind])
    for path, values in found.items():
        row, there = TABLES[kind][path], [value for value in values if value is not ABSENT]
        assert row.optional == (len(there) < len(values)), path
        assert {type(value) for value in there} == {TYPES[each] for each in row.kinds}, path
        if (spelling := SPELLINGS.get(row.kinds[0])) is not None:
            assert all(re.fullmatch(spelling, each) for each in there if each is not None), path


def bodies(told: Sessions, kind: str) -> Iterator[Mapping[str, Any]]:
    for _, records in told.values():
        yield from (record.body for record in records if record.kind == kind)


def paths(value: Mapping[str, Any], known: set[str], at: str = "") -> Iterator[tuple[str, Any]]:
    """Every field within, and the known ones that it does not have beside those it has."""
    here = {path.removeprefix(at) for path in known if path.startswith(at)}
    direct = {path for path in here if not re.search(r"\.|\[", path)}
    for name in direct | value.keys():
        path, each = at + name, value.get(name, ABSENT)
        yield path, each
        if isinstance(each, dict) and path not in OPAQUE:
            yield from paths(each, known, f"{path}.")
        for item in each if isinstance(each, list) else ():
            if isinstance(item, dict):
                yield from paths(item, known, f"{path}[].")


def test_the_groups_are_those_that_can_be_withheld() -> None:
    for kind, rows in TABLES.items():
        groups = {
            field: name for name, fields in GROUPS.get(kind, {}).items() for field in dotted(fields)
        }
        assert groups.keys() <= rows.keys()
        for field, row in rows.items():
            whole = groups.get(field.partition("[")[0], "")
            assert row.group == groups.get(field, whole), (kind, field)


def dotted(fields: Fields) -> Iterator[str]:
    for name, within in fields.items():
        yield from [name] if within is None else (f"{name}.{step}" for step in dotted(within))


@pytest.mark.parametrize(("kind", "field"), [each for each in FIELDS if each not in ELSEWHERE])
def test_what_is_a_word_is_not_checked_and_all_else_is(
    told: Sessions, kind: str, field: str
) -> None:
    """Whether the replay refuses a record in which a field says something else, or is left out."""
    row = TABLES[kind][field]
    places = having(told, kind, field)
    if not row.checked.startswith("word"):
        assert any(is_refused(*place, put(body_at(place), field, OTHER)) for place in places)
        return
    changes = [OTHER] if row.group or "." in field else [OTHER, ABSENT]
    refused = [
        is_refused(*place, put(body_at(place), field, to))
        for place in places[:: max(1, len(places) // TRIED_MAX)]
        for to in changes
    ]
    assert refused
    assert not any(refused)


Place = tuple[SessionView, list[Record], int]


def having(told: Sessions, kind: str, field: str) -> list[Place]:
    """The records of a kind that have a field: of each its session, all its records, its place."""
    return [
        (view, records, place)
        for view, records in told.values()
        for place, record in enumerate(records)
        if record.kind == kind and put(record.body, field, OTHER) is not None
    ]


def body_at(place: Place) -> Mapping[str, Any]:
    return place[1][place[2]].body


def is_refused(
    view: SessionView, records: Sequence[Record], place: int, body: Mapping[str, Any] | None
) -> bool:
    """Whether the replay refuses a session with this body in the place of a record's."""
    assert body is not None
    # The hash stays: that it is another one is seen anyway.
    changed = msgspec.structs.replace(records[place], body=body)
    try:
        Replay(view.grant, view.grant_hash).feed([*records[:place], changed, *records[place + 1 :]])
    except ReplayError:
        return True
    return False


def put(
    body: Mapping[str, Any], field: str, to: object, *, new: bool = False
) -> dict[str, Any] | None:
    """The body with a field that says something else; None if it does not have it.

    `new` is one that it does not have, in an object that it has.
    """
    name, _, rest = field.partition(".")
    name, _, in_list = name.partition("[")
    if name not in body and not (new and not rest):
        return None
    within: Any = to
    if in_list:
        items = [put(item, rest, to, new=new) for item in body[name]]
        within = items if items and None not in items else None
    elif rest:
        within = put(body[name], rest, to, new=new) if isinstance(body[name], dict) else None
    if within is None:
        return None
    kept = {key: value for key, value in body.items() if key != name}
    return kept if within is ABSENT else {**kept, name: within}


def test_a_story_replays_as_it_is(told: Sessions) -> None:
    for view, records in told.values():
        Replay(view.grant, view.grant_hash).feed(records)


def test_the_states_in_which_each_record_can_come_are_those_of_the_replay(told: Sessions) -> None:
    text = PAGE.partition("in which states it can come")[2]
    cells = re.findall(r"^\| `(session\.\w+)` \| (.*) \| (.*) \|$", text, re.MULTILINE)
    rows = {kind: (found, leaves) for kind, found, leaves in cells}
    assert len(rows) == sum(kind.startswith("session.") for kind in TABLES) == 12
    for kind, (found, leaves) in rows.items():
        can_find, can_leave = states(found), states(leaves)
        for above in (False, True) if kind == "session.restricted" else (False,):
            view, body = example(told, kind, above)
            also = {"mismatch"} if above else set()
            for before in STATES:
                for after in STATES[1:]:
                    accepted = before in can_find | also
                    accepted &= after in can_leave or (not can_leave and after == before)
                    told_now = {**body, "state": after}
                    assert comes(view, kind, told_now, before) == accepted, (kind, before, after)


def states(cell: str) -> set[str]:
    if cell == "before any other":
        return {""}
    named = set(re.findall(r"`(\w+)`", cell.partition(";")[0])) & set(STATES)
    return set(STATES) - {""} - named if cell.startswith("all but") else named


def example(told: Sessions, kind: str, above: bool) -> tuple[SessionView, Mapping[str, Any]]:
    for view, records in told.values():
        for record in records:
            if record.kind == kind and ("ancestor_id" in record.body) >= above:
                assert not above or view.grant.parent != NO_PARENT
                if kind != "session.restricted" or ("ancestor_id" in record.body) == above:
                    return view, record.body
    raise AssertionError(f"no {kind}")


def comes(view: SessionView, kind: str, body: Mapping[str, Any], before: str) -> bool:
    """Whether a record can come where a session is in a state."""
    replay = Replay(view.grant, view.grant_hash)
    replay.state = before
    if kind == "session.unlowered":  # of something that counts
        replay.state = "active"
        replay.feed([record_of("session.lowered", {**body, "state": "active"})])
        replay.state = before
    if "policy_version" in body:
        replay.policy_version = body["policy_version"] - 1
    try:
        replay.feed([record_of(kind, body)])
    except ReplayError:
        return False
    return True


def record_of(kind: str, body: Mapping[str, Any]) -> Record:
    return Record(b"", bytes(32), "", "", "sess_", 0, None, 0, kind, body)


EXACT = {
    ("payment.signed", ""),
    ("payment.decided", "decision"),
    ("payment.decided", "decision.remaining"),
    ("payment.decided", "decision.evidence"),
    ("payment.decided", "request.terms"),
    ("payment.captured", "settlement"),
    ("payment.expired", "settlement"),
    ("payment.refused", "reasons[]"),
    ("session.lowered", "limits_micro_usd"),
    ("session.unlowered", "limits_micro_usd"),
}
"""What the page says is exact, and is a part of a body."""
OBJECTS = sorted(
    {(kind, "") for kind in TABLES}
    | {(kind, field.rpartition(".")[0]) for kind, field in FIELDS if "." in field}
    | EXACT
)


@pytest.mark.parametrize(("kind", "at"), OBJECTS)
def test_a_field_that_no_table_has_is_refused_in_what_is_exact_alone(
    told: Sessions, kind: str, at: str
) -> None:
    places = having(told, kind, next(iter(TABLES[kind])))
    if at == "request":  # of one that waits for an approval all is compared
        places = [place for place in places if body_at(place)["approval"] is None]
    found = [
        is_refused(*place, body)
        for place in places
        if (body := put(body_at(place), f"{at}.note".strip("."), "refunded", new=True)) is not None
    ]
    assert found
    assert set(found) == {(kind, at) in EXACT}


def test_what_every_file_says_is_not_proven_is_on_the_page_in_its_order() -> None:
    section = EVIDENCE.partition("### Not proven\n")[2].partition("\n## ")[0]
    assert tuple(re.findall(r"^- (.*)$", section, re.MULTILINE)) == NOT_PROVEN


@pytest.mark.parametrize("page", ["records.md", "evidence.md"])
def test_links_lead_to_a_heading(page: str) -> None:
    text = (DOCS / page).read_text()
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)", text):
        file = DOCS / (target or page)
        assert file.exists(), target
        if anchor and file.suffix == ".md":
            titles = re.findall(r"^##+ (.*)$", file.read_text(), re.MULTILINE)
            plain = [re.sub(r"[^\w -]", "", title).lower() for title in titles]
            assert anchor in [title.replace(" ", "-") for title in plain]
