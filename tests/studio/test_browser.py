"""The Studio in a real browser with a virtual authenticator. With `STUDIO_PICTURES` set to a
directory it leaves a picture of each page there: docs/studio holds them."""

import json
import os
from pathlib import Path

import pytest

from api.server import Server
from api.studio.uploads import FILE_BYTES_MAX
from engine.audit.verify import Verdict, verify
from engine.chain import embedded
from engine.evidence.chain_view import GatewayView
from engine.sessions.session import SessionView
from engine.workspaces.people import People
from tallystick import Client, Wallet
from tallystick.configurations import exported
from tests.ledger.approving import asked_for
from tests.studio.browser import CHROMIUM, Browser
from tests.studio.scene import LUNCH, LeapingClock, Scene
from tests.world import WORKSPACE, World

PICTURES = os.environ.get("STUDIO_PICTURES")
EVERY = ("sessions", "session", "consent")
"""Of which there is a picture in the dark and on a phone, too."""
SIGN_OUT_ELSEWHERE = """
fetch("/studio/sign-out", {
  method: "POST", body: new URLSearchParams(new FormData(document.querySelector(".who")))
}); 0"""
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
        self.faults += [f"{name}: wider than {width}" for width in browser.narrow()]
        self.faults += [f"{name}: not by Tab: {each}" for each in browser.unreached()]
        self.faults += [f"{name}: {fault}" for fault in browser.faults()]
        if PICTURES and name:
            Path(PICTURES).mkdir(parents=True, exist_ok=True)
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
def test_an_operator_does_everything_in_a_browser(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = LeapingClock()
    monkeypatch.setattr(embedded, "system_clock", clock)  # blocks are never behind their records
    world = World(tmp_path / "data", clock)
    engine = world.engine
    scene = Scene(world, clock)
    lunch, approval = scene.lunch, scene.approval
    token = People(engine.database, engine.writer).first()
    with (
        Server(engine, "127.0.0.1", 0) as server,
        Browser(tmp_path / "profile") as browser,
    ):
        tour = Tour(browser, f"http://localhost:{server.port}/studio")
        browser.authenticator()
        browser.open(f"{tour.studio}/set-up#{token}")
        assert browser.run("location.hash") == ""
        browser.press("main button", "/studio/set-up/begin")
        browser.press("main button", "/studio/sign-in")
        tour.look("sign-in")
        browser.press("main button", "/studio/")
        tour.open("/?type=all", "sessions")
        assert "Team lunch" in browser.text()

        tour.open("/sessions/new?type=agent&agent=trader-001", "new-session")
        tour.fill(label="trading-agent-001-daily", max_per_day="200", max_per_transaction="40")
        tour.fill(payments_per_hour="20", lifetime="2500", never="casino")
        browser.press(".actions button", "/studio/sessions/new")
        tour.look("consent")
        assert "at most 20 payments per hour" in browser.text()
        signed = browser.run("new URL(document.querySelector('main form').action).pathname")
        browser.press("main form button", signed)
        tour.look("provisioned")
        _follows_the_snippet(browser, tmp_path, str(world.operator_key))
        engine.anchor()
        file = engine.evidence(WORKSPACE, signed.split("/")[3])
        report = verify(file, GatewayView(engine.gateway), registry=engine.deployment.registry)
        assert report.verdict is Verdict.VERIFIED, report
        _rotates(tour, signed.split("/")[3])

        browser.open(f"{tour.studio}/sessions/{lunch.id}")
        world.pay(lunch, 2, merchant="florist")
        engine.lead.sequence()
        browser.until(lambda: "florist" in browser.text())

        _narrows(tour, scene.digest)
        assert engine.sessions.get(WORKSPACE, scene.digest.id).restrictions == ()

        tour.open("/agents/new-key?agent_id=shopper")
        tour.fill(name="checkout in production")
        browser.press(".actions button", "/studio/agents/new-key")
        tour.look("new-key")
        browser.press("main form button", "/studio/agents/new-key")
        tour.look("agents")

        hostile = world.session(
            LUNCH, label=HOSTILE, agent_id="crawler", agent_name=HOSTILE, mint_pkp=True
        )
        payment = world.pay(hostile, 45, hold=True, merchant="<script>alert(1)</script>")
        for page in ("", f"/payments/{payment.id}"):
            browser.open(f"{tour.studio}/sessions/{hostile.id}{page}")
        for page in (f"/sessions/new?replaces={hostile.id}", "/agents"):
            browser.open(tour.studio + page)
        for page, name in (
            (f"/sessions/{lunch.id}", "session"),
            (f"/sessions/{lunch.id}/payments/{scene.paid.id}", "payment"),
            (f"/sessions/{lunch.id}/try?amount=30&merchant_id=Bakery", "try"),
            ("/approvals", "approvals"),
            ("/reconciliation", "reconciliation"),
            ("/people", "people"),
        ):
            tour.open(page, name)

        colours = [_colour_of_revoking(tour, page) for page in ("people", f"sessions/{lunch.id}")]
        assert colours[0] == colours[1]
        assert colours[0] != browser.run("getComputedStyle(document.querySelector('main a')).color")

        _verifies(tour, file, tmp_path)
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
        assert "5 sessions were revoked" in browser.text()
        assert [told for told in browser.problems if not told.startswith(KNOWN)] == []
        assert tour.faults == []
        assert not browser.run("document.querySelector('.waits')")
        asked_for(world, world.session(LUNCH, type="app", label="one more"), 60)
        engine.lead.sequence()
        browser.until(lambda: browser.run("document.querySelector('.waits')?.innerText[0]") == "1")
        browser.run(SIGN_OUT_ELSEWHERE)
        world.session(label="nobody sees it")
        engine.lead.sequence()
        browser.until(lambda: "you were signed out" in browser.text())
        other = f"http://127.0.0.1:{server.port}/healthz"
        assert "Sign in" not in browser.framed(f"{tour.studio}/sign-in", other)
        free = f"http://localhost:{server.port}/healthz"
        assert browser.framed(free, other) == browser.text()  # what nothing forbids is read
    states = [engine.sessions.get(WORKSPACE, each.id).state for each in (lunch, hostile)]
    assert states == ["revoked", "revoked"]
    engine.close()


def _narrows(tour: Tour, session: SessionView) -> None:
    """Sets a budget; restricts a session, and lifts that again."""
    browser, place = tour.browser, f"/studio/sessions/{session.id}"
    tour.open("/budgets/set?agent=reader", "budget")
    tour.fill(max_per_month="400", max_payments_per_hour="30")
    browser.press(".actions button", "/studio/budgets/set")
    tour.look()
    browser.press("main form button", "/studio/budgets")
    tour.look("budgets")
    assert "News reader" in browser.text()
    tour.open(f"/sessions/{session.id}/restrict", "restrict")
    for hours in ("09:00", ""):
        tour.fill(**{"from": hours})
        browser.press(".actions button", f"{place}/restrict")
        browser.press("main form button", place)
        assert ("only 09:00-24:00 UTC" in browser.text()) == bool(hours)
        browser.open(f"{tour.studio}/sessions/{session.id}/restrict")


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


def _colour_of_revoking(tour: Tour, page: str) -> str:
    tour.browser.open(f"{tour.studio}/{page}")
    button = "document.querySelector('form[action$=revoke] button')"
    return str(tour.browser.run(f"getComputedStyle({button}).color"))


def _rotates(tour: Tour, old_id: str) -> None:
    """The chain ends a session as it registers the one that takes its place."""
    browser = tour.browser
    tour.open(f"/sessions/new?replaces={old_id}", "replace-session")
    browser.run("document.querySelector('[name=rotates]').click()")
    browser.press(".actions button", "/studio/sessions/new")
    assert "ends another session for good" in browser.text()
    tour.look()
    signed = browser.run("new URL(document.querySelector('main form').action).pathname")
    browser.press("main form button", signed)
    assert "has ended" in browser.text()
    tour.open(f"/sessions/{old_id}")
    assert "took its place in the transaction that ended it" in browser.text()


def _verifies(tour: Tour, file: bytes, directory: Path) -> None:
    """An evidence file is dropped on the page of the log, or chosen where no script runs."""
    browser = tour.browser
    tour.open("/log", "log")
    drop = "document.querySelector('.drop')"
    for content, verdict, name in (
        (file, "It holds: verified.", "verified"),
        (file.replace(b"trading", b"taxes"), "It does not hold: tampered.", None),
    ):
        text = json.dumps(content.decode())
        browser.run(
            "window.before = true; const moved = new DataTransfer();"
            f"moved.items.add(new File([{text}], 'evidence.json'));"
            f"{drop}.dispatchEvent(new DragEvent('drop', {{dataTransfer: moved}}))"
        )
        browser.arrived("/studio/log")
        assert verdict in browser.text()
        assert "This is the word of this server." in browser.text()
        tour.look(name)
    browser.run(
        "const long = new DataTransfer();"
        f"long.items.add(new File([new ArrayBuffer({FILE_BYTES_MAX + 1})], 'evidence.json'));"
        f"{drop}.dispatchEvent(new DragEvent('drop', {{dataTransfer: long}}))"
    )
    assert "is longer than" in browser.run(f"{drop}.querySelector('[type=file]').validationMessage")
    (directory / "evidence.json").write_bytes(file)
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    browser.open(f"{tour.studio}/log")
    browser.choose(".drop [type=file]", directory / "evidence.json")
    browser.press(".drop button", "/studio/log")
    assert "It holds: verified." in browser.text()
    browser.call("Emulation.setScriptExecutionDisabled", value=False)


def _shown(browser: Browser, place: str) -> str:
    return str(browser.run(f"document.getElementById('{place}').textContent"))
