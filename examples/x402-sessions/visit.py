"""Store something with the agent and get it back, by x402's own client.

visit.py PRIVATE_KEY URL
"""

import asyncio
import sys

from eth_account import Account
from x402 import x402Client
from x402.http.clients import x402HttpxClient
from x402.mechanisms.evm.exact import register_exact_evm_client


async def main(key: str, url: str) -> None:
    """Two payments: a cent, and a tenth of one."""
    client = x402Client()
    register_exact_evm_client(client, Account.from_key(key))
    client.set_spend_controls(False)  # the SDK knows no price of a test token
    async with x402HttpxClient(client, base_url=url, trust_env=False) as http:
        for tool, sent in (
            ("put-content", {"key": "note", "value": "remember the milk"}),
            ("get-content", {"key": "note"}),
        ):
            answer = await http.post(f"/tools/{tool}", json=sent)
            print(tool, answer.status_code, answer.json())


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("visit.py PRIVATE_KEY URL: as the agent prints it when it starts")
    asyncio.run(main(*sys.argv[1:]))
