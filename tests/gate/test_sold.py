"""Routes of anybody's application, sold by `Gate.sells`."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import BackgroundTasks, FastAPI, HTTPException, Request, Response
from fastapi.responses import PlainTextResponse, StreamingResponse
from pydantic import BaseModel
from starlette.background import BackgroundTask

from api.gate.unpaid import BeginsUnpaid
from engine.storage.session import get_payer, get_session
from tests.gate.stall import Stall, heard, offer_of

pytestmark = pytest.mark.anyio


class Wish(BaseModel):
    words: str
    times: int = 1


@pytest.fixture
def app(stall: Stall) -> FastAPI:
    """Takes the place of the stall's own."""
    app = FastAPI()
    app.add_middleware(BeginsUnpaid)
    gate = stall.gate

    @app.get("/who")
    @gate.sells("$0.002")
    async def who() -> dict[str, Any]:
        nested = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x.test")
        async with nested as http:
            asked = [(await http.get(path)).json() for path in ("/free", "/plain")]
        return {"payer": get_payer(), "nested": asked, "still": get_payer()}

    @app.get("/thread")
    @gate.sells("0.002")
    def thread() -> PlainTextResponse:
        return PlainTextResponse(str(get_payer()))

    @app.get("/free")
    @gate.sells("free")
    async def free() -> dict[str, Any]:
        return {"payer": get_payer()}

    @app.get("/plain")
    async def plain() -> dict[str, Any]:
        return {"payer": get_payer()}

    @app.post("/echo/{name}")
    @gate.sells("0.001")
    async def echo(name: str, wish: Wish, loud: bool = False) -> str:
        session = get_session()
        assert session is not None
        await session.set(name, wish.words)
        return (wish.words.upper() if loud else wish.words) * wish.times

    @app.get("/broken")
    @gate.sells("0.001")
    async def broken() -> str:
        raise HTTPException(418, "a teapot")

    @app.post("/all/{kind}", response_model=None)
    @gate.sells("0.001", body_bytes_max=10)
    async def all_of_it(
        kind: str, asked: Request, answer: Response, tasks: BackgroundTasks
    ) -> Response | str:
        """Takes whatever FastAPI has to give, and has more to do afterwards, which fails."""
        answer.headers["X-Own"] = "mine"
        for done in (*before, fails):
            tasks.add_task(done)
        body = (await asked.body()).decode()
        own = BackgroundTask(app.state.done.append, "own")
        return PlainTextResponse(body, background=own) if kind == "response" else body

    before = [lambda: app.state.done.append("afterwards")]
    app.state.done = []

    def fails() -> None:
        if "fail" in app.state.done:
            raise RuntimeError("afterwards")

    stall.app = app
    return app


async def test_who_paid_is_the_current_payer_and_nobody_in_what_is_not_paid(
    stall: Stall, app: FastAPI
) -> None:
    response = await stall.buy("GET", "/who")
    payer = stall.facility.payer.address
    assert response.json() == {
        "payer": payer,
        "nested": [{"payer": None}, {"payer": None}],
        "still": payer,
    }
    assert response.headers["Cache-Control"] == "private, no-store"
    assert "PAYMENT-RESPONSE" in response.headers
    assert (await stall.buy("GET", "/thread")).text == payer
    assert (await stall.ask("GET", "/free")).json() == {"payer": None}
    assert stall.transfers() == 2
    assert get_payer() is None


async def test_what_fastapi_refuses_is_not_paid(stall: Stall, app: FastAPI) -> None:
    body = {"words": "hey", "times": 2}
    for path, sent in (
        ("/echo/a", {"times": 2}),
        ("/echo/a", {"words": "hey", "times": "many"}),
        ("/echo/a?loud=perhaps", body),
    ):
        answer = await stall.ask("POST", path, stall.sign(units=1_000), json=sent)
        assert answer.status_code == 422
    assert (stall.transfers(), await stall.grants()) == (0, 0)
    answer = await stall.buy("POST", "/echo/a?loud=true", json=body)
    assert answer.json() == "HEYHEY"
    assert await stall.storage.session(stall.payer).get("a") == "hey"


async def test_what_fails_after_it_was_paid_is_still_to_be_had(stall: Stall, app: FastAPI) -> None:
    payment = stall.sign(offer_of(await stall.ask("GET", "/broken")))
    for _ in range(2):
        answer = await stall.ask("GET", "/broken", payment)
        assert answer.status_code == 418
        assert answer.headers["Cache-Control"] == "private, no-store"
        assert "PAYMENT-RESPONSE" in answer.headers, "it is paid"
    assert stall.transfers() == 1


@pytest.mark.parametrize("kind", ["response", "text"])
async def test_a_function_has_all_that_fastapi_gives(stall: Stall, app: FastAPI, kind: str) -> None:
    answer = await stall.buy("POST", f"/all/{kind}", content=b"body")
    assert (answer.status_code, answer.text.strip('"')) == (200, "body")
    assert answer.headers.get("X-Own") == ("mine" if kind == "text" else None)
    assert app.state.done == ["afterwards", "own"][: 1 + (kind == "response")]
    assert "PAYMENT-RESPONSE" in answer.headers
    refused = await stall.buy("POST", f"/all/{kind}", content=b"eleven byte")
    assert heard(refused) == (413, "too_large")
    assert stall.transfers() == 1
    app.state.done.append("fail")
    payment = stall.sign(units=1_000)
    with pytest.raises(RuntimeError, match="afterwards"):
        await stall.ask("POST", f"/all/{kind}", payment, content=b"2")
    again = await stall.ask("POST", f"/all/{kind}", payment, content=b"2")
    assert heard(again) == (409, "payment_used"), "whatever failed after it was answered"


async def test_a_stream_that_breaks_off_is_not_told_again(stall: Stall, app: FastAPI) -> None:
    @app.get("/stream")
    @stall.gate.sells("0.001")
    async def stream() -> StreamingResponse:
        async def parts() -> AsyncIterator[str]:
            yield "almost all of it"
            raise ConnectionError("hung up")

        return StreamingResponse(parts())

    payment = stall.sign(units=1_000)
    with pytest.raises(ConnectionError, match="hung up"):
        await stall.ask("GET", "/stream", payment)
    assert heard(await stall.ask("GET", "/stream", payment)) == (409, "payment_used")


async def test_what_took_too_long_is_not_answered_if_another_was(stall: Stall) -> None:
    await stall.close()
    stall.open(lease_ms=0)
    stall.app = FastAPI()
    found: list[Any] = []

    @stall.app.get("/slow")
    @stall.gate.sells("0.001")
    async def slow() -> str:
        found.append(None)
        if len(found) == 1:
            found.append(heard(await stall.ask("GET", "/slow", payment)))
        return "done"

    payment = stall.sign(units=1_000)
    assert heard(await stall.ask("GET", "/slow", payment)) == (503, "payment_in_progress")
    assert found == [None, None, (200, None)], "which the other was"
    assert stall.transfers() == 1


async def test_the_documentation_knows_what_the_function_takes(app: FastAPI) -> None:
    operation = app.openapi()["paths"]["/echo/{name}"]["post"]
    assert [each["name"] for each in operation["parameters"]] == ["name", "loud"]
    assert "requestBody" in operation


async def test_a_client_that_hung_up_may_ask_again(stall: Stall, app: FastAPI) -> None:
    payment = stall.sign(offer_of(await stall.ask("GET", "/thread")))
    told: list[Any] = []

    async def gone() -> dict[str, Any]:
        if not told:
            told.append(1)
            return {"type": "http.request", "body": b"", "more_body": False}
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        """Nobody hears it."""

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": "/thread",
        "raw_path": b"/thread",
        "query_string": b"",
        "headers": [(b"host", b"stall.test"), (b"payment-signature", payment.encode())],
        "root_path": "",
        "server": ("stall.test", 80),
    }
    await app(scope, gone, send)
    assert stall.transfers() == 1
    assert heard(await stall.ask("GET", "/thread", payment)) == (200, None)
    assert heard(await stall.ask("GET", "/thread", payment)) == (409, "payment_used")
    assert stall.transfers() == 1
