"""docs/storage.md tells the truth."""

import asyncio
import inspect
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from api.gate.gate import Gate
from engine.selling.currency import Exact
from engine.storage import limits, load, memory, session
from engine.storage.limits import Limits
from engine.storage.load import define_session_store
from engine.storage.session import Session, Storage
from tests.storage.stores import new_payer

DOCUMENT = (Path(__file__).parents[2] / "docs" / "storage.md").read_text()
[EXAMPLE, SELLING, OWN] = re.findall(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)


def test_the_example_prints_what_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    exec(EXAMPLE, names)
    asyncio.run(names["main"]())
    assert f"\n```\n{capsys.readouterr().out}```\n" in DOCUMENT


def test_the_store_of_ones_own_is_one() -> None:
    names: dict[str, Any] = {}
    exec(OWN, names)
    storage = Storage(define_session_store(names["DictStore"]()))
    session, other = storage.session(new_payer()), storage.session(new_payer())

    async def main() -> None:
        await session.set_many({"a": "1", "b": "2", "c": "3", "d": "4"})
        assert await session.get_many(["a", "x"]) == {"a": "1", "x": None}
        assert await session.delete("d")
        assert not await session.delete("d")
        first = await session.list(limit=2)
        assert first.entries == {"a": "1", "b": "2"}
        await session.delete("b")
        last = await session.list(cursor=first.cursor, keys_only=True)
        assert (last.entries, last.cursor) == ({"c": ""}, None)
        assert (await other.list()).entries == {}

    asyncio.run(main())


def test_the_limits_are_documented_with_their_defaults_and_errors() -> None:
    rows = re.findall(r"^\| `(\w+_max)` \| (\d+) \| `(\w+)` \|$", DOCUMENT, re.MULTILINE)
    assert [(name, int(default)) for name, default, _ in rows] == [
        (field.name, field.default) for field in fields(Limits)
    ]
    assert all(hasattr(limits, error) for _, _, error in rows)


def test_what_is_found_by_other_names_is_there() -> None:
    table = DOCUMENT.partition("## In other words")[2]
    rows = [line.split("|")[2] for line in table.splitlines() if line.startswith("| `")]
    told = [span for row in rows for span in re.findall(r"`(.+?)`", row)]
    things = vars(session) | vars(memory) | vars(load) | {"Gate": Gate, "Exact": Exact}
    for span in told:
        parts = re.fullmatch(r"(\w+)(?:\.(\w+))?(?:\((.*)\))?", span)
        assert parts is not None, span
        name, attribute, values = parts.groups()
        found = getattr(things[name], attribute) if attribute else things[name]
        for value in re.findall(r"(\w+)=", values or ""):
            assert value in inspect.signature(found).parameters, span
    assert len(told) == 22


def test_every_verb_is_documented() -> None:
    verbs = {name for name in vars(Session) if not name.startswith("_")} - {"payer", "chain"}
    assert sorted(verb for verb in verbs if f"`{verb}(" not in DOCUMENT) == []
