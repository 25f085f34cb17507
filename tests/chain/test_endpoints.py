"""Several endpoints: what they say alike is believed, and who fails is not waited for."""

import itertools
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from api.rest.metrics import exposition
from engine.chain import contracts
from engine.chain.anvil import AnvilProcess
from engine.errors import CannotStart, Unavailable
from engine.sessions.session import SessionView
from engine.settings import load_settings
from tests.anvil_world import ANVIL_TOML, AnvilWithContracts
from tests.chain import rpc_proxy as lies
from tests.chain.following import indexed
from tests.chain.forks import rpc
from tests.chain.rpc_proxy import RpcProxy
from tests.world import World

salts = itertools.count(1)


@dataclass
class Two:
    """A node, a proxy in front of it, and a second node that knows the same beginning."""

    anvil: AnvilWithContracts
    proxy: RpcProxy
    sibling: AnvilProcess

    @contextmanager
    def world(self, directory: Path, *, liar_first: bool = False) -> Iterator[World]:
        """An installation that asks the node directly, and through the proxy."""
        urls = [self.anvil.process.url, self.proxy.url]
        chain = " ".join(reversed(urls) if liar_first else urls)
        opened = World(directory, **self.anvil.settings | {"chain": chain})
        opened.owner = self.anvil.owner
        try:
            yield opened
        finally:
            opened.engine.close()


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Two]:
    state = tmp_path_factory.mktemp("two") / "anvil.json"
    kept: dict[str, Any] = {"port": 0, "preserve_historical_states": True}
    first = AnvilProcess.from_toml(ANVIL_TOML, state_file=state, **kept)
    with first:
        anvil = AnvilWithContracts(first)
    copy = state.with_name("sibling.json")
    shutil.copy(state, copy)
    with (
        first,
        AnvilProcess.from_toml(ANVIL_TOML, state_file=copy, **kept) as sibling,
        RpcProxy(first.url, sibling.url) as proxy,
    ):
        yield Two(anvil, proxy, sibling)
        anvil.gateway.close()


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.chain.endpoints.PAUSE_MS", 0)


def happen(two: Two) -> None:
    """One more event of ours."""
    salt = next(salts).to_bytes(32)
    data = contracts.call_data(contracts.ANCHOR_REGISTRY, "openLog", salt)
    two.anvil.transact(two.anvil.stranger, to=two.anvil.deployed.anchors, data=data)


def told(world: World) -> dict[str, float]:
    """The metrics of single endpoints, by name and number."""
    body, _ = exposition(world.engine, "text/plain")
    return {
        f"{sample.name.removeprefix('tallystick_chain_endpoint_')} {sample.labels['number']}": (
            sample.value
        )
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
        if "chain_endpoint" in sample.name
    }


def discrepancies(world: World) -> list[Any]:
    return [each for each in world.engine.reconciler.open() if each.kind == "endpoints_disagree"]


def stops(world: World, view: SessionView, about: str) -> None:
    """Assert that the next look stops decisions and the index, and says so once."""
    before = indexed(world.engine.database)
    for _ in range(2):
        world.engine.tick()
    assert indexed(world.engine.database) == before
    state = world.engine.ready()
    assert not state["ready"]
    assert f"the endpoints disagree on {about}" in state["faults"][0]
    with pytest.raises(Unavailable, match="the endpoints disagree on") as refusal:
        world.pay(view, 1)
    assert refusal.value.code == "endpoints_disagree"
    [found] = discrepancies(world)
    assert found.severity == "critical"
    assert found.evidence["about"].startswith(about)
    ours, theirs = (said["endpoint"].split(" (")[0] for said in found.evidence["said"])
    assert {ours, theirs} <= {"the index", "endpoint 1", "endpoint 2"}
    assert ours != theirs


def goes_on(world: World, view: SessionView) -> None:
    """Assert that all is well, and nothing left open."""
    world.engine.tick()
    assert world.engine.ready()["faults"] == []
    assert world.engine.ready()["warnings"] == []
    assert world.pay(view, 1).state == "captured"
    assert discrepancies(world) == []


@pytest.mark.parametrize("liar_first", [False, True], ids=["second lies", "first lies"])
def test_who_says_otherwise_stops_it_until_both_say_the_same(
    two: Two, tmp_path: Path, liar_first: bool
) -> None:
    with two.world(tmp_path / "data", liar_first=liar_first) as world:
        view = world.session(mint_pkp=True)
        assert world.pay(view, 1).state == "captured"
        head = two.anvil.gateway.head().number
        honest = 2 if liar_first else 1
        assert world.engine.lead.endpoints()[honest - 1].chain.name == two.anvil.gateway.name
        assert told(world) == {
            f"{what} {number}": value
            for number in (1, 2)
            for what, value in (("answers", 1), ("compared_block", head))
        }
        for forged, about in (
            ((lies.wrong_chain_id,), "the chain's id"),
            ((lies.no_code,), "the chain" if liar_first else "the code of the SessionRegistry"),
            ((lies.wrong_hash,), "the chain" if liar_first else "block"),
            ((lies.no_bloom, lies.no_events), "the events of block"),
        ):
            happen(two)
            with two.proxy.lying(*forged):
                stops(world, view, about)
            goes_on(world, view)


def test_who_fails_or_lags_is_named_and_compared_when_it_is_back(
    two: Two, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.chain.endpoints.LAG_BLOCKS_MAX", 3)
    with two.world(tmp_path / "data", liar_first=True) as world:
        view = world.session(mint_pkp=True)
        for lie, said in (
            (lies.overloaded, "fails: "),
            (lies.cut_json, "fails: "),
            (lies.no_events, "fails: "),
            (lies.stale_head, "is 5 blocks behind"),
        ):
            with two.proxy.lying(lie):
                goes = world.session(mint_pkp=True)
                happen(two)
                world.engine.tick()
                assert world.pay(goes, 1).state == "captured"
                [warning] = world.engine.ready()["warnings"]
                assert warning.startswith("endpoint 1 (http://127.0.0.1:")
                assert said in warning
                assert told(world)["answers 1"] == 0
                assert world.engine.ready()["faults"] == []
            goes_on(world, view)
        # What was read while it was silent is asked of it, and so is what an earlier process read.
        with two.proxy.lying(lies.overloaded):
            world.session(mint_pkp=True)
        with two.proxy.lying(lies.no_bloom, lies.no_events):
            stops(world, view, "the events of block")
            world.reopen()
            stops(world, view, "the events of block")
        goes_on(world, view)


def test_two_nodes_that_went_apart_stop_it(two: Two, tmp_path: Path) -> None:
    with two.world(tmp_path / "data") as world:
        view = world.session(mint_pkp=True)
        two.proxy.switch(1)
        rpc(two.sibling.url, "anvil_mine", hex(two.anvil.gateway.head().number))
        stops(world, view, "block")
        two.proxy.switch(0)
        goes_on(world, view)
        two.anvil.process.stop()
        world.engine.tick()
        [fault] = world.engine.ready()["faults"]
        assert fault.count("http://127.0.0.1:") == 2, "neither answers"
        assert len(world.engine.ready()["warnings"]) == 2
        two.anvil.process.start()
        goes_on(world, view)


@pytest.mark.parametrize(
    ("chain", "said"),
    [
        ("http://a http://a", "the same URL is there twice"),
        ("http://a embedded", "takes `embedded` or a URL"),
        (" ", "takes `embedded` or a URL"),
        (" ".join(f"http://{number}" for number in range(9)), "at most 8 endpoints"),
    ],
)
def test_a_list_of_endpoints_that_is_none_is_refused(chain: str, said: str) -> None:
    with pytest.raises(CannotStart, match=f"TALLYSTICK_CHAIN: .*{said}"):
        load_settings(chain=chain)
    assert load_settings(chain="http://a  http://b").endpoints == ("http://a", "http://b")
