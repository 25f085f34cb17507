"""Open an engine, bring a session to the brink of one transaction, and die by SIGKILL there.

Arguments: the data directory; `register`, `revoke` or `anchor`; `before` or `after` the sending.
"""

import os
import signal
import sys
from pathlib import Path

from tests.world import WORKSPACE, World


def main(directory: str, action: str, moment: str) -> None:
    """Never returns."""
    world = World(Path(directory))
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
    sys.exit("nothing was sent")


if __name__ == "__main__":
    main(*sys.argv[1:])
