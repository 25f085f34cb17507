"""Payments that are none, or not of what is asked for: refused, and nothing is left of them."""

import base64
from typing import Any

import pytest
from eth_account import Account

from engine.clock import system_clock
from engine.errors import InvalidInput, Unavailable
from engine.selling.currency import Currency, read_price
from engine.selling.witness import Witness
from tests.gate.stall import GET, PUT, Stall, decoded, encoded, heard, offer_of
from tests.payments.paying import usdc

pytestmark = pytest.mark.anyio

SECOND = 1_000_000_000
KEY = bytes(Account.create().key)


def now_s() -> int:
    return system_clock() // 1000


def changed(**fields: Any) -> Any:
    """Fields of what is signed."""
    return lambda stall: stall.sign(units=fields.pop("units", PUT), **fields)


def accepted(**fields: Any) -> Any:
    """Fields of the offer as the payment has it."""
    return lambda stall: stall.header(stall.facility.authorization(PUT), **fields)


def payload(change: Any) -> Any:
    """Any change to the whole."""

    def make(stall: Stall) -> str:
        told = decoded(stall.sign())
        change(told)
        return encoded(told)

    return make


def other_token(stall: Stall) -> str:
    """Honestly signed, in a token of the same name."""
    fake = usdc(stall.facility.gateway)  # type: ignore[arg-type]
    signature = stall.facility.authorization(PUT).sign(fake, bytes(stall.facility.payer.key))
    return stall.header(stall.facility.authorization(PUT), None, signature, asset=fake.token)


REFUSED: dict[str, Any] = {
    "a unit less": changed(units=PUT - 1),
    "a unit more": changed(units=PUT + 1),
    "nothing": changed(units=0),
    "the price of something else": changed(units=GET),
    "to somebody else": changed(pay_to="0x" + "0c" * 20),
    "not valid yet": changed(valid_after_s=now_s() + SECOND),
    "over": changed(valid_before_s=now_s() - 1),
    "over in two seconds": changed(valid_before_s=now_s() + 2),
    "without an end": changed(valid_before_s=2**256 - 1),
    "from somebody without money": changed(payer=Account.from_key(KEY).address.lower()),
    "edited offer: amount": accepted(amount="1"),
    "edited offer: payee": accepted(payTo="0x" + "0c" * 20),
    "edited offer: another chain": accepted(network="eip155:1"),
    "edited offer: another scheme": accepted(scheme="upto"),
    "edited offer: another token": accepted(asset="0x" + "0c" * 20),
    "a token of the same name": other_token,
    "no signature": payload(lambda told: told["payload"].pop("signature")),
    "a short signature": payload(lambda told: told["payload"].update(signature="0x1b")),
    "a long signature": payload(lambda told: told["payload"].update(signature="0x" + "1b" * 97)),
    "a signature of zeros": payload(
        lambda told: told["payload"].update(signature="0x" + "0" * 130)
    ),
    "a signature that is a number": payload(lambda told: told["payload"].update(signature=7)),
    "a nonce with other digits": payload(
        lambda told: told["payload"]["authorization"].update(nonce="0x" + "\u0661" * 64)
    ),
    "a value of another spelling": payload(
        lambda told: told["payload"]["authorization"].update(value="10_000")
    ),
    "by Permit2": payload(
        lambda told: told.update(payload={"permit2Authorization": {}, "signature": "0x"})
    ),
    "x402's first version": payload(lambda told: told.update(x402Version=1)),
    "version true": payload(lambda told: told.update(x402Version=True)),
    "no version": payload(lambda told: told.pop("x402Version")),
    "no offer": payload(lambda told: told.pop("accepted")),
    "an offer that is a list": payload(lambda told: told.update(accepted=[])),
    "no base 64": lambda _: "{}",
    "base 64 of nothing": lambda _: "",
    "base 64 of a list": lambda _: encoded([]),
    "base 64 of null": lambda _: encoded(None),
    "base 64 of no JSON": lambda _: base64.b64encode(b"\xff{").decode(),
    "a key twice": lambda _: base64.b64encode(b'{"x402Version":2,"x402Version":2}').decode(),
    "a hundred levels": lambda _: base64.b64encode(b"[" * 100_0 + b"]" * 100_0).decode(),
    "64 KiB": lambda _: "A" * 65_536,
}


async def test_each_is_refused_and_nothing_is_left(stall: Stall) -> None:
    for name, payment in REFUSED.items():
        response = await stall.ask("PUT", "/v1/store/a", payment(stall), content=b"1")
        assert response.status_code == 402, (name, response.text)
        assert offer_of(response)["amount"] == str(PUT), "and told what would be taken"
        assert response.json()["code"] != "payment_required", f"{name}: it was looked at"
        assert (stall.transfers(), await stall.grants()) == (0, 0), name
    session = stall.storage.session(stall.payer)
    assert (await session.list()).entries == {}


async def test_headers_that_contradict_each_other_are_refused(stall: Stall) -> None:
    one, other = stall.sign(), stall.sign()
    for headers in (
        [("PAYMENT-SIGNATURE", one), ("PAYMENT-SIGNATURE", other)],
        [("PAYMENT-SIGNATURE", one), ("payment-signature", one)],
        [("PAYMENT-SIGNATURE", f"{one}, {other}")],
        [("PAYMENT-SIGNATURE", one), ("X-PAYMENT", one)],
        [("X-PAYMENT", one)],
    ):
        response = await stall.ask_with(headers)
        assert response.status_code == 402, headers
    assert (stall.transfers(), await stall.grants()) == (0, 0)


async def test_a_price_that_was_raised_is_asked_for(stall: Stall) -> None:
    from api.gate.store import Prices

    payment = stall.sign(offer_of(await stall.ask("PUT", "/v1/store/a", content=b"1")))
    await stall.close()
    stall.open(prices=Prices(put=20_000))
    response = await stall.ask("PUT", "/v1/store/a", payment, content=b"1")
    assert offer_of(response)["amount"] == "20000"
    assert stall.transfers() == 0


@pytest.mark.parametrize("price", ["0", "$0", "-1", "", "$", "0.0000001", "1e3", "Free"])
def test_what_is_no_price_is_refused(price: str) -> None:
    with pytest.raises(ValueError, match="amount"):
        read_price(price)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("asset", "eip155:1/erc20:0x12"),
        ("asset", "solana:x/token:y"),
        ("pay_to", "0x" + "0" * 40),
        ("decimals", -1),
        ("decimals", 37),
    ],
)
def test_what_is_no_currency_is_refused_by_field(field: str, value: Any) -> None:
    fields: dict[str, Any] = {
        "asset": "eip155:1/erc20:0x" + "12" * 20,
        "pay_to": "0x" + "9a" * 20,
        "name": "USDC",
        "version": "2",
    }
    Currency(**fields)
    with pytest.raises(InvalidInput) as caught:
        Currency(**{**fields, field: value})
    assert caught.value.field == field


async def test_it_is_drained_between_verification_and_settlement(stall: Stall) -> None:
    facility = stall.facility

    class Drained:
        """Whoever pays takes the money away at the last moment."""

        def __init__(self, part: Any) -> None:
            self._part = part

        def __getattr__(self, name: str) -> Any:
            return getattr(self._part, name)

        async def settle(self, payload: Any, requirements: Any) -> Any:
            facility.payer, mine = Account.create(), facility.payer
            balance = 1_000_000
            elsewhere = facility.authorization(balance, payer=mine.address.lower())
            facility.payer = mine
            call = elsewhere.settling(elsewhere.sign(facility.domain, bytes(mine.key)))
            facility.transact(to=facility.domain.token, data=call)
            return await self._part.settle(payload, requirements)

    await stall.close()
    stall.open(wrap=lambda part: Drained(part) if hasattr(part, "settle") else part)
    response = await stall.ask("PUT", "/v1/store/a", stall.sign(), content=b"1")
    assert response.status_code == 402
    assert await stall.grants() == 0
    session = stall.storage.session(stall.payer)
    assert (await session.list()).entries == {}
    assert stall.transfers() == 1, "the one that drained it"


async def test_where_nobody_sees_the_chain_nothing_is_kept_for_who_cannot_pay(
    stall: Stall,
) -> None:
    class Blind(Witness):
        """It cannot tell from when on to look."""

        def since(self) -> int:
            raise Unavailable("away")

    new = {"content": b"1", "headers": {"If-None-Match": "*"}}
    for witness, expected in ((Blind, (503, "service_unavailable")), (Witness, (200, None))):
        await stall.close()
        stall.open(witness=witness(stall.facility.gateway))
        assert heard(await stall.buy("PUT", "/v1/store/a", **new)) == expected
    assert stall.transfers() == 1


async def test_a_query_and_a_host_that_are_no_text_are_asked_to_pay_like_others(
    stall: Stall,
) -> None:
    for query, host in (
        (b"prefix=\xff", b"stall.test"),
        (b"", b"[::"),
        (b"", b"\xff/v1"),
        (b"", b""),
    ):
        told: list[Any] = []

        async def receive() -> Any:
            return {"type": "http.request"}

        async def send(message: Any, told: list[Any] = told) -> None:
            told.append(message)

        scope = {"type": "http", "method": "GET", "scheme": "http", "http_version": "1.1"}
        path = {"path": "/v1/store", "raw_path": b"/v1/store", "query_string": query}
        where = {"headers": [(b"host", host)], "server": ("127.0.0.1", 80), "root_path": ""}
        await stall.app({**scope, **path, **where}, receive, send)
        assert told[0]["status"] == 402


@pytest.mark.parametrize("part", ["verify", "read", "replace"])
async def test_what_fails_before_anything_is_sent_is_no_service(stall: Stall, part: str) -> None:
    class Failing:
        def __init__(self, inner: Any) -> None:
            self._inner = inner

        def __getattr__(self, name: str) -> Any:
            if name == part:
                raise Unavailable("away") if part != "verify" else RuntimeError("a defect")
            return getattr(self._inner, name)

    await stall.close()
    stall.open(wrap=Failing)
    response = await stall.ask("PUT", "/v1/store/a", stall.sign(), content=b"1")
    assert response.status_code == 503
    assert response.headers["Retry-After"]
    assert stall.transfers() == 0
