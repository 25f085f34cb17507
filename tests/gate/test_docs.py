"""What docs/storage.md says of selling, done as it is written there."""

import re
from pathlib import Path
from typing import Any

import httpx
import pytest
from x402 import x402Client
from x402.http.clients.httpx import x402AsyncTransport
from x402.mechanisms.evm.exact import register_exact_evm_client

from api.facilitator.app import create_facilitator_app
from api.gate.store import Prices
from api.server import AppServer
from engine.settings import Settings
from tests.payments.paying import PAYEE
from tests.payments.paying import Till as Facility

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "storage.md").read_text()
[_, SELLING, _] = re.findall(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)


@pytest.mark.anyio
async def test_gate_and_store_in_an_application_of_ones_own(
    facility: Facility, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    lines = [
        line for line in SELLING.splitlines() if re.match(r"storage =|usdc =|gate =|app", line)
    ]
    assert len(lines) == 5, "in five lines"
    client = x402Client()
    register_exact_evm_client(client, facility.payer)
    client.set_spend_controls(False)
    with AppServer(create_facilitator_app(facility.facilitator), "127.0.0.1", 0) as server:
        here = {
            "eip155:84532/erc20:0x036CbD53842c5426634e7929541eC2318f3dCF7e": (
                f"{facility.network}/erc20:{facility.domain.token}"
            ),
            '"USDC"': f'"{facility.domain.name}"',
            "https://x402.org/facilitator": server.url,
        }
        example = SELLING
        for there, ours in here.items():
            assert there in example
            example = example.replace(there, ours)
        names: dict[str, Any] = {"PAY_TO": PAYEE}
        exec(example, names)
        transport = x402AsyncTransport(client, httpx.ASGITransport(names["app"]))
        async with httpx.AsyncClient(transport=transport, base_url="http://own.test") as http:
            answer = await http.put("/v1/store/a", content="b")
            assert answer.status_code == 200, answer.text
            assert (await http.get("/v1/store/a")).text == "b"
            report = await http.get("/report")
            assert report.json() == {"bought by": facility.payer.address}
        await names["storage"].close()
    assert facility.transfers() == 3


def test_the_prices_are_those_of_the_settings() -> None:
    rows = re.findall(r"\| `TALLYSTICK_PRICE_(\w+)`, \$([0-9.]+) \|", DOCUMENT)
    told = {name.lower(): price for name, price in rows}
    fields = Settings.model_fields
    assert told == {
        name.removeprefix("price_"): fields[name].default for name in fields if "price_" in name
    }
    default = Prices()
    assert {name: getattr(default, name) for name in told} == {
        name: round(float(price) * 1_000_000) for name, price in told.items()
    }
