"""Any order of verbs by two payers does in every store what it does in the model.

CI does a few of them; `scripts/store-conformance --seed N --examples M` as many as one likes.
"""

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule
from hypothesis.stateful import run_state_machine_as_test as run

from engine.clock import ManualClock, system_clock
from engine.errors import InvalidInput
from engine.storage.limits import Changed, Limits, QuotaExceeded
from engine.storage.session import Storage
from tests.servers import PostgresServer, ValkeyServer
from tests.storage.model import Model
from tests.storage.stores import KINDS, new_payer, open_storage

T = TypeVar("T")

LIMITS = Limits(payer_entries_max=6, payer_bytes_max=60)
DEFAULT_LIFE = 100_000

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=4)
keys = (
    st.sampled_from(["a", "ab", "b"])
    | st.sampled_from(["\0", "é", "e\u0301", "%", "_", "__proto__"])
    | texts.filter(len)
)
prefixes = st.sampled_from(["", "a", "\0"]) | texts
values = texts | st.just("x" * 30)
lives = st.sampled_from([None, 0, 50_000, 150_000])


class Stores(RuleBasedStateMachine):
    """Two payers of one store, and the model of each."""

    storage: Storage
    runner: asyncio.Runner
    clock: ManualClock

    def __init__(self) -> None:
        super().__init__()
        self.models = [Model(LIMITS.payer_entries_max, LIMITS.payer_bytes_max) for _ in "12"]
        self.sessions = [self.storage.session(new_payer()) for _ in "12"]
        for who in (0, 1):
            self.set(who, dict.fromkeys(["a", "ab", "\0"], "x"), None)
        self.cursors: list[tuple[int, str, tuple[str, str]]] = []

    def do(self, awaitable: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(awaitable)

    who = st.integers(0, 1)

    @rule(who=who, entries=st.dictionaries(keys, values, max_size=4), life=lives)
    def set(self, who: int, entries: dict[str, str], life: int | None) -> None:
        model, session = self.models[who], self.sessions[who]
        if model.fits(entries):
            self.do(session.check_set(entries))
            self.do(session.set_many(entries, ttl_ms=life))
            model.set(entries, DEFAULT_LIFE if life is None else life, self.clock.now_ms)
        else:
            for ask in (session.check_set, session.set_many):
                with pytest.raises(QuotaExceeded):
                    self.do(ask(entries))

    @rule(who=who, key=keys, old=st.none() | values, guess=st.booleans(), new=st.none() | values)
    def replace(self, who: int, key: str, old: str | None, guess: bool, new: str | None) -> None:
        model, session = self.models[who], self.sessions[who]
        there = model.list("").get(key)
        assert self.do(session.peek(key)) == there
        wanted = old if guess else there
        if wanted != there:
            with pytest.raises(Changed):
                self.do(session.replace(key, wanted, new))
        elif new is None:
            self.do(session.replace(key, wanted, None))
            model.delete([key])
        elif model.fits({key: new}):
            self.do(session.replace(key, wanted, new))
            model.set({key: new}, DEFAULT_LIFE, self.clock.now_ms)
        else:
            with pytest.raises(QuotaExceeded):
                self.do(session.replace(key, wanted, new))
        self.check_what_is_left(who)

    @rule(who=who, asked=st.lists(keys, max_size=4))
    def get(self, who: int, asked: Sequence[str]) -> None:
        expected = self.models[who].get(asked, self.clock.now_ms)
        assert self.do(self.sessions[who].get_many(asked)) == expected

    @rule(who=who, key=keys)
    def get_one(self, who: int, key: str) -> None:
        expected = self.models[who].get([key], self.clock.now_ms)[key]
        assert self.do(self.sessions[who].get(key)) == expected

    @rule(who=who, asked=st.lists(keys, max_size=4))
    def delete(self, who: int, asked: Sequence[str]) -> None:
        assert self.do(self.sessions[who].delete_many(asked)) == self.models[who].delete(asked)
        self.check_what_is_left(who)

    @rule(who=who, prefix=prefixes, limit=st.integers(0, 3), keys_only=st.booleans())
    def list(self, who: int, prefix: str, limit: int, keys_only: bool) -> None:
        after: tuple[str, str] | None = ("", "")
        while after is not None:
            after = self.page(who, prefix, after, limit, keys_only)

    @precondition(lambda self: self.cursors)
    @rule(data=st.data(), limit=st.integers(0, 3))
    def list_on(self, data: st.DataObject, limit: int) -> None:
        who, prefix, after = data.draw(st.sampled_from(self.cursors))
        self.page(who, prefix, after, limit, False)

    def page(
        self, who: int, prefix: str, after: tuple[str, str], limit: int, keys_only: bool
    ) -> tuple[str, str] | None:
        last, cursor = after
        page = self.do(
            self.sessions[who].list(
                prefix=prefix, cursor=cursor or None, limit=limit, keys_only=keys_only
            )
        )
        left = {
            key: "" if keys_only else value
            for key, value in self.models[who].list(prefix).items()
            if key > last
        }
        wanted = list(left)[: limit or None]
        assert list(page.entries.items()) == [(key, left[key]) for key in wanted]
        assert (page.cursor is not None) == (len(left) > len(wanted))
        if page.cursor is None:
            return None
        with pytest.raises(InvalidInput, match="cursor"):
            self.do(self.sessions[1 - who].list(prefix=prefix, cursor=page.cursor))
        after = (wanted[-1], page.cursor)
        self.cursors.append((who, prefix, after))
        return after

    def check_what_is_left(self, who: int) -> None:
        key = "no other"
        entries_left, bytes_left = self.models[who].left({key: ""})
        if entries_left >= 0 and bytes_left >= 0:
            self.do(self.sessions[who].check_set({key: "x" * bytes_left}))
            with pytest.raises(QuotaExceeded):
                self.do(self.sessions[who].check_set({key: "x" * (bytes_left + 1)}))

    @rule(by=st.sampled_from([1, 49_999, 50_000, 100_000]))
    def wait(self, by: int) -> None:
        self.clock.advance(by)
        for model in self.models:
            model.pass_time(self.clock.now_ms)

    def teardown(self) -> None:
        for model, session in zip(self.models, self.sessions, strict=True):
            assert self.do(session.list()).entries == model.list("")
        for who in (0, 1):
            self.check_what_is_left(who)


def check_any_order(
    kind: str, place: str, *, examples: int, steps: int, drawn_from: int | None = None
) -> None:
    """Try `examples` orders of up to `steps` verbs on one store, drawn from a number if given."""
    clock = ManualClock(system_clock())
    phases = [Phase.generate, Phase.shrink]
    with asyncio.Runner() as runner:
        storage = open_storage(kind, place, ttl_ms=DEFAULT_LIFE, limits=LIMITS, clock=clock)
        machine = type("Stores", (Stores,), {"storage": storage, "runner": runner, "clock": clock})
        if drawn_from is not None:
            machine = seed(drawn_from)(machine)
        try:
            run(
                machine,
                settings=settings(
                    max_examples=examples,
                    stateful_step_count=steps,
                    deadline=None,
                    database=None,
                    phases=phases,
                    suppress_health_check=list(HealthCheck),
                ),
            )
        finally:
            runner.run(storage.close())


def main(arguments: list[str] | None = None) -> int:
    """The command: every kind of store, on servers of its own; fails as a test does."""
    parser = argparse.ArgumentParser(prog="scripts/store-conformance")
    parser.add_argument("--seed", type=int, required=True, help="of everything that is drawn")
    parser.add_argument("--examples", type=int, default=300, help="of each kind (%(default)s)")
    parser.add_argument("--steps", type=int, default=50, help="of each example (%(default)s)")
    parser.add_argument("--kind", choices=[*KINDS[:-1]], action="append", help="only these")
    asked = parser.parse_args(arguments)
    with (
        tempfile.TemporaryDirectory() as directory,
        PostgresServer() as postgres,
        postgres.database() as url,
        ValkeyServer() as valkey,
    ):
        places = {"postgres": url, "valkey": valkey.url}
        for kind in asked.kind or KINDS[:-1]:
            place = places.get(kind, str(Path(directory) / "storage.sqlite3"))
            check_any_order(
                kind, place, examples=asked.examples, steps=asked.steps, drawn_from=asked.seed
            )
            sys.stdout.write(f"{kind}: as the model, {asked.examples} times\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
