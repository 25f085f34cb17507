"""What payers stored, opened by a real browser as a page, frame, script and picture of it.

No browser pays, so everything here is paid for on its way: whatever else would open it, is open.
"""

import asyncio
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.responses import HTMLResponse, PlainTextResponse
from starlette.types import Receive, Scope, Send

from api.server import AppServer
from tests.gate.stall import GET, Stall
from tests.payments.paying import Till as Facility
from tests.studio.browser import CHROMIUM, Browser

RUNS = "new Image().src = '/ran?what='"
STORED = {
    "page": f"<!doctype html><script>{RUNS} + 'page'</script><img src=x onerror=\"{RUNS}+'img'\">",
    "picture": f'<svg xmlns="http://www.w3.org/2000/svg"><script>{RUNS} + "svg"</script></svg>',
    "program": f"{RUNS} + 'js'",
    "style": "body { background: url('/ran?what=css') }",
}
KINDS = {"page": "text/html", "picture": "image/svg+xml", "program": "text/javascript"}
EMBEDDED = """<!doctype html><title>embeds</title>
<link rel="stylesheet" href="{0}style"><script src="{0}program"></script>
<iframe src="{0}page"></iframe><iframe src="{0}picture"></iframe><object data="{0}page"></object>
<embed src="{0}picture"><img src="{0}picture">
"""


class Paying:
    """Pays for every request to the store."""

    def __init__(self, app: FastAPI, stall: Stall) -> None:
        self._app = app
        self._stall = stall
        self.asked: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith("/v1/store/"):
            self.asked.append(scope["path"])
            payment = self._stall.sign(units=GET).encode()
            scope["headers"] = [*scope["headers"], (b"payment-signature", payment)]
        await self._app(scope, receive, send)


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
def test_nothing_that_was_stored_runs_in_a_browser(facility: Facility, tmp_path: Path) -> None:
    stall = Stall(facility, tmp_path)
    app, ran = FastAPI(), list[str]()
    paying = Paying(stall.app, stall)
    asyncio.run(stall.storage.session(stall.payer).set_many(STORED))

    @app.get("/embeds")
    async def embeds(where: str) -> HTMLResponse:
        return HTMLResponse(EMBEDDED.format(where))

    @app.get("/careless/{key}")
    async def careless(key: str) -> PlainTextResponse:
        return PlainTextResponse(STORED[key], media_type=KINDS.get(key, "text/css"))

    @app.get("/ran")
    async def was_run(what: str) -> None:
        ran.append(what)

    app.mount("/", paying)
    with AppServer(app, "127.0.0.1", 0) as server, Browser(tmp_path / "profile") as browser:
        browser.open(f"{server.url}/embeds?where=/careless/")
        browser.until(lambda: {"page", "img", "svg", "js", "css"} <= set(ran))
        ran.clear()
        browser.open(f"{server.url}/embeds?where=/v1/store/")
        browser.until(lambda: {f"/v1/store/{key}" for key in STORED} <= set(paying.asked))
        for key in STORED:
            browser.call("Page.navigate", url=f"{server.url}/v1/store/{key}")
            assert browser.run("document.title") == "embeds", "it is handed over, and not opened"
        browser.open(f"{server.url}/ran?what=the%20end")
        assert ran == ["the end"]
    asyncio.run(stall.close())
