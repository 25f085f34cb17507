"""Chromium, headless, driven over the DevTools protocol (Chrome DevTools Protocol 1.3)."""

import base64
import contextlib
import json
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from websockets.sync.client import connect

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
AXE = Path(__file__).parents[1] / "javascript/node_modules/axe-core/axe.min.js"
WAIT_S = 30
_CUT = """[document.documentElement, ...document.querySelectorAll(".scroll:has(> .stack)")].some(
  (each) => each.scrollWidth > each.clientWidth
)"""
"""Whether something is wider than it may be; tables that scroll by themselves may."""
_WATCHED = """
var controls = [...document.querySelectorAll(
  "a[href], button, input:not([type=hidden]), select, textarea, summary, [tabindex='0']"
)].filter((each) => each.getClientRects().length);
var named = (each) => `${controls.indexOf(each)} ${each.outerHTML.slice(0, 80)}`;
var seen = new Set();
document.addEventListener("focusin", ({ target }) => {
  if (getComputedStyle(target).outlineStyle !== "none") seen.add(named(target));
});
document.activeElement.blur();
controls.length + 8 * document.querySelectorAll("[type=time], [type=datetime-local]").length"""
"""How often Tab is pressed to get to every control; a time has several fields of its own."""


class Browser:
    """One page of a browser with a profile of its own. `problems` are what its console told."""

    def __init__(self, profile: Path) -> None:
        assert CHROMIUM is not None
        self.problems: list[str] = []
        self._next = 0
        self._process = subprocess.Popen(
            [
                CHROMIUM,
                "--headless",
                "--no-sandbox",
                "--disable-background-networking",
                "--disable-gpu",
                "--no-first-run",
                "--remote-debugging-port=0",
                f"--user-data-dir={profile}",
                "about:blank",
            ],
            stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        self._opened = contextlib.ExitStack()
        self._opened.callback(self._end)
        found = profile / "DevToolsActivePort"
        self.until(lambda: found.exists() and len(found.read_text().split()) == 2)
        port, path = found.read_text().split()
        self._socket = self._opened.enter_context(
            connect(f"ws://127.0.0.1:{port}{path}", max_size=2**26)
        )
        self._session: str | None = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)[
            "sessionId"
        ]
        for domain in ("Page", "Runtime", "Log", "Network", "WebAuthn"):
            self.call(f"{domain}.enable")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._session = None
        with contextlib.suppress(Exception):
            self.call("Browser.close")
        self._opened.close()

    def _end(self) -> None:
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command and wait for its result; what the page tells meanwhile is noted."""
        self._next += 1
        sent: dict[str, Any] = {"id": self._next, "method": method, "params": params}
        if self._session is not None:
            sent["sessionId"] = self._session
        self._socket.send(json.dumps(sent))
        while True:
            heard = json.loads(self._socket.recv(timeout=WAIT_S))
            if heard.get("id") == self._next:
                assert "error" not in heard, f"{method}: {heard['error']}"
                result: dict[str, Any] = heard["result"]
                return result
            self._note(heard.get("method"), heard.get("params", {}))

    def authenticator(self) -> None:
        """Plug in a virtual authenticator that keeps passkeys and verifies its user."""
        options = {
            "protocol": "ctap2",
            "transport": "internal",
            "hasResidentKey": True,
            "hasUserVerification": True,
            "isUserVerified": True,
            "automaticPresenceSimulation": True,
        }
        self.call("WebAuthn.addVirtualAuthenticator", options=options)

    def run(self, script: str) -> Any:
        """What an expression of JavaScript gives."""
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def open(self, url: str) -> None:
        """Go to an address and wait until the page is there."""
        self.run("window.before = true")
        self.call("Page.navigate", url=url)
        self.arrived()

    def arrived(self, path: str | None = None) -> None:
        """Wait until another page is there, at this path."""
        ready = "!window.before && document.readyState === 'complete'"
        if path is not None:
            ready += f" && location.pathname === {json.dumps(path)}"
        self.until(lambda: self._asked(ready))

    def press(self, selector: str, path: str) -> None:
        """Go to a control and press Enter, as somebody without a mouse does; wait for the page that
        follows."""
        self.run(f"window.before = true; document.querySelector({json.dumps(selector)}).focus()")
        self.key("Enter")
        self.arrived(path)

    def choose(self, selector: str, file: Path) -> None:
        """Choose a file in a field."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        found = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=found, files=[str(file)])

    def key(self, name: str) -> None:
        """Press a key: `Tab` or `Enter`."""
        told = {"key": name, "code": name, "windowsVirtualKeyCode": {"Tab": 9, "Enter": 13}[name]}
        text = {"text": "\r"} if name == "Enter" else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", **told, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", **told)

    def unreached(self) -> list[str]:
        """Which controls the Tab key does not get to, or nobody sees that it has got to."""
        for _ in range(int(self.run(_WATCHED))):
            self.key("Tab")
        missed: list[str] = self.run(
            "document.activeElement.blur(); controls.map(named).filter((each) => !seen.has(each))"
        )
        return missed

    def narrow(self) -> list[int]:
        """Than which widths the page is wider: a phone's, a window's at 200 and at 400 %."""
        found = []
        for width in (390, 640, 320):
            self._resize(width)
            if self.run(_CUT):
                found.append(width)
        return found

    def text(self) -> str:
        """All that can be read."""
        return str(self.run("document.body.innerText"))

    def look(self, *, width: int = 1280, dark: bool = False) -> bytes:
        """A PNG of the whole page."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self._resize(width)
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        return base64.b64decode(shot["data"])

    def _resize(self, width: int) -> None:
        size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", **size)

    def framed(self, url: str, within: str) -> str:
        """What can be read of an address in a frame of the page `within`, of another site."""
        self.open(within)
        frame = f"Object.assign(document.createElement('iframe'), {{src: {json.dumps(url)}}})"
        self.run(f"document.body.append({frame})")
        mine, self._session = self._session, None
        try:
            self.until(lambda: bool(self._frames()))
            target = self._frames()[0]
            attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
            self._session = attached["sessionId"]
            self.until(lambda: self._asked("document.readyState === 'complete'"))
            return self.text()
        finally:
            self._session = mine

    def _frames(self) -> list[str]:
        targets = self.call("Target.getTargets")["targetInfos"]
        return [each["targetId"] for each in targets if each["type"] == "iframe"]

    def faults(self) -> list[str]:
        """What axe-core finds against accessibility, in light and, of the colours, in dark."""
        if not self.run("'axe' in window"):
            self.run(AXE.read_text() + "; 0")
        found: list[str] = []
        for scheme, options in (("light", "{}"), ("dark", "{runOnly: ['color-contrast']}")):
            wanted = {"name": "prefers-color-scheme", "value": scheme}
            self.call("Emulation.setEmulatedMedia", features=[wanted])
            told = self.call(
                "Runtime.evaluate",
                expression=f"axe.run(document, {options}).then(({{violations}}) =>"
                " violations.flatMap((v) => v.nodes.map((n) => `${v.id}: ${n.html}`)))",
                awaitPromise=True,
                returnByValue=True,
            )
            assert "exceptionDetails" not in told, told
            found += [f"{scheme} {each}" for each in told["result"]["value"]]
        return found

    def until(self, true: Callable[[], bool]) -> None:
        """Wait."""
        end = time.monotonic() + WAIT_S
        while not true():
            assert time.monotonic() < end, f"waited in vain; {self.problems}"
            time.sleep(0.02)

    def _asked(self, script: str) -> bool:
        try:
            return bool(self.run(script))
        except AssertionError:  # between two pages there is nobody to ask
            return False

    def _note(self, method: str | None, told: dict[str, Any]) -> None:
        if method == "Runtime.exceptionThrown":
            self.problems.append(str(told["exceptionDetails"]))
        elif method == "Log.entryAdded" and told["entry"]["level"] in ("error", "warning"):
            self.problems.append(told["entry"]["text"])
        elif method == "Runtime.consoleAPICalled" and told["type"] in ("error", "warning"):
            self.problems.append(str(told["args"]))
