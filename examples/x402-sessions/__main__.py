"""Serve the agent: `.venv/bin/python examples/x402-sessions`, until Ctrl-C."""

import os
import sys
import tempfile
import threading
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(1, str(Path(__file__).parents[2]))  # Tallystick itself, where it is not installed

from app.accepts import till_from_environment
from app.agent import create_agent
from app.local import Local
from app.session import storage

from api.server import AppServer
from engine.chain.embedded import EmbeddedChain

PORT = 8404


def main() -> None:
    """On a chain of this process, unless X402_PAY_TO names somebody on a public one."""
    pay_to = os.environ.get("X402_PAY_TO")
    with ExitStack() as stack:
        temporary = tempfile.TemporaryDirectory(prefix="x402-sessions-")
        directory = stack.enter_context(temporary)
        if pay_to:
            till = till_from_environment(storage, pay_to)
        else:
            chain = EmbeddedChain(None)
            local = Local(chain, chain.faucet, Path(directory))
            stack.callback(local.close)
            till = local.till(storage)
        with AppServer(create_agent(till), "127.0.0.1", PORT) as server:
            print(f"serving {server.url}, its tools in {server.url}/docs")
            if not pay_to:
                key = bytes(local.wallet().key).hex()
                print("a wallet with a test dollar; what it can do:\n")
                print(f"  {sys.executable} {Path(__file__).with_name('visit.py')} 0x{key}\n")
            sys.stdout.flush()
            threading.Event().wait()


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit()
