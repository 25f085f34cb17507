"""Opens a facilitator: of the embedded chain beside the engine, or of chains elsewhere."""

import hashlib
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from engine.background import repeating
from engine.chain.account import Account, KeyAccount
from engine.chain.gateway import ChainError
from engine.db.claim import DirectoryLock
from engine.errors import CannotStart
from engine.payments.claims import Claims
from engine.payments.facilitator import Facilitator
from engine.payments.relay import Relayer, Sent
from engine.payments.served import Served
from engine.settings import FINALITY_BLOCKS

if TYPE_CHECKING:
    from engine.chain.embedded import EmbeddedChain

CLAIMS_FILE = "facilitator.sqlite3"
FUNDS_WEI = 1_000 * 10**18
"""What the embedded chain's relayer has at first: some ten million settlements."""
FOLLOW_UP_S = 10.0
"""So often it is looked whether what was settled is on the chain still."""
_KEY_DOMAIN = b"tallystick/facilitator/1\n"


def embedded_facilitator(
    chain: "EmbeddedChain", operator: KeyAccount, directory: Path, sent: Sent | None = None
) -> Facilitator:
    """The facilitator of the embedded chain, whose data directory is locked already.

    It serves every token and payee: nothing there has any value. Its account is not the
    operator's, from which the engine sends at the same time, but follows from it. `sent` is told
    what it sent.

    Raises:
        CannotStart: the file of claims cannot be used.
    """
    claims = Claims(directory / CLAIMS_FILE)
    account = KeyAccount(hashlib.sha256(_KEY_DOMAIN + operator.key).digest())
    if chain.balance(account.address.lower()) < FUNDS_WEI // 2:
        chain.fund(account.address.lower(), FUNDS_WEI)
    return Facilitator([Relayer(chain, account, claims, sent=sent)], claims)


@contextmanager
def standalone_facilitator(
    directory: Path,
    account: Account,
    rpc_urls: Sequence[str],
    served: Served,
    *,
    confirmations: int = 0,
) -> Iterator[Facilitator]:
    """A facilitator of the chains behind these endpoints; `account` pays the gas on each.

    Several endpoints of one chain are one text with spaces between, as in `TALLYSTICK_CHAIN`.

    Success is told with `confirmations` blocks on top. What was settled is sent again if it is
    undone, until it is `FINALITY_BLOCKS` deep.

    Raises:
        CannotStart: the directory is in use, its file of claims cannot be used, an endpoint does
            not answer, two serve the same chain, or none serves that of a token.
    """
    from engine.chain.endpoints import open_chain

    with ExitStack() as opened:
        lock = DirectoryLock(directory)
        opened.callback(lock.release)
        claims = Claims(directory / CLAIMS_FILE)
        opened.callback(claims.dispose)
        relayers: dict[str, Relayer] = {}
        for url in rpc_urls:
            try:
                chain = open_chain(url.split() or [url])
                opened.callback(chain.close)
                relayer = Relayer(
                    chain,
                    account,
                    claims,
                    confirmations=confirmations,
                    finality=FINALITY_BLOCKS,
                )
            except ChainError as error:
                raise CannotStart(f"--rpc: {error.message}") from error
            if relayer.network in relayers:
                raise CannotStart(f"--rpc: two endpoints serve {relayer.network}")
            relayers[relayer.network] = relayer
        for token in sorted(served.tokens or ()):
            if token.partition("/")[0] not in relayers:
                raise CannotStart(f"--token: no endpoint of --rpc serves the chain of {token}")
        facilitator = Facilitator(list(relayers.values()), claims, served)
        stopping = threading.Event()
        thread = repeating(
            "what was settled", facilitator.tick, interval_s=FOLLOW_UP_S, stopping=stopping
        )
        opened.callback(thread.join)
        opened.callback(stopping.set)
        yield facilitator
