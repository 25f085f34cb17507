"""The same key and the same request: the same answer. The same key and another: a conflict."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from engine.chain.embedded import ETH_TESTER_CHAIN_ID
from engine.settings import Token
from tests.rest.served import NO_LIMITS, PAYMENTS, SMART, Served, refused

FULL: dict[str, Any] = {
    "merchant_id": "books",
    "token": "USDC",
    "description": "Paper",
    "metadata": {"a": 1, "b": [2]},
}
CHANGED: dict[str, Any] = {
    "merchant_id": "casino",
    "token": "DOGE",
    "chain": "eip155:1",
    "description": "Pen",
    "metadata": {"a": 2},
}


@pytest.fixture
def token(api: Served) -> str:
    text: str = api.session(limits=NO_LIMITS | {"max_per_day": 1000})["session_token"]
    return text


def ask(api: Served, path: str, token: str, body: dict[str, Any], **headers: str) -> Any:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return api.call("POST", path, body, token=token, headers=named)


@pytest.mark.parametrize("header", ["Idempotency-Key", "X-Idempotency-Key", "idempotency-key"])
@pytest.mark.parametrize(
    ("path", "amount"), [(PAYMENTS, "amount"), (SMART, "amount_usd")], ids=("payment", "smart")
)
def test_a_repeated_request_pays_once_and_is_marked(
    api: Served, token: str, path: str, amount: str, header: str
) -> None:
    body = FULL | {amount: 10}
    first, again = (ask(api, path, token, body, **{header: "key-1"}) for _ in range(2))
    assert "Idempotent-Replayed" not in first.headers
    assert again.headers["Idempotent-Replayed"] == "true"
    assert (again.status_code, again.json()) == (first.status_code, first.json())
    assert api.pay(token, 1).json()["remaining_today"] == 989


def test_either_header_is_the_same_key(api: Served, token: str) -> None:
    first = ask(api, PAYMENTS, token, {"amount": 1}, Idempotency_Key="key-2")
    again = ask(api, PAYMENTS, token, {"amount": 1}, X_Idempotency_Key="key-2")
    both = {"Idempotency_Key": "key-2", "X_Idempotency_Key": "key-2"}
    assert again.json() == first.json() == ask(api, PAYMENTS, token, {"amount": 1}, **both).json()


def test_two_headers_that_differ_are_refused(api: Served, token: str) -> None:
    both = {"Idempotency_Key": "one", "X_Idempotency_Key": "two"}
    answer = ask(api, PAYMENTS, token, {"amount": 1}, **both)
    refused(answer, 422, "invalid_parameter", "X-Idempotency-Key")


def test_other_spellings_of_the_same_request_are_the_same_request(api: Served, token: str) -> None:
    bodies = [
        {"amount": 1, "metadata": {"a": 1, "b": 2}},
        {"amount": "1.00", "metadata": {"b": 2, "a": 1}, "token": "usdc", "description": None},
        {"amount": 1.0, "metadata": {"a": 1, "b": 2}, "token": None, "currency": "USD"},
    ]
    answers = [ask(api, PAYMENTS, token, body, Idempotency_Key="key-3") for body in bodies]
    assert len({answer.json()["id"] for answer in answers}) == 1


@pytest.mark.parametrize("field", [*CHANGED, "amount_usd", "product_details"])
def test_another_smart_payment_under_the_key_is_a_conflict_that_names_the_field(
    api: Served, token: str, field: str
) -> None:
    first = ask(api, SMART, token, FULL | {"amount_usd": 10}, Idempotency_Key="key-4")
    change = CHANGED | {"amount_usd": 11, "product_details": {"name": "x"}}
    other = FULL | {"amount_usd": 10, field: change[field]}
    before = api.records()
    answer = ask(api, SMART, token, other, Idempotency_Key="key-4")
    refused(answer, 409, "idempotency_key_reused", field)
    assert field in answer.json()["message"]
    assert api.records() == before
    again = ask(api, SMART, token, FULL | {"amount_usd": 10}, Idempotency_Key="key-4")
    assert again.json() == first.json()


@pytest.mark.parametrize("field", [*CHANGED, "amount", "capture_method"])
def test_another_payment_under_the_key_is_a_conflict_that_names_the_field(
    api: Served, token: str, field: str
) -> None:
    ask(api, PAYMENTS, token, FULL | {"amount": 10}, Idempotency_Key="key-5")
    change = CHANGED | {"amount": 11, "capture_method": "automatic"}
    answer = ask(
        api, PAYMENTS, token, FULL | {"amount": 10, field: change[field]}, Idempotency_Key="key-5"
    )
    refused(answer, 409, "idempotency_key_reused", field)


def test_a_denial_stays_a_denial(api: Served) -> None:
    token = api.session(limits=NO_LIMITS | {"max_per_day": 10})["session_token"]
    held = api.hold(token, 6)
    body = {"amount": 5}
    denied = ask(api, PAYMENTS, token, body, Idempotency_Key="key-6")
    api.call("POST", f"{PAYMENTS}/{held['id']}/void", token=token)
    again = ask(api, PAYMENTS, token, body, Idempotency_Key="key-6")
    assert (again.status_code, again.json()) == (402, denied.json())
    assert again.headers["Idempotent-Replayed"] == "true"
    assert ask(api, PAYMENTS, token, body, Idempotency_Key="key-7").status_code == 201


def test_an_answer_stays_when_a_token_gets_a_price_or_loses_it(tmp_path: Path) -> None:
    def priced(symbol: str) -> list[Token]:
        return [
            Token(
                symbol=each,
                asset=f"eip155:{ETH_TESTER_CHAIN_ID}/erc20:0x{pair * 20}",
                decimals=6,
                usd_price="1" if each == symbol else None,
            )
            for each, pair in (("ONE", "01"), ("TWO", "02"))
        ]

    def pay_in_both(api: Served) -> list[Any]:
        bodies = [{"amount": 1, "token": symbol} for symbol in ("ONE", "TWO")]
        return [ask(api, PAYMENTS, token, body, X_Idempotency_Key=body["token"]) for body in bodies]

    with Served(tmp_path / "data", tokens=priced("ONE")) as api:
        token = api.session()["session_token"]
        first = pay_in_both(api)
    with Served(tmp_path / "data", tokens=priced("TWO")) as api:
        again = pay_in_both(api)
    assert [answer.status_code for answer in first] == [201, 402]
    assert [answer.json() for answer in again] == [answer.json() for answer in first]
    assert [answer.headers["Idempotent-Replayed"] for answer in again] == ["true", "true"]


def test_a_key_belongs_to_its_session(api: Served, token: str) -> None:
    other = api.session()["session_token"]
    first = ask(api, PAYMENTS, token, {"amount": 1}, Idempotency_Key="key-8")
    foreign = ask(api, PAYMENTS, other, {"amount": 2}, Idempotency_Key="key-8")
    assert foreign.status_code == 201
    assert foreign.json()["id"] != first.json()["id"]


@pytest.mark.parametrize("header", ["Idempotency-Key", "X-Idempotency-Key"])
@pytest.mark.parametrize("key", ["", "k" * 256], ids=("empty", "long"))
def test_a_key_that_cannot_be_kept_is_refused_not_ignored(
    api: Served, token: str, header: str, key: str
) -> None:
    before = api.records()
    answer = ask(api, PAYMENTS, token, {"amount": 1}, **{header: key})
    refused(answer, 422, "invalid_parameter", header)
    assert api.records() == before


def test_the_longest_key_is_kept(api: Served, token: str) -> None:
    ids = {
        ask(api, PAYMENTS, token, {"amount": 1}, Idempotency_Key="k" * 255).json()["id"]
        for _ in range(2)
    }
    assert len(ids) == 1


def test_callers_at_the_same_time_get_one_payment(api: Served, token: str) -> None:
    before = api.records()
    with ThreadPoolExecutor(16) as pool:
        answers = list(
            pool.map(
                lambda _: ask(api, PAYMENTS, token, {"amount": 10}, Idempotency_Key="key-9"),
                range(64),
            )
        )
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.content for answer in answers}) == 1
    assert sum("Idempotent-Replayed" not in answer.headers for answer in answers) == 1
    assert api.records() == before + 1
