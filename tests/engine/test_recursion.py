"""Nested JSON from anywhere is an error to catch, whatever a library lets the process recurse."""

import subprocess
import sys

import pytest

from tests.test_layers import ROOT

SCRIPT = """
import json, {imported}
from concurrent.futures import ThreadPoolExecutor

def read():
    try:
        json.loads("[" * 1_000_000)
    except RecursionError:
        return "refused"

with ThreadPoolExecutor(1) as pool:
    print(read(), pool.submit(read).result())
"""


@pytest.mark.parametrize(
    "imported",
    [
        "engine, eth_account, web3, x402",
        "eth_account, engine.engine",
        "engine.chain.embedded, eth_account, eth_tester, py_ecc.bls",
        "tallystick.client, tallystick.wallet, eth_keyfile",
        "tallystick.cli, api.server, eth_account",
    ],
)
def test_the_stack_is_large_enough_for_what_may_recurse(imported: str) -> None:
    run = (sys.executable, "-c", SCRIPT.format(imported=imported))
    done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "refused refused\n"), done.stderr[-2000:]
