"""What a passkey answers is held against what was asked, whom, where and when."""

import copy
import json
from collections.abc import Callable
from typing import Any

import cbor2
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from webauthn.helpers import base64url_to_bytes, bytes_to_base64url

from api.studio.failures import FAILURES_MAX, WINDOW_MS
from engine.errors import Unauthenticated
from engine.workspaces.people import SETUP_TTL_MS
from tests.studio.authenticator import BE, BS, UP, UV, Authenticator
from tests.studio.conftest import Opened
from tests.studio.visitor import Form

Answer = dict[str, Any]
SIGN_IN = "/studio/sign-in"


def changed(answer: Answer, where: str, value: Any) -> Answer:
    """The same with another value at `response.signature`, say."""
    made = copy.deepcopy(answer)
    *above, last = where.split(".")
    part = made
    for name in above:
        part = part[name]
    part[last] = value(part[last]) if callable(value) else value
    return made


def flipped(text: str) -> str:
    raw = bytearray(base64url_to_bytes(text))
    raw[-1] ^= 1
    return bytes_to_base64url(bytes(raw))


def client(**changes: Any) -> Callable[[Authenticator, str], Answer]:
    return lambda passkey, challenge: passkey.get(challenge, client=changes)


def altered(where: str, value: Any) -> Callable[[Authenticator, str], Answer]:
    return lambda passkey, challenge: changed(passkey.get(challenge), where, value)


def with_(**how: Any) -> Callable[[Authenticator, str], Answer]:
    return lambda passkey, challenge: passkey.get(challenge, **how)


OTHER_KEY = ec.generate_private_key(ec.SECP256R1())
BAD: dict[str, Callable[[Authenticator, str], Any]] = {
    "made for a registration": client(type="webauthn.create"),
    "made for a payment": client(type="payment.get"),
    "another challenge": client(challenge=bytes_to_base64url(b"another challenge of 32 bytes...")),
    "the challenge cut": lambda passkey, challenge: passkey.get(challenge[:-4]),
    "no challenge": client(challenge=""),
    "another host": client(origin="http://evil.test:8402"),
    "a subdomain": client(origin="http://a.localhost:8402"),
    "another port": client(origin="http://localhost:8403"),
    "over TLS": client(origin="https://localhost:8402"),
    "a longer name": client(origin="http://localhost:8402.evil.test"),
    "no origin": client(origin="null"),
    "in a frame of another page": client(crossOrigin=True),
    "in a frame, and says whose": client(topOrigin="https://evil.test"),
    "another relying party": with_(rp_id="evil.test"),
    "nobody was there": with_(flags=UV),
    "nobody was verified": with_(flags=UP),
    "eligible for backup all at once": with_(flags=UP | UV | BE),
    "backed up and not eligible": with_(flags=UP | UV | BS),
    "the counter stands": with_(count=3),
    "the counter goes back": with_(count=1),
    "the counter is gone": with_(count=0),
    "another key": with_(key=OTHER_KEY),
    "signed more than is sent": with_(extra=b"!"),
    "a bit of the signature": altered("response.signature", flipped),
    "no signature": altered("response.signature", ""),
    "a signature that is no DER": altered("response.signature", bytes_to_base64url(b"s" * 64)),
    "a bit of the data": altered("response.authenticatorData", flipped),
    "half of the data": altered("response.authenticatorData", lambda text: text[:40]),
    "client data that is no JSON": altered("response.clientDataJSON", bytes_to_base64url(b"{")),
    "another kind of credential": altered("type", "password"),
    "two ids": altered("rawId", flipped),
    "nobody's credential": altered("id", bytes_to_base64url(b"nobody")),
    "a user handle of nobody": with_(handle=b"key_nobody"),
    "a list": lambda passkey, challenge: [passkey.get(challenge)],
    "nothing": lambda passkey, challenge: {},
}


def test_a_good_answer_signs_in_once(studio: Opened) -> None:
    visitor, passkey = studio.visitor(), studio.passkeys["operator"]
    form = visitor.form(SIGN_IN, SIGN_IN)
    answer = json.dumps(passkey.get(form.options["challenge"]))
    first = visitor.send(form, answer=answer)
    assert first.status_code == 303
    assert "Operator" in visitor.get("/studio/").text
    passkey.get("")  # its counter goes on
    again = studio.visitor()
    assert again.send(form, answer=answer).status_code == 401
    fresh = json.dumps(passkey.get(form.options["challenge"]))
    refused = again.send(form, answer=fresh)
    assert (refused.status_code, again.cookie) == (401, None)
    assert "challenge_spent" in refused.text


def test_bad_answers_sign_nobody_in(studio: Opened) -> None:
    assert len(BAD) >= 30
    passkey = studio.passkeys["viewer"]
    studio.visitor("viewer")  # so that the counter stands at 3 or more
    studio.visitor("viewer")
    studio.visitor("viewer")
    for name, make in BAD.items():
        studio.clock.now_ms += WINDOW_MS // FAILURES_MAX + 1  # not too often
        visitor = studio.visitor()
        form = visitor.form(SIGN_IN, SIGN_IN)
        answer = visitor.send(form, answer=json.dumps(make(passkey, form.options["challenge"])))
        assert (answer.status_code, visitor.cookie) == (401, None), name
        assert "passkey_refused" in answer.text, name
    studio.visitor("viewer")


def test_guessing_costs_time_and_locks_nobody_else_out(studio: Opened) -> None:
    studio.clock.now_ms += WINDOW_MS
    passkey, unknown = studio.passkeys["viewer"], Authenticator("a guess")
    visitor = studio.visitor()

    def attempt(guess: Authenticator, **wrong: Any) -> int:
        form = visitor.form(SIGN_IN, SIGN_IN)
        answer = json.dumps(guess.get(form.options["challenge"], **wrong))
        return visitor.send(form, answer=answer).status_code

    for guess, wrong in ((unknown, {}), (passkey, {"key": OTHER_KEY})):
        for _ in range(FAILURES_MAX):
            assert attempt(guess, **wrong) == 401
        assert attempt(guess, **wrong) == 429
    token = {"token": "zfi_setup_" + "0" * 64}
    refused = visitor.ask("POST", "/studio/set-up/begin", data=token)
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "60")
    assert attempt(passkey) == 429  # somebody guesses for this one
    assert attempt(studio.passkeys["approver"]) == 303
    studio.clock.now_ms += WINDOW_MS
    assert attempt(passkey) == 303


def test_an_answer_of_somebody_else_is_not_ones_own(studio: Opened) -> None:
    mine, other = studio.passkeys["viewer"], studio.passkeys["approver"]
    visitor = studio.visitor()
    form = visitor.form(SIGN_IN, SIGN_IN)
    answer = mine.get(form.options["challenge"])
    name = bytes_to_base64url(other.raw_id)
    stolen = {**answer, "id": name, "rawId": name}
    assert visitor.send(form, answer=json.dumps(stolen)).status_code == 401
    handle = mine.get(form.options["challenge"], handle=other.handle)
    assert visitor.send(form, answer=json.dumps(handle)).status_code == 401
    assert visitor.cookie is None


@pytest.mark.parametrize("field", ["nonce", "expires_ms", "seal"])
def test_a_challenge_is_ours_and_has_an_end(studio: Opened, field: str) -> None:
    visitor, passkey = studio.visitor(), studio.passkeys["approver"]
    form = visitor.form(SIGN_IN, SIGN_IN)
    answer = json.dumps(passkey.get(form.options["challenge"]))
    wrong = str(int(form.fields[field]) + 1) if field == "expires_ms" else "0" * 32
    for value in (wrong, "", "x"):
        refused = visitor.send(form, answer=answer, **{field: value})
        assert refused.status_code == 401
        assert "challenge_unknown" in refused.text
    studio.clock.now_ms += 5 * 60_000
    late = visitor.send(form, answer=answer)
    assert late.status_code == 401
    assert "challenge_expired" in late.text


def test_authenticators_that_count_nothing_are_taken(studio: Opened) -> None:
    token = studio.people.invite(studio.persons["admin"], "viewer", "Phone")
    studio.join("viewer", token, "phone")
    passkey, visitor = studio.passkeys["phone"], studio.visitor()
    for _ in range(2):
        form = visitor.form(SIGN_IN, SIGN_IN)
        answer = json.dumps(passkey.get(form.options["challenge"], count=0))
        assert visitor.send(form, answer=answer).status_code == 303


def begun(studio: Opened, token: str) -> Form:
    """The second page of setting up."""
    visitor = studio.visitor()
    answer = visitor.ask("POST", "/studio/set-up/begin", data={"token": token})
    assert answer.status_code == 200, answer.text
    visitor.get = lambda _path: answer  # type: ignore[method-assign]
    return visitor.form("", "/studio/set-up")


def test_a_token_sets_one_passkey_up_once(studio: Opened) -> None:
    token = studio.people.invite(studio.persons["admin"], "viewer", "Eve")
    form, new = begun(studio, token), Authenticator("eve")
    bad = {
        "another algorithm": new.create(
            form.options,
            public_key=cbor2.dumps(
                {
                    1: 1,
                    3: -8,
                    -1: 6,
                    -2: ed25519.Ed25519PrivateKey.generate().public_key().public_bytes_raw(),
                }
            ),
        ),
        "nobody was verified": new.create(form.options, flags=UP),
        "another challenge": new.create({"challenge": bytes_to_base64url(b"?" * 32)}),
    }
    visitor = studio.visitor()
    for name, answer in bad.items():
        assert visitor.send(form, answer=json.dumps(answer)).status_code == 401, name
    good = json.dumps(new.create(form.options))
    assert visitor.send(form, answer=good).headers["location"] == "/studio/sign-in"
    visitor.sign_in(_known(new, studio, token))
    assert visitor.send(form, answer=good).status_code == 401  # the token is used up
    second = studio.people.invite(studio.persons["admin"], "viewer", "Eve again")
    again = begun(studio, second)
    twice = visitor.send(again, answer=json.dumps(new.create(again.options)))
    assert twice.status_code == 409
    assert "passkey_exists" in twice.text


def _known(passkey: Authenticator, studio: Opened, _token: str) -> Authenticator:
    stored = studio.people.credential(bytes_to_base64url(passkey.raw_id))
    assert stored is not None
    passkey.handle = stored.key_id.encode()
    return passkey


def test_a_token_is_over_after_a_day_and_opens_nothing_else(studio: Opened) -> None:
    token = studio.people.invite(studio.persons["admin"], "admin", "Late")
    with pytest.raises(Unauthenticated):
        studio.world.engine.access.operator(token)
    visitor = studio.visitor()
    for wrong in ("", "zfi_setup_" + "0" * 64, str(studio.world.operator_key)):
        refused = visitor.ask("POST", "/studio/set-up/begin", data={"token": wrong})
        assert refused.status_code == 401
    studio.clock.now_ms += SETUP_TTL_MS
    late = visitor.ask("POST", "/studio/set-up/begin", data={"token": token})
    assert late.status_code == 401
    assert studio.people.first() is None  # somebody has a passkey
