"""Servers that cheat: there is one signature at most, for one URL, and whoever pays is told."""

import asyncio
import base64
import gzip
import logging
import socket
import threading
import traceback
from collections.abc import Iterator
from functools import partial
from typing import Any

import httpx
import pytest
import requests

import tallystick
from engine.clock import stopwatch
from engine.errors import InvalidInput
from tallystick import Client, paid
from tallystick.paying import deadline
from tests.ledger.paying import CENT, offer, required
from tests.paying.hostile import Heard, Hostile, Say, asks, encoded
from tests.rest.served import Served

TX_HASH = "0x" + "7a" * 32


class Buyer:
    """An agent of its own; `cent` is a 402 that asks it for one."""

    def __init__(self, served: Served) -> None:
        self.served = served
        self.session = served.session()
        self.client = Client(served.url, session_token=self.session["session_token"])
        self.required = required(offer(served.world))
        self.cent = asks(self.required)

    def payments(self) -> list[dict[str, Any]]:
        """What it paid or tried to, the newest first."""
        path = f"/api/v1/payments?session_id={self.session['id']}"
        found: list[dict[str, Any]] = self.served.get(path).json()["data"]
        return found

    async def fetched(self, url: str, **how: Any) -> httpx.Response:
        """The answer, on asyncio."""
        token = self.session["session_token"]
        async with tallystick.AsyncClient(self.served.url, session_token=token) as client:
            return await client.fetch(url, **how)

    def answered(self, *after: Say) -> Hostile:
        """A server that asks for a cent, and then answers so."""
        return Hostile(lambda _, count: (self.cent, *after)[min(count, len(after))])


@pytest.fixture
def buyer(served: Served) -> Iterator[Buyer]:
    """A new one."""
    opened = Buyer(served)
    yield opened
    opened.client.close()


def test_a_402_forever_has_one_signature(buyer: Buyer) -> None:
    with buyer.answered(buyer.cent) as server:
        with pytest.raises(tallystick.PaymentNotAccepted) as refused:
            buyer.client.fetch(server.url)
        assert (len(server.heard), len(server.signatures)) == (2, 1)
    [payment] = buyer.payments()
    assert refused.value.code == "payment_not_accepted"
    assert refused.value.payment_id == payment["id"]
    assert payment["settlement"]["state"] == "unknown"


def test_other_terms_after_the_payment_are_refused(buyer: Buyer) -> None:
    dearer = required(
        offer(buyer.served.world, 2 * CENT),
    ) | {"error": "\x1b[2J too little"}
    with buyer.answered(asks(dearer)) as server:
        with pytest.raises(tallystick.PaymentNotAccepted, match="asks for another") as refused:
            buyer.client.fetch(server.url)
        assert len(server.signatures) == 1
    assert refused.value.code == "terms_changed"
    assert refused.value.message.isprintable()
    assert len(buyer.payments()) == 1


@pytest.mark.parametrize("by", ["fetch", "httpx", "requests"])
def test_only_the_url_that_was_asked_is_paid(buyer: Buyer, by: str) -> None:
    with Hostile(lambda *_: buyer.cent) as other:
        away = Say(302, b"", (("Location", f"{other.url}/there"),))
        with Hostile(lambda *_: away) as server, pytest.raises(tallystick.NotPayable) as refused:
            asked(buyer.client, by, server.url)
        assert (len(other.heard), other.signatures) == (1, [])
    assert refused.value.code == "redirected"
    assert buyer.payments() == []


@pytest.mark.parametrize("by", ["fetch", "httpx", "requests"])
@pytest.mark.parametrize("status", [302, 307])
def test_a_redirect_after_the_payment_does_not_take_it_along(
    buyer: Buyer, by: str, status: int
) -> None:
    said = [Say(), buyer.cent]
    with Hostile(lambda _, count: said[count]) as other:
        with buyer.answered(Say(status, b"", (("Location", other.url),)), buyer.cent) as server:
            bought = paid(asked(buyer.client, by, server.url))
            assert len(server.signatures) == 1
        assert bought is not None
        assert bought.payment_id == buyer.payments()[0]["id"]
        with (
            buyer.answered(Say(status, b"", (("Location", other.url),))) as server,
            pytest.raises(tallystick.PaymentOutcomeUnknown, match="led on to a URL"),
        ):
            asked(buyer.client, by, server.url)
        assert (len(other.heard), other.signatures) == (2, [])


@pytest.mark.parametrize("to", ["http://127.0.0.1:99999/", "http://[::1", "ftp://x/", "http://"])
def test_a_redirect_after_the_payment_to_nowhere_names_the_payment(buyer: Buyer, to: str) -> None:
    away = Say(307, b"", (("Location", to),))
    with Hostile(lambda heard, _: away if heard.signature else buyer.cent) as server:
        with pytest.raises(tallystick.PaymentOutcomeUnknown) as one:
            buyer.client.fetch(server.url)
        with pytest.raises(tallystick.PaymentOutcomeUnknown) as other:
            asyncio.run(buyer.fetched(server.url))
    named = {one.value.payment_id, other.value.payment_id}
    assert named == {payment["id"] for payment in buyer.payments()}
    assert len(named) == 2


def asked(client: Client, by: str, url: str, body: Any = None) -> Any:
    """Ask for a URL in one of the ways to pay."""
    if by == "fetch":
        return client.fetch(url, content=body)
    if by == "httpx":
        with httpx.Client(
            transport=tallystick.PayingTransport(client), follow_redirects=True
        ) as http:
            return http.request("GET", url, content=body)
    with requests.Session() as session:
        session.mount("http://", tallystick.PayingAdapter(client))
        return session.get(url, data=body)


@pytest.mark.parametrize("by", ["httpx", "requests"])
def test_a_body_that_cannot_be_sent_again_is_not_paid_for(buyer: Buyer, by: str) -> None:
    with buyer.answered() as server:
        with pytest.raises(tallystick.NotPayable) as refused:
            asked(buyer.client, by, server.url, iter([b"once"]))
        assert len(server.heard) == 1
    assert refused.value.code == "body_not_replayable"
    assert buyer.payments() == []


@pytest.mark.parametrize("end", [Say(hang=True), Say(None), Say(500), Say(503)], ids=repr)
def test_an_unknown_outcome_is_paid_for_once(buyer: Buyer, end: Say) -> None:
    with buyer.answered(end, buyer.cent, Say()) as server:
        with pytest.raises(tallystick.PaymentOutcomeUnknown) as lost:
            buyer.client.fetch(server.url, timeout_s=0.5 if end.hang else 30)
        [payment] = buyer.payments()
        assert lost.value.payment_id == payment["id"]
        assert payment["settlement"]["state"] == "unknown"
        again = buyer.client.fetch(server.url, idempotency_key=lost.value.idempotency_key)
        first, second = server.signatures
    assert (again.content, first) == (b"goods", second)
    assert len(buyer.payments()) == 1


@pytest.mark.parametrize("drips", ["head", "body"])
def test_who_sends_a_byte_now_and_then_is_not_waited_for_without_end(
    buyer: Buyer, drips: str
) -> None:
    slow, in_all = Say(drips=drips), {"max_time_s": 0.5}
    with Hostile(lambda *_: slow) as server:
        with pytest.raises(httpx.ReadTimeout):
            buyer.client.fetch(server.url, **in_all)
        with pytest.raises(httpx.ReadTimeout):
            asyncio.run(buyer.fetched(server.url, **in_all))
    assert buyer.payments() == []
    end = slow
    with Hostile(lambda heard, _: end if heard.signature else buyer.cent) as server:
        with pytest.raises(tallystick.PaymentOutcomeUnknown) as lost:
            buyer.client.fetch(server.url, **in_all)
        key = {"idempotency_key": lost.value.idempotency_key}
        with pytest.raises(tallystick.PaymentOutcomeUnknown) as again:
            asyncio.run(buyer.fetched(server.url, **in_all, **key))
        end = Say()
        assert buyer.client.fetch(server.url, **key).content == b"goods"
        assert len(set(server.signatures)) == 1
    [payment] = buyer.payments()
    assert {lost.value.payment_id, again.value.payment_id} == {payment["id"]}
    assert payment["settlement"]["state"] == "unknown"


@pytest.mark.parametrize("by", ["client", "asyncio"])
def test_what_signing_takes_is_beside_the_time_of_the_resource(
    buyer: Buyer, by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signature that is made and not sent any more would hold its budget for nothing."""
    slept_ms = 0
    monkeypatch.setattr(deadline, "stopwatch", lambda: stopwatch() + slept_ms)

    def slow(kind: Any, method: str) -> None:
        honest = getattr(kind, method)

        def sleeping(*arguments: Any) -> Any:
            nonlocal slept_ms
            slept_ms += 1_000_000
            return honest(*arguments)

        monkeypatch.setattr(kind, method, sleeping)

    for kind in (Client, tallystick.AsyncClient):
        for method in ("buy", "report"):
            slow(kind, method)
    with buyer.answered(Say()) as server:
        if by == "client":
            answer = buyer.client.fetch(server.url)
        else:
            answer = asyncio.run(buyer.fetched(server.url))
    assert (answer.content, slept_ms) == (b"goods", 2_000_000)


@pytest.mark.parametrize("by", ["client", "asyncio"])
def test_a_name_that_is_looked_up_for_ever_is_not_waited_for(
    buyer: Buyer, by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    over = threading.Event()
    honest = socket.getaddrinfo

    def silent(host: Any, *how: Any, **more: Any) -> Any:
        if host in ("shop.test", b"shop.test"):
            over.wait(30)
            raise socket.gaierror("nobody answers")
        return honest(host, *how, **more)

    monkeypatch.setattr(socket, "getaddrinfo", silent)

    how = {"max_time_s": 0.3}

    async def fetched() -> None:
        try:
            await buyer.fetched("http://shop.test/", **how)
        finally:
            over.set()  # the loop waits for its threads in the end

    ways = {
        "client": lambda: buyer.client.fetch("http://shop.test/", **how),
        "asyncio": lambda: asyncio.run(fetched()),
    }
    with pytest.raises(httpx.TimeoutException):
        ways[by]()
    over.set()
    with pytest.raises(httpx.ConnectError, match="nobody answers"):
        buyer.client.fetch("http://shop.test/")


def test_every_address_of_a_name_is_tried(buyer: Buyer, monkeypatch: pytest.MonkeyPatch) -> None:
    with Hostile(lambda *_: Say()) as server:
        port = int(server.url.rpartition(":")[2])
        stream = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
        found = [(*stream, (address, port)) for address in ("127.0.0.9", "127.0.0.1")]
        honest = socket.getaddrinfo

        def two(host: Any, *how: Any, **more: Any) -> Any:
            return found if host in ("shop.test", b"shop.test") else honest(host, *how, **more)

        monkeypatch.setattr(socket, "getaddrinfo", two)
        assert buyer.client.fetch(f"http://shop.test:{port}/").content == b"goods"


def test_a_time_that_is_none_is_named(buyer: Buyer) -> None:
    for wrong in (0, -1, float("nan")):
        with pytest.raises(InvalidInput, match="max_time_s"):
            buyer.client.fetch("https://shop.test/", max_time_s=wrong)


def test_a_transaction_that_is_named_is_no_refusal(buyer: Buyer) -> None:
    receipt = encoded({"success": False, "transaction": TX_HASH, "network": "eip155:1"})
    pending = Say(402, b"", (*buyer.cent.headers, ("PAYMENT-RESPONSE", receipt)))
    with (
        buyer.answered(pending) as server,
        pytest.raises(tallystick.PaymentOutcomeUnknown) as lost,
    ):
        buyer.client.fetch(server.url)
    assert lost.value.tx_hash == TX_HASH
    assert buyer.payments()[0]["settlement"]["tx_hash"] == TX_HASH


def test_offers_without_end(buyer: Buyer) -> None:
    good, bad = buyer.required["accepts"][0], {"scheme": "upto", "extra": {"more": "x" * 20}}
    for offers in ([good] + [bad] * 999, [bad] * 999 + [good], [good] * 1_000):
        sells = partial(sells_for, offers)
        with Hostile(sells) as server:
            if offers[0] == bad:  # one behind the first 32 is never looked at
                with pytest.raises(tallystick.ApiError, match="no_usable_offer"):
                    buyer.client.fetch(server.url)
            elif offers[-1] == bad:
                assert buyer.client.fetch(server.url).content == b"goods"
            else:  # a head of 300 kB is no head for httpx
                with pytest.raises(httpx.RemoteProtocolError):
                    buyer.client.fetch(server.url)
    assert len(buyer.payments()) == 1


def sells_for(offers: list[Any], heard: Heard, _: int) -> Say:
    return Say() if heard.signature else asks(required(*offers))


def encoded_deep() -> str:
    return base64.b64encode(b"[" * 50_000).decode()


@pytest.mark.parametrize(
    "told",
    ["", "nonsense", encoded("WzFd"), encoded_deep(), encoded({"x402Version": 2, "accepts": 7})],
    ids=["empty", "no base64", "a list", "deep", "no offers"],
)
def test_a_402_that_cannot_be_read_is_not_paid(buyer: Buyer, told: str) -> None:
    with Hostile(lambda *_: asks(told)) as server:
        with pytest.raises((tallystick.NotPayable, tallystick.ApiError)) as refused:
            buyer.client.fetch(server.url)
        assert len(server.heard) == 1
    assert refused.value.code in ("payment_required_unreadable", "invalid_parameter")


def test_ten_years_are_too_long(buyer: Buyer) -> None:
    ten_years = required(offer(buyer.served.world, maxTimeoutSeconds=315_360_000))
    with (
        Hostile(lambda *_: asks(ten_years)) as server,
        pytest.raises(tallystick.ApiError, match="maxTimeoutSeconds") as refused,
    ):
        buyer.client.fetch(server.url)
    assert refused.value.code == "no_usable_offer"
    assert buyer.payments() == []


def test_an_answer_has_an_end(buyer: Buyer) -> None:
    bomb = gzip.compress(bytes(50 * 2**20))
    cases = [
        (Say(200, bomb, (("Content-Encoding", "gzip"),)), "answer_too_long"),
        (Say(200, bytes(2**20 + 1)), "answer_too_long"),
        (Say(200, bomb, (("Content-Encoding", "gzip, gzip"),)), "answer_not_readable"),
        (Say(200, b"no gzip", (("Content-Encoding", "gzip"),)), "answer_not_readable"),
    ]
    for number, (end, code) in enumerate(cases, 1):
        with (
            buyer.answered(end) as server,
            pytest.raises(tallystick.AnswerNotReadable) as refused,
        ):
            buyer.client.fetch(server.url, bytes_max=2**20)
        assert (refused.value.code, len(buyer.payments())) == (code, number)
        assert refused.value.payment_id == buyer.payments()[0]["id"]
    small = Say(200, gzip.compress(b"small"), (("Content-Encoding", "gzip"),))
    with buyer.answered(small) as server:
        assert buyer.client.fetch(server.url).content == b"small"


def test_the_signature_is_nowhere_but_on_the_wire(
    buyer: Buyer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    told = ""
    for end in (Say(), Say(None), buyer.cent):
        for by in ("fetch", "httpx", "requests"):
            with buyer.answered(end) as server:
                try:
                    response = asked(buyer.client, by, f"{server.url}/a#b")
                    told += f"{paid(response)} {dict(response.request.headers)}"
                except tallystick.PaymentError as error:
                    told += "".join(traceback.format_exception(error))
                [signature] = server.signatures
                assert signature not in told + caplog.text
    assert "httpcore" in caplog.text
    assert {payment["terms"]["resource"].rpartition("/")[2] for payment in buyer.payments()} == {
        "a"
    }


def test_who_is_named_in_the_url_is_told_to_nobody_else(buyer: Buyer) -> None:
    for by in ("fetch", "requests"):
        with buyer.answered(Say()) as server:
            asked(buyer.client, by, server.url.replace("//", "//user:secret@") + "/a")
            assert [each.headers["Authorization"][:6] for each in server.heard] == ["Basic "] * 2
        assert buyer.payments()[0]["terms"]["resource"] == f"{server.url}/a"
