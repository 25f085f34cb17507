"""Who paid reads again what is theirs by signing in: for a while, and once by each signature."""

import asyncio
from dataclasses import dataclass
from typing import Any

import pytest
from eth_account import Account
from eth_account.messages import encode_defunct
from hypothesis import given
from hypothesis import strategies as st

from engine.clock import ManualClock
from engine.errors import InvalidInput
from engine.selling.refusals import SignInRefused
from engine.selling.sign_in import AGE_S_MAX, SKEW_S, Wanted, message, read_sign_in
from engine.selling.visits import SIGN_INS_MAX, Lease, Visits
from engine.storage.memory import MemoryStore
from tests.gate.stall import Stall, decoded, encoded, heard, offer_of

pytestmark = pytest.mark.anyio

ORIGIN = "http://stall.test"
LEASE_S = 600
PATHS = ("/v1/store/a", "/v1/store?prefix=a")
UNPAID = (402, "payment_required")
REPLAYED = (402, "invalid_siwx_nonce")


@dataclass
class Told:
    """Grants by another clock."""

    grants: Any
    clock: ManualClock

    async def read(self, payment: str) -> tuple[bytes | None, int]:
        return (await self.grants.read(payment))[0], self.clock()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.grants, name)


@pytest.fixture
async def clock(stall: Stall) -> ManualClock:
    """The stall's, which has one thing stored and takes sign-ins."""
    clock = ManualClock(1_900_000_000_123)
    await reopen(stall, clock)
    assert heard(await stall.buy("PUT", "/v1/store/a", content=b"mine")) == (200, None)
    return clock


async def reopen(stall: Stall, clock: ManualClock) -> None:
    await stall.close()
    stall.open(
        wrap=lambda part: Told(part, clock) if hasattr(part, "opening") else part,
        visits=Visits(ORIGIN, LEASE_S, clock=clock),
    )


async def offered(stall: Stall, path: str = PATHS[0]) -> dict[str, Any]:
    """What is to be signed for a path."""
    answer = await stall.ask("GET", path)
    assert heard(answer) == UNPAID
    extension = decoded(answer.headers["PAYMENT-REQUIRED"])["extensions"]["sign-in-with-x"]
    return {**extension["info"], **extension["supportedChains"][0]}


def signed(stall: Stall, info: Any, /, **changes: Any) -> dict[str, str]:
    """The header by which the payer signs in."""
    fields = {"address": stall.facility.payer.address, **info, **changes}
    fields = {name: value for name, value in fields.items() if value is not None}
    text = message(fields, fields.get("resources"))
    signature = stall.facility.payer.sign_message(encode_defunct(text=text)).signature.hex()
    return {"SIGN-IN-WITH-X": encoded({**fields, "signature": f"0x{signature}"})}


async def test_who_paid_reads_again_what_is_theirs_and_pays_nothing(
    stall: Stall, clock: ManualClock
) -> None:
    for path, found in zip(PATHS, ("mine", '{"entries":{"a":"mine"},"cursor":null}'), strict=True):
        answer = await stall.ask("GET", path, headers=signed(stall, await offered(stall, path)))
        assert (answer.status_code, answer.text) == (200, found)
        assert answer.headers["Cache-Control"] == "private, no-store"
        assert "SIGN-IN-WITH-X" in answer.headers["Vary"]
        assert "PAYMENT-RESPONSE" not in answer.headers
    absent = signed(stall, await offered(stall, "/v1/store/b"))
    assert heard(await stall.ask("GET", "/v1/store/b", headers=absent)) == (404, "not_found")
    assert stall.transfers() == 1


async def test_it_is_good_once_however_often_and_wherever_it_is_sent(
    stall: Stall, clock: ManualClock
) -> None:
    once = signed(stall, await offered(stall))
    answers = await asyncio.gather(*(stall.ask("GET", PATHS[0], headers=once) for _ in range(30)))
    assert sorted(heard(each) for each in answers) == [(200, None)] + [REPLAYED] * 29
    assert all("mine" not in each.text for each in answers if each.status_code != 200)
    await reopen(stall, clock)
    assert heard(await stall.ask("GET", PATHS[0], headers=once)) == REPLAYED
    clock.advance(AGE_S_MAX * 1000)
    over = (402, "invalid_siwx_expired")
    assert heard(await stall.ask("GET", PATHS[0], headers=once)) == over
    assert heard(await stall.ask("GET", PATHS[0], headers=signed(stall, await offered(stall)))) == (
        200,
        None,
    )
    clock.advance(-AGE_S_MAX * 1000)
    assert heard(await stall.ask("GET", PATHS[0], headers=once)) == over, "the clock was set back"


async def test_the_lease_ends_and_begins_anew_with_a_payment(
    stall: Stall, clock: ManualClock
) -> None:
    clock.advance(LEASE_S * 1000 - 1)
    last, after = [signed(stall, await offered(stall)) for _ in range(2)]
    assert heard(await stall.ask("GET", PATHS[0], headers=last)) == (200, None)
    clock.advance(1)
    assert heard(await stall.ask("GET", PATHS[0], headers=after)) == (402, "lease_over")
    assert heard(await stall.buy("GET", PATHS[0])) == (200, None)
    assert heard(await stall.ask("GET", PATHS[0], headers=after)) == (200, None)


async def test_only_reading_is_done_and_a_payment_is_taken_first(
    stall: Stall, clock: ManualClock
) -> None:
    for method, path, how in (
        ("PUT", "/v1/store/a", {"content": b"2"}),
        ("DELETE", "/v1/store/a", {}),
        ("POST", "/v1/store/batch/get", {"json": {"keys": ["a"]}}),
    ):
        entering = signed(stall, await offered(stall), uri=ORIGIN + path)
        answer = await stall.ask(method, path, headers=entering, **how)
        assert heard(answer) == UNPAID
        assert not decoded(answer.headers["PAYMENT-REQUIRED"]).get("extensions")
    entering = signed(stall, await offered(stall))
    paying = stall.sign(offer_of(await stall.ask("GET", PATHS[0])))
    assert heard(await stall.ask("GET", PATHS[0], paying, headers=entering)) == (200, None)
    assert stall.transfers() == 2
    assert heard(await stall.ask("GET", PATHS[0], headers=entering)) == (200, None)


async def test_it_goes_by_the_time_of_day_in_memory_too(stall: Stall) -> None:
    await stall.close()
    kept = MemoryStore()
    stall.open(visits=Visits(ORIGIN), grants=kept.grants)
    assert heard(await stall.buy("PUT", "/v1/store/a", content=b"mine")) == (200, None)
    entering = signed(stall, await offered(stall))
    assert (await stall.ask("GET", PATHS[0], headers=entering)).text == "mine"


async def test_it_is_off_unless_it_is_wanted(stall: Stall, clock: ManualClock) -> None:
    entering = signed(stall, await offered(stall))
    await stall.close()
    stall.open()
    answer = await stall.ask("GET", PATHS[0], headers=entering)
    assert heard(answer) == UNPAID
    assert not decoded(answer.headers["PAYMENT-REQUIRED"]).get("extensions")


async def test_nobody_reads_what_is_somebody_elses(stall: Stall, clock: ManualClock) -> None:
    info, payer = await offered(stall), stall.facility.payer
    stall.stranger()
    refused = await stall.ask("GET", PATHS[0], headers=signed(stall, info))
    assert heard(refused) == (402, "lease_over"), "who never paid"
    forged = signed(stall, info, address=payer.address)
    assert heard(await stall.ask("GET", PATHS[0], headers=forged)) == (
        402,
        "invalid_siwx_signature",
    )
    await stall.buy("PUT", "/v1/store/b", content=b"theirs")
    answer = await stall.ask("GET", PATHS[0], headers=signed(stall, info))
    assert heard(answer) == (404, "not_found")
    page = "/v1/store"
    answer = await stall.ask("GET", page, headers=signed(stall, await offered(stall, page)))
    assert answer.json() == {"entries": {"b": "theirs"}, "cursor": None}
    stall.facility.payer = payer
    answer = await stall.ask("GET", PATHS[0], headers=signed(stall, info))
    assert (answer.status_code, answer.text) == (200, "mine"), "the nonce was a stranger's"


WRONG: list[tuple[str, Any, str]] = [
    ("domain", "evil.test", "invalid_siwx_domain_mismatch"),
    ("domain", "stall.test.", "invalid_siwx_domain_mismatch"),
    ("uri", "http://evil.test/v1/store/a", "invalid_siwx_uri_mismatch"),
    ("uri", "https://stall.test/v1/store/a", "invalid_siwx_uri_mismatch"),
    ("uri", "http://stall.test/v1/store/b", "invalid_siwx_uri_mismatch"),
    ("uri", "http://stall.test/v1/store/a?", "invalid_siwx_uri_mismatch"),
    ("uri", "http://stall.test/v1/store/%61", "invalid_siwx_uri_mismatch"),
    ("chainId", "eip155:1", "invalid_siwx_chain_id"),
    ("version", "2", "invalid_siwx"),
    ("type", "ed25519", "invalid_siwx_unsupported_chain"),
    ("signatureScheme", "eip1271", "invalid_siwx"),
    ("nonce", "short", "invalid_siwx_nonce"),
    ("nonce", "12345678-", "invalid_siwx_nonce"),
    ("issuedAt", "2030-03-17T17:46:40", "invalid_siwx_issued_at"),
    ("issuedAt", "2030-02-30T00:00:00Z", "invalid_siwx_issued_at"),
    ("issuedAt", "yesterday", "invalid_siwx_issued_at"),
    ("issuedAt", "2030-03-17T17:41:40.122Z", "invalid_siwx_expired"),
    ("issuedAt", "2030-03-17T17:47:10.124Z", "invalid_siwx_not_yet_valid"),
    ("expirationTime", "2030-03-17T17:46:40.123Z", "invalid_siwx_expired"),
    ("expirationTime", "never", "invalid_siwx_expiration_time"),
    ("notBefore", "2030-03-17T17:46:40.124Z", "invalid_siwx_not_yet_valid"),
    ("notBefore", "ever", "invalid_siwx_not_before"),
    ("statement", "x\nURI: http://stall.test/v1/store/a", "invalid_siwx"),
    ("requestId", "a b", "invalid_siwx"),
    ("resources", ["a\nb"], "invalid_siwx"),
    ("resources", ["a"] * 17, "invalid_siwx"),
    ("resources", "a", "invalid_siwx"),
    ("uri", None, "invalid_siwx"),
    ("more", "1", "invalid_siwx"),
]


async def test_what_was_signed_for_something_else_is_refused(
    stall: Stall, clock: ManualClock
) -> None:
    info = await offered(stall)
    for name, value, code in WRONG:
        if value is None:
            headers = signed(stall, info)
            told = decoded(headers["SIGN-IN-WITH-X"])
            del told[name]
            headers = {"SIGN-IN-WITH-X": encoded(told)}
        else:
            headers = signed(stall, info, **{name: value})
        answer = await stall.ask("GET", PATHS[0], headers=headers)
        assert heard(answer) == (402, code), (name, value, answer.text)
    evil = signed(stall, info, domain="evil.test", uri="http://evil.test/v1/store/a")
    answer = await stall.ask("GET", PATHS[0], headers={**evil, "Host": "evil.test"})
    assert heard(answer) == (402, "invalid_siwx_domain_mismatch"), "whatever host is named"
    lower = signed(stall, info, address=stall.facility.payer.address.lower())
    assert heard(await stall.ask("GET", PATHS[0], headers=lower)) == (402, "invalid_siwx")
    for text in ("%", encoded([]), encoded("a"), "a" * 20_000, encoded({})):
        answer = await stall.ask("GET", PATHS[0], headers={"SIGN-IN-WITH-X": text})
        assert heard(answer) == (402, "invalid_siwx")
    answer = await stall.ask("GET", PATHS[0], headers=signed(stall, info))
    assert heard(answer) == (200, None), "what was refused has not used up the nonce"


FROM_NPM = [
    (
        "eyJkb21haW4iOiJzdGFsbC50ZXN0IiwiYWRkcmVzcyI6IjB4MTlFN0UzNzZFN0MyMTNCN0U3ZTdlNDZjYzcwQTVk"
        "RDA4NkRBZmYyQSIsInN0YXRlbWVudCI6IlJlYWQgd2hhdCB5b3Ugc3RvcmVkIGhlcmUuIFRoaXMgcGF5cyBub3Ro"
        "aW5nLiIsInVyaSI6Imh0dHBzOi8vc3RhbGwudGVzdC92MS9zdG9yZS9hJTJGYj94PTEiLCJ2ZXJzaW9uIjoiMSIs"
        "ImNoYWluSWQiOiJlaXAxNTU6ODQ1MyIsInR5cGUiOiJlaXAxOTEiLCJub25jZSI6IjAxMjM0NTY3ODlhYmNkZWYw"
        "MTIzNDU2Nzg5YWJjZGVmIiwiaXNzdWVkQXQiOiIyMDI2LTExLTIyVDA3OjAwOjAwLjAwMFoiLCJleHBpcmF0aW9u"
        "VGltZSI6IjIwMjYtMTEtMjJUMDc6MDU6MDAuMDAwWiIsInNpZ25hdHVyZSI6IjB4YzgzMjE0YzYzOGQyN2NiYjVi"
        "ZGQxMDAyMWQ2M2Y2ODA2N2NlYWY4MjYzMjQ3MzQwNGE5MDZlY2I3NmQzMDJjYTBlZDNjMDJjOTc0MWJjMmFlZjhk"
        "MWQyNjYyMzg2YTcxMzY2ZGVlMzU0MGFkOTJlNzM3MzI4ZmUwMTM3ZGIzZDIxYyJ9"
    ),
    (
        "eyJkb21haW4iOiJzdGFsbC50ZXN0IiwiYWRkcmVzcyI6IjB4MTlFN0UzNzZFN0MyMTNCN0U3ZTdlNDZjYzcwQTVk"
        "RDA4NkRBZmYyQSIsInVyaSI6Imh0dHBzOi8vc3RhbGwudGVzdC92MS9zdG9yZS9hJTJGYj94PTEiLCJ2ZXJzaW9u"
        "IjoiMSIsImNoYWluSWQiOiJlaXAxNTU6ODQ1MyIsInR5cGUiOiJlaXAxOTEiLCJub25jZSI6IjAxMjM0NTY3ODlh"
        "YmNkZWYwMTIzNDU2Nzg5YWJjZGVmIiwiaXNzdWVkQXQiOiIyMDI2LTExLTIyVDA3OjAwOjAwLjAwMFoiLCJleHBp"
        "cmF0aW9uVGltZSI6IjIwMjYtMTEtMjJUMDc6MDU6MDAuMDAwWiIsIm5vdEJlZm9yZSI6IjIwMjYtMTEtMjJUMDc6"
        "MDA6MDAuMDAwWiIsInJlcXVlc3RJZCI6InItMSIsInJlc291cmNlcyI6WyJodHRwczovL2EudGVzdC8xIiwiaXBm"
        "czovL3giXSwic2lnbmF0dXJlIjoiMHhmOTYxNTg5NTUxOTNkMjQ5N2I4YzU4NTdkZTI2OTBjNzZlYmY3MzkwMDdh"
        "NjBjMjFlNWM0MjJhMmVjY2JkNTAwMTQyZjBlMWEyNmIxZTdjMDI2N2I2ZTYyNjQ3YzRiMmFkMWYwY2Q0OTUzMWUz"
        "NzBlNTU1NTBhN2FjNjhmNjI3NjFjIn0="
    ),
]
"""What `createSIWxPayload` of @x402/extensions 2.27.0 makes, with viem 2.57.1."""
HERE = Wanted(
    "https://stall.test", "https://stall.test/v1/store/a%2Fb?x=1", ("eip155:8453", "eip155:1")
)


def test_it_is_what_the_npm_client_signs() -> None:
    key = Account.from_key("0x" + "11" * 32)
    for header in FROM_NPM:
        sign_in = read_sign_in(decoded(header), HERE)
        assert sign_in.payer.address == key.address
        assert sign_in.ends_ms - 1_795_330_800_000 == AGE_S_MAX * 1000
    assert sign_in.begins_ms == 1_795_330_800_000


@given(st.sampled_from(FROM_NPM), st.data())
def test_whatever_is_changed_after_it_was_signed_is_refused(header: str, data: Any) -> None:
    told = decoded(header)
    name = data.draw(st.sampled_from(sorted(told)))
    other = told[name] + ["a"] if name == "resources" else data.draw(st.text())
    if other != told[name]:
        with pytest.raises(SignInRefused):
            read_sign_in({**told, name: other}, HERE)


def test_so_many_in_so_long_are_enough() -> None:
    now_ms = 1_795_330_800_000 - SKEW_S * 1000
    sign_in = read_sign_in(decoded(FROM_NPM[0]), HERE)
    spent = {str(number): now_ms + 2 for number in range(SIGN_INS_MAX)}
    full = Lease(until_ms=now_ms + 9, now_ms=0, spent=spent)
    with pytest.raises(SignInRefused, match="are enough"):
        full.entered(sign_in, now_ms)
    after = full.entered(sign_in, now_ms + 2)
    assert set(after.spent) == {sign_in.id}, "what cannot come again is forgotten"


@pytest.mark.parametrize("origin", ["stall.test", "https://A.test", "https://a.test/", "ftp://a"])
def test_what_is_no_origin_is_refused(origin: str) -> None:
    with pytest.raises(InvalidInput, match="origin"):
        Visits(origin)
    with pytest.raises(InvalidInput, match="lease_s"):
        Visits("https://a.test", 0)
