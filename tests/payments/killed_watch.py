"""An engine that dies by SIGKILL when it has captured a payment and did not commit that.

Standard input: the settings of its data directory, as `told` writes them.
"""

import json
import os
import signal
import sys
from typing import Any

from engine.engine import open_engine
from engine.settings import Settings
from tests.world import World


def told(world: World) -> str:
    """How a process is told of an installation; what is secret is stored in that."""
    settings = world.settings.model_dump(mode="json", exclude={"operator_key", "networks"})
    networks = [
        network.model_dump(mode="json", exclude={"rpc"}) for network in world.settings.networks
    ]
    return json.dumps({**settings, "networks": networks})


def main() -> None:
    """To return is to fail."""
    engine = open_engine(Settings(**json.load(sys.stdin)))
    settle = engine.paying.settle

    def deadly(*arguments: Any) -> None:
        settle(*arguments)
        os.kill(os.getpid(), signal.SIGKILL)

    engine.paying.settle = deadly  # type: ignore[assignment, method-assign]
    engine.tick()


if __name__ == "__main__":
    main()
