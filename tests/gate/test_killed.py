"""Wherever it is killed: paid and handed out once, or not paid and nothing is left."""

import itertools
from collections.abc import Callable
from typing import Any

import pytest

from tests.gate.stall import GET, PUT, Stall, heard

pytestmark = pytest.mark.anyio

OK = (200, None)
USED = (409, "payment_used")
METHODS = {"verify", "settle", "read", "replace", "reserve", "set_many", "get", "list"}


class Killed(BaseException):
    """The process is no more."""


class Killer:
    """Ends everything at the `n`th time that somebody begins or ends to do something."""

    def __init__(self, n: int) -> None:
        self.left = n
        self.steps: list[str] = []

    def step(self, name: str) -> None:
        self.steps.append(name)
        self.left -= 1
        if self.left < 0:
            raise Killed(name)

    def __call__(self, part: Any) -> Any:
        return Mortal(part, self)


class Mortal:
    """Does what it stands before does, until it is killed."""

    def __init__(self, part: Any, killer: Killer) -> None:
        self._part = part
        self._killer = killer

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._part, name)
        if name not in METHODS:
            return found

        async def called(*arguments: Any, **named: Any) -> Any:
            self._killer.step(f"before {name}")
            result = await found(*arguments, **named)
            self._killer.step(f"after {name}")
            return result

        return called


class Heard:
    """An application, and whether its last answer was sent to its end; `note` hears its status."""

    def __init__(self, app: Any, note: Callable[[int], None] = lambda _status: None) -> None:
        self._app = app
        self._note = note
        self.all = False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        status = 0

        async def sent(message: Any) -> None:
            nonlocal status
            await send(message)
            status = message.get("status", status)
            self.all = message["type"] == "http.response.body" and not message.get("more_body")
            if self.all:
                self._note(status)

        await self._app(scope, receive, sent)


@pytest.mark.parametrize(("method", "units"), [("PUT", PUT), ("GET", GET)])
async def test_killed_at_any_step_it_is_paid_and_answered_once_or_not_at_all(
    stall: Stall, method: str, units: int
) -> None:
    how: Any = {"content": b"1"} if method == "PUT" else {}
    for n in itertools.count():
        path, payment = f"/v1/store/{n}", stall.sign(units=units)
        if method == "GET":
            await stall.storage.session(stall.payer).set(str(n), "1")
        await stall.close()
        killer = Killer(n)
        stall.open(wrap=killer)
        told = stall.app = Heard(stall.app)  # type: ignore[assignment]
        try:
            await stall.ask(method, path, payment, **how)
        except Killed:
            assert stall.transfers() in (n, n + 1)
        await stall.close()
        stall.facility.reopen()
        stall.open()
        again = heard(await stall.ask(method, path, payment, **how))
        # Who has heard it may hear it once more, and who has not does.
        assert again in (OK, USED) if told.all else again == OK, killer.steps
        assert heard(await stall.ask(method, path, payment, **how)) == USED
        assert stall.transfers() == n + 1
        assert await stall.storage.session(stall.payer).get(str(n)) == "1"
        if killer.left >= 0:
            break
    assert again == USED
    assert {"after verify", "after settle", "after replace"} < set(killer.steps)
    assert killer.steps[-1] == "after replace", "that it was answered is written down in the end"


async def test_who_is_killed_unpaid_and_never_comes_again_has_nothing(stall: Stall) -> None:
    await stall.close()
    killer = Killer(4)
    stall.open(wrap=killer)
    with pytest.raises(Killed):
        await stall.ask("PUT", "/v1/store/a", stall.sign(), content=b"1")
    assert killer.steps[-1] == "before reserve"
    await stall.close()
    stall.open()
    assert (stall.transfers(), await stall.grants()) == (0, 0)
    assert (await stall.buy("GET", "/v1/store")).json()["entries"] == {}
