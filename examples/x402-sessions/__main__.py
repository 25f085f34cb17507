"""Serve the agent: `.venv/bin/python examples/x402-sessions`, until Ctrl-C."""

import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

sys.path.insert(1, str(Path(__file__).parents[2]))  # Tallystick itself, where it is not installed

from app.accepts import till_from_environment
from app.agent import create_agent
from app.local import Local
from app.session import storage

from api.server import AppServer
from engine.chain.embedded import EmbeddedChain
from engine.errors import CannotStart

PORT = 8404


@contextmanager
def serving(port: int) -> Iterator[str]:
    """Until the block ends; what is to be said about it.

    On a chain of this process, unless X402_PAY_TO names somebody on a public one.
    """
    pay_to = os.environ.get("X402_PAY_TO")
    with ExitStack() as stack:
        if pay_to:
            till, wallet = till_from_environment(storage, pay_to), None
        else:
            directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="x402-sessions-"))
            chain = EmbeddedChain(None)
            local = Local(chain, chain.faucet, Path(directory))
            stack.callback(local.close)
            till, wallet = local.till(storage), local.wallet()
        server = stack.enter_context(AppServer(create_agent(till), "127.0.0.1", port))
        said = f"serving {server.url}, its tools in {server.url}/docs and at {server.url}/mcp"
        if wallet is not None:
            visit = f"{Path(__file__).with_name('visit.py')} 0x{bytes(wallet.key).hex()}"
            said += "\na wallet with a test dollar; what it can do:\n"
            said += f"\n  {sys.executable} {visit} {server.url}\n"
        yield said


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that nothing is left behind
    try:
        with serving(PORT) as said:
            print(said, flush=True)
            threading.Event().wait()
    except KeyboardInterrupt:
        sys.exit()
    except CannotStart as error:
        sys.exit(f"cannot listen on port {PORT}: {error.__cause__}")
