"""What somebody tries who has a browser, a passkey, a role or another workspace, but not the right
one."""

import json
import re
from collections.abc import Callable
from typing import Any

import cbor2
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from webauthn.helpers import bytes_to_base64url

from api.studio.app import FILES, FORMS, HEADERS, PAGES, UPLOADS
from api.studio.failures import FAILURES_MAX, WINDOW_MS
from api.studio.place import check_origin
from engine.errors import CannotStart, Unauthenticated
from engine.policy.limits import Limits
from tests.ledger.approving import asked_for
from tests.studio.authenticator import UP, UV, Authenticator
from tests.studio.conftest import Opened
from tests.studio.test_admin import csrf
from tests.studio.test_passkeys import SIGN_IN, begun, changed
from tests.studio.visitor import COOKIE, Visitor
from tests.world import USD, WORKSPACE

LIMITS = Limits(100 * USD, 200 * USD, 700 * USD, None, 50 * USD)
OTHER = "elsewhere"


def deep(where: str) -> Callable[[Authenticator, str], Any]:
    nested = bytes_to_base64url(b"[" * 9_000)
    return lambda passkey, challenge: changed(passkey.get(challenge), where, nested)


def test_an_answer_that_no_browser_gives_is_refused_and_breaks_nothing(studio: Opened) -> None:
    passkey = studio.passkeys["viewer"]
    odd: dict[str, Callable[[Authenticator, str], Any]] = {
        "client data that is deep": deep("response.clientDataJSON"),
        "authenticator data that is deep": deep("response.authenticatorData"),
        **{
            f"the id {text!r}": lambda p, c, text=text: changed(p.get(c), "id", text)
            for text in ("\ud800", "a\0b", "", "a" * 1365, {"a": 1}, None, "%", "=")
        },
        "a handle that is no text": lambda p, c: changed(p.get(c), "response.userHandle", 7),
        "a response that is a list": lambda p, c: changed(p.get(c), "response", []),
        "no JSON": lambda p, c: "[" * 16_000,
    }
    for name, make in odd.items():
        studio.clock.now_ms += WINDOW_MS // FAILURES_MAX + 1
        visitor = studio.visitor()
        form = visitor.form(SIGN_IN, SIGN_IN)
        answer = visitor.send(form, answer=json.dumps(make(passkey, form.options["challenge"])))
        assert (answer.status_code, "passkey_refused" in answer.text) == (401, True), name


def cose(**changes: Any) -> bytes:
    """A key of P-256, or what is like it."""
    at = ec.generate_private_key(ec.SECP256R1()).public_key().public_numbers()
    key = {1: 2, 3: -7, -1: 1, -2: at.x.to_bytes(32), -3: at.y.to_bytes(32)}
    return cbor2.dumps({**key, **{int(name[1:]) * -1: value for name, value in changes.items()}})


def test_a_passkey_is_set_up_with_what_was_asked_for_or_not_at_all(studio: Opened) -> None:
    token = studio.people.invite(studio.persons["admin"], "viewer", "Mallory")
    form, new = begun(studio, token), Authenticator("mallory")

    def made(how: dict[str, Any], **client: Any) -> dict[str, Any]:
        return new.create(form.options, client=client, **how)

    p384 = ec.generate_private_key(ec.SECP384R1()).public_key().public_numbers()
    bad = {
        "another origin": made({}, origin="http://localhost:8403"),
        "in a frame": made({}, crossOrigin=True),
        "in a frame, and says whose": made({}, topOrigin="https://evil.test"),
        "an assertion": made({}, type="webauthn.get"),
        "another challenge": made({}, challenge=bytes_to_base64url(b"?" * 32)),
        "another relying party": made({"rp_id": "evil.test"}),
        "nobody was there": made({"flags": UV}),
        "nobody was verified": made({"flags": UP}),
        "no algorithm": made({"public_key": cbor2.dumps({1: 2})}),
        "another curve by name": made({"public_key": cose(n1=2)}),
        "a point of another curve": made(
            {"public_key": cose(n2=p384.x.to_bytes(48), n3=p384.y.to_bytes(48))}
        ),
        "a point off the curve": made({"public_key": cose(n3=bytes(31) + b"\1")}),
        "a point that is compressed": made({"public_key": cose(n3=True)}),
        "a short coordinate": made({"public_key": cose(n2=b"\1" * 31)}),
        "a key of another kind": made({"public_key": cbor2.dumps({1: 1, 3: -7, -1: 6, -2: b"x"})}),
        "what a passkey answers": new.get(form.options["challenge"]),
        "attested deep": changed(
            made({}), "response.attestationObject", bytes_to_base64url(b"\x81" * 9_000)
        ),
    }
    visitor = studio.visitor()
    for name, answer in bad.items():
        studio.clock.now_ms += WINDOW_MS // FAILURES_MAX + 1
        refused = visitor.send(form, answer=json.dumps(answer))
        assert (refused.status_code, "passkey_refused" in refused.text) == (401, True), name
    studio.clock.now_ms += WINDOW_MS
    done = visitor.send(form, answer=json.dumps(new.create(form.options)))
    assert done.headers["location"] == "/studio/sign-in"


def test_what_somebody_is_asked_nobody_else_answers_and_it_is_for_that_act_alone(
    studio: Opened,
) -> None:
    world = studio.world
    session = world.session(LIMITS)
    approval = asked_for(world, session, 60)
    page = f"/studio/approvals/{approval.id}"
    approver, admin = studio.visitor("approver"), studio.visitor("admin")
    form = approver.form(page, f"{page}/grant")
    # Another person, with the other's form and an own passkey, cookie and token against forgery.
    theirs = json.dumps(studio.passkeys["admin"].get(form.options["challenge"]))
    taken = admin.ask("POST", form.action, data={**form.fields, **csrf(admin), "answer": theirs})
    assert (taken.status_code, "challenge_unknown" in taken.text) == (401, True)
    # The same person's answer for signing in, and for another approval.
    sign_in = approver.form(SIGN_IN, SIGN_IN)
    mine = studio.passkeys["approver"]
    for other in (sign_in, approver.form(page, f"{page}/deny")):
        answer = json.dumps(mine.get(other.options["challenge"]))
        for fields in (form.fields, {**other.fields, "csrf": form.fields["csrf"]}):
            sent = approver.ask("POST", form.action, data={**fields, "answer": answer})
            assert sent.status_code == 401
    again = asked_for(world, session, 61)
    answer = json.dumps(mine.get(form.options["challenge"]))
    elsewhere = f"/studio/approvals/{again.id}/grant"
    sent = approver.ask("POST", elsewhere, data={**form.fields, "answer": answer})
    assert (sent.status_code, "challenge_unknown" in sent.text) == (401, True)
    # And what is for an approval signs nobody in.
    nobody = studio.visitor()
    sent = nobody.ask("POST", SIGN_IN, data={**form.fields, "answer": answer})
    assert (sent.status_code, nobody.cookie) == (401, None)
    states = [
        world.engine.approvals.get(WORKSPACE, each.id, studio.clock()).state
        for each in (approval, again)
    ]
    assert states == ["waiting", "waiting"]


def test_whoever_is_revoked_meanwhile_consents_to_nothing(studio: Opened) -> None:
    people, admin = studio.people, studio.persons["admin"]
    studio.join("approver", people.invite(admin, "approver", "Brief"), "brief")
    person = studio.persons["brief"]
    used = people.passkeys(person.key_id)[0]
    people.revoke(admin, person.key_id)
    with pytest.raises(Unauthenticated):
        people.prove(person, used, 1, "a challenge", 2**50)


def test_another_secret_of_a_webhook_needs_a_passkey_for_exactly_that(studio: Opened) -> None:
    visitor, by = studio.visitor("operator"), studio.persons["operator"].key_id
    first, second = (
        studio.world.engine.webhooks.create(WORKSPACE, f"https://localhost/{n}", ("*",), by=by)[0]
        for n in range(2)
    )
    page = f"/studio/webhooks/{first.id}"
    form = visitor.form(page, f"{page}/rotate")
    assert visitor.send(form).status_code == 401
    form.action = f"/studio/webhooks/{second.id}/rotate"
    assert visitor.answer(form, studio.passkeys["operator"]).status_code == 401
    form.action = f"{page}/rotate"
    assert "whsec_" in visitor.answer(form, studio.passkeys["operator"]).text
    for each in (first, second):
        studio.world.engine.webhooks.delete(WORKSPACE, each.id, by=by)


def test_what_the_passkey_confirms_is_shown_as_it_is_taken(studio: Opened) -> None:
    visitor = studio.visitor("operator")
    path = "/studio/agents/new-key?name=%20night%20&agent_id=crawler-9&days=%207&networks=%20%0a%20"
    page = visitor.get(path).text
    assert "<dd>any address</dd>" in page
    assert "<dd>7 days</dd>" in page
    for days in ("0", "x", "99999999"):
        refused = visitor.get(f"/studio/agents/new-key?name=a&agent_id=b&days={days}")
        assert refused.status_code == 422, days


@pytest.mark.parametrize(
    "named",
    ["evil.test", "127.0.0.1:8402", "localhost:8403", "localhost", "localhost:x", "LOCALHOST:8402"],
)
def test_no_header_makes_another_place_of_the_studio(studio: Opened, named: str) -> None:
    visitor, passkey = studio.visitor(), studio.passkeys["approver"]
    # Somebody has the passkey answer elsewhere, and says that this is where it was asked.
    form = visitor.form(SIGN_IN, SIGN_IN)
    client = {"origin": f"http://{named}"}
    answer = json.dumps(passkey.get(form.options["challenge"], client=client))
    fields, host = {**form.fields, "answer": answer}, {"Host": named}
    sent = visitor.ask("POST", SIGN_IN, origin=client["origin"], data=fields, headers=host)
    assert (sent.status_code, "wrong_origin" in sent.text, visitor.cookie) == (403, True, None)
    for path in (SIGN_IN, "/studio/", "/studio/index.json", "/studio/live", "/studio/set-up"):
        answer = studio.visitor().get(path, headers=host)
        assert (answer.status_code, "wrong_origin" in answer.text) == (403, True), path
        assert answer.headers["content-security-policy"] == HEADERS["content-security-policy"]
        if not path.endswith(("json", "live")):  # the way out does not end at another refusal
            links = re.findall(r'<a [^>]*href="([^#"]*)"', answer.text)
            assert set(links) == {"http://localhost:8402/studio/sign-in"}, path
    told = {
        "X-Forwarded-Host": named,
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Port": "8403",
        "Forwarded": f"host={named};proto=https",
        "X-Original-URL": "/studio/people",
        "X-HTTP-Method-Override": "POST",
    }
    page = visitor.get(SIGN_IN, headers=told)
    assert page.status_code == 200
    assert named not in page.text.replace("localhost:8402", "") or named == "localhost"
    assert visitor.form(SIGN_IN, SIGN_IN).options["rpId"] == "localhost"
    signed = visitor.form(SIGN_IN, SIGN_IN)
    good = json.dumps(passkey.get(signed.options["challenge"]))
    done = visitor.ask("POST", SIGN_IN, data={**signed.fields, "answer": good}, headers=told)
    assert (done.status_code, done.headers["location"]) == (303, "/studio/")
    assert "Secure" not in done.headers["set-cookie"]


def test_whoever_is_not_at_the_configured_address_is_led_there(
    studio: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, origin = studio.world.engine, "https://studio.test"
    settings = engine.settings.model_copy(update={"studio_origin": origin})
    monkeypatch.setattr(engine, "settings", settings)
    answer = studio.visitor().get("/studio/")
    assert (answer.status_code, f"at {origin}/studio" in answer.text) == (403, True)
    assert f'to the <a href="{origin}/studio/sign-in">sign-in page</a>' in answer.text
    there = studio.visitor().get(SIGN_IN, headers={"Host": "studio.test"})
    assert (there.status_code, 'href="/studio/">' in there.text) == (200, True)


@pytest.mark.parametrize(
    "wrong", ["https://10.0.0.1", "https://studio.test:443", "http://localhost:80", "https://[::1]"]
)
def test_an_origin_that_no_browser_has_a_passkey_for_is_refused_at_the_start(wrong: str) -> None:
    with pytest.raises(CannotStart, match="TALLYSTICK_STUDIO_ORIGIN"):
        check_origin(wrong)


def test_nothing_of_another_workspace_is_shown_or_changed_by_any_address(studio: Opened) -> None:
    world, engine = studio.world, studio.world.engine
    engine.access.create_workspace(OTHER, "Another tenant")
    theirs = world.session(LIMITS, workspace=OTHER, label="secret plan", agent_id="their-agent")
    paid = world.pay(theirs, 40, merchant="their-merchant")
    approval_id = str(world.pay(theirs, 60).approval_id)
    waiting = world.create(LIMITS, workspace=OTHER, wait_s=0)
    hook, _ = engine.webhooks.create(OTHER, "https://localhost/theirs", ("*",), by="key_other")
    places = {
        "session_id": theirs.id,
        "payment_id": paid.id,
        "approval_id": approval_id,
        "webhook_id": hook.id,
        "key_id": engine.keys.operators.list(OTHER)[0].id,
    }
    visitor = studio.visitor("admin")
    token = csrf(visitor)
    for path, _, _ in (*PAGES, *FILES):
        session_id = waiting.id if path.endswith("/consent") else theirs.id
        address = "/studio" + path.format_map({**places, "session_id": session_id})
        for suffix in ("",) if path in [each for each, _, _ in FILES] else ("", ".json"):
            shown = visitor.get(("/studio/index" if path == "/" and suffix else address) + suffix)
            if "{" in path:
                assert shown.status_code == 404, address
            for text in ("secret plan", "their-agent", "their-merchant", "localhost/theirs"):
                assert text not in shown.text, address
    for path, _, _ in FORMS:
        if "{" not in path:
            continue
        session_id = waiting.id if path.endswith("/consent") else theirs.id
        address = "/studio" + path.format_map({**places, "session_id": session_id})
        fields = {"event": "payment.created", "since": "2026-01-31T09:00", "active": "no"}
        sent = visitor.ask("POST", address, data={**token, **fields})
        assert sent.status_code in (401, 404), address
    for query in (f"replaces={theirs.id}", f"replaces={theirs.id}&type=app"):
        assert visitor.get(f"/studio/sessions/new?{query}").status_code == 404
    for search in (theirs.id, "secret plan"):
        assert visitor.get(f"/studio/index.json?type=all&search={search}").json()["total"] == 0
        assert visitor.get(f"/studio/revoke.json?type=all&search={search}").json()["count"] == 0
    assert engine.sessions.get(OTHER, theirs.id).state == "active"
    assert engine.approvals.get(OTHER, approval_id, studio.clock()).state == "waiting"
    assert engine.webhooks.get(OTHER, hook.id).active
    engine.webhooks.delete(OTHER, hook.id, by="key_other")
    mine = world.session(LIMITS, label="mine")
    crossed = visitor.get(f"/studio/sessions/{mine.id}/payments/{paid.id}")
    assert crossed.status_code == 404


def test_a_cookie_is_worth_what_its_person_may_and_no_key_or_token_is_one(studio: Opened) -> None:
    world = studio.world
    world.session(label="its token")
    for secret in (str(world.operator_key), world.token, "", "0" * 64, "x" * 4_000, '"', "a; b"):
        visitor = studio.visitor()
        visitor.cookie = secret
        assert visitor.get("/studio/").status_code == 303, secret
        assert visitor.get("/studio/index.json").status_code == 401
    signed_in = studio.visitor("admin")
    for headers in (
        {"Authorization": f"Bearer {signed_in.cookie}"},
        {"Cookie": f"{COOKIE}={signed_in.cookie}"},
        {"X-API-Key": str(signed_in.cookie)},
    ):
        rest = Visitor(studio.app).get("/api/v1/ai/sessions", headers=headers)
        assert rest.status_code == 401, headers
    for path, act, _, _ in UPLOADS:
        assert act == "examine", path


def test_a_nul_is_no_part_of_any_name_and_reaches_no_database(studio: Opened) -> None:
    visitor = studio.visitor("admin")
    token = csrf(visitor)
    for path, _, _ in (*PAGES, *FILES):
        address = "/studio" + re.sub(r"\{[a-z_]+\}", "a%00b", path)
        told = visitor.get(address if "{" in path else f"{address}?label=a%00b&x%00=1")
        if "{" in path:
            assert (told.status_code, "There is no such page." in told.text) == (404, True), path
        elif path not in ("/reconciliation", "/log", "/agents", "/budgets", "/sign-in", "/set-up"):
            assert (told.status_code, "a NUL character" in told.text) == (422, True), path
    for path, act, _ in FORMS:
        if act is None:
            continue
        address = "/studio" + re.sub(r"\{[a-z_]+\}", "a%00b", path)
        for fields in ({"replaces": "a\0b"}, {"\0": "x"}):
            sent = visitor.ask("POST", address, data={**token, **fields})
            assert (sent.status_code, "a NUL character" in sent.text) == (422, True), path
        if "{" in path and path != "/sessions/{session_id}/consent":
            sent = visitor.ask("POST", address, data=token)
            assert (sent.status_code, "There is no such page." in sent.text) == (404, True), path


def test_an_admin_whose_passkey_is_lost_is_replaced_from_where_the_server_runs(
    studio: Opened,
) -> None:
    people = studio.people
    invited = people.invite(studio.persons["admin"], "admin", "Invited")
    assert people.first() is None
    lost, token = people.first(another=True), people.first(another=True)
    for each in (str(lost), "zfi_setup_" + "0" * 64):
        with pytest.raises(Unauthenticated):
            people.in_setup(each, studio.clock())
    assert people.in_setup(invited, studio.clock()).name == "Invited"
    studio.join("admin", str(token), "found again")
    visitor = studio.visitor("found again")
    assert visitor.get("/studio/people").status_code == 200
    path = f"/studio/people/{studio.persons['found again'].key_id}/revoke"
    assert visitor.ask("POST", path, data=csrf(visitor)).status_code == 303
    assert studio.visitor("admin").get("/studio/people").status_code == 200
