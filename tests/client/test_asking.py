"""What the client asks again by itself, and what it leaves to its caller; lists as iterators."""

import asyncio
import inspect
from importlib.resources import files
from typing import Any

import httpx
import pytest

from tallystick import ApiError, AsyncClient, Client, retrying
from tests.client.conftest import WALLET
from tests.rest.served import Served


class Flaky(httpx.BaseTransport):
    """A network that goes wrong at first, by what is in `troubles`: before the server is reached,
    or after it has done what was asked."""

    def __init__(self, *troubles: str) -> None:
        self.troubles = list(troubles)
        self.sent: list[httpx.Request] = []
        self._real = httpx.HTTPTransport()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.sent.append(request)
        trouble = self.troubles.pop(0) if self.troubles else None
        if trouble == "unreachable":
            raise httpx.ConnectError("refused")
        if trouble in ("429", "503"):
            body = {"code": "busy", "message": "later"}
            return httpx.Response(int(trouble), json=body, headers={"Retry-After": "0"})
        answer = self._real.handle_request(request)
        if trouble == "lost":
            answer.read()
            raise httpx.ReadTimeout("lost")
        return answer

    def close(self) -> None:
        self._real.close()


class AsyncFlaky(httpx.AsyncBaseTransport):
    """The same on asyncio."""

    def __init__(self, *troubles: str) -> None:
        self.flaky = Flaky(*troubles)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await request.aread()
        answer = self.flaky.handle_request(request)
        return httpx.Response(answer.status_code, headers=answer.headers, content=answer.read())

    async def aclose(self) -> None:
        self.flaky.close()


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrying, "FIRST_PAUSE_S", 0.0)


def operator(tenant: Served, *troubles: str, **how: Any) -> tuple[Client, Flaky]:
    network = Flaky(*troubles)
    return Client(tenant.url, api_key=tenant.key, transport=network, **how), network


def test_a_payment_whose_answer_is_lost_is_asked_for_again_with_its_key(tenant: Served) -> None:
    token = tenant.session()["session_token"]
    client, network = operator(tenant, "lost", "503")
    with client:
        client.pay(7, session_token=token)
        keys = {request.headers["Idempotency-Key"] for request in network.sent}
        assert (len(network.sent), len(keys)) == (3, 1)
        assert len([*client.each_payment()]) == 1


def test_what_could_happen_twice_is_not_asked_again(tenant: Served) -> None:
    client, network = operator(tenant, "lost")
    with client:
        with pytest.raises(ApiError) as lost:
            client.set_budget(max_per_day=10)
        assert (lost.value.code, lost.value.is_unknown) == ("no_answer", True)
        assert len(network.sent) == 1
        assert client.budget()["version"] == 1


def test_what_is_made_is_asked_for_again_with_its_key_and_has_its_secret(tenant: Served) -> None:
    client, network = operator(tenant, *["lost"] * 3, retries=1)
    with client:
        with pytest.raises(ApiError) as lost:
            client.create_session(agent_id="bot", user_wallet=WALLET)
        key = lost.value.idempotency_key
        made = client.create_session(agent_id="bot", user_wallet=WALLET, idempotency_key=key)
        assert {request.headers["Idempotency-Key"] for request in network.sent} == {key}
        assert [each["id"] for each in client.sessions()] == [made["id"]]
        client.pay(1, session_token=made["session_token"])
    for make, secret in (
        (lambda by: by.create_child(made["id"], agent_id="bot"), "session_token"),
        (lambda by: by.agent_keys.create("crawler", "bot"), "full_key"),
        (lambda by: by.webhooks.create("https://hooks.test/"), "secret"),
        (lambda by: by.intents.create("1"), "client_secret"),
    ):
        client, network = operator(tenant, "lost")
        with client:
            assert make(client)[secret]
            assert len(network.sent) == 2


def test_intents_are_iterated_and_each_once(client: Client) -> None:
    made = [client.intents.create(amount)["id"] for amount in (1, 2, 3)]
    client.intents.cancel(made[0])
    assert [each["id"] for each in client.intents.each()] == made[::-1]
    assert [each["id"] for each in client.intents.each(status="canceled")] == made[:1]
    assert [each["event_type"] for each in client.intents.events(made[0])] == [
        "intent.created",
        "intent.canceled",
    ]


def test_what_was_certainly_not_done_is_asked_again(tenant: Served) -> None:
    client, network = operator(tenant, "unreachable", "429")
    with client:
        client.create_session(agent_id="bot", user_wallet=WALLET)
        assert len(network.sent) == 3
        assert len(client.sessions()) == 1


def test_it_ends_with_the_error_and_the_key(tenant: Served) -> None:
    client, network = operator(tenant, *["503"] * 4)
    with client, pytest.raises(ApiError) as failed:
        client.pay(1, session_token="zai_session_x", idempotency_key="mine")
    assert (failed.value.code, failed.value.idempotency_key) == ("busy", "mine")
    assert len(network.sent) == 1 + retrying.RETRIES
    client, network = operator(tenant, "503", retries=0)
    with client, pytest.raises(ApiError):
        client.sessions()
    assert len(network.sent) == 1


def test_a_refusal_is_not_asked_again(tenant: Served) -> None:
    client, network = operator(tenant)
    with client, pytest.raises(ApiError):
        client.session("sess_none")
    assert len(network.sent) == 1


def test_whoever_is_told_to_wait_long_is_told_so(tenant: Served) -> None:
    client, _ = operator(tenant)
    told = ApiError(429, "rate_limit_exceeded", "later", {})
    told.retry_after_s = 7.0
    call: Any = retrying.Call("GET", "/")
    assert retrying.pause_s(call, told, 1, 2) == 7.0
    told.retry_after_s = retrying.PAUSE_MAX_S + 1
    assert retrying.pause_s(call, told, 1, 2) is None
    client.close()


def test_all_pages_are_iterated_and_nothing_twice(tenant: Served) -> None:
    token = tenant.session(label="a")["session_token"]
    for number in range(3):
        tenant.session(label="b")
        tenant.hold(token, number + 1)
    with Client(tenant.url, api_key=tenant.key) as client:
        pages: list[int] = []
        whole = client.payments

        def two(**asked: Any) -> Any:
            pages.append(asked["page"])
            if asked["page"] == 2:  # one more pushes what was the last of page 1 to page 2
                tenant.hold(token, 9)
            return whole(**{**asked, "limit": 2})

        client.payments = two  # type: ignore[method-assign]
        found = [payment["id"] for payment in client.each_payment()]
        assert len(found) == len(set(found)) == 3
        assert pages == [1, 2]
        assert len([*client.each_session(label="b")]) == 3
        assert {act["action"] for act in client.each_act(action=["session.created"])} == {
            "session.created"
        }


def test_the_client_on_asyncio_does_the_same(tenant: Served) -> None:
    async def used() -> None:
        async with AsyncClient(tenant.url, api_key=tenant.key) as client:
            made = await client.create_session(agent_id="bot", user_wallet=WALLET, label="x")
            assert [each["id"] async for each in client.each_session(label="x")] == [made["id"]]
            shown = await client.preview_revocation(label="x")
        lossy = AsyncFlaky("lost")
        token = made["session_token"]
        async with AsyncClient(tenant.url, session_token=token, transport=lossy) as agent:
            await agent.pay(3)
            assert len(lossy.flaky.sent) == 2
            assert [each["amount_usd"] async for each in agent.each_payment()] == [3]
        async with AsyncClient(tenant.url, api_key=tenant.key) as client:
            assert (await client.revoke_sessions(shown["selection"], label="x"))["revoked"] == 1

    asyncio.run(used())


@pytest.mark.parametrize("package", ["tallystick", "api", "engine"])
def test_type_checkers_of_others_may_read_the_types(package: str) -> None:
    """PEP 561; the types of answers are those of the server."""
    assert files(package).joinpath("py.typed").is_file()


def test_both_clients_take_the_same_arguments() -> None:
    names = [name for name in vars(AsyncClient) if not name.startswith("_") and name != "aclose"]
    assert len(names) > 25
    for name in names:
        there, here = (inspect.signature(getattr(kind, name)) for kind in (Client, AsyncClient))
        assert there.parameters.keys() == here.parameters.keys(), name
        assert [each.default for each in there.parameters.values()] == [
            each.default for each in here.parameters.values()
        ], name


async def _asked(status: int, text: str) -> tuple[ApiError, ApiError]:
    """What both clients make of an answer."""
    transport = httpx.MockTransport(lambda _: httpx.Response(status, text=text))
    how: Any = {"api_key": "zfi_x", "transport": transport, "retries": 0}
    with Client("http://elsewhere.test:1", **how) as client, pytest.raises(ApiError) as one:
        client.payment("pay_1")
    async with AsyncClient("http://elsewhere.test:1", **how) as other:
        with pytest.raises(ApiError) as two:
            await other.payment("pay_1")
    return one.value, two.value


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (405, "status 405: what answered there is no Tallystick server"),
        (501, "status 501: what answered there is no Tallystick server"),
        (502, "status 502"),  # perhaps of a proxy in front of one
        (200, "the answer is not a Tallystick's"),
    ],
)
def test_what_is_no_tallystick_server_is_told_with_its_url(status: int, said: str) -> None:
    texts = ["<html>", '["code"]', "[" * 100_000]
    if status != 200:
        texts.append('{"code": 405, "message": null}')
    for text in texts:
        for error in asyncio.run(_asked(status, text)):
            assert (error.code, error.message) == ("http_error", f"http://elsewhere.test:1: {said}")


def test_an_amount_is_a_number_as_the_server_told_it(tenant: Served) -> None:
    with operator(tenant)[0] as client:
        opened = client.create_session(agent_id="bot", user_wallet=WALLET)
    with Client(tenant.url, session_token=opened["session_token"]) as agent:
        for amount in (5e-05, 0.000007, 0.3, 2):
            held = agent.pay(amount, hold=True)
            assert held["amount_usd"] == amount
            assert agent.capture(held["id"], held["amount_usd"])["captured_usd"] == amount
        held = agent.pay(1.5, hold=True)
        assert agent.capture(held["id"])["captured_usd"] == 1.5


@pytest.mark.parametrize("client", [Client, AsyncClient])
@pytest.mark.parametrize("given", ["api_key", "session_token"])
def test_a_key_that_no_header_can_hold_is_refused_without_repeating_it(
    client: type[Client | AsyncClient], given: str
) -> None:
    with pytest.raises(ApiError, match="ASCII") as refused:
        client("http://127.0.0.1:1", **{given: "zfi_test_…"})  # type: ignore[arg-type]
    assert (refused.value.status, refused.value.code) == (0, "not_sendable")
    assert "zfi_test" not in str(refused.value)


@pytest.mark.parametrize("amount", [float("nan"), float("inf"), -float("inf")])
def test_what_is_no_number_is_not_sent(tenant: Served, amount: float) -> None:
    client, network = operator(tenant)
    with client, pytest.raises(ApiError, match="not JSON compliant") as refused:
        client.intents.create(amount)
    assert (refused.value.status, refused.value.code) == (0, "not_sendable")
    assert network.sent == []

    async def on_asyncio() -> None:
        sending = AsyncFlaky()
        async with AsyncClient(tenant.url, api_key=tenant.key, transport=sending) as other:
            with pytest.raises(ApiError, match="not JSON compliant"):
                await other.pay(amount, session_token="none")
        assert sending.flaky.sent == []

    asyncio.run(on_asyncio())
