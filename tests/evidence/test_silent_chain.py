"""A chain that does not answer makes a file neither verified nor tampered."""

from typing import Any

import pytest

from engine.audit.chain import ChainSilent
from engine.audit.verify import Verdict
from tests.evidence.story import Snapshot, Story, story

QUESTIONS = (
    "chain_id",
    "block_number",
    "anchors_of",
    "registration",
    "revocation",
    "lowerings",
    "workspace_closing",
    "log_opened",
    "anchorings",
    "block_time_s",
    "spends",
)


class Counting:
    """Answers as the snapshot does, and falls silent when `silent(number, question)` says so."""

    def __init__(self, chain: Snapshot, silent: Any = lambda number, question: False) -> None:
        self.asked: list[str] = []
        self._chain = chain
        self._silent = silent

    def __getattr__(self, name: str) -> Any:
        if name in ("chain_id", "block_number"):
            self._ask(name)
            return getattr(self._chain, name)

        def answer(*arguments: Any) -> Any:
            self._ask(name)
            return getattr(self._chain, name)(*arguments)

        return answer

    def _ask(self, name: str) -> None:
        self.asked.append(name)
        if self._silent(len(self.asked), name):
            raise ChainSilent("connection refused")


@pytest.fixture(scope="module")
def told() -> Story:
    return story()


def test_every_question_is_asked(told: Story) -> None:
    chain = Counting(told.chain)
    assert told.verify(told.full, chain).verdict is Verdict.VERIFIED
    assert set(chain.asked) == set(QUESTIONS)


@pytest.mark.parametrize("which", ["full", "small", "unsigned"])
def test_silence_at_any_one_call_is_unavailable(told: Story, which: str) -> None:
    file = getattr(told, which)
    counted = Counting(told.chain)
    told.verify(file, counted)
    calls = len(counted.asked)
    assert calls >= len(QUESTIONS)
    for k in range(1, calls + 1):
        report = told.verify(file, Counting(told.chain, lambda number, _, k=k: number == k))
        assert report.verdict is Verdict.UNAVAILABLE, counted.asked[k - 1]
        assert len(report.checks) == 13
        report = told.verify(file, Counting(told.chain, lambda number, _, k=k: number >= k))
        assert report.verdict is Verdict.UNAVAILABLE, counted.asked[k - 1]


@pytest.mark.parametrize("question", QUESTIONS)
def test_silence_about_one_thing_is_unavailable(told: Story, question: str) -> None:
    report = told.verify(told.full, Counting(told.chain, lambda _, asked: asked == question))
    assert report.verdict is Verdict.UNAVAILABLE
    assert "connection refused" in report.reason


def test_what_the_file_itself_gives_away_is_tampered_though_the_chain_is_silent(
    told: Story,
) -> None:
    silent = Counting(told.chain, lambda *_: True)
    assert told.verify(told.full, silent).verdict is Verdict.UNAVAILABLE
    document = told.document
    document["records"].pop(3)
    assert told.verify(told.seal(document), silent).verdict is Verdict.TAMPERED
    assert told.verify(told.full[:-2] + b"]\n", silent).verdict is Verdict.TAMPERED


def test_the_calls_do_not_grow_with_the_records(told: Story) -> None:
    few, many = Counting(told.chain), Counting(told.chain)
    told.verify(told.small, few)
    told.verify(told.full, many)
    assert len(told.document["records"]) > 3 * 5
    assert len(many.asked) <= len(few.asked) + 1
