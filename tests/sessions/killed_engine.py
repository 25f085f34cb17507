"""Engines that die by SIGKILL between the owner's revocation on the chain and hearing of it.

Argument: a directory; one is made below it for each of `MOMENTS`. Exits with how many did not die.
"""

import os
import signal
import sys
from pathlib import Path
from typing import Any

from engine.chain import contracts, sender
from engine.ledger.batch import Batch
from engine.sessions.session import SessionView
from tests.world import World

MOMENTS = ("unread", "half stored")


def die(directory: Path, moment: str) -> None:
    """Pay, let the owner revoke, and be killed; to return is to fail."""
    world = World(directory)
    view = world.session(mint_pkp=True)
    assert world.pay(view, 1).decision["code"] == "ALLOWED"
    chain = world.engine.gateway
    chain.fund(world.owner.address.lower(), 10**18)  # type: ignore[attr-defined]
    data = contracts.revoking(view.grant, view.token_id)
    sender.send(chain, world.owner, to=world.engine.deployment.registry, data=data)
    if moment == "half stored":
        honest = world.engine.sessions.revoked

        def deadly(batch: Batch, view: SessionView, evidence: Any) -> SessionView:
            honest(batch, view, evidence)
            batch.flush()
            os.kill(os.getpid(), signal.SIGKILL)
            raise AssertionError("SIGKILL does not return")

        world.engine.sessions.revoked = deadly  # type: ignore[method-assign]
        world.engine.tick()
    else:
        os.kill(os.getpid(), signal.SIGKILL)


def main(directory: Path) -> int:
    """Fork before any thread is started, so that the libraries are loaded only once."""
    survivors = 0
    for moment in MOMENTS:
        child = os.fork()
        if child == 0:
            try:
                die(directory / moment, moment)
            finally:
                os._exit(1)
        _, status = os.waitpid(child, 0)
        survivors += os.waitstatus_to_exitcode(status) != -signal.SIGKILL
    return survivors


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
