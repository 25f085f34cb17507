"""Two servers with the same past: one answers payments the short way, one by its routes alone.

The same bytes are sent to both, and what both answer is compared byte by byte; only the date of an
answer may differ.
"""

import re
import shutil
from pathlib import Path

from api.server import Server
from engine.clock import ManualClock, system_clock
from engine.policy.limits import Limits
from tests.world import USD, WORKSPACE, World

_DATE = re.compile(rb"\r\ndate: [^\r]*\r\n")
_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)\r\n")


class ByRoutesAlone(Server):
    """The same server, on uvicorn's own protocol."""

    def __init__(self, world: World) -> None:
        super().__init__(world.engine, "127.0.0.1", 0)
        self._server.config.http = "h11"


class Twins:
    """The two, and one connection to each."""

    def __init__(self, directory: Path) -> None:
        self.clock = ManualClock(system_clock())
        first = World(directory / "lean", clock=self.clock)
        self.key = first.operator_key or ""
        self.sessions = {
            "plain": first.session().id,
            "limited": first.session(Limits(None, 100 * USD, None, None, None)).id,
            "listed": first.session(merchants=("books",)).id,
            "revoked": first.session().id,
        }
        self.tokens: dict[str, str] = {}
        for name in ("plain", "limited", "listed", "revoked", "on chain"):
            view = first.session(
                Limits(None, 100 * USD, None, None, None)
                if name == "limited"
                else Limits(None, None, None, None, None),
                merchants=("books",) if name == "listed" else (),
                mint_pkp=name == "on chain",
            )
            self.sessions[name] = view.id
            self.tokens[name] = first.token
        first.engine.revoke_session(WORKSPACE, self.sessions["revoked"], by="test")
        first.engine.access.create_workspace("other", "Other")
        first.engine.close()
        shutil.copytree(directory / "lean", directory / "routes")
