"""What the tools are paid in, to whom, and who settles it: as the environment says.

| variable | default |
|---|---|
| `X402_PAY_TO` | none: everything happens on a chain of this process |
| `X402_NETWORK` | `eip155:8453` |
| `X402_FACILITATOR_URL` | `https://x402.org/facilitator`, which settles on `eip155:84532` only |
"""

import os

from engine.errors import InvalidInput
from engine.selling.currency import Currency
from engine.selling.facilitators import facilitator_at
from engine.selling.methods import PaymentMethod
from engine.selling.till import Till
from engine.storage.session import Storage

USDC = {
    "eip155:8453": ("0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913", "USD Coin"),
    "eip155:84532": ("0x036CbD53842c5426634e7929541eC2318f3dCF7e", "USDC"),
}


def till_from_environment(storage: Storage, pay_to: str) -> Till:
    """Takes USDC on a public network."""
    network = os.environ.get("X402_NETWORK", "eip155:8453")
    if network not in USDC:
        raise SystemExit(f"X402_NETWORK: takes one of {', '.join(USDC)}")
    token, name = USDC[network]
    try:
        currency = Currency(f"{network}/erc20:{token}", pay_to, name, "2")
    except InvalidInput as error:
        raise SystemExit(error.message.replace("pay_to", "X402_PAY_TO", 1)) from None
    url = os.environ.get("X402_FACILITATOR_URL", "https://x402.org/facilitator")
    if not url.startswith(("https://", "http://")):
        raise SystemExit("X402_FACILITATOR_URL: takes a URL")
    return Till(storage, PaymentMethod(currency, facilitator_at(url)))
