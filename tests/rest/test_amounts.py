"""Amounts are read from the text of the request, exactly, or refused by the name of the field."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from tallystick.cli import app
from tests.rest.hostile import NOT_AMOUNTS, NOT_JSON, ZEROS
from tests.rest.served import NO_LIMITS, PAYMENTS, SESSIONS, SMART, Served, refused

LIMITS = tuple(f"limits.{name}" for name in NO_LIMITS)
FIELDS = ("amount_usd", "amount", "capture amount", *LIMITS)


@dataclass
class Sender:
    """Sends a raw JSON value in an amount field of an otherwise good request."""

    api: Served
    token: str
    held: str

    def __call__(self, field: str, raw: str) -> httpx.Response:
        if field == "amount_usd":
            return self.api.call("POST", SMART, raw=f'{{"amount_usd":{raw}}}', token=self.token)
        if field == "amount":
            return self.api.call("POST", PAYMENTS, raw=f'{{"amount":{raw}}}', token=self.token)
        if field == "capture amount":
            path = f"{PAYMENTS}/{self.held}/capture"
            return self.api.post(path, raw=f'{{"amount":{raw}}}')
        name = field.removeprefix("limits.")
        session = f'{{"agent_id":"bot","user_wallet":"w","limits":{{"{name}":{raw}}}}}'
        return self.api.post(SESSIONS, raw=session)


@pytest.fixture(scope="module")
def send(api: Served) -> Sender:
    token = api.session()["session_token"]
    return Sender(api, token, api.hold(token, 100)["id"])


def code_of(name: str) -> str:
    return "invalid_amount" if name.startswith("amount") else "invalid_parameter"


def expect_refused(send: Sender, field: str, raw: str, named: tuple[str, str]) -> None:
    before = send.api.records()
    refused(send(field, raw), 422, *named)
    assert send.api.records() == before


@pytest.mark.parametrize("spelling", NOT_AMOUNTS)
@pytest.mark.parametrize("field", FIELDS)
def test_what_is_no_amount_is_refused_by_name_and_leaves_no_trace(
    send: Sender, field: str, spelling: str
) -> None:
    name = field.removeprefix("capture ")
    expect_refused(send, field, NOT_AMOUNTS[spelling], (code_of(name), name))


@pytest.mark.parametrize("zero", ZEROS)
@pytest.mark.parametrize("field", ["amount_usd", "amount", "capture amount"])
def test_nothing_is_no_amount(send: Sender, field: str, zero: str) -> None:
    name = field.removeprefix("capture ")
    expect_refused(send, field, ZEROS[zero], (code_of(name), name))


@pytest.mark.parametrize("field", ["amount_usd", "amount", "capture amount"])
def test_null_is_no_amount(send: Sender, field: str) -> None:
    expect_refused(send, field, "null", ("invalid_amount", field.removeprefix("capture ")))


def test_a_capture_that_names_no_amount_spends_all_that_is_held(api: Served) -> None:
    token = api.session()["session_token"]
    for body in (None, {}):
        held = api.hold(token, "0.3")
        captured = api.post(f"{PAYMENTS}/{held['id']}/capture", body, token=token)
        assert captured.json()["captured_usd"] == 0.3


@pytest.mark.parametrize("raw", NOT_JSON)
@pytest.mark.parametrize("field", FIELDS)
def test_what_is_no_json_is_refused(send: Sender, field: str, raw: str) -> None:
    expect_refused(send, field, raw, ("invalid_json", "body"))


EXACT = (
    "0.000001",
    "0.00005",
    "0.1",
    "0.3",
    "1",
    "1.0",
    "1.10",
    "12.345678",
    "19.999999",
    "4.02",
    "0.57",
    "1.005",
    "90071992.547409",
    "123456789.123457",
    "999999999",
    "999999999.999999",
)


def micro(text: str) -> int:
    """The micro-USD of a decimal, or of a JSON number, by moving its digits."""
    digits, _, exponent = text.partition("e")
    whole, _, fraction = digits.partition(".")
    shift = 6 + int(exponent or 0) - len(fraction)
    number = int(whole + fraction)
    return number * 10**shift if shift >= 0 else number // 10**-shift


@pytest.mark.parametrize("quoted", [False, True], ids=["number", "text"])
@pytest.mark.parametrize("amount", EXACT)
@pytest.mark.parametrize("field", ["amount_usd", "amount"])
def test_an_amount_is_exact_from_the_request_to_the_record_and_back(
    send: Sender, field: str, amount: str, quoted: bool
) -> None:
    answer = send(field, f'"{amount}"' if quoted else amount)
    assert answer.status_code in (200, 201), answer.text
    number = re.search(r'"amount_usd":([^,]+)', answer.text)
    assert number is not None
    assert micro(number[1]) == micro(amount)
    payment = send.api.world.engine.payments.get("default", answer.json()["id"])
    assert payment.amount == micro(amount)


@pytest.mark.parametrize("quoted", [False, True], ids=["number", "text"])
@pytest.mark.parametrize("amount", EXACT)
def test_a_limit_is_exact(send: Sender, amount: str, quoted: bool) -> None:
    answer = send("limits.max_per_day", f'"{amount}"' if quoted else amount)
    assert answer.status_code == 201, answer.text
    number = re.search(r'"max_per_day":([^,]+)', answer.text)
    assert number is not None
    assert micro(number[1]) == micro(amount)


def day_of(api: Served, limit: str) -> Callable[[str], httpx.Response]:
    """A way to pay, as a raw JSON number, with a session of this limit per day."""
    token = api.session(limits=NO_LIMITS | {"max_per_day": limit})["session_token"]
    return lambda raw: api.call("POST", SMART, raw=f'{{"amount_usd":{raw}}}', token=token)


@pytest.mark.parametrize(("limit", "part", "times"), [("0.3", "0.1", 3), ("0.57", "0.19", 3)])
def test_parts_that_no_double_holds_add_up_to_the_limit_exactly(
    api: Served, limit: str, part: str, times: int
) -> None:
    pay = day_of(api, limit)
    answers = [pay(part) for _ in range(times)]
    assert [answer.status_code for answer in answers] == [200] * times
    assert answers[-1].json()["remaining_today"] == 0
    assert pay("0.000001").json()["code"] == "LIMIT_EXCEEDED"


def test_a_millionth_above_the_limit_is_above_the_limit(api: Served) -> None:
    pay = day_of(api, "19.999999")
    denied = pay("20.000000")
    assert (denied.status_code, denied.json()["code"]) == (402, "LIMIT_EXCEEDED")
    allowed = pay("19.999999")
    assert (allowed.status_code, allowed.json()["remaining_today"]) == (200, 0)


def test_a_part_that_is_captured_is_exact(api: Served) -> None:
    token = api.session()["session_token"]
    held = api.hold(token, "0.3")
    path = f"{PAYMENTS}/{held['id']}/capture"
    captured = api.call("POST", path, raw='{"amount":0.1}', token=token)
    assert captured.json()["captured_usd"] == 0.1
    assert api.world.engine.payments.get("default", held["id"]).captured == 100_000


def test_an_amount_can_be_sent_back_as_it_came(api: Served) -> None:
    session = api.session(limits=NO_LIMITS | {"max_per_day": "0.000099"})
    token = session["session_token"]
    path = f"{SESSIONS}/{session['id']}"
    held = api.pay(token, "0.000009", metadata={"n": 5e-6, "s": "5e-6"})
    answers = [
        held,
        api.get(f"{PAYMENTS}/{held.json()['id']}"),
        api.get(PAYMENTS),
        api.get(path),
        api.get(SESSIONS),
        api.post(f"{path}/simulate", {"amount": "0.000003"}, token=token),
        api.get(f"{PAYMENTS}/{held.json()['id']}/explanation"),
        api.get("/api/v1/payments/export?format=ndjson"),
    ]
    for answer in answers:
        assert answer.is_success, answer.text
        text = answer.text.replace('"5e-6"', "")
        assert re.search("[0-9]e-", text) is None, text
        assert "0.00000" in text or "0.000099" in text
    assert held.json()["metadata"] == {"n": 5e-6, "s": "5e-6"}
    found = re.search(r'"amount_usd":([^,]+)', answers[1].text)
    assert found is not None
    back = api.post(f"{PAYMENTS}/{held.json()['id']}/capture", raw=f'{{"amount":{found[1]}}}')
    assert back.json()["captured_usd"] == 9e-6


@pytest.mark.parametrize("command", ["list", "get"])
def test_the_command_prints_amounts_as_they_can_be_sent_back(api: Served, command: str) -> None:
    paid = api.pay(api.session()["session_token"], "0.000012").json()
    arguments = ["payments", command, *([paid["id"]] if command == "get" else []), "--json"]
    done = CliRunner().invoke(app, [*arguments, "--url", api.url, "--api-key", api.key])
    assert done.exit_code == 0
    assert '"amount_usd": 0.000012' in done.output
    assert "e-05" not in done.output


def test_numbers_in_metadata_come_back_as_the_nearest_double(api: Served) -> None:
    numbers: dict[str, Any] = {"n": [0.1, 1e300, -0.5, 2**64, 1.10, 0]}
    held = api.hold(api.session()["session_token"], metadata=numbers)
    assert held["metadata"] == numbers
    assert api.get(f"{PAYMENTS}/{held['id']}").json()["metadata"] == numbers


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-1e400", "9" * 400])
def test_a_number_in_metadata_that_no_answer_could_hold_is_refused(
    api: Served, number: str
) -> None:
    token = api.session()["session_token"]
    before = api.records()
    raw = f'{{"amount":1,"metadata":{{"deep":[{number}]}}}}'
    answer = api.call("POST", PAYMENTS, raw=raw, token=token)
    refused(answer, 422, "invalid_parameter", "metadata")
    assert api.records() == before
    assert json.loads(api.get(PAYMENTS).content)
