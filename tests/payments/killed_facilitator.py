"""Facilitators that die by SIGKILL while they settle, each with a file of claims of its own.

Argument: a JSON object with the chain's `url`, and `moments`: for each a relaying `key`, a `path`
of claims and a `request`. Exits with how many did not die as they should.
"""

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from eth_account import Account

from engine.chain.json_rpc import JsonRpcChain
from engine.payments.claims import Claims
from engine.payments.facilitator import Facilitator
from engine.payments.relay import Relayer
from tests.payments.paying import parsed

MOMENTS = ("before the claim", "before it is sent", "before the receipt", "before the end is noted")
AFTER = "before the answer"


def die() -> None:
    """To return is to fail."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("SIGKILL does not return")


def deadly(function: Callable[..., Any], *, first: bool) -> Callable[..., Any]:
    """The same function, and death before or after it."""

    def once(*arguments: Any, **named: Any) -> Any:
        if not first:
            function(*arguments, **named)
        die()

    return once


def settle(moment: str, url: str, *, key: str, path: str, request: dict[str, Any]) -> None:
    """Settle, and be killed at a moment."""
    chain, claims = JsonRpcChain(url), Claims(Path(path))
    relayer = Relayer(chain, Account.from_key(key), claims, poll_s=0.01)
    parts: dict[str, tuple[Any, str, bool]] = {
        "before the claim": (claims, "open", True),
        "before it is sent": (chain, "send_raw", True),
        "before the receipt": (chain, "send_raw", False),
        "before the end is noted": (claims, "close", True),
        AFTER: (claims, "close", False),
    }
    part, name, first = parts[moment]
    setattr(part, name, deadly(getattr(part, name), first=first))
    Facilitator([relayer], claims).settle(*parsed(request))


def main(asked: dict[str, Any]) -> int:
    """Fork before any thread is started, so that the libraries are loaded only once."""
    survivors = 0
    for moment, what in asked["moments"].items():
        child = os.fork()
        if child == 0:
            try:
                settle(moment, asked["url"], **what)
            finally:
                os._exit(1)
        _, status = os.waitpid(child, 0)
        survivors += os.waitstatus_to_exitcode(status) != -signal.SIGKILL
    return survivors


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
