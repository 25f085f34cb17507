"""Reconciliation and metrics over HTTP: who may see what, and what is said."""

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import sqlalchemy as sa
from prometheus_client.parser import text_string_to_metric_families

from engine.chain.gateway import ChainUnavailable
from engine.db.tables import ChainEvent, Session, table
from engine.reconcile.kinds import KINDS
from tests.rest.served import Served, refused

PAGE = Path(__file__).parents[2] / "docs" / "reconciliation.md"
PATH = "/api/v1/reconciliation"
index, sessions = table(ChainEvent), table(Session)


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Served]:
    """A server of one's own: what is open here is open for all."""
    with Served(tmp_path / "data") as served:
        yield served


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server of which nobody has asked for a reconciliation."""
    with Served(tmp_path_factory.mktemp("quiet") / "data") as served:
        yield served


def samples(api: Served, **how: str | None) -> dict[str, float]:
    """The metrics by name and labels."""
    answer = api.get("/metrics", **how)
    assert answer.status_code == 200, answer.text
    assert answer.headers["Content-Type"].startswith("text/plain; version=")
    return {
        "".join((sample.name, *(f"/{value}" for value in sample.labels.values()))): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def test_it_says_what_was_compared(api: Served) -> None:
    assert api.get(PATH).json() == {
        "open": [],
        "last": None,
        "running": None,
        "chain": {"head_block": 6, "indexed_block": 6, "lag_blocks": 0},
    }
    made = api.post(PATH)
    assert made.status_code == 200
    last = made.json()["last"]
    assert last.pop("made_at").endswith("Z")
    assert last == {
        "from_block": api.world.engine.deployment.start_block,
        "to_block": 6,
        "head_block": 6,
        "filed": 0,
        "resolved": 0,
        "sessions_tightened": 0,
        "left_out": 0,
    }
    assert api.get(PATH).json() == made.json()


def test_what_is_open_is_told_to_whom_it_concerns(api: Served) -> None:
    tenant = api.tenant("acme")
    view = api.world.create(workspace="acme")
    active = sa.update(sessions).where(sessions.c.id == view.id).values(state="active")
    api.world.engine.writer.call(lambda batch: batch.update(active))
    api.world.engine.writer.call(
        lambda batch: batch.update(sa.delete(index).where(index.c.name == "LogOpened"))
    )
    [of_the_index, of_the_session] = sorted(
        api.post(PATH).json()["open"], key=lambda found: str(found["kind"])
    )
    assert (of_the_session["kind"], of_the_session["severity"]) == (
        "session_missing_on_chain",
        "critical",
    )
    assert of_the_session["session_id"] == view.id
    assert of_the_session["workspace_id"] == "acme"
    assert of_the_session["meaning"] == KINDS["session_missing_on_chain"].means
    assert of_the_session["evidence"]["token_id"] == "0x" + view.token_id.hex()
    assert (of_the_index["kind"], of_the_index["workspace_id"]) == ("index_differs", None)
    assert of_the_index["evidence"]["index"] is None
    assert tenant.get(PATH).json()["open"] == api.get(PATH).json()["open"]
    other = api.tenant("another")
    assert [found["kind"] for found in other.get(PATH).json()["open"]] == ["index_differs"]
    metrics = samples(api)
    assert metrics["tallystick_discrepancies_open/session_missing_on_chain/critical"] == 1
    assert metrics["tallystick_discrepancies_open/anchor_stuck/warning"] == 0


def test_only_operators_reconcile(quiet: Served) -> None:
    token = quiet.session()["session_token"]
    for method in ("GET", "POST"):
        refused(quiet.call(method, PATH), 401, "invalid_api_key")
        refused(quiet.call(method, PATH, key=token), 401, "invalid_api_key")


@pytest.mark.parametrize("block", ["-1", "x", "9007199254740992", "1.5"])
def test_a_block_that_is_none_is_refused(quiet: Served, block: str) -> None:
    refused(quiet.post(f"{PATH}?from_block={block}"), 422, "invalid_parameter", "from_block")


def test_a_chain_that_is_silent_is_a_503(quiet: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    def silent() -> None:
        raise ChainUnavailable("the line was cut")

    monkeypatch.setattr(quiet.world.engine.gateway, "head", silent)
    refused(quiet.post(PATH), 503, "chain_unavailable")
    assert quiet.get(PATH).json()["last"] is None


def test_the_metrics_tell_of_decisions_log_and_chain(api: Served) -> None:
    session = api.session(limits={"max_per_transaction": 20})
    for amount in (10, 10, 30):
        api.pay(session["session_token"], amount)
    api.pay(session["session_token"], 5, headers={"Idempotency-Key": "once"})
    api.pay(session["session_token"], 5, headers={"Idempotency-Key": "once"})
    api.world.engine.anchor()
    metrics = samples(api)
    assert metrics["tallystick_decisions_total/ALLOWED"] == 3
    assert metrics["tallystick_decisions_total/LIMIT_EXCEEDED"] == 1
    assert metrics["tallystick_log_records"] == api.records()
    assert metrics["tallystick_log_anchored_records"] == api.records()
    assert metrics["tallystick_ready"] == 1
    assert metrics["tallystick_chain_lag_blocks"] == 0
    assert metrics["tallystick_chain_head_block"] == metrics["tallystick_chain_indexed_block"]
    assert "tallystick_reconciled_block" not in metrics
    api.post(PATH)
    metrics = samples(api)
    assert metrics["tallystick_reconciled_block"] == metrics["tallystick_chain_head_block"]
    assert metrics["tallystick_reconciled_timestamp_seconds"] > 1_700_000_000
    assert metrics["tallystick_decisions_total/ALLOWED"] == 3
    documented = set(re.findall(r"`(tallystick_\w+)", PAGE.read_text()))
    assert {name.partition("/")[0] for name in metrics} == documented


def test_metrics_count_from_the_start_of_the_server(tmp_path: Path) -> None:
    with Served(tmp_path / "data") as api:
        api.pay(api.session()["session_token"])
        api.world.engine.tick()
        assert samples(api)["tallystick_decisions_total/ALLOWED"] == 1
        key = api.key
    with Served(tmp_path / "data") as api:
        metrics = samples(api, key=key)
        assert not any("decisions_total" in name for name in metrics)


def test_metrics_need_the_admin_key(quiet: Served) -> None:
    refused(quiet.call("GET", "/metrics"), 401, "invalid_api_key")
    refused(quiet.get("/metrics", key="zfi_test_nobody"), 401, "invalid_api_key")
    refused(quiet.get("/metrics", key=quiet.workspace("acme")), 401, "admin_key_required")


def test_metrics_can_be_made_public(tmp_path: Path) -> None:
    with Served(tmp_path / "data", public_metrics=True) as api:
        assert samples(api, key=None)["tallystick_ready"] == 1


def test_metrics_name_nobody(quiet: Served) -> None:
    session = quiet.session(label="a label")
    quiet.pay(session["session_token"])
    text: httpx.Response = quiet.get("/metrics")
    for private in (session["id"], "books", "a label", "default", session["session_token"]):
        assert private not in text.text
