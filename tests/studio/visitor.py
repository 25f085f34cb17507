"""A browser without a screen: it keeps a cookie, reads forms and sends them as a browser would."""

import asyncio
import html
import json
import re
from typing import Any

import httpx
from fastapi import FastAPI

from tests.studio.authenticator import ORIGIN, Authenticator

COOKIE = "tallystick-studio"
_FORM = re.compile(r"<form([^>]*)>(.*?)</form>", re.DOTALL)
_INPUT = re.compile(r'<input type="hidden" name="([^"]*)" value="([^"]*)">')
_ATTRIBUTE = re.compile(r'([a-z-]+)="([^"]*)"')


class Form:
    """A form of a page: its hidden fields, and what a passkey is asked."""

    def __init__(self, attributes: str, inside: str) -> None:
        found = {name: html.unescape(value) for name, value in _ATTRIBUTE.findall(attributes)}
        self.action = found.get("action", "")
        self.options: dict[str, Any] = json.loads(found.get("data-options", "{}"))
        self.fields = {name: html.unescape(value) for name, value in _INPUT.findall(inside)}


class Visitor:
    """Somebody with a browser of their own."""

    def __init__(self, app: FastAPI, host: str = "localhost:8402") -> None:
        self._app, self._host = app, host
        self.cookie: str | None = None

    def ask(
        self, method: str, path: str, *, origin: str | None = ORIGIN, **how: Any
    ) -> httpx.Response:
        """One request; a cookie that is set is kept."""
        headers = {"Host": self._host, **how.pop("headers", {})}
        if method == "POST" and origin is not None:
            headers["Origin"] = origin
        if self.cookie is not None:
            headers["Cookie"] = f"{COOKIE}={self.cookie}"

        async def go() -> httpx.Response:
            transport = httpx.ASGITransport(self._app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url=ORIGIN) as client:
                return await client.request(method, path, headers=headers, **how)

        answer = asyncio.run(go())
        given = answer.cookies.get(COOKIE)
        if "set-cookie" in answer.headers:
            self.cookie = given or None
        return answer

    def get(self, path: str, **how: Any) -> httpx.Response:
        """Open a page."""
        return self.ask("GET", path, **how)

    def form(self, page: str, action: str) -> Form:
        """The form of a page that goes to `action`."""
        answer = self.get(page)
        assert answer.status_code == 200, answer.text
        return next(
            form
            for form in (Form(*found) for found in _FORM.findall(answer.text))
            if form.action == action
        )

    def send(self, form: Form, **changes: Any) -> httpx.Response:
        """Send it, with other values for some fields."""
        return self.ask("POST", form.action, data={**form.fields, **changes})

    def answer(self, form: Form, passkey: Authenticator) -> httpx.Response:
        """Send it with what a passkey answers."""
        return self.send(form, answer=json.dumps(passkey.get(form.options["challenge"])))

    def sign_in(self, passkey: Authenticator) -> None:
        """Sign in."""
        answer = self.answer(self.form("/studio/sign-in", "/studio/sign-in"), passkey)
        assert (answer.status_code, answer.headers["location"]) == (303, "/studio/"), answer.text
