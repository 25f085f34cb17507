"""The Studio in a real browser with a virtual authenticator. With `STUDIO_PICTURES` set to a
directory it leaves a picture of each page there: docs/studio holds them."""

import os
from pathlib import Path

import pytest

from api.server import Server
from engine.policy.limits import Limits
from engine.workspaces.people import People
from tests.ledger.approving import asked_for
from tests.studio.browser import CHROMIUM, Browser
from tests.world import USD, WORKSPACE, World

PICTURES = os.environ.get("STUDIO_PICTURES")
LIMITS = Limits(100 * USD, 200 * USD, 500 * USD, None, 50 * USD)
KNOWN = "publicKey.pubKeyCredParams is missing"
"""Chromium would like RS256 to be offered, too; only ES256 is."""


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
def test_an_operator_signs_in_looks_grants_and_revokes(world: World, tmp_path: Path) -> None:
    token = People(world.engine.database, world.engine.writer).first()
    lunch = world.session(LIMITS, mint_pkp=True, label="Team lunch", agent_id="shopper")
    for dollars, merchant in ((40, "books"), (35, "bakery"), (48, "books")):
        paid = world.pay(lunch, dollars, merchant=merchant)
    for hours, label in enumerate(("News digest", "Price watch", "Weekly report"), start=1):
        view = world.session(LIMITS, label=label, agent_id="reader", duration_ms=hours * 1_800_000)
        world.pay(view, 20 * hours, merchant="archive")
    approval = asked_for(world, lunch, 60, merchant="caterer")
    world.engine.anchor()
    world.engine.reconciler.run()
    with (
        Server(world.engine, "127.0.0.1", 0) as server,
        Browser(tmp_path / "profile") as browser,
    ):
        studio = f"http://localhost:{server.port}/studio"

        def picture(name: str) -> None:
            wide = browser.run("document.documentElement.scrollWidth > innerWidth")
            assert not wide, f"{name} is wider than the window"
            if PICTURES:
                every = name in ("sessions", "session")
                Path(PICTURES, f"{name}.png").write_bytes(browser.look())
                if every:
                    Path(PICTURES, f"{name}-dark.png").write_bytes(browser.look(dark=True))
                phone = browser.look(width=390)
                if every:
                    Path(PICTURES, f"{name}-phone.png").write_bytes(phone)

        browser.authenticator()
        browser.look(width=390)  # from here on it is a phone, but for pictures
        browser.open(f"{studio}/set-up#{token}")
        assert browser.run("location.hash") == ""
        browser.press("main button", "/studio/set-up/begin")
        browser.press("main button", "/studio/sign-in")
        picture("sign-in")
        browser.press("main button", "/studio/")
        assert "Team lunch" in browser.text()
        picture("sessions")
        hostile = world.session(LIMITS, label="<img src=/x onerror=alert(1)>", agent_id="crawler")
        payment = world.pay(hostile, 45, hold=True, merchant="<script>alert(1)</script>")
        for page, name in (
            (f"/sessions/{lunch.id}", "session"),
            (f"/sessions/{hostile.id}", "hostile"),
            (f"/sessions/{hostile.id}/payments/{payment.id}", "hostile"),
            (f"/sessions/{lunch.id}/payments/{paid.id}", "payment"),
            (f"/sessions/{lunch.id}/try?amount=30&merchant_id=books", "try"),
            ("/approvals", "approvals"),
            ("/reconciliation", "reconciliation"),
            ("/log", "log"),
            ("/people", "people"),
        ):
            browser.open(studio + page)
            assert browser.run("document.querySelector('h1').innerText")
            if name != "hostile":
                picture(name)
        browser.open(f"{studio}/approvals/{approval.id}")
        assert approval.digest in browser.text()
        picture("approval")
        browser.press("form[action$=grant] button", f"/studio/approvals/{approval.id}")
        assert "granted" in browser.text()
        browser.open(f"{studio}/revoke?type=agent")
        picture("revoke")
        browser.press("main form button", "/studio/")
        assert "5 sessions were revoked" in browser.text()
        browser.press(".who button", "/studio/sign-in")
        assert [told for told in browser.problems if not told.startswith(KNOWN)] == []
    states = [world.engine.sessions.get(WORKSPACE, each.id).state for each in (lunch, hostile)]
    assert states == ["revoked", "revoked"]
