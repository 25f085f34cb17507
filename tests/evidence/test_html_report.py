"""The page for people says what the JSON says, and nothing that a file holds becomes markup."""

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import pytest

from engine.audit.canonical import INTEGER_MAX
from engine.audit.evidence import NOT_PROVEN
from engine.audit.statement import statement
from engine.audit.verify import Examination, Verdict, examine
from engine.evidence.chain_view import GatewayView
from engine.evidence.html_parts import amount_text, time_text
from engine.evidence.html_report import render
from engine.policy.limits import Limits
from tests.audit.test_verify import edit_and_rechain
from tests.evidence.story import Story, story
from tests.evidence.test_lowered import lowered_at
from tests.world import USD, WORKSPACE, World

TAGS = {
    *("html", "head", "meta", "title", "style", "body", "header", "footer", "section", "h1", "h2"),
    *("p", "span", "strong", "small", "code", "ul", "li", "dl", "dt", "dd", "div"),
    *("table", "thead", "tbody", "tr", "th", "td"),
}
HOSTILE = "<script>alert(1)</script>\"'&{0}</style><img src=x onerror=alert(2)>"


class Page(HTMLParser):
    """What a browser would make of a page."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.style = ""
        self.pieces: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        if self.tags[-1:] == ["style"] and not self.style:
            self.style = data
        else:
            self.pieces.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.pieces).split())


@pytest.fixture(scope="module")
def told() -> Story:
    return story()


def examined(told: Story, file: bytes, chain: Any = None) -> Examination:
    return examine(file, chain or told.chain, registry=told.registry)


def facts(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every leaf of a JSON document with the names that lead to it."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from facts(inner, (*path, name))
    elif isinstance(value, list):
        for inner in value:
            yield from facts(inner, path)
    else:
        yield path, value


def as_shown(path: tuple[str, ...], value: Any) -> str:
    """How the page writes a fact."""
    if any(name.endswith("micro_usd") for name in path):
        return amount_text(value)
    if value is None:
        return ""
    if path[-1].endswith("_ms"):
        return time_text(value)
    if isinstance(value, bool):
        words = {"allowed": ("denied", "allowed")}.get(path[-1], ("not anchored yet", "anchored"))
        return words[value]
    if path == ("reason",):
        return str(value).partition(": ")[2]
    return str(value).replace("_", " ") if path[-1] == "verdict" else str(value)


def missing(said: dict[str, Any]) -> list[tuple[tuple[str, ...], Any]]:
    text = Page(render(said, "evidence.json")).text.lower()
    return [
        (path, value)
        for path, value in facts(said)
        if " ".join(as_shown(path, value).split()).lower() not in text
    ]


@pytest.mark.parametrize("which", ["full", "small", "unsigned", "blind", "small_blind"])
def test_every_fact_of_the_json_is_on_the_page(told: Story, which: str) -> None:
    said = statement(examined(told, getattr(told, which)))
    assert len(list(facts(said))) > 100
    assert said["verdict"] == "verified"
    assert missing(said) == []


def test_what_is_withheld_is_said_to_be(told: Story) -> None:
    whole, blind = (statement(examined(told, file)) for file in (told.full, told.blind))
    assert blind["history"]["withheld"] == ["label", "merchant", "user_wallet"]
    assert blind["history"]["largest_sum_micro_usd"] == whole["history"]["largest_sum_micro_usd"]
    rows = Page(render(blind, "x")).text.lower()
    assert "label withheld" in rows
    assert "none named" not in rows
    assert rows.count("withheld") >= len(blind["history"]["payments"])
    noted = {
        "kind": "balance_differs",
        "severity": "critical",
        "evidence": {"expected": "<7>"},
        "first_seen_ms": 1_700_000_000_000,
        "last_seen_ms": 1_700_000_060_000,
        "resolved_ms": None,
    }
    whole["history"]["discrepancies"] = [noted]
    assert missing(whole) == []


def test_a_time_that_no_calendar_has_is_shown_all_the_same(told: Story) -> None:
    """What the operator's server noted is dated by its word alone."""
    document = told.document
    noted = {"kind": "anchor_stuck", "severity": "warning", "evidence": {}, "resolved_ms": None}
    document["discrepancies"] = [{**noted, "first_seen_ms": 0, "last_seen_ms": INTEGER_MAX}]
    found = examined(told, told.seal(document))
    assert found.report.verdict is Verdict.VERIFIED, found.report.reason
    assert f"{INTEGER_MAX} ms" in Page(render(statement(found), "evidence.json")).text


def test_a_fact_that_is_not_there_would_be_missed(told: Story) -> None:
    said = statement(examined(told, told.full))
    page = render(said, "x")
    for path, value in facts({name: said[name] for name in ("session", "chain", "history")}):
        if isinstance(value, str) and len(value) > 12:
            assert as_shown(path, value).lower() in Page(page).text.lower()
            assert as_shown(path, value + "~").lower() not in Page(page).text.lower()


def test_what_the_chain_lowered_and_ended_is_told(told: Story) -> None:
    chain = lowered_at(told, 1_700_000_000_000, Limits(45 * USD, None, None, None, None))
    said = statement(examined(told, told.full, chain))
    [lowered] = said["session"]["limits_lowered"]
    assert lowered["limits_micro_usd"]["per_transaction"] == 45 * USD
    assert said["chain"]["revoked"]["block_number"] > 0
    assert missing(said) == []


def test_the_sums_are_those_of_the_payments(told: Story) -> None:
    history = statement(examined(told, told.full))["history"]
    assert history["totals"] == {
        "decisions": 11,
        "allowed": 5,
        "denied": 6,
        "captured_micro_usd": 89_999_999,
        "held_micro_usd": 0,
    }
    assert history["largest_sum_micro_usd"] == {
        "per_day": 89_999_999,
        "per_week": 89_999_999,
        "per_month": 89_999_999,
    }
    states = [payment["state"] for payment in history["payments"]]
    assert sorted(states) == sorted(["captured"] * 3 + ["voided", "expired"] + ["denied"] * 6)
    whats = [each["what"] for each in history["approvals"]]
    assert whats == [
        f"approval.{what}" for what in ("requested", "expired", "requested", "granted")
    ]
    assert all(payment["anchored"] for payment in history["payments"])


def test_a_tampered_file_s_story_is_not_retold(told: Story) -> None:
    document = told.document
    edit_and_rechain(document)
    file = told.seal(document)
    said = statement(examined(told, file))
    assert (said["verdict"], said["history"]) == ("tampered", None)
    assert said["session"] is not None  # the chain vouches for that
    assert missing(said) == []
    cut = statement(examined(told, file[:-9]))
    assert (cut["session"], cut["chain"], cut["history"]) == (None, None, None)
    page = Page(render(cut, "evidence.json"))
    assert "Do not rely on this file." in page.text
    assert page.text.count("Not retold") == 2


@pytest.mark.parametrize("verdict", Verdict)
def test_every_verdict_has_its_words(told: Story, verdict: Verdict) -> None:
    said = statement(examined(told, told.full)) | {
        "verdict": verdict.name.lower(),
        "exit_code": verdict.value,
        "reason": "life: something",
    }
    page = Page(render(said, "evidence.json"))
    assert verdict.name.lower() in page.text.lower()
    assert (verdict is Verdict.VERIFIED) == ("Every check holds" in page.text)
    assert ("class", f"verdict {verdict.name.lower()}") in page.attributes


def test_the_page_loads_nothing_and_runs_nothing(told: Story) -> None:
    text = render(statement(examined(told, told.full)), "evidence.json")
    page = Page(text)
    assert set(page.tags) <= TAGS
    assert {name for name, _ in page.attributes} <= {
        *("class", "lang", "charset", "name", "content", "http-equiv")
    }
    assert not re.search(r"url\(|@import|https?:|//", page.style)
    assert "default-src 'none'" in text
    assert "@page" in page.style
    assert "prefers-color-scheme: dark" in page.style


def test_nothing_in_a_file_becomes_markup(tmp_path: Any) -> None:
    world = World(tmp_path / "data")
    try:
        view = world.session(
            mint_pkp=True,
            label=HOSTILE,
            agent_id=HOSTILE.replace(" ", ""),
            merchants=(HOSTILE, "books"),
            permissions=("pay",),
            conditions=("never merchant <b>bold</b>'",),
        )
        assert world.pay(view, 1, merchant=HOSTILE).state == "captured"
        assert world.pay(view, 1, merchant="<b>bold</b>'").state == "denied"
        world.engine.anchor()
        deployment = world.engine.deployment
        chain = GatewayView(world.engine.gateway)
        file = world.engine.evidence(WORKSPACE, view.id)
        said = statement(examine(file, chain, registry=deployment.registry))
    finally:
        world.engine.close()
    assert said["verdict"] == "verified", said["reason"]
    page = Page(render(said, HOSTILE))
    assert set(page.tags) <= TAGS
    assert HOSTILE in page.text
    assert page.text.count("<b>bold</b>'") >= 3
    assert missing(said) == []


def test_what_is_not_proven_is_on_every_page(told: Story) -> None:
    for file in (told.full, b"x"):
        text = Page(render(statement(examined(told, file)), "x")).text
        assert [sentence for sentence in NOT_PROVEN if sentence not in text] == []
