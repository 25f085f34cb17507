"""An endpoint that lies, one that reads through it and one that does not.

What is stored must be the truth up to some block, or nothing more is.
"""

import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from engine.chain import contracts
from engine.chain.json_rpc import JsonRpcChain
from engine.errors import Unavailable
from tests.anvil_world import AnvilWithContracts, anvil_with_contracts
from tests.chain import rpc_proxy as lies
from tests.chain.following import Follower, Indexed, sources_at
from tests.chain.rpc_proxy import RpcProxy

PATIENCE_S = 30.0
HASTE_S = 0.2
"""How long an answer is waited for where none comes."""
ENOUGH_BYTES = 1 << 22
"""Of an answer without an end, so much is read here: the bound is lower, so that less is sent."""
TICKS_MAX = 400
SALT = b"\x01" * 32

sizes = itertools.count(1)


# What shows itself in other answers is healed by them.
HEALED = (lies.empty_logs, lies.empty_ranges, lies.one_event_less)
# What cannot be told apart from the truth, or not be healed, stops the reading.
STOPS: dict[Callable[..., Any], str] = {
    lies.no_events: "makes up the block's bloom",
    lies.removed_logs: "a removed log",
    lies.wrong_parent: "does not follow",
    lies.wrong_hash: "does not follow|another chain|of another block",
    lies.no_bloom: "makes up the block's bloom",
    lies.no_block: "something other than an object",
    lies.head_above: "disappeared|something other",
    lies.too_many_requests: "request count exceeded",
    lies.busy: "429",
    lies.overloaded: "503",
    lies.silence: "timed out",
    lies.truncated: "peer closed connection",
    lies.cut_json: "not a JSON answer",
    lies.huge: "answer above",
    lies.hung_up: "disconnected",
}
CHANGED = {lies.wrong_chain_id: "serves chain 1", lies.no_code: "has no code"}
HARMLESS = (lies.stale_head, lies.no_receipt)
"""Nobody is deceived: the one is an old truth, the other is not asked for by who reads."""
EVERY = (*HEALED, *STOPS, *CHANGED, *HARMLESS)


@contextmanager
def lying_about() -> Iterator[AnvilWithContracts]:
    """A chain on which somebody anchors."""
    with anvil_with_contracts() as running:
        data = contracts.call_data(contracts.ANCHOR_REGISTRY, "openLog", SALT)
        running.transact(running.stranger, to=running.deployed.anchors, data=data)
        happen(running)
        yield running


def happen(anvil: AnvilWithContracts, blocks: int = 12) -> None:
    """More blocks: two events in one, none in some, one in others."""
    log_id = contracts.log_id_of(anvil.stranger.address, SALT)

    def anchor() -> None:
        data = contracts.call_data(
            contracts.ANCHOR_REGISTRY, "anchor", log_id, next(sizes), b"\x02" * 32
        )
        anvil.transact(anvil.stranger, to=anvil.deployed.anchors, data=data)

    for number in range(blocks):
        anvil.mine() if number % 3 else anchor()
    with anvil.idle():
        for _ in range(2):
            data = contracts.call_data(
                contracts.ANCHOR_REGISTRY, "openLog", next(sizes).to_bytes(32)
            )
            nonce = anvil.gateway.transaction_count(anvil.stranger.address.lower(), pending=True)
            signed = anvil.sign(anvil.stranger, anvil.deployed.anchors, data, nonce)
            anvil.gateway.send_raw(signed.raw)


@dataclass
class Lied:
    """Somebody who reads through the proxy, and somebody who does not.

    `before` is what was stored when the chain was rewritten last: it may be so still.
    """

    anvil: AnvilWithContracts
    proxy: RpcProxy
    follower: Follower
    clean: Follower
    before: Indexed | None = None

    def read(self) -> Exception | None:
        """Tick until all is read; an endpoint that fails is asked again. The last failure, if it
        never was read.
        """
        failure: Exception | None = None
        for _ in range(TICKS_MAX if self._may_come_round() else 2):
            try:
                self.follower.read()
            except Unavailable as error:
                failure = error
                self.has_no_gap()
            else:
                return None
        return failure

    @contextmanager
    def told(self, lie: Any, *, probability: float = 1.0) -> Iterator[RpcProxy]:
        """Lie. What never comes is not waited for long, and what never ends not read to its end."""
        http = self.follower.gateway._endpoint._http  # type: ignore[attr-defined]
        if lie is lies.silence:
            http.timeout = HASTE_S
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr("engine.chain.json_rpc_endpoint.ANSWER_MAX_BYTES", ENOUGH_BYTES)
            try:
                with self.proxy.lying(lie, probability=probability) as proxy:
                    yield proxy
            finally:
                http.timeout = PATIENCE_S

    def begin_anew(self) -> None:
        """Both know nothing, and nothing was told yet."""
        self.follower.forget()
        self.clean.forget()
        self.proxy.told.clear()
        self.before = None

    def _may_come_round(self) -> bool:
        return all(plan.probability < 1 for plan in self.proxy._plans)

    def has_no_gap(self) -> None:
        """What is stored is what a clean reading has up to the same block."""
        events, blocks = stored = self.follower.stored()
        if stored == self.before:
            return
        tip = blocks[-1][0] if blocks else -1
        clean_events, clean_blocks = self.truth()
        assert events == [event for event in clean_events if event[0] <= tip]
        assert [row for row in blocks if row[0] >= clean_blocks[0][0]] == [
            row for row in clean_blocks if row[0] <= tip
        ]

    def truth(self) -> Indexed:
        """What is there."""
        return self.clean.read()

    def is_told_in_full(self) -> None:
        """Assert that everything is stored."""
        assert self.follower.stored() == self.truth()


@contextmanager
def reading_through(anvil: AnvilWithContracts, directory: Path, seed: int) -> Iterator[Lied]:
    """Both readers, on databases in this directory."""
    gateway = anvil.gateway
    genesis = gateway.block(0)
    assert genesis is not None
    known: dict[str, Any] = {
        "sources": sources_at(gateway, anvil.deployed.registry, anvil.deployed.anchors),
        "genesis_hash": genesis.hash,
        "start_block": anvil.deployed.block_number,
    }
    with RpcProxy(anvil.process.url, seed=seed) as proxy, ExitStack() as stack:
        through = JsonRpcChain(proxy.url, timeout_s=PATIENCE_S, expected_chain_id=gateway.chain_id)
        stack.callback(through.close)
        follower = Follower(directory / "lied.sqlite3", through, **known)
        stack.callback(follower.close)
        clean = Follower(directory / "clean.sqlite3", gateway, **known)
        stack.callback(clean.close)
        yield Lied(anvil, proxy, follower, clean)
