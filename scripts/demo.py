"""One session's whole life on real parts. Exits with 0 only if every step held."""

import argparse
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from eth_account import Account
from eth_account.signers.local import LocalAccount
from eth_utils.address import to_checksum_address
from fastapi import FastAPI
from rich.console import Console
from rich.markup import escape
from rich.panel import Panel

from api.facilitator.app import create_facilitator_app
from api.server import AppServer, Server
from engine.audit.canonical import decode_object
from engine.chain import contracts, sender
from engine.chain.anvil import AnvilProcess
from engine.chain.deploy import create, deploy
from engine.chain.json_rpc import JsonRpcChain
from engine.db.tables import SessionKey, table
from engine.engine import Engine, open_engine
from engine.errors import TallystickError
from engine.grant import Grant
from engine.payments.authorization import Authorization
from engine.payments.opening import standalone_facilitator
from engine.payments.served import Served
from engine.payments.token_domain import read_token_domain
from engine.sessions.kek import open_vault
from engine.settings import Settings
from tallystick import ApiError, Client, PaymentDenied, paid
from tallystick.cli.output import dollars

ROOT = Path(__file__).parents[1]
PATIENCE_S = 120
"""A machine may be busy; nothing here is about time."""
TALLYSTICK = Path(sys.executable).with_name("tallystick")
CHAINS = {"embedded": "the embedded chain", "anvil": "Anvil"}
MERCHANTS = ["books.example", "data.example"]
LIMITS = {
    "max_per_transaction": 50,
    "max_per_day": 100,
    "max_per_week": 500,
    "max_per_month": 1000,
    "require_approval_above": 40,
}
INTERRUPTED_EXIT_CODE = 130
# What the agent tries: merchant, dollars, and the code it must hear.
PAYMENTS = [
    ("books.example", "25.00", "ALLOWED"),
    ("data.example", "19.999999", "ALLOWED"),
    ("books.example", "60", "LIMIT_EXCEEDED"),
    ("books.example", "45", "APPROVAL_REQUIRED"),
    ("casino.example", "10", "MERCHANT_NOT_ALLOWED"),
    ("data.example", "5.50", "ALLOWED"),
    ("data.example", "4.500002", "LIMIT_EXCEEDED"),
    ("data.example", "4.500001", "ALLOWED"),
]
# What the other agent hears, one after the other, when it asks for a report that costs a cent.
REPORTS = ["ALLOWED", "ALLOWED", "ALLOWED", "LIMIT_EXCEEDED"]
REPORTS_PER_DAY = "0.03"
CENT = 10_000
SHOP = "0x" + "5b" * 20

console = Console(highlight=False)


class StepFailedError(Exception):
    """A step of the demonstration did not hold."""


def expect(held: bool, what: str) -> None:
    """Go on only if `held`."""
    if not held:
        raise StepFailedError(what)


@contextmanager
def step(title: str) -> Iterator[None]:
    """Show what is being done, how long it took, and that it held."""
    started = time.monotonic()
    with console.status(f"[cyan]{title}…"):
        yield
    console.print(f"[green]✓[/] {title} [dim]{time.monotonic() - started:.1f} s[/]")


def detail(text: str, indent: int = 2) -> None:
    """Lines below a step, folded where the terminal ends; reasons below reasons."""
    for line in text.splitlines():
        before_reason = re.match(r" *\d+  \w+ +\S+ ", line)
        hanging = indent + (before_reason.end() if before_reason else 0)
        longest = max(map(len, line.split()), default=0)
        folded = textwrap.fill(
            line,
            console.width,
            initial_indent=" " * indent,
            # A hash is longer than the room below a reason, and must not be cut in two.
            subsequent_indent=" " * max(indent, min(hanging, console.width - longest)),
            break_on_hyphens=False,
        )
        console.print(f"[dim]{escape(folded)}[/]", soft_wrap=True)


def column(amount: str) -> str:
    """An amount with its point where those above and below it have theirs."""
    whole, point, fraction = amount.partition(".")
    return f"{whole:>5}{point}{fraction:<6}"


def chain_settings(kind: str, data_dir: Path, stack: ExitStack) -> tuple[Settings, LocalAccount]:
    """The settings for a chain of this kind, and an owner who has some ether on it."""
    common: dict[str, Any] = {
        "data_dir": data_dir,
        "port": 0,
        "rpc_port": 0,
        "anchor_interval_s": 0,
        "poll_interval_ms": 50,
    }
    if kind == "embedded":
        return Settings(**common), Account.create()
    anvil = stack.enter_context(
        AnvilProcess.from_toml(ROOT / "anvil.toml", port=0, state_file=None)
    )
    operator, owner = anvil.accounts()[:2]
    gateway = JsonRpcChain(anvil.url)
    stack.callback(gateway.close)
    deployed = deploy(gateway, operator)
    usdc = create(gateway, operator, contracts.TEST_USDC)
    token = {
        "symbol": "USDC",
        "asset": f"eip155:{gateway.chain_id}/erc20:{usdc}",
        "decimals": 6,
        "usd_price": "1",
    }
    settings = Settings(
        **common,
        chain=anvil.url,
        registry=deployed.registry,
        operator_key="0x" + bytes(operator.key).hex(),
        tokens=(token,),
        # This chain mines a block for each transaction: what is in one is final here.
        networks=({"chain": f"eip155:{gateway.chain_id}", "confirmations": 0, "finality": 0},),
    )
    return settings, owner


def pay(client: Client, merchant: str, amount: str) -> Mapping[str, Any]:
    """Try a payment; what was decided."""
    try:
        return client.pay(amount, merchant=merchant)
    except ApiError as denial:
        if denial.status != 402:
            raise
        return denial.body


def show(payment: Mapping[str, Any]) -> str:
    """A line for a payment, and one with the reason if it is denied; returns the code."""
    code: str = payment["decision"]["code"]
    decision = f"[{'green' if code == 'ALLOWED' else 'yellow'}]{code:<20}[/]"
    asked, left = (
        column(dollars(payment["amount_usd"])),
        column(dollars(payment["remaining_today"])),
    )
    console.print(f"  {payment['merchant_id']:<14} {asked}  {decision} {left}".rstrip())
    if code != "ALLOWED":
        detail(payment["decision"]["reason"], indent=4)
    return code


def grant(operator: Client, approval: str) -> Mapping[str, Any]:
    """The operator grants what a payment waits for: the payment that is made."""
    granted = operator.grant_approval(approval)
    expect(granted["state"] == "granted", "the grant makes the payment")
    return operator.payment(granted["payment_id"])


def anchored(operator: Client) -> Mapping[str, Any]:
    """Anchor the log, and wait until that is final: a chain may take a while to mine it."""
    deadline = time.monotonic() + PATIENCE_S
    while (anchor := operator.anchor()["anchor"]) is None or anchor["state"] != "final":
        expect(time.monotonic() < deadline, "the anchor is mined")
        time.sleep(0.02)
    return anchor


def verify_apart(file: Path, rpc: str, registry: str) -> tuple[int, str]:
    """Run `tallystick verify` as a process of its own: its exit status and what it printed."""
    done = subprocess.run(
        [TALLYSTICK, "verify", str(file), "--rpc", rpc, "--registry", registry],
        capture_output=True,
        text=True,
        check=False,
        timeout=2 * PATIENCE_S,
    )
    return done.returncode, (done.stdout + done.stderr).rstrip()


def edited_copy(file: Path) -> Path:
    """The same evidence, with one captured amount made smaller by a digit."""
    content = file.read_bytes()
    place = content.index(rb"captured_micro_usd\":") + len(rb"captured_micro_usd\":")
    changed = bytes([content[place] - 1])
    copy = file.with_name("evidence-edited.json")
    copy.write_bytes(content[:place] + changed + content[place + 1 :])
    return copy


def owner_revokes(
    rpc: str, registry: str, owner: LocalAccount, engine: Engine, session: str
) -> str:
    """The owner calls the registry; the server is not asked. What it takes is in the event."""
    view = engine.sessions.get("default", session)
    gateway = JsonRpcChain(rpc)
    try:
        published = session_on_chain(gateway, registry, view.token_id)
        data = contracts.call_data(contracts.SESSION_REGISTRY, "revoke", [published])
        tx_hash = sender.send(gateway, owner, to=registry, data=data)
        receipt = sender.wait(gateway, tx_hash, timeout_s=PATIENCE_S, poll_s=0.05)
    finally:
        gateway.close()
    expect(receipt.succeeded, "the owner's revocation was mined")
    return "0x" + tx_hash.hex()


def session_on_chain(gateway: JsonRpcChain, registry: str, token_id: bytes) -> tuple[Any, ...]:
    """Token id, owner and grant hash: the topics of the event that registered the session."""
    topic = contracts.event_topic(contracts.SESSION_REGISTRY, "SessionRegistered")
    head = gateway.head().number
    logs = gateway.logs(
        from_block=0, to_block=head, addresses=(registry,), topics=(topic, token_id)
    )
    event = contracts.decode_log(contracts.SESSION_REGISTRY, logs[0])
    if event is None:
        raise StepFailedError("the registration's event can be read")
    return tuple(event.args[name] for name in ("tokenId", "owner", "grantHash"))


@contextmanager
def open_shop(facilitator_url: str, asset: str) -> Iterator[str]:
    """Somebody else's server: its `/report` costs a cent, by the middleware of x402's own SDK."""
    from x402 import x402ResourceServer
    from x402.http import FacilitatorConfig, HTTPFacilitatorClient
    from x402.http.middleware.fastapi import payment_middleware
    from x402.mechanisms.evm.exact import ExactEvmServerScheme

    network, _, token = asset.partition("/erc20:")
    sells = x402ResourceServer(HTTPFacilitatorClient(FacilitatorConfig(url=facilitator_url)))
    sells.register(network, ExactEvmServerScheme())
    extra = {"name": "Test USD Coin", "version": "2"}
    price = {"amount": str(CENT), "asset": token, "extra": extra}
    offer = {"scheme": "exact", "payTo": SHOP, "price": price, "network": network}
    app = FastAPI()
    app.middleware("http")(payment_middleware({"GET /report": {"accepts": offer}}, sells))

    @app.get("/report")
    async def report() -> dict[str, str]:
        return {"report": "sold"}

    with AppServer(app, "127.0.0.1", 0) as serving:
        yield serving.url


def facilitator(kind: str, settings: Settings, url: str, stack: ExitStack) -> str:
    """The URL of who settles: the server's own, or on Anvil one beside it that pays its own gas."""
    if kind == "embedded":
        return f"{url}/facilitator"
    (token,) = settings.tokens
    served = Served(tokens=frozenset({token.asset}))
    account = AnvilProcess.from_toml(ROOT / "anvil.toml", port=0, state_file=None).accounts()[2]
    directory = settings.data_dir.with_name(settings.data_dir.name + "-facilitator")
    stack.callback(shutil.rmtree, directory, ignore_errors=True)
    opened = standalone_facilitator(directory, account, [settings.chain], served)
    app = create_facilitator_app(stack.enter_context(opened))
    return stack.enter_context(AppServer(app, "127.0.0.1", 0)).url


def on_token(engine: Engine, token: str, function: str, *arguments: Any) -> None:
    """Have the operator's account call a token, and wait."""
    data = contracts.call_data(contracts.TEST_USDC, function, *arguments)
    tx_hash = sender.send(engine.gateway, engine.deployment.operator, to=token, data=data)
    receipt = sender.wait(engine.gateway, tx_hash, timeout_s=PATIENCE_S, poll_s=0.05)
    expect(receipt.succeeded, f"{function} was mined")


def pay_past_the_log(engine: Engine, settings: Settings, session: str, token: str) -> str:
    """What an operator could do who takes the key out of the vault; the nonce of the payment."""
    key = sa.select(table(SessionKey).c.sealed).where(table(SessionKey).c.session_id == session)
    with engine.database.reading() as connection:
        sealed = connection.execute(key).scalar_one()
    secret = open_vault(settings, engine.database, secrets.token_bytes).open(sealed, session)
    payer = Account.from_key(secret).address
    stray = Authorization(
        payer.lower(), SHOP, CENT, 0, engine.clock() // 1000 + 3600, secrets.token_bytes(32)
    )
    signature = stray.sign(read_token_domain(engine.gateway, token), secret)
    wire = stray.wire
    on_token(
        *(engine, token, "transferWithAuthorization", payer, to_checksum_address(SHOP)),
        *(int(wire[name]) for name in ("value", "validAfter", "validBefore")),
        *(stray.nonce, signature),
    )
    return "0x" + stray.nonce.hex()


def pay_402s(
    kind: str,
    settings: Settings,
    engine: Engine,
    url: str,
    operator: Client,
    owner: LocalAccount,
    rpc: str,
    output: Path,
    stack: ExitStack,
) -> None:
    """An agent buys from somebody else's server until its limit, and nothing goes missing."""
    registry = operator.deployment()["registry"]
    usdc = engine.token("USDC", None)
    expect(usdc is not None, "there is a test USDC")
    asset = usdc.asset
    token = asset.rpartition(":")[2]
    with step("Open a shop that sells a report by x402; let an agent buy there, by its own limits"):
        shop = stack.enter_context(open_shop(facilitator(kind, settings, url, stack), asset))
        session = operator.create_session(
            agent_id="shopping-assistant-v1",
            label="reports",
            user_wallet=owner.address,
            limits={"max_per_day": REPORTS_PER_DAY},
            allowed_merchants=[shop.removeprefix("http://")],
            duration_hours=24,
            mint_pkp=True,
            await_consent=True,
        )
        secret = session["session_token"]
        signature = owner.sign_typed_data(full_message=session["typed_data"]).signature
        session = operator.consent(session["id"], "0x" + bytes(signature).hex())
        on_token(engine, token, "mint", to_checksum_address(session["pkp_address"]), 100 * CENT)
    detail(f"session {session['id']}\nits key {session['pkp_address']} has $1, and a limit")

    console.print("\n[bold]The agent meets a 402[/]; the engine signs what the policy allows")
    bought = []
    with Client(url, session_token=secret) as agent:
        for expected in REPORTS:
            try:
                answer = agent.fetch(f"{shop}/report", max_price="0.01")
                receipt = paid(answer)
                expect(answer.is_success and receipt is not None, "the shop delivers")
                bought.append(receipt.payment_id)
                code, said = "ALLOWED", f"transaction {receipt.tx_hash}"
            except PaymentDenied as denial:
                code, said = denial.code, denial.reason
            colour = "green" if code == "ALLOWED" else "yellow"
            console.print(f"  GET /report  $0.01  [{colour}]{code}[/]")
            detail(said, indent=4)
            expect(code == expected, f"a report is answered {expected}, not {code}")

    console.print()
    with step("Wait until the chain says so, then hold the ledger against it"):
        deadline = time.monotonic() + PATIENCE_S
        while any(operator.payment(each)["state"] != "captured" for each in bought):
            expect(time.monotonic() < deadline, "each payment is captured by what the chain shows")
            time.sleep(0.02)
        expect(operator.reconcile()["open"] == [], "nothing differs")
    detail(f"{len(bought)} payments are captured; no discrepancies")

    file = output.with_name("evidence-402.json")
    with step("Anchor, and verify apart that nothing is missing"):
        anchored(operator)
        file.write_bytes(operator.evidence(session["id"]))
        status, printed = verify_apart(file, rpc, registry)
    detail(the_row("spends", printed), indent=0)
    expect(status == 0, "each payment on the chain has its record")

    with step("Pay past the log with the vault's key, end the session, verify again"):
        nonce = pay_past_the_log(engine, settings, session["id"], token)
        operator.revoke_session(session["id"])
        anchored(operator)
        file.write_bytes(operator.evidence(session["id"]))
        status, printed = verify_apart(file, rpc, registry)
    detail(the_row("spends", printed), indent=0)
    joined = "".join(printed.split())
    expect(status == 1 and nonce in joined, "the payment that no record allows is found")


def the_row(name: str, printed: str) -> str:
    """The row of a check in what `verify` printed, with the lines below it that belong to it."""
    lines = printed.splitlines()
    first = next(n for n, line in enumerate(lines) if re.match(rf" *\d+  {name} ", line))
    last = first + 1
    while last < len(lines) and not re.match(r" *\d+  \w|\S", lines[last]) and lines[last].strip():
        last += 1
    return "\n".join(lines[first:last])


def run(kind: str, output: Path, stack: ExitStack) -> None:
    """All steps, in order."""
    with tempfile.TemporaryFile(dir=output.parent):
        pass  # that nothing can be written there is told before the first step
    data_dir = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tallystick-demo-")))
    console.print(Panel.fit(f"[bold]Tallystick[/]: one session's whole life, on {CHAINS[kind]}"))

    with step("Start the chain, deploy the contracts, open the log"):
        settings, owner = chain_settings(kind, data_dir, stack)
        engine = open_engine(settings)
        stack.callback(engine.close)
        if kind == "embedded":
            engine.gateway.fund(owner.address.lower(), 10**18)  # type: ignore[attr-defined]
        embedded = engine.serve_embedded_chain()
        if embedded is not None:
            stack.callback(embedded.stop)
        rpc = settings.chain if embedded is None else embedded.url
        key = engine.access.ensure_admin(None)
        server = stack.enter_context(Server(engine, "127.0.0.1", 0))
        engine.start()
        operator = stack.enter_context(Client(server.url, api_key=key))
        registry = operator.deployment()["registry"]
    detail(f"chain {operator.deployment()['chain']}")
    detail(f"registry {registry}")

    with step("Register the agent"):
        operator.register_agent("shopping-assistant-v1", "Shopping assistant")

    with step("Create a session; its owner signs the grant; register it on the chain"):
        session = operator.create_session(
            agent_id="shopping-assistant-v1",
            label="demo",
            user_wallet=owner.address,
            limits=LIMITS,
            allowed_merchants=MERCHANTS,
            duration_hours=24,
            mint_pkp=True,
            await_consent=True,
        )
        secret = session["session_token"]
        signature = owner.sign_typed_data(full_message=session["typed_data"]).signature
        session = operator.consent(session["id"], "0x" + bytes(signature).hex())
        expect(session["is_active"], "the registration makes the session active")
        expect(session["consent"] == "eip712", "the owner's consent is recorded")
    detail(f"session {session['id']}")
    detail(f"its identity on the chain {session['pkp_address']}")

    console.print("\n[bold]The agent pays[/], with its session token and no key")
    agent = stack.enter_context(Client(server.url, session_token=secret))
    detail(f"{'merchant':<14} {'  amount':<12}  {'decision':<20}  left today")
    for merchant, amount, expected in PAYMENTS:
        payment = pay(agent, merchant, amount)
        code = show(payment)
        expect(code == expected, f"{merchant} ${amount} is answered {expected}, not {code}")
        if code == "APPROVAL_REQUIRED":
            detail("The operator grants it:", indent=4)
            show(grant(operator, payment["approval_id"]))
    expect(operator.session(session["id"])["remaining_today"] == 0, "the day is used up exactly")

    console.print()
    with step("The owner revokes the session on the chain, without asking the server"):
        tx_hash = owner_revokes(rpc, registry, owner, engine, session["id"])
        deadline = time.monotonic() + PATIENCE_S
        while operator.session(session["id"])["status"] != "revoked":
            expect(time.monotonic() < deadline, "the server sees the revocation")
            time.sleep(0.02)
        refused = pay(agent, "books.example", "1")["decision"]
        expect(refused["code"] == "SESSION_REVOKED", "the next payment is refused")
    detail(f"transaction\n{tx_hash}")
    detail(f"the next payment: {refused['code']}: {refused['reason']}")

    with step("Sign a checkpoint of the log and anchor its root on the chain"):
        anchor = anchored(operator)
    detail(f"{anchor['size']} records, root\n{anchor['root']}")

    with step(f"Write {output.name}"):
        output.write_bytes(operator.evidence(session["id"]))
        document = decode_object(output.read_bytes().rstrip(b"\n"))
        Grant.from_json(document["session"]["grant"])
    detail(f"{output}, {output.stat().st_size} bytes, {len(document['records'])} records")

    with step("Verify it in another process, against the chain alone"):
        status, printed = verify_apart(output, rpc, registry)
    detail(printed, indent=0)
    expect(status == 0, "the evidence is verified")

    with step("Edit one digit of one captured amount, and verify the copy"):
        status, printed = verify_apart(edited_copy(output), rpc, registry)
    detail("\n".join(line for line in printed.splitlines() if " ✓ " not in line), indent=0)
    expect(status == 1 and "TAMPERED" in printed, "the edited copy is refused as tampered")

    console.print()
    pay_402s(kind, settings, engine, server.url, operator, owner, rpc, output, stack)

    console.print("\n[bold green]Every step held.[/]")


def main() -> int:
    """Parse the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chain", choices=tuple(CHAINS), default="embedded")
    parser.add_argument(
        "--output", type=Path, default=Path("evidence.json"), help="where the evidence goes"
    )
    arguments = parser.parse_args()
    try:
        with ExitStack() as stack:
            run(arguments.chain, arguments.output.resolve(), stack)
    except StepFailedError as failure:
        console.print(f"\n[bold red]This did not hold:[/] {escape(str(failure))}")
        return 1
    except (TallystickError, ApiError) as error:
        console.print(f"\n[bold red]{escape(error.code)}:[/] {escape(error.message)}")
        return 1
    except OSError as error:
        console.print(f"\n[bold red]The machine refuses:[/] {escape(str(error))}")
        return 1
    except KeyboardInterrupt:
        console.print("\n[bold red]Interrupted.[/]")
        return INTERRUPTED_EXIT_CODE
    return 0


if __name__ == "__main__":
    sys.exit(main())
