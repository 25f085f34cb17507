"""Transfers from a session, over HTTP and on the command line."""

from eth_utils.address import to_checksum_address
from typer.testing import CliRunner

from engine.chain import contracts, sender
from engine.chain.embedded import EmbeddedChain
from tallystick.cli import app
from tests.ledger.paying import SHOP
from tests.rest.served import SESSIONS, Served, refused

KEY = {"Idempotency-Key": "rent"}


def test_a_transfer_is_decided_held_sent_and_captured(tenant: Served) -> None:
    engine, chain = tenant.world.engine, tenant.world.engine.gateway
    session = tenant.session(limits={"max_per_transaction": 3})
    view, usdc = engine.sessions.get(tenant.workspace_id, session["id"]), engine.token("USDC", None)
    assert usdc is not None
    assert isinstance(chain, EmbeddedChain)
    payer = to_checksum_address(view.grant.session_key)
    mint = contracts.call_data(contracts.TEST_USDC, "mint", payer, 5_000_000)
    sender.send(chain, chain.faucet, to=usdc.asset.rpartition(":")[2], data=mint)
    path, token = f"{SESSIONS}/{session['id']}/execute", session["session_token"]
    body = {"to": to_checksum_address(SHOP), "amount": "2.5", "memo": "rent"}

    answer = tenant.call("POST", path, body, token=token, headers=KEY)
    assert answer.status_code == 201
    held = answer.json()
    assert (held["state"], held["merchant_id"], held["description"]) == (
        "held",
        SHOP,
        "rent",
    )
    assert (held["terms"]["method"], held["terms"]["amount"]) == ("TRANSFER", "2500000")
    again = tenant.call("POST", path, body, token=token, headers=KEY)
    assert again.json()["id"] == held["id"]
    other = tenant.call("POST", path, {**body, "amount": 2}, token=token, headers=KEY)
    refused(other, 409, "idempotency_key_reused", field="amount")

    engine.tick()
    engine.tick()
    paid = tenant.get(f"/api/v1/payments/{held['id']}").json()
    assert (paid["state"], paid["settlement"]["state"]) == ("captured", "final")
    assert paid["transaction_signature"] == paid["settlement"]["tx_hash"]

    denied = tenant.call("POST", path, {**body, "amount": 4}, token=token)
    assert (denied.status_code, denied.json()["error"]["code"]) == (402, "LIMIT_EXCEEDED")
    for wrong, field in (
        ({"to": "0x12"}, "to"),
        ({"to": SHOP[:-1] + "G"}, "to"),
        ({"token": "NONE"}, "token"),
        ({"chain": "eip155:1"}, "token"),
    ):
        refused(
            tenant.call("POST", path, body | wrong, token=token), 422, "invalid_parameter", field
        )
    stranger = tenant.session()["session_token"]
    refused(tenant.call("POST", path, body, token=stranger), 404, "session_not_found")

    arguments = ["execute", "0.5", "--session", session["id"], "--to", SHOP]
    done = CliRunner().invoke(app, [*arguments, "--url", tenant.url, "--api-key", tenant.key])
    assert (done.exit_code, "HELD" in done.output.upper()) == (0, True), done.output


def test_readyz_and_metrics_tell_of_each_network(api: Served) -> None:
    engine = api.world.engine
    engine.tick()
    [network] = api.call("GET", "/readyz").json()["networks"]
    assert network == {
        "chain": engine.deployment.chain,
        "heard": True,
        "head_block": engine.gateway.head().number,
        "lag_blocks": 0,
        "open": network["open"],
    }
    shown = api.get("/metrics").text
    chain = f'{{chain="{engine.deployment.chain}"}}'
    assert f"tallystick_network_heard{chain} 1.0" in shown
    assert f"tallystick_network_lag_blocks{chain} 0.0" in shown
