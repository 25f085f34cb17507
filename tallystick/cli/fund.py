"""`tallystick fund`: test USDC on an embedded chain, where anybody may make it."""

from typing import Annotated

import typer

from tallystick.cli.connection import AsJson
from tallystick.cli.output import console, print_json

WAIT_S = 30.0
POLL_S = 0.1


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(fund)


def fund(
    address: Annotated[str, typer.Argument(help="Who gets it: a session's on-chain identity.")],
    token: Annotated[str, typer.Option(help="The test USDC, as `serve` prints it.")],
    amount: Annotated[str, typer.Argument(help="Dollars.")] = "100",
    rpc: Annotated[
        str, typer.Option(help="The embedded chain, as `serve` prints it.")
    ] = "http://127.0.0.1:8545",
    as_json: AsJson = False,
) -> None:
    """Give an address test USDC on the embedded chain.

    No key is needed: the chain's own coin is in an account that is everybody's, and this token is
    made by whoever asks. Both are for trials, and on no other chain.
    """
    from eth_utils.address import to_checksum_address

    from engine.chain import contracts, sender
    from engine.chain.embedded import ETH_TESTER_CHAIN_ID
    from engine.chain.embedded_genesis import faucet_account
    from engine.chain.gateway import CallReverted, ChainError
    from engine.chain.json_rpc import JsonRpcChain
    from engine.errors import InvalidInput
    from engine.policy.money import AmountError, format_usd, parse_usd
    from tallystick.cli.audit import read_address

    to, usdc = read_address("ADDRESS", address), read_address("--token", token)
    try:
        units = parse_usd(amount)
    except AmountError as error:
        raise InvalidInput("AMOUNT", str(error)) from error
    try:
        gateway = JsonRpcChain(rpc)
    except ChainError as error:
        raise InvalidInput("--rpc", error.message) from error
    try:
        if gateway.chain_id != ETH_TESTER_CHAIN_ID:
            raise InvalidInput("--rpc", "is no embedded chain")
        if not gateway.code(usdc):
            raise InvalidInput("--token", "is no token of this chain")
        data = contracts.call_data(contracts.TEST_USDC, "mint", to_checksum_address(to), units)
        tx_hash = sender.send(gateway, faucet_account(), to=usdc, data=data)
        receipt = sender.wait(gateway, tx_hash, timeout_s=WAIT_S, poll_s=POLL_S)
        assert receipt.succeeded, "it was tried before it was sent"
    except CallReverted as error:
        raise InvalidInput("--token", "is no test USDC") from error
    finally:
        gateway.close()
    if as_json:
        print_json({"address": to, "amount": amount, "tx_hash": f"0x{tx_hash.hex()}"})
        return
    console.print(f"{to} has {format_usd(units)} more", soft_wrap=True)
