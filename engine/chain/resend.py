"""Send a signed transaction again until the chain has it, or until it no longer can be mined."""

import structlog

from engine.chain import sender
from engine.chain.gateway import ChainGateway, TransactionRejected

_log = structlog.get_logger(__name__)


def send_again(gateway: ChainGateway, account: str, raw: bytes) -> bool:
    """Offer the transaction `raw` of `account` to the chain; False if another must take its place.

    That is so when the chain refuses it (its nonce was taken) and when one with a lower nonce is
    gone, by a reorganisation or an emptied pool: it would wait for that one for good.

    Raises:
        ChainUnavailable: it may or may not have been accepted.
    """
    if sender.fields_of(raw)["nonce"] > gateway.transaction_count(account, pending=True):
        _log.warning("transaction_stranded", reason="a transaction before it is gone")
        return False
    try:
        gateway.send_raw(raw)
    except TransactionRejected as error:
        _log.warning("transaction_lost", reason=error.reason)
        return False
    return True
