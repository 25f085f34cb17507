"""Engines that die by SIGKILL on the brink of a transaction, each in a directory of its own.

Argument: a directory; for each of `register`, `revoke`, `anchor`, and `before` or `after` the
sending, one is made below it. Exits with how many did not die as they should.
"""

import itertools
import os
import signal
import sys
from pathlib import Path

from tests.world import WORKSPACE, World

ACTIONS = ("register", "revoke", "anchor")
MOMENTS = ("before", "after")


def die(directory: Path, action: str, moment: str) -> None:
    """Open an engine, bring a session there, and be killed; to return is to fail."""
    world = World(directory)
    view = world.create(await_consent=False, wait_s=0 if action == "register" else 10)
    chain = world.engine.gateway
    honest = chain.send_raw

    def deadly(raw: bytes) -> bytes:
        if moment == "after":
            honest(raw)
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("SIGKILL does not return")

    chain.send_raw = deadly  # type: ignore[method-assign]
    if action == "anchor":
        world.engine.anchor()
    elif action == "revoke":
        world.engine.revoke_session(WORKSPACE, view.id, by="somebody")
    world.engine.tick()


def main(directory: Path) -> int:
    """Fork before any thread is started, so that the libraries are loaded only once."""
    survivors = 0
    for action, moment in itertools.product(ACTIONS, MOMENTS):
        child = os.fork()
        if child == 0:
            try:
                die(directory / f"{action} {moment}", action, moment)
            finally:
                os._exit(1)
        _, status = os.waitpid(child, 0)
        survivors += os.waitstatus_to_exitcode(status) != -signal.SIGKILL
    return survivors


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
