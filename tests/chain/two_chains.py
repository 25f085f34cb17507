"""What `reorgs.py` needs: two Anvils with one history, an installation on them, and its killer."""

import json
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eth_utils.crypto import keccak

from engine.chain import contracts, sender
from engine.chain.anvil import AnvilProcess
from engine.chain.deploy import deploy
from engine.chain.json_rpc import JsonRpcChain
from engine.sessions.session import SessionView
from tests.anvil_world import ANVIL_TOML, PATIENCE_S
from tests.chain.forks import rpc
from tests.chain.rpc_proxy import RpcProxy
from tests.world import World

ROOT = Path(__file__).parents[2]
SESSIONS = 12
BELOW = 70
"""So many blocks lie between the installation and the first fork."""
KEPT = {"data_dir", "chain", "port", "rpc_port", "anchor_interval_s", "poll_interval_ms"}
"""What an engine needs to open a directory again; the rest is stored in it."""


class Chains:
    """Two Anvils with one history up to now, and the proxy through which an engine sees one."""

    def __init__(self, proxy: RpcProxy, urls: Sequence[str]) -> None:
        self.urls = urls
        self.gateways = [JsonRpcChain(url) for url in urls]
        self._proxy = proxy
        self._active = 0
        self._trunk = self.gateways[0].head().number
        for url in urls:
            rpc(url, "evm_setAutomine", False)

    @property
    def url(self) -> str:
        """The node that is seen."""
        return self.urls[self._active]

    @property
    def active(self) -> int:
        """Its number."""
        return self._active

    def above(self) -> int:
        """How many blocks it has above what both have."""
        return self.gateways[self._active].head().number - self._trunk

    def ancestor(self, depth: int) -> int:
        """The block so many below its newest."""
        return self._trunk + self.above() - depth

    def go_over(self) -> None:
        """Turn to the other one, and take from it what it has above what both have."""
        self._active = 1 - self._active
        if above := self.above():
            rpc(self.url, "anvil_rollback", above)

    def flap(self) -> None:
        """Let the engine see the other one as it is."""
        self._active = 1 - self._active
        self.show()

    def show(self) -> None:
        """Let the engine see the one that is active."""
        self._proxy.switch(self._active)

    def close(self) -> None:
        for gateway in self.gateways:
            gateway.close()


class Killer:
    """Has engines open a directory that die at a drawn step of reading the chain."""

    def __init__(self, draw: random.Random) -> None:
        self._draw = draw
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.chain.killed_reader"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._steps = 0

    def kill(self, world: World) -> str:
        """Say how it ended: `engines killed` or `engines that were done before`."""
        if not self._steps:
            self._steps = int(self._asked(world, 0).removeprefix("done "))
        said = self._asked(world, self._draw.randint(1, self._steps))
        return "engines killed" if said == "killed" else "engines that were done before"

    def _asked(self, world: World, steps: int) -> str:
        settings = world.settings.model_dump(mode="json", include=KEPT)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"settings": settings, "steps": steps}) + "\n")
        self._process.stdin.flush()
        said = self._process.stdout.readline().strip()
        assert said == "killed" or said.startswith("done "), said
        return said

    def close(self) -> None:
        """End the process that makes them."""
        self._process.communicate()


def new_session(world: World) -> SessionView:
    """A session that its owner has signed, and that waits for the chain."""
    return world.consent(world.create(duration_ms=168 * 3_600_000), wait_s=0)


def node(state: Path) -> AnvilProcess:
    return AnvilProcess.from_toml(
        ANVIL_TOML, port=0, state_file=state, preserve_historical_states=True
    )


def waiting_world(anvil: AnvilProcess, url: str, directory: Path) -> World:
    """An installation on `url`, closed again."""
    gateway = JsonRpcChain(anvil.url)
    operator, owner, _, *hands = anvil.accounts()
    deployed = deploy(gateway, operator)
    world = World(
        directory / "data",
        chain=url,
        registry=deployed.registry,
        operator_key="0x" + bytes(operator.key).hex(),
    )
    world.owner = owner

    def ask(function: str, *arguments: Any) -> None:
        data = contracts.call_data(contracts.SESSION_REGISTRY, function, *arguments)
        tx_hash = sender.send(gateway, operator, to=deployed.registry, data=data)
        assert sender.wait(gateway, tx_hash, timeout_s=PATIENCE_S, poll_s=0.005).succeeded

    role = keccak(text="OPERATOR_ROLE")
    for hand in hands:
        ask("grantRole", role, hand.address)
    ask("revokeRole", role, operator.address)
    for _ in range(SESSIONS):
        new_session(world)
    rpc(anvil.url, "anvil_mine", hex(BELOW))
    world.engine.close()
    gateway.close()
    return world
