"""The Studio in a real browser with a virtual authenticator. With `STUDIO_PICTURES` set to a
directory it leaves a picture of each page there: docs/studio holds them."""

import json
import os
from pathlib import Path

import pytest

from api.server import Server
from engine.audit.verify import Verdict, verify
from engine.evidence.chain_view import GatewayView
from engine.policy.limits import Limits
from engine.workspaces.people import People
from tallystick import Client, Wallet
from tallystick.configurations import exported
from tests.ledger.approving import asked_for
from tests.studio.browser import CHROMIUM, Browser
from tests.world import USD, WORKSPACE, World

PICTURES = os.environ.get("STUDIO_PICTURES")
EVERY = ("sessions", "session", "consent")
"""Of which there is a picture in the dark and on a phone, too."""
LIMITS = Limits(100 * USD, 200 * USD, 500 * USD, None, 50 * USD)
KNOWN = "publicKey.pubKeyCredParams is missing"
"""Chromium would like RS256 to be offered, too; only ES256 is."""
HOSTILE = "<img src=/x onerror=alert(1)>"


class Tour:
    """Somebody who looks at each page: no script of anybody's runs, and axe finds nothing."""

    def __init__(self, browser: Browser, studio: str) -> None:
        self.browser, self.studio = browser, studio
        self.faults: list[str] = []

    def open(self, path: str, name: str | None = None) -> None:
        """Go there, and look."""
        self.browser.open(self.studio + path)
        self.look(name)

    def look(self, name: str | None = None) -> None:
        """At this page; without a name there is no picture of it."""
        browser = self.browser
        assert browser.run("document.querySelector('h1').innerText")
        wide = browser.run("document.documentElement.scrollWidth > innerWidth")
        assert not wide, f"{name} is wider than the window"
        self.faults += [f"{name}: {fault}" for fault in browser.faults()]
        if PICTURES and name:
            Path(PICTURES, f"{name}.png").write_bytes(browser.look())
            if name in EVERY:
                Path(PICTURES, f"{name}-dark.png").write_bytes(browser.look(dark=True))
            phone = browser.look(width=390)
            if name in EVERY:
                Path(PICTURES, f"{name}-phone.png").write_bytes(phone)

    def fill(self, **values: str) -> None:
        """The fields of the form."""
        for name, value in values.items():
            self.browser.run(
                f"document.querySelector('main [name={name}]').value = {json.dumps(value)}"
            )


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
def test_an_operator_does_everything_in_a_browser(world: World, tmp_path: Path) -> None:
    engine = world.engine
    token = People(engine.database, engine.writer).first()
    lunch = world.session(LIMITS, mint_pkp=True, label="Team lunch", agent_id="shopper")
    for dollars, merchant in ((40, "books"), (35, "bakery"), (48, "books")):
        paid = world.pay(lunch, dollars, merchant=merchant)
    for hours, label in enumerate(("News digest", "Price watch", "Weekly report"), start=1):
        view = world.session(LIMITS, label=label, agent_id="reader", duration_ms=hours * 1_800_000)
        world.pay(view, 20 * hours, merchant="archive")
    approval = asked_for(world, lunch, 60, merchant="caterer")
    engine.anchor()
    engine.reconciler.run()
    with (
        Server(engine, "127.0.0.1", 0) as server,
        Browser(tmp_path / "profile") as browser,
    ):
        tour = Tour(browser, f"http://localhost:{server.port}/studio")
        browser.authenticator()
        browser.look(width=390)  # from here on it is a phone, but for pictures
        browser.open(f"{tour.studio}/set-up#{token}")
        assert browser.run("location.hash") == ""
        browser.press("main button", "/studio/set-up/begin")
        browser.press("main button", "/studio/sign-in")
        tour.look("sign-in")
        browser.press("main button", "/studio/")
        assert "Team lunch" in browser.text()
        tour.look("sessions")

        tour.open("/sessions/new?type=agent&agent=shopper", "new-session")
        tour.fill(label="trading-agent-001-daily", max_per_day="200", max_per_transaction="40")
        browser.press(".actions button", "/studio/sessions/new")
        tour.look("consent")
        signed = browser.run("new URL(document.querySelector('main form').action).pathname")
        browser.press("main form button", signed)
        tour.look("provisioned")
        _follows_the_snippet(browser, tmp_path, str(world.operator_key))
        engine.anchor()
        file = engine.evidence(WORKSPACE, signed.split("/")[3])
        report = verify(file, GatewayView(engine.gateway), registry=engine.deployment.registry)
        assert report.verdict is Verdict.VERIFIED, report

        browser.open(f"{tour.studio}/sessions/{lunch.id}")
        world.pay(lunch, 2, merchant="florist")
        engine.lead.sequence()
        browser.until(lambda: "florist" in browser.text())

        tour.open("/agents/new-key?agent_id=shopper")
        tour.fill(name="checkout in production")
        browser.press(".actions button", "/studio/agents/new-key")
        tour.look("new-key")
        browser.press("main form button", "/studio/agents/new-key")
        tour.look("agents")

        hostile = world.session(
            LIMITS, label=HOSTILE, agent_id="crawler", agent_name=HOSTILE, mint_pkp=True
        )
        payment = world.pay(hostile, 45, hold=True, merchant="<script>alert(1)</script>")
        for page, name in (
            (f"/sessions/{lunch.id}", "session"),
            (f"/sessions/{hostile.id}", None),
            (f"/sessions/{hostile.id}/payments/{payment.id}", None),
            (f"/sessions/new?replaces={hostile.id}", None),
            ("/agents", None),
            (f"/sessions/{lunch.id}/payments/{paid.id}", "payment"),
            (f"/sessions/{lunch.id}/try?amount=30&merchant_id=books", "try"),
            ("/approvals", "approvals"),
            ("/reconciliation", "reconciliation"),
            ("/log", "log"),
            ("/people", "people"),
        ):
            tour.open(page, name)

        tour.open("/webhooks/new")
        tour.fill(url="https://localhost/tallystick", description=HOSTILE)
        browser.press(".actions button", "/studio/webhooks/new")
        tour.look()
        browser.press("main form button", "/studio/webhooks/new")
        webhook = engine.webhooks.list(WORKSPACE)[0]
        engine.webhooks.change(WORKSPACE, webhook.id, description="Accounting", by="key_x")
        tour.open(f"/webhooks/{webhook.id}")
        browser.press("form[action$=test] button", f"/studio/webhooks/{webhook.id}/test")
        assert "It did not arrive" in browser.text()
        tour.look("webhook")
        tour.open("/webhooks", "webhooks")

        tour.open(f"/approvals/{approval.id}", "approval")
        assert approval.digest in browser.text()
        browser.press("form[action$=grant] button", f"/studio/approvals/{approval.id}")
        assert "granted" in browser.text()
        tour.open("/revoke?type=agent", "revoke")
        browser.press("main form button", "/studio/")
        assert "6 sessions were revoked" in browser.text()
        browser.press(".who button", "/studio/sign-in")
        assert [told for told in browser.problems if not told.startswith(KNOWN)] == []
        assert tour.faults == []
        other = f"http://127.0.0.1:{server.port}/healthz"
        assert "Sign in" not in browser.framed(f"{tour.studio}/sign-in", other)
        free = f"http://localhost:{server.port}/healthz"
        assert browser.framed(free, other) == browser.text()  # what nothing forbids is read
    states = [engine.sessions.get(WORKSPACE, each.id).state for each in (lunch, hostile)]
    assert states == ["revoked", "revoked"]


def _follows_the_snippet(browser: Browser, directory: Path, operator_key: str) -> None:
    """What the page says to copy pays, as it stands there; the configuration is a wallet's."""
    made = json.loads(_shown(browser, "configuration"))
    with Client(made["url"], api_key=operator_key) as client:
        session = client.session(made["session_id"])
        own = exported(session, made["session_token"], made["url"])
        assert {name: made[name] for name in own} == own
        assert Wallet.from_configuration(client, made).init()["id"] == session["id"]
    name = f"wallet-{made['session_id']}.json"
    (directory / name).write_text(_shown(browser, "configuration"))
    code = _shown(browser, "python").replace(name, str(directory / name))
    told: list[str] = []
    exec(compile(code, "snippet", "exec"), {"print": lambda *said: told.extend(said)})
    assert told[1] == 199


def _shown(browser: Browser, place: str) -> str:
    return str(browser.run(f"document.getElementById('{place}').textContent"))
