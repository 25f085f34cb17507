"""Wherever it is killed: paid and handed out once, or not paid and nothing is left."""

import itertools
from typing import Any

import pytest

from tests.gate.stall import Stall, heard

pytestmark = pytest.mark.anyio

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


@pytest.mark.parametrize("method", ["PUT", "GET"])
async def test_killed_at_any_step_it_is_paid_and_answered_once_or_not_at_all(
    stall: Stall, method: str
) -> None:
    how: Any = {"content": b"1"} if method == "PUT" else {}
    steps: list[str] = []
    for n in itertools.count():
        path = f"/v1/store/{n}"
        if method == "GET":
            await stall.buy("PUT", path, content=b"1")
        offered = await stall.ask(method, path, **how)
        payment = stall.sign(units=10_000 if method == "PUT" else 1_000)
        assert offered.status_code == 402
        before = stall.transfers()
        await stall.close()
        killer = Killer(n)
        stall.open(wrap=killer)
        try:
            answer = await stall.ask(method, path, payment, **how)
        except Killed:
            answer = None
        paid = stall.transfers() - before
        assert paid in (0, 1)
        await stall.close()
        stall.facility.reopen()
        stall.open()
        again = await stall.ask(method, path, payment, **how)
        if answer is not None:
            assert (answer.status_code, heard(again)) == (200, (409, "payment_used"))
            steps = killer.steps
            break
        assert heard(again) == (200, None), killer.steps
        assert heard(await stall.ask(method, path, payment, **how)) == (409, "payment_used")
        assert stall.transfers() - before == 1
        assert (await stall.buy("GET", path)).text == "1"
    assert {"after verify", "after settle", "after replace"} < set(steps)
    assert steps[-1] == "after replace", "that it was answered is written down in the end"


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
