"""What a payment must not cost: a thread, a look-up, a wake-up of its own, a long collection."""

import asyncio
import gc
import inspect
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

from api.rest import auth
from api.rest.app import create_app
from api.rest.commits import Commits
from api.server import GC_ALLOCATIONS
from engine.errors import Conflict, Unauthenticated
from tests.rest.served import PAYMENTS, SMART, Served, refused


def dependencies(dependant: Dependant) -> Iterator[Any]:
    for found in dependant.dependencies:
        yield found.call
        yield from dependencies(found)


def test_no_dependency_of_any_route_is_run_on_a_thread(api: Served) -> None:
    calls = {
        call
        for route in create_app(api.world.engine).routes
        for found in getattr(route, "effective_route_contexts", lambda route=route: [route])()
        if isinstance(getattr(found, "original_route", found), APIRoute)
        for call in dependencies(found.dependant)
    }
    assert len(calls) > 5
    for call in calls:
        assert inspect.iscoroutinefunction(call) or inspect.iscoroutinefunction(call.__call__), call


def test_routes_are_ready_before_the_first_request(
    api: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = create_app(api.world.engine)

    def built(*_: object, **__: object) -> None:
        raise AssertionError("a route is only now made")

    monkeypatch.setattr("fastapi.routing.get_dependant", built)

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url=api.url) as client:
            return await client.post(PAYMENTS, json={"amount": 1})

    refused(asyncio.run(ask()), 401, "invalid_session_token")


@pytest.fixture
def reads(api: Served) -> Iterator[list[str]]:
    """The statements of readers beside the writer, as they are made."""
    heard: list[str] = []
    reading = api.world.engine.database._reading

    def note(_c: object, _cursor: object, statement: str, *_rest: object) -> None:
        heard.append(statement)

    sa.event.listen(reading, "before_cursor_execute", note)
    yield heard
    sa.event.remove(reading, "before_cursor_execute", note)


def test_a_token_that_was_recognised_is_not_looked_up_again(api: Served, reads: list[str]) -> None:
    token = api.session()["session_token"]
    api.hold(token)
    assert any("FROM sessions" in statement for statement in reads)
    reads.clear()
    held = api.hold(token)
    api.call("POST", SMART, {"session_token": token, "amount_usd": 1})
    api.call("POST", f"{PAYMENTS}/{held['id']}/capture", token=token)
    assert not any("FROM sessions" in statement for statement in reads)


def test_a_key_is_looked_up_each_time_because_it_can_be_revoked(
    api: Served, reads: list[str]
) -> None:
    body = {"session_token": api.session()["session_token"], "amount_usd": 1}
    assert api.post(SMART, body).status_code == 200
    reads.clear()
    assert api.post(SMART, body).status_code == 200
    assert any("FROM api_keys" in statement for statement in reads)
    api.world.engine.access.ensure_admin("zfi_test_the_second_admin_key")
    assert api.post(SMART, body).status_code == 401
    api.world.engine.access.ensure_admin(api.key)
    assert api.post(SMART, body).status_code == 200


def test_only_so_many_tokens_are_remembered_and_never_one_that_is_nobodys(
    api: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auth, "TOKENS_MAX", 2)
    tokens = auth.SessionTokens(api.world.engine)
    sessions = [api.session() for _ in range(3)]
    for session in sessions * 2:
        assert tokens.holder(session["session_token"]).session_id == session["id"]
        assert len(tokens._holders) <= 2
    for _ in range(2):
        with pytest.raises(Unauthenticated):
            tokens.holder("zai_session_" + "0" * 64)


def test_a_revoked_session_is_denied_though_its_token_is_remembered(api: Served) -> None:
    session = api.session()
    api.hold(session["session_token"])
    api.post(f"/api/v1/sessions/{session['id']}/revoke")
    assert api.pay(session["session_token"]).json()["code"] == "SESSION_REVOKED"


def test_answers_of_one_batch_wake_the_event_loop_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> tuple[list[int], int]:
        loop = asyncio.get_running_loop()
        wakes = 0
        wake = loop.call_soon_threadsafe

        def counted(*arguments: Any, **named: Any) -> Any:
            nonlocal wakes
            wakes += 1
            return wake(*arguments, **named)

        monkeypatch.setattr(loop, "call_soon_threadsafe", counted)
        commits = Commits()
        futures: list[Future[int]] = [Future() for _ in range(100)]
        waiting = [asyncio.create_task(commits.wait(future)) for future in futures]
        await asyncio.sleep(0)

        def answer() -> None:
            for number, future in enumerate(futures):
                future.set_result(number)

        batch = threading.Thread(target=answer)
        batch.start()
        batch.join()  # the loop stands still meanwhile, as it does when it is busy
        return await asyncio.gather(*waiting), wakes

    assert asyncio.run(run()) == (list(range(100)), 1)


def test_every_answer_arrives_whatever_thread_gives_it_and_when() -> None:
    async def run() -> list[Any]:
        commits = Commits()
        futures: list[Future[int]] = [Future() for _ in range(2_000)]

        def answer(part: list[tuple[int, Future[int]]]) -> None:
            for number, future in part:
                if number % 7:
                    future.set_result(number)
                else:
                    future.set_exception(Conflict(str(number)))

        numbered = list(enumerate(futures))
        with ThreadPoolExecutor(8) as threads:
            for start in range(8):
                threads.submit(answer, numbered[start::8])
            waits = (commits.wait(future) for future in futures)
            return await asyncio.gather(*waits, return_exceptions=True)

    for number, answer in enumerate(asyncio.run(run())):
        assert answer == number if number % 7 else str(answer) == str(number)


def test_who_stops_waiting_takes_nobody_elses_answer() -> None:
    async def run() -> int:
        commits = Commits()
        first: Future[int] = Future()
        second: Future[int] = Future()
        gone = asyncio.create_task(commits.wait(first))
        stays = asyncio.create_task(commits.wait(second))
        await asyncio.sleep(0)
        gone.cancel()
        first.set_result(1)
        second.set_result(2)
        assert not first.cancelled()
        return await stays

    assert asyncio.run(run()) == 2


def test_an_answer_for_a_loop_that_is_closed_troubles_nobody() -> None:
    commits = Commits()
    future: Future[int] = Future()

    async def run() -> None:
        commits.tell(future, lambda done: None)

    asyncio.run(run())
    future.set_result(1)


def test_what_stood_before_serving_is_out_of_the_collectors_way_while_it_lasts(
    own_api: Served,
) -> None:
    own_api.call("GET", "/healthz")
    assert gc.get_freeze_count() > 100_000
    assert gc.get_threshold()[0] == GC_ALLOCATIONS
